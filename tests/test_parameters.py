"""What layers declare is what a model has: names, views, initial values, counts and multiplications follow from it."""

from math import prod, sqrt
from types import SimpleNamespace

import numpy as np
import pytest

from minillama import Config, Model
from minillama.catalogue.sizes import flops_per_token, parameter_count
from minillama.layers import declare
from minillama.layers.attention import AttentionSaved, AttentionWeights
from minillama.layers.blocks.weights import BlockWeights
from minillama.layers.declare import SIZE_PARTS, Affine, Declared
from minillama.layers.feedforward import FeedForwardSaved, FeedForwardWeights
from minillama.parameters import NetworkWeights, parameters_of, views

from .test_switches import ALONE, TINY, make

each_choice = pytest.mark.parametrize("choice", ALONE)


def arrays(weights):
    """The arrays of nested tuples, in order."""
    if isinstance(weights, np.ndarray):
        yield weights
    elif weights is not None:
        for part in weights:
            yield from arrays(part)


def places(array):
    """The addresses of the numbers of an array."""
    first = array.__array_interface__["data"][0]
    return range(first, first + array.nbytes, array.itemsize)


@each_choice
def test_every_parameter_is_seen_in_one_place_of_the_network(choice):
    config = Config(**{**TINY, **ALONE[choice]})
    model = Model(config, threads=1)
    p = views(config, model.parameters)
    seen = list(arrays((p.embedding, p.blocks, p.final_norm, p.head, None if config.tied else p.output)))
    seen += list(arrays(p.output.bias)) if config.tied else []
    assert sorted(place for array in seen for place in places(array)) == list(places(model.parameters.flat))
    assert p.output.weight.shape == (11, config.dim)
    named = [array for name, array in model.parameters.items() if name.startswith("blocks.1.")]
    assert {place for array in arrays(p.blocks[1]) for place in places(array)} == {
        place for array in named for place in places(array)
    }


def test_the_names_and_their_order_are_those_of_checkpoints():
    config = Config(**{**TINY, **ALONE["BERT"], "layers": 1, "qk_norm": True, "tied": False})
    block = "attention_norm attention_norm_bias w_q w_k w_v b_q b_k b_v q_norm q_norm_bias k_norm k_norm_bias w_o b_o"
    block += " ffn_norm ffn_norm_bias w_up b_up w_down b_down"
    outer = "embedding position_embedding type_embedding embedding_norm embedding_norm_bias"
    head = "w_head b_head head_norm head_norm_bias output output_bias"
    assert list(parameters_of(config)) == [
        *outer.split(), *(f"blocks.0.{name}" for name in block.split()), *head.split()
    ]  # fmt: skip


@each_choice
def test_counts_are_those_of_the_arrays(choice):
    config = Config(**{**TINY, **ALONE[choice]})
    counts, model = parameter_count(config), Model(config, threads=1)
    assert list(counts) == [*SIZE_PARTS, "total"] and counts["total"] == model.parameters.flat.size
    assert counts["norms and biases"] == model.parameters.vectors.size
    layers = [array.size for name, array in model.parameters.items() if name.startswith("blocks.") and array.ndim > 1]
    assert counts["attention"] + counts["feed-forward"] == sum(layers)


@each_choice
def test_a_token_is_multiplied_by_as_many_weights_as_is_said(choice, rng):
    model, (ids, _), inputs = make(rng, **ALONE[choice])
    op, counted = model._operations(), []

    def linear(x, weight, bias=None):
        counted.append(len(x) * weight.size)
        return op.linear(x, weight, bias)

    model._operations = lambda: SimpleNamespace(**{**vars(op), "linear": linear})
    model.logits(ids, **inputs)
    assert 2 * sum(counted) == ids.size * flops_per_token(model.config, context=0)


@each_choice
def test_initial_values_are_as_declared(choice):
    config = Config(**{**TINY, **ALONE[choice], "vocab_size": 300, "dim": 96, "ffn": 200, "layers": 3, "context": 60})
    for name, array in Model(config, seed=2, threads=1, init_std=0.05).parameters.items():
        if array.ndim == 1:
            assert (array == (1 if name.endswith("_norm") else 0)).all(), name
        else:
            expected = 0.05 / sqrt(6) if name.endswith(("w_o", "w_down")) else 0.05
            assert abs(array.std() / expected - 1) < 5 / sqrt(array.size), name


def test_weights_and_what_is_saved_are_named_tuples_of_their_layers(rng):
    model, (ids, targets), _ = make(rng)
    model.loss_and_gradients(ids, targets)
    for p in (model._views, model._gradients.views[0]):
        assert isinstance(p, NetworkWeights) and isinstance(p.final_norm, Affine)
        for block in p.blocks:
            assert isinstance(block, BlockWeights)
            assert isinstance(block.attention, AttentionWeights) and isinstance(block.feed_forward, FeedForwardWeights)

    def see(op, shard, i, x, saved):
        if saved is not None:
            assert isinstance(saved.attention, AttentionSaved) and isinstance(saved.feed_forward, FeedForwardSaved)
            assert saved.between.shape == x.shape

    model.observe(see, ids)


def test_a_wrong_declaration_is_refused():
    with pytest.raises(ValueError, match="part must be one of embedding, .*received 'router'"):
        declare.linear({"router": (4, 8)}, "router")
    with pytest.raises(ValueError, match="matrices or vectors, and no mixture"):
        Declared({"w_a": (4, 8), "b_a": (4,)}, "attention")


def test_a_layer_can_say_how_much_of_it_a_token_meets():
    experts = declare.linear({"experts": (32, 8)}, "feed-forward", active=64)
    assert experts.weight.multiplications == 64 and prod(experts.weight.shapes["w_experts"]) == 256
    assert declare.linear({"up": (32, 8)}, "feed-forward", bias=True).weight.multiplications == 256
    assert declare.linear({"up": (32, 8)}, "feed-forward", bias=True).bias.multiplications == 0
    assert declare.table("embedding", 11, 8).multiplications == 0
