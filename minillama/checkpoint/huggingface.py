"""A model as a Hugging Face directory: config.json, model.safetensors, tokenizer.json.

`transformers.AutoModelForCausalLM.from_pretrained(folder)` opens it and computes the same logits. The rows of w_q and
w_k are written in the rotate-half layout that Hugging Face uses; a model trained with interleaved pairs is reordered
on the way out, and a loaded model has the rotate-half layout.
"""

import json
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..config import Config
from ..files import replacing, write_text
from ..model import Model, parameter_shapes
from ..ops.positions.rope import swap_rope_layout

BLOCK_NAMES = {
    "attention_norm": "input_layernorm",
    "w_q": "self_attn.q_proj",
    "w_k": "self_attn.k_proj",
    "w_v": "self_attn.v_proj",
    "w_o": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "w_gate": "mlp.gate_proj",
    "w_up": "mlp.up_proj",
    "w_down": "mlp.down_proj",
}
OUTER_NAMES = {"embedding": "model.embed_tokens", "final_norm": "model.norm", "output": "lm_head"}

# Keys of config.json that give the Config. "rope_theta" stands at the top in transformers 4, in "rope_parameters" in 5.
_FIELDS = {
    "vocab_size": "vocab_size",
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "ffn": "intermediate_size",
    "context": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tied": "tie_word_embeddings",
}
# Keys whose value would change the computation: only these values are what minillama computes.
_REQUIRED = {
    "model_type": ("llama",),
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_scaling": (None,),
    "quantization_config": (None,),
}
# Keys that say nothing about the logits.
_IGNORED = {
    "_name_or_path", "architectures", "attention_dropout", "bos_token_id", "chunk_size_feed_forward", "dtype",
    "eos_token_id", "id2label", "initializer_range", "is_encoder_decoder", "label2id", "output_attentions",
    "output_hidden_states", "pad_token_id", "pretraining_tp", "problem_type", "return_dict", "torch_dtype",
    "transformers_version", "use_cache",
}  # fmt: skip


def hugging_face_name(name):
    """The name of a parameter in model.safetensors: blocks.0.w_q -> model.layers.0.self_attn.q_proj.weight."""
    if name.startswith("blocks."):
        _, i, last = name.split(".")
        return f"model.layers.{i}.{BLOCK_NAMES[last]}.weight"
    return f"{OUTER_NAMES[name]}.weight"


def config_to_json(config, dtype, end_of_text=None):
    """The dictionary of config.json (LlamaConfig of transformers 4 and 5)."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **{key: getattr(config, field) for field, key in _FIELDS.items()},
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": str(np.dtype(dtype)),
    }


def config_from_json(values):
    """The Config of a config.json; ValueError for a key that is unknown, missing or asks for something else."""
    if not isinstance(values, dict):
        raise ValueError(f"config.json must hold an object with the keys of a LlamaConfig; received {values!r:.60}")
    for key, allowed in _REQUIRED.items():
        if values.get(key, allowed[0]) not in allowed:
            raise ValueError(
                f"config.json says {key} = {values[key]!r}; minillama computes {allowed[0]!r} only, and anything else "
                f"would give wrong logits"
            )
    known = {*_FIELDS.values(), *_REQUIRED, *_IGNORED, "head_dim", "rope_parameters", "rope_theta"}
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f", did you mean {near[0]!r}?" if near else "."
            raise ValueError(
                f"config.json has the unknown key {key!r}{hint} It may change the model: mend or remove it"
            )
    missing = [key for key in _FIELDS.values() if key not in values and key not in _DEFAULTS]
    if missing:
        raise ValueError(f"config.json lacks {', '.join(missing)}; is it the config of a LLaMA?")
    fields = {field: values.get(key, _DEFAULTS.get(key)) for field, key in _FIELDS.items()}
    rope = values.get("rope_parameters") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default":
        raise ValueError(f"config.json says rope_parameters = {rope!r}; only the rope_type 'default' is supported")
    given = [theta for theta in (values.get("rope_theta"), rope.get("rope_theta")) if theta is not None]
    theta = given[0] if given else 10000.0  # LlamaConfig's own default
    config = Config(**fields, rope_theta=theta)
    if values.get("head_dim") not in (None, config.head_dim):
        raise ValueError(
            f"config.json says head_dim = {values['head_dim']}; supported is dim / heads = {config.head_dim}"
        )
    return config


_DEFAULTS = {"num_key_value_heads": None, "tie_word_embeddings": False, "rms_norm_eps": 1e-6}  # LlamaConfig's own


def save(path, model, tokenizer=None):
    """Write model (and tokenizer) to the folder path; each file takes the place of an old one at once, when whole."""
    path, config = Path(path), model.config
    tensors = {}
    for name, array in model.parameters.items():
        if config.rope_layout == "interleaved" and name.endswith((".w_q", ".w_k")):
            heads = config.heads if name.endswith("w_q") else config.kv_heads
            array = swap_rope_layout(array, heads, "interleaved")
        tensors[hugging_face_name(name)] = array
    with replacing(path / "model.safetensors") as new:
        save_file(tensors, new, metadata={"format": "pt"})
    end_of_text = getattr(tokenizer, "end_of_text", None)
    write_text(path / "config.json", json.dumps(config_to_json(config, model.dtype, end_of_text), indent=2) + "\n")
    if tokenizer is not None:
        tokenizer.save(path)


def load(path, threads=None):
    """The Model of a Hugging Face directory, with the layout and the number type of its file."""
    path = Path(path)
    weights_path = path / "model.safetensors"
    config = config_from_json(read_json(path / "config.json"))
    if not weights_path.is_file():
        raise FileNotFoundError(f"{path} has a config.json but no model.safetensors; is the copy complete?")
    shapes = {hugging_face_name(name): shape for name, shape in parameter_shapes(config).items()}
    try:
        with safe_open(weights_path, "np") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            _compare_shapes(weights_path, found, shapes)
            kinds = {file.get_slice(name).get_dtype() for name in found}
            if not kinds <= {"F32", "F64"} or len(kinds) != 1:
                raise ValueError(f"{weights_path} holds {', '.join(sorted(kinds))}; float32 or float64 is supported")
            model = Model(config, dtype=np.float64 if kinds == {"F64"} else np.float32, threads=threads)
            for name, array in model.parameters.items():
                array[:] = file.get_tensor(hugging_face_name(name))
    except SafetensorError as error:
        raise ValueError(f"{weights_path} is truncated or not a safetensors file ({error}); copy it again") from error
    return model


def read_json(path):
    """The content of a JSON file; ValueError or FileNotFoundError with what to do."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; expected the folder of a run or another Hugging Face directory")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is truncated or not JSON ({error}); copy it again") from error


def _compare_shapes(path, found, expected):
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        raise ValueError(
            f"{path} does not belong to its config.json: {len(missing)} tensors missing {missing[:3]}, "
            f"{len(extra)} unexpected {extra[:3]}"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise ValueError(f"{path}: {name} has shape {found[name]}, config.json asks for {shape}")
