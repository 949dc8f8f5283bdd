"""LLaMA of transformers (LlamaForCausalLM): model_type "llama"

The rows of w_q and w_k, and of their biases, are written in the rotate-half layout that Hugging Face uses: a model with
interleaved pairs is reordered on the way out, and a loaded model has the rotate-half layout. NTK-aware scaling has no
name in transformers; it is the larger rope_theta that it works out to, and comes back as that.
Source: Touvron et al. 2023 (arXiv 2302.13971), section 2.2; the scalings: minillama.ops.rope_scaling.
"""

from collections.abc import Callable
from numbers import Real
from typing import NamedTuple

from ..ops.positions.rope import rope_frequencies, swap_rope_layout
from ..ops.rope_scaling import ROPE_SCALINGS, scale_frequencies
from .architecture import ROPE_FIELDS, Architecture, named

ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu"}  # choices of feed_forward, and the names of transformers
# {key: the choices of bias that it makes}
_BIAS_KEYS = {"attention_bias": ("qkv", "o"), "mlp_bias": ("ffn",)}

_OUTER = {
    "model.embed_tokens.weight": "embedding",
    "model.norm.weight": "final_norm",
    "lm_head.weight": "output",
}
_BLOCK = {
    "input_layernorm.weight": "attention_norm",
    "self_attn.q_proj.weight": "w_q",
    "self_attn.q_proj.bias": "b_q",
    "self_attn.k_proj.weight": "w_k",
    "self_attn.k_proj.bias": "b_k",
    "self_attn.v_proj.weight": "w_v",
    "self_attn.v_proj.bias": "b_v",
    "self_attn.o_proj.weight": "w_o",
    "self_attn.o_proj.bias": "b_o",
    "post_attention_layernorm.weight": "ffn_norm",
    "mlp.gate_proj.weight": "w_gate",
    "mlp.gate_proj.bias": "b_gate",
    "mlp.up_proj.weight": "w_up",
    "mlp.up_proj.bias": "b_up",
    "mlp.down_proj.weight": "w_down",
    "mlp.down_proj.bias": "b_down",
}


class RopeType(NamedTuple):
    """What a choice of rope_scaling is in "rope_parameters" (transformers 5) and "rope_scaling" (4)."""

    name: str  # the value of "rope_type"
    keys: dict = {}  # {field: key of the dictionary}
    optional: set = set()  # keys that transformers can do without
    required: dict = {}  # {key: values that it may have, as others change the computation}
    theta: Callable = lambda config: config.rope_theta


def _ntk_theta(config):
    """theta' of minillama.ops.rope_scaling.ntk; the only pair of a head of width 2 does not depend on theta."""
    D = config.head_dim
    return config.rope_theta * config.rope_factor ** (D / (D - 2)) if D > 2 else config.rope_theta


_FACTOR = {"rope_factor": "factor"}
_ORIGINAL = {"rope_original_context": "original_max_position_embeddings"}
ROPE_TYPES = {
    "none": RopeType("default"),
    "ntk": RopeType("default", theta=_ntk_theta),
    "linear": RopeType("linear", _FACTOR),
    "dynamic": RopeType("dynamic", _FACTOR),
    "llama3": RopeType(
        "llama3",
        _FACTOR | _ORIGINAL | {"rope_low": "low_freq_factor", "rope_high": "high_freq_factor"},
        optional=set(_ORIGINAL.values()),
    ),
    "yarn": RopeType(
        "yarn",
        _FACTOR | _ORIGINAL | {"rope_low": "beta_slow", "rope_high": "beta_fast"},
        optional={*_ORIGINAL.values(), "beta_slow", "beta_fast", "attention_factor"},
        required={"mscale": (None,), "mscale_all_dim": (None,), "truncate": (True,), "finetuned": (True, False)},
    ),
}
_LAYOUT = "rotate_half"
_ALL_TYPES = {"partial_rotary_factor": (None, 1.0)}  # required of each type
_DICTIONARIES = ("rope_scaling", "rope_parameters")  # of transformers 4 and 5; 5 writes the second and reads both


def _bias(whole):
    """The choice of bias that has the places of those keys of _BIAS_KEYS for which whole(key, places) is true."""
    return tuple(place for key, places in _BIAS_KEYS.items() if whole(key, places) for place in places)


