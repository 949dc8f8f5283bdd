"""Opening whatever lies at a path, and writing it in another format.

A format is a row of FILE_FORMATS; what lies at a path says which: a folder with config.json is Hugging Face's, one with
params.json Meta's, a file llama2.c's. Formats that can be written are told apart by the name too: what ends in .bin is
a file of llama2.c, anything else a folder.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files import alone, replacing_all, require_free, write_text
from ..generation.chat_templates import published_template
from ..tokenizers import load_tokenizer as read_tokenizer
from ..tokenizers.vocabulary import check_tokenizer
from . import foreign, generation_config, huggingface, llama2c, meta
from .places import MODEL_FILES, require_no_other_model

_ELSEWHERE = "choose another place to write to"


class FileFormat(NamedTuple):
    """A row of FILE_FORMATS."""

    describes: str  # what lies at a path of this format
    found: Callable  # found(path) -> whether it does
    config: Callable  # config(path) -> Config
    load: Callable  # load(path, threads, dtype) -> Model
    save: Callable | None = None  # save(path, model, tokenizer)
    suffix: str | None = None  # of the names of files in this format; None: a folder


def _huggingface_config(path):
    return huggingface.config_from_json(huggingface.read_json(path / "config.json"))


FILE_FORMATS = {
    "huggingface": FileFormat(
        "the folder of a run, or another with config.json",
        lambda path: (path / "config.json").is_file(),
        _huggingface_config,
        huggingface.load,
        huggingface.save,
    ),
    "meta": FileFormat(
        f"a folder with {meta.PARAMS}", lambda path: (path / meta.PARAMS).is_file(), meta.read_config, meta.load
    ),
    "llama2c": FileFormat(
        "a file of llama2.c (.bin)",
        lambda path: path.is_file() and path.suffix not in (".safetensors", ".json"),  # which lie in a folder
        lambda path: llama2c.read_header(path).config,
        llama2c.load,
        llama2c.save,
        ".bin",
    ),
}
WRITTEN = [name for name, row in FILE_FORMATS.items() if row.save]


def format_at(path):
    """The name of the format of what lies at a path, and its row; FileNotFoundError where that is no model."""
    path = Path(path)
    if path.is_file():
        meta.refuse_pickles(path)
        foreign.refuse_file(path)
    for name, row in FILE_FORMATS.items():
        if row.found(path):
            return name, row
    meta.refuse_pickles(path)
    if path.is_dir():
        foreign.refuse_folder(path)
    known = "; ".join(row.describes for row in FILE_FORMATS.values())
    raise FileNotFoundError(f"there is no model at {path}; expected {known}{_hint(path)}")


def _hint(path):
    """What may have been meant: the file of llama2.c or the folder in a folder, or the folder of a file."""
    if path.is_file() and not any(row.found(path.parent) for row in FILE_FORMATS.values()):
        return (
            f". This file is a part of a model, and {path.parent} lacks the config.json that belongs to it: put it "
            f"there, with tokenizer.json, and give the folder"
        )
    if path.is_file():
        return f". Give the folder of this file, {path.parent}"
    if path.exists() and not path.is_dir():
        return ". This is a pipe or a device; save what comes out of it to a file"
    files = [file for file in sorted(path.glob("*.bin")) if not file.name.startswith("tok")]
    inside = [file.parent for pattern in ("*", "snapshots/*") for file in sorted(path.glob(f"{pattern}/config.json"))]
    if len(files) == 1 or inside:
        return f". Did you mean {', or '.join(map(str, files[:1] or inside[:3]))}?"
    if any(path.glob("*.safetensors")):
        return f". {path} has weights, and lacks the config.json that belongs to them: put it there"
    return ""


def read_config(path):
    """The Config of the model at a path."""
    return format_at(path)[1].config(Path(path))


def load(path, threads=None, dtype=None):
    """The Model at a path; dtype as for minillama.load."""
    if dtype not in (None, "float32", "float64", np.float32, np.float64):
        raise ValueError(
            f"dtype must be 'float32', 'float64', or None, which keeps a checkpoint of half precision as it is; "
            f"received {dtype!r}"
        )
    return format_at(path)[1].load(Path(path), threads, dtype)


def load_tokenizer(path, vocab_size):
    """The tokenizer in the folder of a model, or beside its file; None where there is none."""
    path = Path(path)
    if path.is_dir():
        try:
            return read_tokenizer(path)
        except FileNotFoundError:
            return None
    for name in (f"tok{vocab_size}.bin", "tokenizer.bin", "tokenizer.model", "tokenizer.json"):
        if path.with_name(name).is_file():
            tokenizer = read_tokenizer(path.with_name(name))
            if tokenizer.vocab_size == vocab_size:  # else it is that of another model in the same folder
                return tokenizer
    return None


def convert(source, target, format=None, tokenizer=None, int8=False, overwrite=False):
    """Write the model at source, and its tokenizer, to target: a text that says what was done

    format: one of WRITTEN; None: llama2c where target ends in .bin, else huggingface. tokenizer: where the tokenizer
    lies, if not with the model. int8: round the weights to 8 bits, in a file of llama2.c. The model's own tokenizer is
    left out where llama2.c does not have its kind, and the text says why. A chat template goes from folder to folder,
    and so does what is said of drawing text: generation_config.json, and the tokens that end one.
    FileExistsError, before the model is read, where something lies at target; overwrite: a model that convert could
    have written there is replaced.
    """
    if not str(target):
        raise ValueError("the path to write to is empty; give the name of a file or folder")
    target = Path(target)
    foreign.refuse_target(target)
    if format is None:
        format = next((name for name in WRITTEN if FILE_FORMATS[name].suffix == target.suffix), "huggingface")
    if format not in WRITTEN:
        raise ValueError(f"minillama writes the formats {', '.join(WRITTEN)}; received {format!r}")
    if int8 and format != "llama2c":
        raise ValueError(f"int8 weights are written to files of llama2.c (.bin) only; {target} would be {format}")
    found, row = format_at(source)
    if target.exists() and target.samefile(source):
        raise ValueError(f"the model in {source} would be written over itself; give another place to write to")
    if format == "huggingface":
        require_no_other_model(target, MODEL_FILES, _ELSEWHERE)
    places = [target / name for name in MODEL_FILES] if format == "huggingface" else [target]
    require_free(places, overwrite, _ELSEWHERE)
    words = None if tokenizer is None else read_tokenizer(tokenizer)
    model = row.load(Path(source))
    if words is None:
        words = load_tokenizer(source, model.config.vocab_size)
    if words is not None:
        check_tokenizer(words, model.config.vocab_size)
    note = "with its tokenizer" if words is not None else "without a tokenizer, as there is none"
    if words is not None and format == "llama2c":
        try:
            llama2c.check_tokenizer_place(target, words, model.config, overwrite)
        except ValueError as error:
            if tokenizer is not None:
                raise
            words, note = None, f"without its tokenizer: {error}. To open it here, put tokenizer.json beside it"
    options = {"int8": True} if int8 else {}
    if found == format == "huggingface":
        options["generation"] = generation_config.source(source, model.config.vocab_size)
    lock = target / ".convert.lock" if format == "huggingface" else target.with_name(f".{target.name}.lock")
    with alone(lock, f"writing a model to {target}"):
        require_free(places, overwrite, _ELSEWHERE)  # again, as another process may have written one in the meantime
        if format == "huggingface":
            with replacing_all(target, MODEL_FILES) as folder:  # the old model stays until the new one is whole
                huggingface.save(folder, model, words, **options)
                template = published_template(Path(source))
                if template is not None:
                    write_text(folder / "chat_template.jinja", template)
        else:
            FILE_FORMATS[format].save(target, model, words, **options)
    return f"{source} ({found}) is now in {target} ({format}), {note}"
