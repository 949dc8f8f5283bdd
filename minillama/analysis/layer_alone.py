"""A layer or a block alone, without the model around it: its weights, its output, and its gradients.

    layer = LayerAlone("attention", Config(vocab_size=1, dim=64, heads=4))
    y, saved = layer.forward(x)                        # x (B, T, C)
    dx, gradients = layer.backward(dy, saved)

What stands in a model outside of the blocks is not here: positions that are added to the embeddings, the final norm.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import backend
from ..config import Config
from ..layers.attention import attention_layer, attention_layer_backward, attention_parameters
from ..layers.blocks import PLACEMENTS
from ..layers.declare import filled, leaves
from ..layers.feedforward import feed_forward_layer, feed_forward_layer_backward, feed_forward_parameters
from ..layers.noise import Noise
from ..layers.positions import PositionTables
from ..runtime.memory import Store
from ..runtime.shards import Shard, cut


class Part(NamedTuple):
    """A row of LAYERS: parameters(config) -> p declared;   forward(op, config, p, x, shard) -> y, saved;
    backward(op, config, p, grad, dy, shard, saved) -> dx

    Rows x and dy (N, C), N = B T, as in minillama.layers.
    """

    parameters: Callable
    forward: Callable
    backward: Callable


class Kept(NamedTuple):
    """What `LayerAlone.forward` keeps for the backward."""

    shape: tuple[int, int, int]  # B, T, C
    shard: Shard
    saved: Any  # what the layer saved
    auxiliary: np.ndarray | None  # (B, T), the auxiliary loss of each row; None for a layer that has none


def _feed_forward(op, config, p, x, shard):
    return feed_forward_layer(op, p, x)


def _feed_forward_backward(op, config, p, grad, dy, shard, saved):
    return feed_forward_layer_backward(op, p, grad, dy, saved)


def _block_parameters(config):
    return PLACEMENTS[config.placement].parameters(config)


def _block(op, config, p, x, shard):
    return PLACEMENTS[config.placement].block(op, config, p, x, shard, Noise(), 0)


def _block_backward(op, config, p, grad, dy, shard, saved, *dauxiliary):
    return PLACEMENTS[config.placement].block_backward(op, config, p, grad, dy, shard, Noise(), 0, saved, *dauxiliary)


LAYERS = {
    "attention": Part(attention_parameters, attention_layer, attention_layer_backward),
    "feed_forward": Part(feed_forward_parameters, _feed_forward, _feed_forward_backward),
    "block": Part(_block_parameters, _block, _block_backward),
}


class LayerAlone:
    """A layer of a config's model: kind is one of LAYERS; the weights are drawn as the model's are, from a seed

    parameters: {name: array}, with the names that they have in a model behind blocks.0., such as w_q. They are plain
    arrays, to be changed in place. Computes with the backend in use, without dropout and on one thread.
    """

    def __init__(self, kind: str, config: Config, seed: int = 0, dtype: DTypeLike = np.float32) -> None:
        if kind not in LAYERS:
            raise ValueError(f"there is no layer {kind!r}; choose among {', '.join(LAYERS)}")
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64; received {np.dtype(dtype)}")
        self.config, self._part = config, LAYERS[kind]
        self._has_auxiliary = kind == "block" and PLACEMENTS[config.placement].has_auxiliary
        self._declared, rng = self._part.parameters(config), np.random.default_rng(seed)
        self._positions, parts = PositionTables(config, np.dtype(dtype)), list(leaves(self._declared))
        self.parameters = Store({name: shape for part in parts for name, shape in part.shapes.items()}, dtype)
        for part in parts:
            for name in part.shapes:
                part.initialise(self.parameters[name], rng)

    def forward(self, x: ArrayLike) -> tuple[np.ndarray, Kept]:
        """x (B, T, C) -> y (B, T, C), and what `backward` needs. x is left as it is.

        A block's auxiliary loss (minillama.layers.blocks), a number for each row, is `auxiliary` (B, T) of the second.
        """
        x = self._checked(x, "x")
        op, shard = backend.active(self.config), self._shard(x)
        p, rows = self._views(self.parameters), x.reshape(-1, x.shape[2])
        with shard.at_work():
            y, saved = self._part.forward(op, self.config, p, rows, shard)
        auxiliary = saved.auxiliary.reshape(x.shape[:2]) if self._has_auxiliary else None
        return y.reshape(x.shape), Kept(x.shape, shard, saved, auxiliary)

    def backward(self, dy: ArrayLike, kept: Kept, dauxiliary: ArrayLike | None = None) -> tuple[np.ndarray, Store]:
        """dL/dy (B, T, C) and what `forward` returned last -> dL/dx (B, T, C), {name: dL/dparameter}, new arrays

        dauxiliary (B, T) = dL/dauxiliary of a block with an auxiliary loss, and only of one; ValueError otherwise.
        """
        dy = self._checked(dy, "dy", kept.shape).copy()  # a block works on the gradient of the stream in place
        if self._has_auxiliary != (dauxiliary is not None):
            raise ValueError(
                "the block has an auxiliary loss; pass dauxiliary (B, T), its gradient, 0 where it counts for nothing"
                if self._has_auxiliary
                else "the layer has no auxiliary loss whose gradient could be given; leave dauxiliary out"
            )
        also = [] if dauxiliary is None else [self._checked(dauxiliary, "dauxiliary", kept.shape[:2]).reshape(-1)]
        gradients = Store(self.parameters.shapes, dy.dtype)
        op, p, grad = backend.active(self.config), self._views(self.parameters), self._views(gradients)
        with kept.shard.at_work():
            rows = dy.reshape(-1, dy.shape[2])
            dx = self._part.backward(op, self.config, p, grad, rows, kept.shard, kept.saved, *also)
        return dx.reshape(dy.shape), gradients

    def _views(self, store: Store) -> Any:
        return filled(self._declared, lambda part: store.fused(list(part.shapes)))

    def _shard(self, x: np.ndarray) -> Shard:
        B, T, _ = x.shape
        if T > self.config.context:
            raise ValueError(
                f"x has {T} positions, more than the config's context of {self.config.context}; enlarge it"
            )
        (shard,) = cut(self.config, B, T, self._positions.reading(T), threads=1)
        return shard

    def _checked(self, x: ArrayLike, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """x as one block of memory; ValueError unless it has the layer's dtype and this shape, by default (B, T, C)."""
        x, dtype, C = np.asarray(x), self.parameters.flat.dtype, self.config.dim
        fits = x.shape == shape if shape else x.ndim == 3 and x.size > 0 and x.shape[2] == C
        if x.dtype != dtype or not fits:
            raise ValueError(
                f"{name} must be {dtype} of shape {shape or f'(B, T, {C})'}; received {x.dtype} {x.shape}. The layer's "
                f"dtype is chosen where it is made"
            )
        return np.ascontiguousarray(x)