def allows(config):
    in_keys = _bias(lambda key, places: set(places) <= set(config.bias)) == config.bias
    return in_keys and config.feed_forward in ACTIVATIONS and config.rope_scaling in ROPE_TYPES


def arrange(config, parameters):
    """The parameters with the rows of queries and keys in the rotate-half layout."""
    if config.rope_layout == _LAYOUT:
        return parameters
    heads = {"w_q": config.heads, "b_q": config.heads, "w_k": config.kv_heads, "b_k": config.kv_heads}

    def arranged(name, array):
        rotated = heads.get(name.split(".")[-1])
        return swap_rope_layout(array, rotated, config.rope_layout) if rotated else array

    return {name: arranged(name, array) for name, array in parameters.items()}


def to_json(config):
    row, scaling = ROPE_TYPES[config.rope_scaling], ROPE_SCALINGS[config.rope_scaling]
    theta, original = row.theta(config), config.rope_original_context or config.context
    given = {
        "rope_factor": config.rope_factor,
        "rope_original_context": original,
        "rope_low": scaling.low if config.rope_low is None else config.rope_low,
        "rope_high": scaling.high if config.rope_high is None else config.rope_high,
    }
    rope = {"rope_type": row.name, **{key: given[field] for field, key in row.keys.items()}}
    values = {
        "head_dim": config.head_dim,
        "hidden_act": ACTIVATIONS[config.feed_forward],
        **{key: set(places) <= set(config.bias) for key, places in _BIAS_KEYS.items()},
        "rope_theta": theta,
        "rope_scaling": rope if row.keys else None,
        "rope_parameters": {"rope_theta": theta, **rope},
    }
    if scaling.by_length:  # transformers takes max_position_embeddings for the original context, and reads on beyond it
        values |= {"max_position_embeddings": original, "max_sequence_length": config.context}
    return values


def from_json(values):
    feed_forward = [choice for choice, name in ACTIVATIONS.items() if name == values.get("hidden_act", "silu")]
    if not feed_forward:
        raise ValueError(
            f"config.json says hidden_act = {values['hidden_act']!r}; of a LLaMA minillama computes "
            f"{', '.join(ACTIVATIONS.values())}"
        )
    for key in _BIAS_KEYS:
        if not isinstance(values.get(key, False), bool):
            raise ValueError(f"config.json says {key} = {values[key]!r}; it must be true or false")
    dictionaries = [_rope_fields(key, values) for key in _DICTIONARIES if values.get(key) is not None]
    return {
        "feed_forward": feed_forward[0],
        "bias": _bias(lambda key, places: values.get(key, False)),
        "rope_theta": [*_thetas(values).values(), 10000.0][0],  # LlamaConfig's own default
        **(dictionaries[0] if dictionaries else _contexts("none", {}, values)),
    }


def _rope_fields(key, values):
    """The fields that config.json's rope_scaling or rope_parameters gives."""
    given = values[key]
    if not isinstance(given, dict):
        raise ValueError(f"config.json says {key} = {given!r:.60}; it must be a dictionary with a rope_type, or null")
    name = given.get("rope_type", given.get("type", "default"))
    scaling = next((choice for choice, row in ROPE_TYPES.items() if row.name == name), None)
    if scaling is None:
        known = dict.fromkeys(row.name for row in ROPE_TYPES.values())
        raise ValueError(f"config.json says {key} = {given!r:.200}; supported is a rope_type of {', '.join(known)}")
    row, required = ROPE_TYPES[scaling], _ALL_TYPES | ROPE_TYPES[scaling].required
    missing = [each for each in row.keys.values() if each not in given and each not in row.optional]
    if missing:
        raise ValueError(f"config.json's {key} has the rope_type {name!r} and lacks {', '.join(missing)}")
    for each, allowed in required.items():
        if given.get(each, allowed[0]) not in allowed:
            raise ValueError(
                f"config.json's {key} says {each} = {given[each]!r}; minillama computes {allowed[0]!r} only, and "
                f"anything else would give wrong logits"
            )
    known = {"rope_type", "type", "rope_theta", *row.keys.values(), *row.optional, *required}
    unknown = [each for each in given if each not in known]
    if unknown:
        raise ValueError(f"config.json's {key} has the unknown key {unknown[0]!r} for the rope_type {name!r}")
    fields = {field: given.get(each) for field, each in row.keys.items()}
    if fields.get("rope_factor") == 1 and not ROPE_SCALINGS[scaling].by_length:  # stretches nothing
        scaling, fields = "none", {}
    for field, published in (("rope_low", ROPE_SCALINGS[scaling].low), ("rope_high", ROPE_SCALINGS[scaling].high)):
        if fields.get(field) == published:
            fields[field] = None
    return fields | {"rope_scaling": scaling} | _contexts(scaling, fields, values)


