"""What all tokenizers share: ids to bytes and text, special tokens, a stream of ids, saving."""

import codecs
import json
import os
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from ..files import write_text
from .byte_symbols import BYTE_SYMBOLS

END_OF_TEXT = "<|endoftext|>"
MASK = "<|mask|>"  # stands for a hidden token in masked language modelling


class Tokenizer:
    """What the tokenizers share: ids to bytes, special tokens, files. Use CharTokenizer or BPETokenizer.

    vocab maps the bytes of each ordinary token to its id, special_tokens the text of each special token to
    its id; together the ids are 0 to vocab_size - 1, each once, or a ValueError says so.
    """

    def __init__(self, vocab: Mapping[bytes, int], special_tokens: Mapping[str, int]):
        check_special(tuple(special_tokens))
        tokens = {i: token for token, i in vocab.items()}
        tokens |= {i: text.encode() for text, i in special_tokens.items()}
        if sorted(tokens) != list(range(len(vocab) + len(special_tokens))):
            raise ValueError(
                f"{len(vocab) + len(special_tokens)} tokens need the ids 0 to "
                f"{len(vocab) + len(special_tokens) - 1}, each once; received {reprlib.repr(sorted(tokens))}"
            )
        self.vocab = dict(vocab)
        self.special_tokens = dict(special_tokens)
        self._tokens = [tokens[i] for i in range(len(tokens))]
        self._splitter = special_splitter(self.special_tokens)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self._tokens)

    @property
    def end_of_text(self) -> int | None:
        """The id of END_OF_TEXT, or None if the vocabulary has no such special token."""
        return self.special_tokens.get(END_OF_TEXT)

    @property
    def mask_token(self) -> int | None:
        """The id of MASK, or None if the vocabulary has no such special token."""
        return self.special_tokens.get(MASK)

    def encode(self, text: str, special: bool = True) -> np.ndarray:
        """The ids of a text, int32 (T,). Nothing is stripped, added or normalised.

        special=True turns the text of a special token into its id; False treats it as plain text, which is
        what text from outside should get. TypeError for anything but a str; ValueError for a lone surrogate.
        """
        check_text(text)
        pieces = self._splitter.split(text) if special else [text]
        ids: list[Iterable[int]] = []
        for i, piece in enumerate(pieces):  # split() puts what its group matched at the odd places
            ids.append([self.special_tokens[piece]] if i % 2 else self._encode_plain(piece))
        return np.fromiter(chain.from_iterable(ids), dtype=np.int32)

    def _encode_plain(self, text: str) -> Iterable[int]:
        raise NotImplementedError

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The bytes that ids (T,) stand for, special tokens included; ValueError for an id out of range."""
        ids = np.asarray(ids)
        if ids.size == 0:
            return b""
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ValueError(
                f"ids must be a sequence of integers, received shape {ids.shape} and dtype {ids.dtype}; "
                "pass one row of ids at a time"
            )
        outside = (ids < 0) | (ids >= self.vocab_size)
        if outside.any():
            position = int(outside.argmax())
            raise ValueError(
                f"id {ids[position]} at position {position} is outside 0 to {self.vocab_size - 1}; "
                "were these ids made by another tokenizer?"
            )
        return b"".join(map(self._tokens.__getitem__, ids.tolist()))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text that ids (T,) stand for; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token; ValueError for an id out of range."""
        return self.decode_bytes([id])

    def stream(self) -> "TokenStream":
        """A decoder for ids that arrive one at a time, as in generation."""
        return TokenStream(self)

    def to_json(self) -> dict:
        """The contents of tokenizer.json."""
        raise NotImplementedError

    def save(self, folder: str | os.PathLike) -> None:
        """Write tokenizer.json and tokenizer_config.json into a folder, made if missing.

        load_tokenizer and transformers' AutoTokenizer.from_pretrained open the folder. Each file is replaced
        as a whole: a crash leaves the old one or the new one.
        """
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        if self.end_of_text is not None:
            config["eos_token"] = END_OF_TEXT
        for name, data in ("tokenizer.json", self.to_json()), ("tokenizer_config.json", config):
            write_text(Path(folder) / name, json.dumps(data, ensure_ascii=False, indent=2) + "\n")


class TokenStream:
    """Decodes ids one at a time, and holds back the bytes of a character that is not complete yet.

    All the pieces joined, finish() included, are the tokenizer's decode() of all the ids.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, id: int) -> str:
        """The text that this id completes, possibly empty; ValueError for an id out of range."""
        return self._decoder.decode(self._tokenizer.token_bytes(id))

    def finish(self) -> str:
        """What is left at the end: U+FFFD for an incomplete character, or nothing. The stream starts anew."""
        return self._decoder.decode(b"", final=True)


def special_splitter(special_tokens: Iterable[str]) -> re.Pattern:
    """A regex whose one group matches special tokens: the leftmost, and of those the longest."""
    longest_first = sorted(special_tokens, key=len, reverse=True)
    return re.compile("(" + ("|".join(map(re.escape, longest_first)) or "(?!)") + ")")  # (?!) never matches


def check_text(text: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, received {type(text).__name__}; decode bytes first")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text has a lone surrogate, {text[error.start]!r}, at position {error.start}, which is no "
            "character; read files with encoding='utf-8', or give their bytes to BPETokenizer.encode_bytes"
        ) from None


def check_special(special_tokens: tuple[str, ...]) -> None:
    if isinstance(special_tokens, str):
        raise TypeError(f"special_tokens must be a tuple of str, received {special_tokens!r}; add a comma")
    for text in special_tokens:
        check_text(text)
        if len(text) < 2 or (not text.isascii() and BYTE_SYMBOLS.keys() >= set(text)):
            raise ValueError(
                f"special token {text!r} can be taken for a character of plain text, or for bytes as "
                f"tokenizer.json shows them; write it in two or more ASCII characters, like {END_OF_TEXT!r}"
            )
    if len(set(special_tokens)) != len(special_tokens):
        raise ValueError(f"special_tokens must differ from each other, received {special_tokens!r}")
