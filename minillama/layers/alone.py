"""A layer or a block alone, without the model around it: its weights, its output, and its gradients.

    layer = LayerAlone("attention", Config(vocab_size=1, dim=64, heads=4))
    y, saved = layer.forward(x)                        # x (B, T, C)
    dx, gradients = layer.backward(dy, saved)

What stands in a model outside of the blocks is not here: positions that are added to the embeddings, the final norm.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .. import backend
from ..ops.positions import POSITIONS
from ..parameters import block_views, initialise, parameter_shapes
from ..runtime.memory import Store
from ..runtime.shards import Reading, cut
from .attention import attention_layer, attention_layer_backward
from .blocks import PLACEMENTS
from .feedforward import feed_forward_layer, feed_forward_layer_backward
from .noise import Noise


class Part(NamedTuple):
    """A row of LAYERS: forward(op, config, p, x, shard) -> y, saved;  backward(op, config, p, grad, dy, shard, saved)

    Rows x and dy (N, C), N = B T, as in the other files of this package.
    """

    forward: Callable
    backward: Callable
    parameters: tuple[str, ...] | None = None  # how their names end; None: all of a block


def _feed_forward(op, config, p, x, shard):
    return feed_forward_layer(op, p, x)


def _feed_forward_backward(op, config, p, grad, dy, shard, saved):
    return feed_forward_layer_backward(op, p, grad, dy, saved)


def _block(op, config, p, x, shard):
    return PLACEMENTS[config.placement].block(op, config, p, x, shard, Noise(), 0)


def _block_backward(op, config, p, grad, dy, shard, saved):
    return PLACEMENTS[config.placement].block_backward(op, config, p, grad, dy, shard, Noise(), 0, saved)


LAYERS = {
    "attention": Part(attention_layer, attention_layer_backward, ("_q", "_k", "_v", "_o", "q_norm", "k_norm")),
    "feed_forward": Part(_feed_forward, _feed_forward_backward, ("_gate", "_up", "_down")),
    "block": Part(_block, _block_backward),
}


class LayerAlone:
    """A layer of a config's model: kind is one of LAYERS; the weights are drawn as the model's are, from a seed

    parameters: {name: array}, with the names that they have in a model behind blocks.0., such as w_q. They are plain
    arrays, to be changed in place. Computes with the backend in use, without dropout and on one thread.
    """

    def __init__(self, kind, config, seed=0, dtype=np.float32):
        if kind not in LAYERS:
            raise ValueError(f"there is no layer {kind!r}; choose among {', '.join(LAYERS)}")
        self.config, self._part = config, LAYERS[kind]
        one_block = parameter_shapes(replace(config, layers=1))
        ends = self._part.parameters
        names = [name for name in one_block if name.startswith(_PREFIX) and (ends is None or _ends(name, ends))]
        self._store = Store({name: one_block[name] for name in names}, dtype)
        initialise(self._store, config, seed)
        self.parameters = _short(self._store)

    def forward(self, x):
        """x (B, T, C) -> y (B, T, C), and what `backward` needs. x is left as it is."""
        x = self._check(x, "x")
        op, shard = backend.active(self.config), self._shard(x)
        y, saved = self._part.forward(op, self.config, self._views(self._store), x.reshape(-1, x.shape[2]), shard)
        return y.reshape(x.shape), (shard, saved)

    def backward(self, dy, saved):
        """dL/dy (B, T, C) and what `forward` returned last -> dL/dx (B, T, C), {name: dL/dparameter}, new arrays."""
        dy = self._check(dy, "dy").copy()  # a block's backward works on the gradient of the stream in place
        gradients = Store(self._store.shapes, self._store.flat.dtype)
        op, (shard, saved) = backend.active(self.config), saved
        p, grad = self._views(self._store), self._views(gradients)
        dx = self._part.backward(op, self.config, p, grad, dy.reshape(-1, dy.shape[2]), shard, saved)
        return dx.reshape(dy.shape), _short(gradients)

    def _views(self, store):
        return block_views(self.config, 0, lambda names: store.fused(names) if names[0] in store else None, store)

    def _shard(self, x):
        config, (B, T, _) = self.config, x.shape
        position = POSITIONS[config.position]
        rotation = position.rotation and position.rotation(config, T, x.dtype)
        slopes = position.slopes and position.slopes(config, x.dtype)
        (shard,) = cut(config, B, T, Reading(x.dtype, rotation, slopes), threads=1)
        shard.begin()
        return shard

    def _check(self, x, name):
        x, dtype = np.asarray(x), self._store.flat.dtype
        if x.ndim != 3 or x.size == 0 or x.shape[2] != self.config.dim or x.dtype != dtype:
            raise ValueError(
                f"{name} must be {dtype} of shape (B, T, {self.config.dim}); received {x.dtype} {x.shape}. The layer's "
                f"dtype is chosen where it is made"
            )
        return np.ascontiguousarray(x)


_PREFIX = "blocks.0."


def _ends(name, ends):
    return name.removesuffix("_bias").endswith(ends)


def _short(store):
    return {name.removeprefix(_PREFIX): array for name, array in store.items()}
