"""A model as a Hugging Face directory: config.json, model.safetensors, tokenizer.json.

Where transformers has the architecture, `transformers.AutoModelForCausalLM.from_pretrained(folder)` (BERT:
AutoModelForMaskedLM) opens the directory and computes the same logits. The architectures are the rows of
minillama.checkpoint.ARCHITECTURES; a model that none of them has is written as minillama's own.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..config import Config
from ..files import replacing, write_text
from ..messages import closest
from ..model import Model
from ..parameters import parameter_shapes
from ..weights import OF_TENSORS, PACKED, WEIGHT_KINDS
from ..weights.packed import PackedWeights
from . import ARCHITECTURES, foreign
from .bounds import check_context
from .contents import is_safetensors, look
from .keys import decide, known_keys
from .tensors import TensorFiles, narrowed, write_tensors

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SEARCHED_LAYERS = 1000  # whose tensors are looked for where files have other names; config.json may say a billion


def model_type(config):
    """The model_type that a model of this Config is saved as: the first that can express it."""
    return next(name for name, row in ARCHITECTURES.items() if row.expresses(config))


def config_to_json(config, dtype="float32", end_of_text=None, begin_of_text=None):
    """The dictionary of config.json, for transformers 4 and 5; dtype is the name of the number type of the weights."""
    name = model_type(config)
    row = ARCHITECTURES[name]
    return {
        "architectures": [row.architecture] if row.architecture else None,
        "model_type": name,
        **{key: getattr(config, field) for field, key in row.fields.items()},
        **{key: allowed[0] for key, allowed in row.required.items()},
        "bos_token_id": end_of_text if begin_of_text is None else begin_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": dtype,
        **row.to_json(config),
    }


def config_from_json(values):
    """The Config of a config.json; ValueError for a key that is unknown, missing or asks for something else."""
    row, name = _architecture(values)
    values = {**{key: values[old] for key, old in row.renamed.items() if old in values}, **values}
    for key, value in values.items():
        _heed(key, value, row)
    missing = [key for key in row.fields.values() if key not in values and key not in row.defaults]
    if missing:
        raise ValueError(f"config.json lacks {', '.join(missing)}; is it the config of a model of the type {name!r}?")
    fields = {field: values.get(key, row.defaults.get(key)) for field, key in row.fields.items()}
    config = Config(**{**row.fixed, **fields, **row.from_json(values)})
    row.check(values, config)
    return config


def _heed(key, value, row):
    """ValueError for a key that is refused, or that must have another value (minillama.checkpoint.keys)."""
    decision = decide(key, row)
    if decision is None:
        counting = [known for known in known_keys(row) if decide(known, row).kind in ("read", "required")]
        near = closest(key, counting)
        hint = f", did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"config.json has the unknown key {key!r}{hint} It may change the model: mend or remove it")
    if decision.kind == "refused":
        raise ValueError(f"config.json has the key {key!r}: {decision.reason}, so that the logits would be wrong")
    if decision.kind == "required" and value not in decision.allowed:
        raise ValueError(
            f"config.json says {key} = {value!r:.200}; minillama computes {decision.allowed[0]!r} only, and anything "
            f"else would give wrong logits: {decision.reason}"
        )


def _architecture(values):
    """The row of a config.json's model_type, and its name; LLaMA where it says none."""
    if not isinstance(values, dict):
        raise ValueError(f"config.json must hold an object with the keys of a model's config; received {values!r:.60}")
    name = values.get("model_type", "llama")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ValueError(
            f"config.json says model_type = {name!r}; minillama opens {', '.join(ARCHITECTURES)}, as any other "
            f"architecture would give wrong logits"
        )
    return ARCHITECTURES[name], name


def save(path, model, tokenizer=None, generation=None):
    """Write model (and tokenizer) to the folder path; each file takes the place of an old one at once, when whole

    generation: what another folder says of how text is drawn from this model (generation_config.Source), to be said
    here as well; else config.json names the tokenizer's tokens that begin and end a text. FileExistsError where a model
    in several files lies: its index would be read in place of the new file.
    """
    path, config = Path(path), model.config
    if (path / _INDEX).exists():
        raise FileExistsError(
            f"{path / _INDEX} belongs to a model in several files, and would be read in place of a new {_WEIGHTS}; "
            f"choose another folder"
        )
    if tokenizer is not None:
        tokenizer.to_json()  # ValueError for one that cannot be written, before anything is
    row = ARCHITECTURES[model_type(config)]
    parameters = {name: model.weights.kept([name]) for name in parameter_shapes(config)}
    kind = WEIGHT_KINDS[model.weights.kind].tensor
    parameters, tensors = row.arrange(config, parameters), {}
    for name, parts in row.names(config).items():
        array = np.concatenate([parameters[part] for part in parts]) if len(parts) > 1 else parameters[parts[0]]
        own = kind
        if array.ndim == 1 and model.weights.kind in PACKED:  # such a model keeps its vectors in float32
            bits = narrowed(array, kind)
            array, own = (array, "F32") if bits is None else (bits, kind)
        tensors[name] = own, array.T if name.endswith(row.transposed) else array
    with replacing(path / _WEIGHTS) as new:
        write_tensors(new, tensors)
    ends = [getattr(tokenizer, name, None) for name in ("end_of_text", "begin_of_text")]
    values = config_to_json(config, model.weights.kind, *ends)
    if generation is not None:
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):  # a key less lets transformers take its default
            values.pop(key, None)
        values |= generation.keys
        if generation.text is not None:
            write_text(path / "generation_config.json", generation.text)
    write_text(path / "config.json", json.dumps(values, indent=2) + "\n")
    if tokenizer is not None:
        tokenizer.save(path)


