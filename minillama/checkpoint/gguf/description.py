"""A LLaMA in GGUF: the values that say what it is, and the names of its tensors

The keys begin with the architecture, "llama". The rows of q and k lie as llama.cpp computes them, with neighbours as
the pairs of RoPE: rope_layout "interleaved". Llama 3.1's stretched RoPE has no keys: the tensor rope_freqs.weight
holds f / f' of each pair, the frequency by the stretched one.
Source: docs/gguf.md of github.com/ggml-org/ggml; LlamaModel in convert_hf_to_gguf.py and src/llama-model.cpp of
github.com/ggml-org/llama.cpp.
"""

from dataclasses import replace
from numbers import Real
from typing import NamedTuple

import numpy as np

from ...config import Config
from ...ops.positions.rope import rope_frequencies
from ...ops.rope_scaling import scale_frequencies
from ...parameters import parameter_shapes
from ..architecture import named
from ..bounds import check_context
from .container import Value

ARCHITECTURE = "llama"
LAYOUT = "interleaved"
FREQUENCIES = "rope_freqs.weight"
_OUTER = {"token_embd.weight": "embedding", "output_norm.weight": "final_norm", "output.weight": "output"}
_BLOCK = {
    "attn_norm.weight": "attention_norm",
    "attn_q.weight": "w_q",
    "attn_q.bias": "b_q",
    "attn_k.weight": "w_k",
    "attn_k.bias": "b_k",
    "attn_v.weight": "w_v",
    "attn_v.bias": "b_v",
    "attn_output.weight": "w_o",
    "attn_output.bias": "b_o",
    "ffn_norm.weight": "ffn_norm",
    "ffn_gate.weight": "w_gate",
    "ffn_gate.bias": "b_gate",
    "ffn_up.weight": "w_up",
    "ffn_up.bias": "b_up",
    "ffn_down.weight": "w_down",
    "ffn_down.bias": "b_down",
}
names = named(_OUTER, "blk.", _BLOCK)
_BIASES = {"qkv": ("attn_q.bias", "attn_k.bias", "attn_v.bias"), "o": ("attn_output.bias",),
           "ffn": ("ffn_gate.bias", "ffn_up.bias", "ffn_down.bias")}  # fmt: skip

_WHOLE = {  # {field of Config: key behind "llama."}, whole numbers
    "dim": "embedding_length",
    "layers": "block_count",
    "heads": "attention.head_count",
    "kv_heads": "attention.head_count_kv",
    "ffn": "feed_forward_length",
    "context": "context_length",
}
_OPTIONAL = {"kv_heads"}  # as many as heads
_HEAD_WIDTHS = ("rope.dimension_count", "attention.key_length", "attention.value_length")  # must be dim / heads


class Scaling(NamedTuple):
    """How a choice of rope_scaling is written."""

    type: str | None = None  # the value of rope.scaling.type; None: no keys say it
    stretched: bool = False  # whether rope.scaling.factor and the original context stand beside it
    original: bool = False  # whether the original context counts
    frequencies: bool = False  # whether the tensor of frequencies says it


SCALINGS = {
    "none": Scaling("none"),
    "linear": Scaling("linear", stretched=True),
    "yarn": Scaling("yarn", stretched=True, original=True),
    "llama3": Scaling(frequencies=True),
}
_READ = {*_WHOLE.values(), *_HEAD_WIDTHS, "attention.layer_norm_rms_epsilon", "rope.freq_base", "vocab_size"} | {
    f"rope.scaling.{key}" for key in ("type", "factor", "original_context_length", "finetuned", "attn_factor")
}
# Keys that ask for another computation unless they have these values.
_NEUTRAL = {
    "use_parallel_residual": (False, True),  # of another architecture: llama.cpp does not read it here
    "expert_count": (0,), "expert_used_count": (0,), "logit_scale": (), "embedding_scale": (), "residual_scale": (),
    "attention.scale": (), "attention.sliding_window": (0,), "attention.causal": (True,), "attention.clamp_kqv": (0,),
    "rope.scale_linear": (1,), "tensor_data_layout": ("Meta AI original pth",), "interleave_moe_layer_step": (),
}  # fmt: skip
_ORIGINAL = 8192  # tokens, of Llama 3.1 and 3.2
_OF_FREQUENCIES = 1e-4  # relative: they were computed in float32, by other programs


