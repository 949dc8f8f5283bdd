"""Which tokenizer a file holds."""

import json
import os
import re
from pathlib import Path
from typing import Any

from .byte_level import BPETokenizer
from .characters import CharTokenizer
from .description import field, refusal
from .llama2c import read_llama2c
from .sentencepiece import SentencePieceTokenizer
from .sentencepiece_model import read_sentencepiece
from .tiktoken import read_tiktoken
from .vocab_json import is_vocab, read_beside
from .wordpiece import WordPieceTokenizer, read_vocab_file

# (model.type, decoder.type) of a tokenizer.json -> the class that reads it
_READERS: dict[tuple[str, str], Any] = {
    ("WordLevel", "Fuse"): CharTokenizer,
    ("BPE", "ByteLevel"): BPETokenizer,
    ("BPE", "Sequence"): SentencePieceTokenizer,
    ("WordPiece", "WordPiece"): WordPieceTokenizer,
}


def load_tokenizer(
    path: str | os.PathLike,
) -> CharTokenizer | BPETokenizer | SentencePieceTokenizer | WordPieceTokenizer:
    """The tokenizer of a file, or of the first that a folder has: tokenizer.json, tokenizer.model, .bin, vocab.txt,
    vocab.json with merges.txt

    A file's name may be another one that ends alike. FileNotFoundError if there is none; ValueError, with the file's
    name, if it is damaged or asks for something that no class here does.
    """
    path = Path(path)
    if path.is_dir():
        path = next((path / name for name in _FILES if (path / name).is_file()), path / "tokenizer.json")
    if not path.is_file():
        if path.exists():
            raise ValueError(
                f"{path} is a pipe or a device, and a tokenizer is a file; save what comes out of it to one"
            )
        raise FileNotFoundError(f"no file {path}; pass a tokenizer.json, or a folder that has one or {_OTHERS}")
    read = next((reader for name, reader in _FILES.items() if path.suffix == Path(name).suffix), None)
    if read is None:
        raise ValueError(f"{path} is not named like a tokenizer.json, or {_OTHERS}; rename it")
    try:
        return read(path)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error


def _read_json(path: Path):
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the file is not complete JSON in UTF-8 ({error}); save or fetch it again") from error
    if is_vocab(data):
        return read_beside(path)
    kind = _model_type(data), field(data, "decoder.type", str)
    if kind not in _READERS:
        supported = ", ".join(f"{model} with {decoder}" for model, decoder in _READERS)
        raise refusal(f"it has a {kind[0]} model with a {kind[1]} decoder, supported: {supported}")
    return _READERS[kind].from_json(data)


def _model_type(data) -> str:
    """model.type, which older files leave out: then the settings tell it."""
    model = data.get("model") if isinstance(data, dict) else None
    if isinstance(model, dict) and "type" not in model:
        for setting, kind in ("merges", "BPE"), ("max_input_chars_per_word", "WordPiece"):
            if setting in model:
                model["type"] = kind
                break
    return field(data, "model.type", str)


def _read_model(path: Path):
    """A tokenizer.model, which Llama 2 has from SentencePiece and Llama 3 as lines of base64 and rank."""
    data = path.read_bytes()
    return read_tiktoken(data) if re.match(rb"[A-Za-z0-9+/=]+ [0-9]+\r?\n", data) else read_sentencepiece(data)


def _read_bin(path: Path):
    return read_llama2c(path.read_bytes())


# In the order of preference in a folder
_FILES = {
    "tokenizer.json": _read_json,
    "tokenizer.model": _read_model,
    "tokenizer.bin": _read_bin,
    "vocab.txt": read_vocab_file,
    "vocab.json": _read_json,
}
_OTHERS = "a tokenizer.model, tokenizer.bin, vocab.txt or vocab.json"