def _contexts(scaling, fields, values):
    """The field context, the longest text that is read, and rope_original_context, where the scaling asks for one."""
    context = positions = values["max_position_embeddings"]
    original = fields.get("rope_original_context")
    if ROPE_SCALINGS[scaling].by_length:
        context, original = _times(fields["rope_factor"], positions), positions
    elif original is None and "rope_original_context" in fields:
        original = positions
    if values.get("max_sequence_length") is not None:
        context = values["max_sequence_length"]
    return {"context": context, "rope_original_context": None if original == context else original}


def _times(factor, positions):
    """factor * positions in whole numbers; where they are none, positions, as Config says what is wrong with them."""
    try:
        return int(float(factor) * positions) if isinstance(factor, Real) else positions
    except (TypeError, ValueError, OverflowError):
        return positions


def _thetas(values):
    """{place in config.json: rope_theta}; transformers 4 has it at the top, 5 in the dictionary."""
    given = {"rope_theta": values.get("rope_theta")}
    for key in _DICTIONARIES:
        if values.get(key) is not None:
            given[f"{key}'s rope_theta"] = values[key].get("rope_theta")
    return {place: theta for place, theta in given.items() if theta is not None}


def check(values, config):
    if values.get("head_dim") not in (None, config.head_dim):
        raise ValueError(
            f"config.json says head_dim = {values['head_dim']}; supported is dim / heads = {config.head_dim}"
        )
    for place, theta in _thetas(values).items():
        if theta != config.rope_theta:
            raise ValueError(f"config.json contradicts itself: rope_theta = {config.rope_theta}, {place} = {theta}")
    given = [key for key in _DICTIONARIES if values.get(key) is not None]
    if any(_rope_fields(key, values) != _rope_fields(given[0], values) for key in given):
        raise ValueError(f"config.json contradicts itself: {' and '.join(f'{key} = {values[key]}' for key in given)}")
    for key in given:
        asked = values[key].get("attention_factor")
        if asked is not None:
            frequencies = rope_frequencies(2, config.rope_theta)  # of any width: the factor is the same
            _, factor = scale_frequencies(frequencies, config, config.context)
            if not isinstance(asked, Real) or not 0.999999 * factor <= asked <= 1.000001 * factor:
                raise ValueError(
                    f"config.json's {key} says attention_factor = {asked}; minillama computes the published {factor} "
                    f"only"
                )


ARCHITECTURE = Architecture(
    architecture="LlamaForCausalLM",
    names=named(_OUTER, "model.layers.", _BLOCK),
    fields={
        "vocab_size": "vocab_size",
        "dim": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "kv_heads": "num_key_value_heads",
        "ffn": "intermediate_size",
        "context": "max_position_embeddings",
        "norm_eps": "rms_norm_eps",
        "tied": "tie_word_embeddings",
    },
    defaults={"num_key_value_heads": None, "tie_word_embeddings": False, "rms_norm_eps": 1e-6},
    fixed={
        "norm": "rmsnorm",
        "placement": "pre",
        "position": "rope",
        "mask": "causal",
        "head": "linear",
        "qk_norm": False,
        "embedding_norm": False,
        "token_types": 0,
    },
    free={"dropout", "feed_forward", "bias"} | ROPE_FIELDS,
    translated={"hidden_act", *_BIAS_KEYS, *_DICTIONARIES, "rope_theta", "head_dim", "max_sequence_length"},
    renamed={"max_position_embeddings": "max_sequence_length"},
    allows=allows,
    to_json=to_json,
    from_json=from_json,
    check=check,
    prefix="model.",
    dead=r"\.rotary_emb\.inv_freq$",  # the frequencies, which older files hold
    copies={"lm_head.weight": "model.embed_tokens.weight"},
    arrange=arrange,
)