def read_config(file):
    """The Config of a GGUFFile; ValueError for a model that is not computed here, with what asks for it."""
    values, kind = file.values, file.values.get("general.architecture")
    if kind != ARCHITECTURE:
        raise ValueError(
            f"it is of the architecture {kind!r:.60}; minillama computes {ARCHITECTURE!r}, and any other would give "
            f"wrong logits"
        )
    _heed_keys(values)
    fields = {}
    for field, key in _WHOLE.items():
        value = values.get(f"{ARCHITECTURE}.{key}")
        if value is None and field in _OPTIONAL:
            continue
        if isinstance(value, np.ndarray) and len(value) and (value == value[0]).all():  # one for each layer, all equal
            value = value[0].item()
        if type(value) is not int:
            raise ValueError(f"it says {ARCHITECTURE}.{key} = {value!r:.60}, expected a whole number")
        fields[field] = value
    embedding = file.get("token_embd.weight")
    if embedding is None or len(embedding) != 2:
        raise ValueError(f"it lacks token_embd.weight, the embedding, or has it in the shape {embedding}")
    biases = {place: [f"blk.0.{name}" in file for name in names] for place, names in _BIASES.items()}
    config = Config(
        vocab_size=embedding[0],
        **fields,
        norm_eps=_number(values, "attention.layer_norm_rms_epsilon"),
        rope_theta=_number(values, "rope.freq_base", 10000.0),
        rope_layout=LAYOUT,
        tied="output.weight" not in file,
        bias=tuple(place for place, found in biases.items() if any(found)),
        **_scaling(values),
    )
    for key in _HEAD_WIDTHS:
        width = values.get(f"{ARCHITECTURE}.{key}", config.head_dim)
        if width != config.head_dim:
            raise ValueError(
                f"it says {ARCHITECTURE}.{key} = {width!r:.60}; computed is dim / heads = {config.head_dim}"
            )
    config = _with_frequencies(file, config)
    check_context(config, file.nbytes, f"{ARCHITECTURE}.context_length")
    _check_shapes(file, config)
    return config


def _heed_keys(values):
    """ValueError for a key of the architecture that would change the logits, or that nobody here knows."""
    for key, value in values.items():
        prefix, _, name = key.partition(".")
        if prefix != ARCHITECTURE or name in _READ:
            continue
        if name not in _NEUTRAL:
            raise ValueError(f"it has the unknown key {key!r:.80}, which may change the model")
        if value not in _NEUTRAL[name]:
            raise ValueError(
                f"it says {key} = {value!r:.60}, which is not computed here, so that logits would be wrong"
            )


def _number(values, key, default=None):
    value = values.get(f"{ARCHITECTURE}.{key}", default)
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"it says {ARCHITECTURE}.{key} = {value!r:.60}, expected a number")
    return float(value) if key == "rope.freq_base" else float(np.format_float_positional(np.float32(value)))


def _scaling(values):
    """The fields of Config that rope.scaling's keys give."""
    name = values.get(f"{ARCHITECTURE}.rope.scaling.type", "none")
    choice = next((choice for choice, row in SCALINGS.items() if row.type == name), None)
    if choice is None:
        known = ", ".join(row.type for row in SCALINGS.values() if row.type)
        raise ValueError(f"it says rope.scaling.type = {name!r:.60}; supported are {known}")
    if not SCALINGS[choice].stretched:
        return {}
    factor = _number(values, "rope.scaling.factor")
    if values.get(f"{ARCHITECTURE}.rope.scaling.attn_factor", 1.0) != 1.0:
        raise ValueError("it says rope.scaling.attn_factor, of which only 1 is computed here")
    if factor == 1:
        return {}
    original = values.get(f"{ARCHITECTURE}.rope.scaling.original_context_length")
    given = {"rope_scaling": choice, "rope_factor": factor}
    return given | ({"rope_original_context": original} if SCALINGS[choice].original else {})


