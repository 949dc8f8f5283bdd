"""Opening whatever lies at a path: which row of FORMATS has its files, told by what is in them."""

from codecs import getincrementaldecoder
from pathlib import Path

import numpy as np

from . import foreign
from .contents import Content, is_safetensors, look
from .formats import FORMATS, Found

_USUAL = {row.usual for row in FORMATS.values()} - {None}
_SHOWN = 24  # bytes of an unknown file, in a message


def find(path):
    """What lies at a path, as Found

    A folder stands for the model that it describes, if it has tensors or nothing else that is a model, or for the one
    file in it that is a model by itself. FileNotFoundError where there is no model or more than one, ValueError for a
    file in a format that is not opened here; each says what to do.
    """
    path = Path(path)
    if path.is_dir():
        return _find_in_folder(path)
    if not path.is_file():
        kind = "This is a pipe or a device; save what comes out of it to a file" if path.exists() else ""
        raise _no_model(path, kind)
    content = Content(path)
    found = _recognised([content])
    if found and found[0].format.usual is None:
        return found[0]
    foreign.refuse(content)
    if found or content.keys or is_safetensors(content):
        raise _no_model(path, _whole(path.parent))
    raise ValueError(
        f"{path} is no model that minillama opens: {_beginning(content)}. Expected {_known()}. If it should be one of "
        f"these, copy it again"
    )


def _find_in_folder(path):
    contents = look(path)
    named = [content for content in contents if content.path.name in _USUAL]
    described = _recognised(named, folders=True)[:1]
    if not described:
        described = _one(path, _recognised(contents, folders=True))
    has_tensors = any(map(is_safetensors, contents))
    if not has_tensors or not (described or named):
        described = _one(path, _recognised(contents, folders=False)) or described
    if described:
        return described[0]
    for row in FORMATS.values():  # it has the name of a description, and is none: its reader says why
        if row.usual and (path / row.usual).is_file():
            row.read_config(path / row.usual)
    foreign.refuse_folder(path)
    if has_tensors:
        raise _no_model(path, f"{path} has weights, and lacks the config.json that belongs to them: put it there")
    inside = [file.parent for pattern in ("*", "snapshots/*") for file in sorted(path.glob(f"{pattern}/config.json"))]
    raise _no_model(path, f"Did you mean {', or '.join(map(str, inside[:3]))}?" if inside else "")


def _recognised(contents, folders=None):
    """[Found], in the order of FORMATS; folders: of the formats alone that are folders, or that are files."""
    rows = [(name, row) for name, row in FORMATS.items() if folders is None or folders == (row.usual is not None)]
    return [Found(name, row, each.path) for name, row in rows for each in contents if row.recognises(each)]


def _one(path, found):
    """The found, if there are not several."""
    if len(found) > 1:
        names = ", ".join(f"{each.file.name} ({each.name})" for each in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise FileNotFoundError(
            f"which model of {path} is meant cannot be told: there are {names}{more}. Give the path of one of these "
            f"files, or move the others away"
        )
    return found


def _whole(folder):
    """What to do with a file that is a part of the model in a folder."""
    if _recognised(look(folder), folders=True):
        return f"Give the folder of this file, {folder}"
    return (
        f"This file is a part of a model, and {folder} lacks the config.json that belongs to it: put it there, with "
        f"tokenizer.json, and give the folder"
    )


def _beginning(content):
    """What can be said of a file in an unknown format."""
    if not content.size:
        return "it is empty"
    begin = content.head[:_SHOWN]
    try:  # a letter may be cut off at the end
        text = getincrementaldecoder("utf-8")().decode(begin, final=content.size <= _SHOWN)
    except UnicodeDecodeError:
        text = "\0"
    if text.replace("\n", "").replace("\r", "").isprintable():
        return f"it is text, {text!r}{' ...' if content.size > _SHOWN else ''}"
    return f"its {content.size:,} bytes begin with {begin.hex(' ')}, which says nothing known"


def _known():
    return "; ".join(row.describes for row in FORMATS.values())


def _no_model(path, hint):
    return FileNotFoundError(f"there is no model at {path}; expected {_known()}{'. ' if hint else ''}{hint}")


def read_config(path):
    """The Config of the model at a path."""
    found = find(path)
    return found.format.read_config(found.file)


def load(path, threads=None, dtype=None):
    """The Model at a path; dtype as for minillama.load."""
    if dtype not in (None, "float32", "float64", np.float32, np.float64):
        raise ValueError(
            f"dtype must be 'float32', 'float64', or None, which keeps a checkpoint of half precision as it is; "
            f"received {dtype!r}"
        )
    found = find(path)
    return found.format.load(found.file, threads, dtype)


def load_tokenizer(path, vocab_size):
    """The tokenizer that belongs to the model at a path, which has so many tokens; None where there is none."""
    found = find(path)
    return found.format.load_tokenizer(found.file, vocab_size)


def read_generation(path, vocab_size):
    """How text is drawn from the model at a path, as its files say: a minillama.checkpoint.generation_config.Generation

    vocab_size: of the model, in which the tokens must be.
    """
    found = find(path)
    return found.format.generation(found.file, vocab_size)


def read_template(path):
    """The Jinja text of the chat template that comes with the model at a path, or None."""
    found = find(path)
    return found.format.template(found.file)
