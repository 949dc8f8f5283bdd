"""A layer or a block without a model: the same numbers as inside of one, and right gradients."""

import re
from typing import NamedTuple

import numpy as np
import pytest

from minillama import Config, LayerAlone, Model
from minillama.analysis.layer_alone import LAYERS
from minillama.config import SWITCHES
from minillama.gradcheck import directional_derivative
from minillama.layers.blocks import PLACEMENTS, Placement
from minillama.layers.blocks.pre import PreSaved, pre_block, pre_block_backward
from minillama.layers.blocks.weights import block_parameters

SMALL = dict(vocab_size=5, dim=16, layers=2, heads=4, kv_heads=2, ffn=12, context=8)
CONFIGS = {
    "llama": {},
    "biases and norms of heads": dict(bias=("qkv", "o", "ffn", "norm"), qk_norm=True),
    "gpt2": dict(norm="layernorm", position="learned", feed_forward="gelu_tanh", bias=("qkv", "o", "ffn", "norm")),
    "post, bidirectional": dict(placement="post", mask="bidirectional", norm="layernorm"),
    **{
        f"{name}: {choice}": {name: choice}
        for name in ("feed_forward", "norm", "position", "rope_layout")
        for choice in SWITCHES[name]
    },
    **{
        f"rope_scaling: {choice}": dict(rope_scaling=choice, rope_factor=2.0, rope_original_context=4)
        for choice in SWITCHES["rope_scaling"]
        if choice != "none"
    },
}


@pytest.mark.parametrize("choice", CONFIGS)
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_against_finite_differences(kind, choice, each_backend, rng):
    layer = LayerAlone(kind, Config(**SMALL, **CONFIGS[choice]), seed=1, dtype=np.float64)
    x, dy = rng.standard_normal((2, 2, 5, 16))
    for array in layer.parameters.values():
        array += 0.3 * rng.standard_normal(array.shape)  # biases are not 0, nor norms 1
    kept = x.copy(), dy.copy()
    y, saved = layer.forward(x)
    dx, gradients = layer.backward(dy, saved)
    assert y.shape == dx.shape == x.shape and gradients.keys() == layer.parameters.keys()
    assert np.array_equal(x, kept[0]) and np.array_equal(dy, kept[1])
    for name, array in {"x": x, **layer.parameters}.items():
        gradient = dx if name == "x" else gradients[name]
        assert gradient.shape == array.shape, name
        direction = rng.standard_normal(array.shape)
        expected = directional_derivative(lambda: float(np.sum(dy * layer.forward(x)[0])), array, direction)
        assert abs(np.sum(gradient * direction) - expected) < 1e-6 * max(1, abs(expected)), name


@pytest.mark.parametrize("choice", ["llama", "biases and norms of heads", "post, bidirectional"])
def test_blocks_alone_make_the_model(choice, each_backend, rng):
    config = Config(**SMALL, **CONFIGS[choice])
    model, ids = Model(config, seed=3, threads=1, init_std=0.3), rng.integers(5, size=(2, 6))
    x = model.parameters["embedding"][ids]
    for i in range(2):
        block = LayerAlone("block", config)
        for name, array in block.parameters.items():
            array[:] = model.parameters[f"blocks.{i}.{name}"]
        x, _ = block.forward(x)
    np.testing.assert_array_equal(model.logits_of_stream(x), model.logits(ids))