def recognises(content):
    """Whether a file is a config.json, by its keys: model_type, or, in the oldest ones of LLaMA, those of its shape."""
    return "model_type" in content.keys or {"hidden_size", "num_hidden_layers"} <= content.keys


def read_config(path):
    """The Config of a config.json."""
    return config_from_json(read_json(path))


def load(path, threads=None, dtype=None):
    """The Model of a config.json and the weights beside it, which may be in one file or in several

    dtype: "float32" or "float64", what the model is to compute with and to train in. None: that of the file, where a
    checkpoint of bfloat16 or half precision stays in its own bytes (minillama.weights) and does not train.
    """
    path = Path(path)
    values = read_json(path)
    config, (row, _) = config_from_json(values), _architecture(values)
    tensors, weights = _open(path.parent, row, config)
    if config.layers > max(1000, len(tensors)):  # before names are made for a billion
        raise ValueError(f"{weights} holds {len(tensors)} tensors, and config.json asks for {config.layers:,} layers")
    check_context(config, tensors.nbytes, f"{path}")
    names = row.names(config)
    in_file = _names_in_file(row, names, tensors)
    copies = {name: in_file.pop(name) for name in row.copies if name in in_file and name not in names}
    found = {name: tensors[key] for name, key in in_file.items()}
    _compare_shapes(weights, found, _file_shapes(row, config, names), values.get("architectures"))
    _compare_copies(weights, tensors, row, in_file, copies)
    model = empty_model(
        weights, config, [(tensors.kind(key), tensors[key]) for key in in_file.values()], dtype, threads
    )
    for name, parts in names.items():
        tensors.read_into(model.weights.kept(parts), in_file[name], transposed=name.endswith(row.transposed))
    return model


def _open(path, row, config):
    """The tensors of a folder, and the file that names them all, or the first that holds some."""
    index = path / _INDEX
    if not index.is_file():
        files = _weight_files(path, row, config)
        if not files:
            foreign.refuse_folder(path)
            raise FileNotFoundError(f"{path} has a config.json but no {_WEIGHTS}; is the copy complete?")
        return TensorFiles(files), files[0]
    values = read_json(index)
    places = values.get("weight_map") if isinstance(values, dict) else None
    files = places.values() if isinstance(places, dict) else [None]
    if not all(isinstance(file, str) and Path(file).name == file for file in files):
        raise ValueError(f"{index} must have a weight_map of tensors and names of files beside it; copy it again")
    tensors = TensorFiles([path / file for file in sorted(set(files))])
    if tensors.keys() != places.keys():
        wrong = sorted(tensors.keys() ^ places.keys())
        raise ValueError(
            f"{index} and the files that it names differ in {len(wrong)} tensors {wrong[:3]}; copy them again"
        )
    return tensors, index


def _weight_files(path, row, config):
    """The file of tensors under its usual name, or those under other names that hold tensors of the architecture."""
    if (path / _WEIGHTS).is_file():
        return [path / _WEIGHTS]
    names = row.names(replace(config, layers=min(config.layers, _SEARCHED_LAYERS)))
    files = [content.path for content in look(path) if is_safetensors(content)]
    return [file for file in files if names.keys() & _names_in_file(row, names, TensorFiles([file])).keys()]


def empty_model(path, config, tensors, dtype, threads):
    """A model whose weights may have any values, for tensors of these kinds and shapes."""
    kinds = {kind for kind, _ in tensors}
    unknown = sorted(kinds - OF_TENSORS.keys())
    if unknown or ("F64" in kinds and len(kinds) > 1):
        raise ValueError(
            f"{path} holds {', '.join(sorted(kinds))}; supported are float32, float16 and bfloat16, or float64 alone"
        )
    of_matrices = {OF_TENSORS[kind] for kind, shape in tensors if len(shape) > 1}
    if dtype is None and len(of_matrices) == 1 and of_matrices <= set(PACKED):
        return Model(config, threads=threads, weights=PackedWeights(config, *of_matrices))
    dtype = dtype or (np.float64 if kinds == {"F64"} else np.float32)
    return Model(config, dtype=dtype, threads=threads, init_std=None)


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


def _compare_copies(path, tensors, row, in_file, copies):
    for name, key in copies.items():
        original = in_file[row.copies[name]]
        if not tensors.same(key, original):
            raise ValueError(
                f"{path}: {key} differs from {original}, but config.json says that they are tied; if they are not, it "
                f"must say tie_word_embeddings = false"
            )
