"""The same rotary frequencies, attention factors and tables as transformers, and the same ALiBi slopes."""

from types import SimpleNamespace

import numpy as np
import pytest

from minillama.ops.positions.alibi import alibi_slopes
from minillama.ops.positions.rope import rope_frequencies, rope_tables
from minillama.ops.rope_scaling import scale_frequencies

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding  # noqa: E402

LLAMA_3_1 = dict(rope_scaling="llama3", rope_original_context=8192, context=131072, rope_theta=5e5)
CASES = {
    "none": dict(rope_scaling="none"),
    "none of Llama 3": dict(rope_scaling="none", rope_theta=5e5, head_dim=128),
    "none of Code Llama": dict(rope_scaling="none", rope_theta=1e6, head_dim=128),
    "linear": dict(rope_scaling="linear", rope_factor=4.0),
    "linear, head width 100": dict(rope_scaling="linear", rope_factor=2.5, head_dim=100),
    **{
        f"dynamic by {factor} at {length}": dict(rope_scaling="dynamic", rope_factor=factor, length=length)
        for factor in (1.0, 2.0, 8.0)
        for length in (5, 2048, 2049, 5000, 8192)
    },
    "dynamic, head width 80": dict(rope_scaling="dynamic", rope_factor=4.0, length=7000, head_dim=80, rope_theta=1e6),
    "Llama 3.1 8B": dict(**LLAMA_3_1, rope_factor=8.0, head_dim=128),
    "Llama 3.2 1B": dict(**LLAMA_3_1, rope_factor=32.0, head_dim=64),
    "Llama 3.2 3B": dict(**LLAMA_3_1, rope_factor=32.0, head_dim=128),
    "llama3, other bounds": dict(rope_scaling="llama3", rope_factor=4.0, rope_low=2.0, rope_high=16.0),
    "yarn": dict(rope_scaling="yarn", rope_factor=4.0),
    "yarn of Llama 2 for 128K": dict(rope_scaling="yarn", rope_factor=32.0, rope_original_context=4096, head_dim=128),
    "yarn of Qwen 2.5": dict(rope_scaling="yarn", rope_factor=4.0, rope_original_context=32768, rope_theta=1e6),
    "yarn, other bounds": dict(rope_scaling="yarn", rope_factor=16.0, rope_low=0.5, rope_high=100.0, head_dim=80),
    "yarn, short context": dict(rope_scaling="yarn", rope_factor=2.0, rope_original_context=64, head_dim=12),
    "yarn, no slow pair": dict(rope_scaling="yarn", rope_factor=4.0, rope_theta=100.0, head_dim=12),
    "yarn, all pairs slow": dict(
        rope_scaling="yarn", rope_factor=4.0, rope_original_context=64, rope_low=11.0, rope_high=20.0, head_dim=12
    ),
    "yarn, factor 1": dict(rope_scaling="yarn", rope_factor=1.0),
}


def make(length=8192, **fields):
    """Our config, and theirs."""
    shape = dict(head_dim=64, context=8192, rope_theta=10000.0, rope_factor=1.0, rope_original_context=2048)
    ours = SimpleNamespace(**(shape | dict(rope_low=None, rope_high=None) | fields))
    kind = {"none": "default"}.get(ours.rope_scaling, ours.rope_scaling)
    parameters = {"rope_type": kind, "rope_theta": ours.rope_theta}
    if kind != "default":
        parameters["factor"] = ours.rope_factor
    if kind in ("llama3", "yarn"):
        names = {"llama3": ("low_freq_factor", "high_freq_factor"), "yarn": ("beta_slow", "beta_fast")}[kind]
        bounds = {"llama3": (1.0, 4.0), "yarn": (None, None)}[kind]  # for yarn they know the defaults as well
        given = [d if b is None else b for b, d in zip((ours.rope_low, ours.rope_high), bounds, strict=True)]
        parameters |= {n: b for n, b in zip(names, given, strict=True) if b is not None}
        parameters["original_max_position_embeddings"] = ours.rope_original_context
    theirs = transformers.LlamaConfig(
        hidden_size=2 * ours.head_dim,
        num_attention_heads=2,
        # their dynamic scaling takes this for the original context
        max_position_embeddings=ours.rope_original_context if kind == "dynamic" else ours.context,
        rope_parameters=parameters,
    )
    return ours, theirs, length


@pytest.mark.parametrize("case", CASES)
def test_frequencies_and_attention_factor(case):
    ours, theirs, length = make(**CASES[case])
    kind = theirs.rope_parameters["rope_type"]
    if kind == "default":
        expected, expected_factor = LlamaRotaryEmbedding.compute_default_rope_parameters(theirs)
    else:
        expected, expected_factor = ROPE_INIT_FUNCTIONS[kind](theirs, seq_len=length)
    frequencies, factor = scale_frequencies(rope_frequencies(ours.head_dim, ours.rope_theta), ours, length)
    np.testing.assert_allclose(frequencies, expected.double().numpy(), rtol=1e-6)  # they compute in float32
    assert factor == pytest.approx(expected_factor, rel=1e-15)


@pytest.mark.parametrize("factor", [2.0, 7.5])
@pytest.mark.parametrize("head_width", [6, 64, 100])
def test_ntk_frequencies_are_those_of_a_larger_theta(head_width, factor):
    ours, theirs, length = make(rope_scaling="ntk", rope_factor=factor, head_dim=head_width)
    theirs.rope_parameters = {"rope_type": "default", "rope_theta": 1e4 * factor ** (head_width / (head_width - 2))}
    expected, _ = LlamaRotaryEmbedding.compute_default_rope_parameters(theirs)
    frequencies, _ = scale_frequencies(rope_frequencies(head_width, 1e4), ours, length)
    np.testing.assert_allclose(frequencies, expected.double().numpy(), rtol=1e-6)


@pytest.mark.parametrize("case", ["none", "linear", "Llama 3.2 1B", "yarn", "dynamic by 2.0 at 5000"])
def test_tables(case):
    ours, theirs, _ = make(**CASES[case])
    length = 3000 if ours.rope_scaling == "dynamic" else 100
    cos, sin = LlamaRotaryEmbedding(theirs)(torch.zeros(1), torch.arange(length)[None])
    for received, expected in zip(rope_tables(ours, length), (cos, sin), strict=True):
        assert received.dtype == np.float32
        # they round the angles to float32
        np.testing.assert_allclose(received, expected[0, :, : ours.head_dim // 2].numpy(), atol=length * 1e-7)


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12, 16, 20, 40, 71])
def test_alibi_slopes(heads):
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    slopes = alibi_slopes(SimpleNamespace(heads=heads))
    bloom = build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1]
    mpt = -build_mpt_alibi_tensor(heads, 2)[:, 0, 0]
    for expected in (bloom, mpt):
        np.testing.assert_allclose(slopes, expected.numpy(), rtol=1e-6)
