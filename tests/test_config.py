"""Shapes, presets, and errors that teach."""

import pytest

from minillama import PRESETS, Config
from minillama.catalogue.sizes import cache_bytes_per_token, flops_per_token
from minillama.config import ffn_width


def test_widths_of_the_feed_forward():
    assert [ffn_width(d, 256) for d in (4096, 5120, 6656, 8192)] == [11008, 13824, 17920, 22016]
    assert ffn_width(8192, 4096, 1.3) == 28672 and ffn_width(4096, 1024, 1.3) == 14336
    assert Config(65, dim=128).ffn == 344


def test_flops_and_cache_of_llama_2_70b():
    config = PRESETS["llama-2-70b"]
    assert cache_bytes_per_token(config, 2) == 2 * 80 * 8 * 128 * 2
    matrices = 68_976_648_192 - 32000 * 8192 - (2 * 80 + 1) * 8192
    assert flops_per_token(config, 1) == 2 * matrices + 4 * 80 * 8192


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"dim": 100, "heads": 3}, "heads must divide dim.*Near values that work: 1, 2, 4, 5"),
        ({"dim": 12, "heads": 4}, "must be even.*= 3"),
        ({"heads": 4, "kv_heads": 3}, "kv_heads must divide heads.*2, 4"),
        ({"dim": 10**18, "heads": 3}, "heads must divide dim.*: 1, 2, 4, 5"),
        ({"layers": 0}, "layers must be a whole number of at least 1; received 0"),
        ({"layers": 2**63}, "layers must be below 2.63; received 9223372036854775808"),
        ({"layers": 10**5}, "layers must be at most 10,000; received 100,000"),
        ({"dim": 12.0}, "dim must be a whole number"),
        ({"rope_layout": "halves"}, "rotate_half, interleaved; received 'halves'"),
        ({"dropout": 1.0}, "dropout is a probability below 1; received 1.0"),
        ({"norm_eps": float("nan")}, "norm_eps must be a finite number"),
        ({"rope_theta": 10**400}, "rope_theta must be a finite number"),
        ({"norm": ["rmsnorm"]}, r"norm must be one of rmsnorm.* received \['rmsnorm'\]"),
        ({"context": 1}, "context must be a whole number of at least 2; received 1"),
        ({"tied": 1}, "tied must be True or False; received 1"),
        ({"rope_factor": 4.0}, "change nothing without a rope_scaling"),
        ({"rope_original_context": 64}, "change nothing without a rope_scaling"),
        ({"rope_scaling": "yarn"}, "rope_factor 1 stretches nothing"),
        ({"rope_scaling": "llama3", "rope_factor": 2.0, "rope_low": 5.0}, "rope_low must be less than rope_high"),
        ({"rope_scaling": "linear", "rope_factor": 2.0, "rope_low": 1.0}, "has no bounds in turns; leave rope_low out"),
        ({"rope_scaling": "yarn", "rope_factor": 2.0, "rope_theta": 0.5}, "needs a rope_theta above 1"),
        ({"mask": "bidirectional", "position": "none"}, "reads a text as a set"),
        ({"rope_theta": 0}, "rope_theta must be positive"),
        ({"qk_norm": 1}, "qk_norm must be True or False; received 1"),
        ({"norm": "batchnorm"}, "norm must be one of .*rmsnorm.*received 'batchnorm'"),
        ({"bias": "qkv"}, "bias must be a tuple of names among qkv, o, ffn, norm, head; received 'qkv'"),
        ({"bias": ("qkv", "up")}, "bias names the places qkv, o, ffn, norm, head; received 'up'"),
        ({"token_types": 1}, "token_types 1 gives every token the same kind; choose 0"),
        ({"token_types": -1}, "token_types must be a whole number of at least 0; received -1"),
        ({"rope_factor": 0.5}, "rope_factor stretches the context, so it must be at least 1; received 0.5"),
        ({"rope_original_context": 0}, "rope_original_context must be a whole number of at least 2; received 0"),
        ({"rope_low": 1}, "rope_scaling 'none' has no bounds in turns; leave rope_low out"),
        ({"rope_scaling": "linear", "rope_high": 4}, "'linear' has no bounds in turns; leave rope_high out"),
        ({"rope_scaling": "llama3", "rope_low": 0}, "rope_low counts turns and must be positive; received 0"),
        ({"rope_scaling": "yarn", "rope_high": 0.5}, "rope_low must be less than rope_high.*received 1.0 and 0.5"),
        (
            {"rope_scaling": "llama3", "rope_theta": 1},
            "tells fast pairs from slow ones, which needs a rope_theta above 1",
        ),
        ({"position": "none", "rope_scaling": "llama3"}, "changes rotary frequencies, and position 'none' has none"),
        ({"position": "learned", "rope_scaling": "llama3"}, "Choose position 'rope', or leave rope_scaling out"),
        ({"norm": "none", "qk_norm": True}, "norm 'none' leaves nothing for qk_norm to act on; leave it out"),
        ({"norm": "none", "embedding_norm": True}, "nothing for embedding_norm to act on"),
        ({"norm": "none", "bias": ("norm",)}, "nothing for bias 'norm' to act on"),
        ({"norm": "none", "placement": "post"}, "nothing for placement 'post' to act on"),
    ],
)
def test_impossible_shapes_are_refused_with_a_reason(fields, words):
    with pytest.raises(ValueError, match=words):
        Config(65, **fields)


def test_choices_that_ask_for_nothing_are_allowed():
    assert Config(65, dim=12, heads=4, position="none").head_dim == 3  # without rotation a head may be odd
    assert Config(65, norm="none", bias=("ffn", "qkv")).bias == ("qkv", "ffn")
    assert Config(65, bias=["head"]).bias == ("head",)


def test_unknown_fields_are_refused_and_the_nearest_is_offered():
    with pytest.raises(ValueError, match="no field 'n_heads'; did you mean 'heads'"):
        Config.from_dict({"vocab_size": 3, "n_heads": 4})
    config = Config(65, kv_heads=2)
    assert Config.from_dict(config.to_dict()) == config