def _with_frequencies(file, config):
    """The Config with the stretch that rope_freqs.weight stands for; ValueError for one that is not Llama 3.1's."""
    if FREQUENCIES not in file:
        return config
    if file[FREQUENCIES] != (config.head_dim // 2,) or SCALINGS[config.rope_scaling].stretched:
        raise ValueError(
            f"{FREQUENCIES} has the shape {file[FREQUENCIES]}, expected ({config.head_dim // 2},) in a model without "
            f"another scaling"
        )
    found = np.empty(config.head_dim // 2, np.float32)
    file.read_into(found, FREQUENCIES)
    if (found == 1).all():
        return config
    factor = float(found.max())
    if np.isfinite(factor) and factor > 1:
        original = {"rope_original_context": _ORIGINAL} if config.context > _ORIGINAL else {}
        stretched = replace(config, rope_scaling="llama3", rope_factor=factor, **original)
        if np.allclose(found, frequency_factors(stretched), rtol=_OF_FREQUENCIES, atol=0):
            return stretched
    raise ValueError(
        f"{FREQUENCIES} is not that of Llama 3.1's scaling (turns from 1 to 4 of {_ORIGINAL} "
        f"tokens), the only one of its kind that is computed here"
    )


def frequency_factors(config):
    """f / f' of each pair (D / 2,), as rope_freqs.weight has it."""
    frequencies = rope_frequencies(config.head_dim, config.rope_theta)
    return (frequencies / scale_frequencies(frequencies, config, config.context)[0]).astype(np.float32)


def _check_shapes(file, config):
    """ValueError unless the file has the tensors of the Config, and no others."""
    shapes = parameter_shapes(config)
    expected = {name: shapes[parts[0]] for name, parts in names(config).items()}
    found = {name: shape for name, shape in file.items() if name != FREQUENCIES}
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        raise ValueError(
            f"its tensors are not those of its values: {len(missing)} are missing {missing[:3]}, {len(extra)} too much "
            f"{extra[:3]}"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise ValueError(f"{name} has the shape {found[name]}, and its values ask for {shape}")


def check_expressible(config):
    """ValueError for a model that llama.cpp would compute in another way."""
    fixed = {"norm": "rmsnorm", "placement": "pre", "position": "rope", "feed_forward": "swiglu", "mask": "causal",
             "head": "linear", "qk_norm": False, "embedding_norm": False, "token_types": 0}  # fmt: skip
    for field, value in fixed.items():
        if getattr(config, field) != value:
            raise ValueError(
                f"GGUF's {ARCHITECTURE} has {field} = {value!r}, and this model {getattr(config, field)!r}: it would "
                f"compute something else. Write another format, such as a Hugging Face folder"
            )
    if set(config.bias) - {"qkv", "o"} or config.rope_scaling not in SCALINGS:
        raise ValueError(
            f"GGUF's {ARCHITECTURE} has biases of attention only and RoPE scaled as linear, llama3 or yarn; this model "
            f"has the biases {config.bias} and {config.rope_scaling!r}. Write another format, such as a Hugging Face "
            f"folder"
        )


def values_of(config):
    """{name: Value} of a Config's values."""
    whole = {key: Value("uint32", getattr(config, field)) for field, key in _WHOLE.items()}
    found = whole | {
        "vocab_size": Value("uint32", config.vocab_size),
        "rope.dimension_count": Value("uint32", config.head_dim),
        "rope.freq_base": Value("float32", config.rope_theta),
        "attention.layer_norm_rms_epsilon": Value("float32", config.norm_eps),
    }
    scaling = SCALINGS[config.rope_scaling]
    if scaling.stretched:
        found["rope.scaling.type"] = Value("string", scaling.type)
        found["rope.scaling.factor"] = Value("float32", config.rope_factor)
        original = config.rope_original_context or config.context
        found["rope.scaling.original_context_length"] = Value("uint32", original)
    return {"general.architecture": Value("string", ARCHITECTURE)} | {
        f"{ARCHITECTURE}.{key}": value for key, value in found.items()
    }