def test_parameters_of_a_layer_are_those_of_the_model_by_name():
    shapes = {name: array.shape for name, array in LayerAlone("attention", Config(**SMALL)).parameters.items()}
    assert shapes == {"w_q": (16, 16), "w_k": (8, 16), "w_v": (8, 16), "w_o": (16, 16)}
    assert LayerAlone("feed_forward", Config(**SMALL)).parameters.keys() == {"w_gate", "w_up", "w_down"}
    config = Config(**SMALL, **CONFIGS["biases and norms of heads"])
    block = LayerAlone("block", config).parameters
    parts = [LayerAlone(kind, config).parameters for kind in ("attention", "feed_forward")]
    norms = {"attention_norm", "attention_norm_bias", "ffn_norm", "ffn_norm_bias"}
    assert block.keys() == parts[0].keys() | parts[1].keys() | norms
    assert not parts[0].keys() & parts[1].keys() and len(parts[0]) == 12 and len(parts[1]) == 6


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="there is no layer 'mlp'; choose among attention, feed_forward, block"):
        LayerAlone("mlp", Config(**SMALL))
    layer = LayerAlone("block", Config(**SMALL))
    for x in (np.ones((2, 16), np.float32), np.ones((1, 2, 8), np.float32), np.ones((1, 2, 16)), np.ones((0, 2, 16))):
        with pytest.raises(ValueError, match=re.escape(f"shape (B, T, 16); received {x.dtype} {x.shape}")):
            layer.forward(x)
    with pytest.raises(ValueError, match="x has 9 positions, more than the config's context of 8; enlarge it"):
        layer.forward(np.ones((1, 9, 16), np.float32))
    y, saved = layer.forward(np.ones((1, 2, 16), np.float32))
    with pytest.raises(ValueError, match="dy must be float32"):
        layer.backward(y[0], saved)
    with pytest.raises(
        ValueError, match=re.escape("dy must be float32 of shape (1, 2, 16); received float32 (1, 3, 16)")
    ):
        layer.backward(np.ones((1, 3, 16), np.float32), saved)
    with pytest.raises(ValueError, match="no auxiliary loss .* leave dauxiliary out"):
        layer.backward(y, saved, np.ones((1, 2), np.float32))
    with pytest.raises(ValueError, match="dtype must be float32 or float64; received float16"):
        LayerAlone("block", Config(**SMALL), dtype=np.float16)


def test_initial_values_are_those_of_a_model():
    config = Config(**{**SMALL, "dim": 64}, **CONFIGS["biases and norms of heads"])
    for name, array in LayerAlone("block", config, seed=2).parameters.items():
        if array.ndim == 1:
            assert np.all(array == name.endswith("norm")), name
        else:
            expected = 0.02 / (2 if name in ("w_o", "w_down") else 1)  # sqrt(2 layers) = 2
            assert abs(array.std() / expected - 1) < 0.1, name


class Squared(NamedTuple):
    pre: PreSaved
    out: np.ndarray
    auxiliary: np.ndarray  # sum of out^2 / 2

    @property
    def attention(self):
        return self.pre.attention

    @property
    def between(self):
        return self.pre.between


def squared_block(*arguments):
    out, saved = pre_block(*arguments)
    return out, Squared(saved, out.copy(), np.sum(out**2, axis=1) / 2)


def squared_block_backward(op, config, p, grad, dx, shard, noise, site, saved, dauxiliary):
    dx += dauxiliary[:, None] * saved.out
    return pre_block_backward(op, config, p, grad, dx, shard, noise, site, saved.pre)


def test_a_block_with_an_auxiliary_loss(rng, monkeypatch):
    row = Placement(block_parameters, squared_block, squared_block_backward, final_norm=True, has_auxiliary=True)
    monkeypatch.setitem(PLACEMENTS, "squared", row)
    config = Config(**SMALL, placement="squared")
    layer = LayerAlone("block", config, dtype=np.float64)
    x, dy = rng.standard_normal((2, 2, 5, 16))
    dauxiliary = rng.standard_normal((2, 5))

    def loss():
        y, saved = layer.forward(x)
        return float(np.sum(dy * y) + np.sum(dauxiliary * saved.auxiliary))

    y, saved = layer.forward(x)
    np.testing.assert_allclose(saved.auxiliary, np.sum(y**2, axis=2) / 2)
    dx, gradients = layer.backward(dy, saved, dauxiliary)
    for array, gradient in ((x, dx), *((layer.parameters[name], gradients[name]) for name in gradients)):
        direction = rng.standard_normal(array.shape)
        expected = directional_derivative(loss, array, direction)
        assert abs(np.sum(gradient * direction) - expected) < 1e-6 * max(1, abs(expected))
    with pytest.raises(ValueError, match=re.escape("has an auxiliary loss; pass dauxiliary (B, T)")):
        layer.backward(dy, saved)
    with pytest.raises(
        ValueError, match=re.escape("dauxiliary must be float64 of shape (2, 5); received float64 (10,)")
    ):
        layer.backward(dy, saved, dauxiliary.ravel())
    assert LayerAlone("attention", config).forward(x.astype(np.float32))[1].auxiliary is None  # the block's alone
