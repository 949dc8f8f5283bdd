"""What minillama.catalogue.sizes says of memory is what models take that are really made."""

import re
from dataclasses import replace

import numpy as np
import pytest

from minillama import Config, Model, save
from minillama.catalogue.presets import FAMILIES
from minillama.catalogue.sizes import cache_bytes_per_token, training_bytes, weight_bytes
from minillama.training.optimizers import AdamW
from minillama.weights import PACKED, WEIGHT_KINDS
from minillama.weights.packed import PackedWeights
from minillama.weights.quantize import quantize

SHAPES = {  # widths that are whole groups of 64, and others
    "groups": {"vocab_size": 130, "dim": 128, "heads": 4, "ffn": 192},
    "odd": {"vocab_size": 97, "dim": 72, "heads": 3, "ffn": 201},
    "grouped heads": {"vocab_size": 65, "dim": 96, "heads": 6, "kv_heads": 2, "ffn": 260},
    "tiny": {"vocab_size": 5, "dim": 8, "heads": 1, "ffn": 1},
}
CHOICES = [
    *FAMILIES.values(), {"tied": True}, {**FAMILIES["gpt2"], "tied": False}, {"qk_norm": True, "norm": "layernorm"},
    {"bias": ("qkv", "ffn", "norm", "head"), "position": "sinusoidal"}, {"norm": "none", "position": "alibi"},
]  # fmt: skip
each_config = pytest.mark.parametrize(
    "config",
    [Config(**shape, layers=2, context=10, **choice) for shape in SHAPES.values() for choice in CHOICES],
    ids=[f"{name}-{i}" for name in SHAPES for i in range(len(CHOICES))],
)


def held(model):
    """The bytes of all different arrays of weights that a model reaches, each once."""
    found, seen = {}, {}  # seen: the things themselves, as the id of one that is gone may be another's

    def visit(thing):
        if id(thing) in seen:
            return
        seen[id(thing)] = thing
        if isinstance(thing, np.ndarray):
            while isinstance(thing.base, np.ndarray):
                thing = thing.base
            found[thing.__array_interface__["data"][0]] = thing.nbytes - 64  # aligned_zeros cuts so much off
        elif isinstance(thing, (list, tuple)):
            for part in thing:
                visit(part)
        elif isinstance(thing, dict):
            visit(list(thing.values()))
        elif hasattr(thing, "__dict__"):
            visit(vars(thing))

    visit(model.weights)
    return sum(found.values())


@each_config
def test_weights_take_what_is_said(config):
    model, said = Model(config, threads=1), weight_bytes(config)
    assert model.nbytes == model.parameters.flat.nbytes == said.pop("float32") == held(model)
    for kind in PACKED:
        small = quantize(model, kind)
        assert small.nbytes == said.pop(kind, weight_bytes(config)["bfloat16"]) == held(small)
    assert not said, "info prints the size of models that nobody made here"


@each_config
def test_training_takes_what_is_said(config):
    model = Model(config, threads=1)
    ids = np.arange(10)[None] % config.vocab_size
    model.loss_and_gradients(ids, ids)
    optimizer = AdamW(model.parameters)
    gradients = [store.flat for store in model._gradients.stores]
    arrays = [model.parameters.flat, *gradients, *optimizer.state.values()]
    assert sum(array.nbytes for array in arrays) == training_bytes(config)


@pytest.mark.parametrize("room", [1, 2, 127, 128, 129, 300])
def test_the_cache_takes_what_is_said(room):
    for shape in SHAPES.values():
        config = Config(**shape, layers=2, context=300)
        cache = Model(config, threads=1).new_cache(room=room)
        blocks, positions = cache.keys.shape[3], cache.keys.shape[5]
        assert room <= blocks * positions < room + blocks
        assert cache.keys.nbytes + cache.values.nbytes == blocks * positions * cache_bytes_per_token(config)
    assert cache_bytes_per_token(replace(config, **FAMILIES["bert"])) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_info_prints_it(family, cli, tmp_path):
    config = Config(2000, dim=256, layers=2, heads=4, context=32, **FAMILIES[family])
    model = Model(config, threads=1)
    save(model, tmp_path)
    _, out, _ = cli("info", tmp_path)
    printed = dict(re.findall(r"^(?:weights in )?(\w+).*?([\d,.]+) MB", out, re.MULTILINE))
    expected = {
        "float32": model.parameters.flat.nbytes,
        **{kind: PackedWeights(config, kind).nbytes for kind in PACKED if WEIGHT_KINDS[kind].told},
        "training": 4 * model.parameters.flat.nbytes,
    }
    assert printed == {kind: f"{size / 1e6:,.1f}" for kind, size in expected.items()}


def test_the_model_of_the_report(cli):
    """SmolLM's shape: 134.5 million weights, which in int8 take 143.0 MB."""
    config = Config(49152, 576, 30, 9, 3, 1536, 2048, tied=True)
    assert round(weight_bytes(config)["int8"] / 1e6, 1) == 143.0
