"""A model as a Hugging Face directory: config.json, model.safetensors, tokenizer.json.

Where transformers has the architecture, `transformers.AutoModelForCausalLM.from_pretrained(folder)` (BERT:
AutoModelForMaskedLM) opens the directory and computes the same logits. The architectures are the rows of
minillama.checkpoint.FORMATS; a model that none of them has is written as minillama's own.
"""

import json
import re
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..config import Config
from ..files import replacing, write_text
from ..model import Model
from ..parameters import parameter_shapes
from . import FORMATS

# Keys of every model_type that say nothing about the logits.
_IGNORED = {
    "_name_or_path", "architectures", "bos_token_id", "chunk_size_feed_forward", "dtype", "eos_token_id", "id2label",
    "initializer_range", "is_encoder_decoder", "label2id", "output_attentions", "output_hidden_states", "pad_token_id",
    "problem_type", "return_dict", "task_specific_params", "torch_dtype", "transformers_version", "use_cache",
}  # fmt: skip
_REQUIRED = {"quantization_config": (None,)}  # of every model_type: {key: values that it may have}


def model_type(config):
    """The model_type that a model of this Config is saved as: the first that can express it."""
    return next(name for name, row in FORMATS.items() if row.expresses(config))


def config_to_json(config, dtype, end_of_text=None):
    """The dictionary of config.json, for transformers 4 and 5."""
    name = model_type(config)
    row = FORMATS[name]
    return {
        "architectures": [row.architecture] if row.architecture else None,
        "model_type": name,
        **{key: getattr(config, field) for field, key in row.fields.items()},
        **{key: allowed[0] for key, allowed in row.required.items()},
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": str(np.dtype(dtype)),
        **row.to_json(config),
    }


def config_from_json(values):
    """The Config of a config.json; ValueError for a key that is unknown, missing or asks for something else."""
    row, name = _format(values)
    for key, allowed in (_REQUIRED | row.required).items():
        if values.get(key, allowed[0]) not in allowed:
            raise ValueError(
                f"config.json says {key} = {values[key]!r}; minillama computes {allowed[0]!r} only, and anything else "
                f"would give wrong logits"
            )
    known = {"model_type", *row.fields.values(), *_REQUIRED, *row.required, *row.translated, *_IGNORED, *row.ignored}
    for key in values:
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f", did you mean {near[0]!r}?" if near else "."
            raise ValueError(
                f"config.json has the unknown key {key!r}{hint} It may change the model: mend or remove it"
            )
    missing = [key for key in row.fields.values() if key not in values and key not in row.defaults]
    if missing:
        raise ValueError(f"config.json lacks {', '.join(missing)}; is it the config of a model of the type {name!r}?")
    fields = {field: values.get(key, row.defaults.get(key)) for field, key in row.fields.items()}
    config = Config(**{**row.fixed, **fields, **row.from_json(values)})
    row.check(values, config)
    return config


def _format(values):
    """The row of a config.json's model_type, and its name; LLaMA where it says none."""
    if not isinstance(values, dict):
        raise ValueError(f"config.json must hold an object with the keys of a model's config; received {values!r:.60}")
    name = values.get("model_type", "llama")
    if not isinstance(name, str) or name not in FORMATS:
        raise ValueError(
            f"config.json says model_type = {name!r}; minillama opens {', '.join(FORMATS)}, as any other architecture "
            f"would give wrong logits"
        )
    return FORMATS[name], name


def save(path, model, tokenizer=None):
    """Write model (and tokenizer) to the folder path; each file takes the place of an old one at once, when whole."""
    path, config = Path(path), model.config
    row = FORMATS[model_type(config)]
    parameters, tensors = row.arrange(config, model.parameters), {}
    for name, parts in row.names(config).items():
        array = np.concatenate([parameters[part] for part in parts]) if len(parts) > 1 else parameters[parts[0]]
        tensors[name] = np.ascontiguousarray(array.T) if name.endswith(row.transposed) else array
    with replacing(path / "model.safetensors") as new:
        save_file(tensors, new, metadata={"format": "pt"})
    end_of_text = getattr(tokenizer, "end_of_text", None)
    write_text(path / "config.json", json.dumps(config_to_json(config, model.dtype, end_of_text), indent=2) + "\n")
    if tokenizer is not None:
        tokenizer.save(path)


def load(path, threads=None):
    """The Model of a Hugging Face directory, with the number type of its file."""
    path = Path(path)
    weights_path = path / "model.safetensors"
    values = read_json(path / "config.json")
    config, (row, _) = config_from_json(values), _format(values)
    if not weights_path.is_file():
        raise FileNotFoundError(f"{path} has a config.json but no model.safetensors; is the copy complete?")
    names = row.names(config)
    try:
        with safe_open(weights_path, "np") as file:
            in_file = _names_in_file(row, names, file.keys())
            copies = {name: in_file.pop(name) for name in row.copies if name in in_file and name not in names}
            found = {name: tuple(file.get_slice(key).get_shape()) for name, key in in_file.items()}
            _compare_shapes(weights_path, found, _file_shapes(row, config, names), values.get("architectures"))
            kinds = {file.get_slice(key).get_dtype() for key in in_file.values()}
            if not kinds <= {"F32", "F64"} or len(kinds) != 1:
                raise ValueError(f"{weights_path} holds {', '.join(sorted(kinds))}; float32 or float64 is supported")
            _compare_copies(weights_path, file, row, in_file, copies)
            model = Model(config, dtype=np.float64 if kinds == {"F64"} else np.float32, threads=threads)
            for name, parts in names.items():
                tensor = file.get_tensor(in_file[name])
                model.parameters.fused(parts)[:] = tensor.T if name.endswith(row.transposed) else tensor
    except SafetensorError as error:
        raise ValueError(f"{weights_path} is truncated or not a safetensors file ({error}); copy it again") from error
    return model


def _names_in_file(row, names, keys):
    """{name of today's files: name in this one}, without tensors that have no part in the logits."""
    found = {}
    for key in keys:
        if re.search(row.dead, key):
            continue
        name = key
        for old, new in row.old_names.items():
            name = name.replace(old, new)
        if name not in names and row.prefix + name in names:
            name = row.prefix + name
        found[name if name not in found else key] = key
    return found


def _file_shapes(row, config, names):
    """{tensor of model.safetensors: shape}."""
    shapes, expected = parameter_shapes(config), {}
    for name, parts in names.items():
        shape = sum(shapes[part][0] for part in parts), *shapes[parts[0]][1:]
        expected[name] = shape[::-1] if name.endswith(row.transposed) else shape
    return expected


def read_json(path):
    """The content of a JSON file; ValueError or FileNotFoundError with what to do."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; expected the folder of a run or another Hugging Face directory")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is truncated or not JSON ({error}); copy it again") from error


def _compare_shapes(path, found, expected, architectures):
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        written = f"; it was written by {', '.join(map(str, architectures))}" if isinstance(architectures, list) else ""
        raise ValueError(
            f"{path} does not belong to its config.json: {len(missing)} tensors missing {missing[:3]}, "
            f"{len(extra)} unexpected {extra[:3]}{written}"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise ValueError(f"{path}: {name} has shape {found[name]}, config.json asks for {shape}")


def _compare_copies(path, file, row, in_file, copies):
    for name, key in copies.items():
        original = in_file[row.copies[name]]
        if not np.array_equal(file.get_tensor(key), file.get_tensor(original)):
            raise ValueError(
                f"{path}: {key} differs from {original}, but config.json says that they are tied; if they are not, it "
                f"must say tie_word_embeddings = false"
            )
