"""Which tokenizer a file holds."""

import json
import os
from pathlib import Path

from .byte_level import BPETokenizer
from .characters import CharTokenizer
from .description import field, refusal

# (model.type, decoder.type) of a tokenizer.json -> the class that reads it
_READERS = {
    ("WordLevel", "Fuse"): CharTokenizer,
    ("BPE", "ByteLevel"): BPETokenizer,
}


def load_tokenizer(path: str | os.PathLike) -> CharTokenizer | BPETokenizer:
    """The tokenizer of a tokenizer.json, or of a folder that has one.

    FileNotFoundError if there is none; ValueError, with the file's name, if it is not complete JSON or asks
    for something that no class here does.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; pass a tokenizer.json, or a folder that save() wrote into")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not complete JSON in UTF-8 ({error}); save or fetch it again") from error
    try:
        kind = field(data, "model.type", str), field(data, "decoder.type", str)
        if kind not in _READERS:
            supported = ", ".join(f"{model} with {decoder}" for model, decoder in _READERS)
            raise refusal(f"it has a {kind[0]} model with a {kind[1]} decoder, supported: {supported}")
        return _READERS[kind].from_json(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
