"""What all tokenizers share: ids to bytes and text, added tokens, a stream of ids, saving."""

import codecs
import json
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from ..files import write_text
from .added import AddedToken, AddedTokenFinder
from .byte_symbols import BYTE_SYMBOLS

END_OF_TEXT = "<|endoftext|>"
MASK = "<|mask|>"  # stands for a hidden token in masked language modelling

# Names of the special tokens of a role, of which the first that a vocabulary has counts: those of LLaMA 1 and 2,
# Llama 3, BERT, GPT-2.
BEGINS = ("<s>", "<|begin_of_text|>", "[CLS]", END_OF_TEXT)
ENDS = ("</s>", "<|end_of_text|>", "[SEP]", END_OF_TEXT)
MASKS = (MASK, "[MASK]")


class Tokenizer:
    """What the tokenizers share: ids to bytes, added tokens, files. Use one of the classes below it, or load_tokenizer.

    tokens are the (id, bytes) of each ordinary token; special_tokens maps the text of each special token to its id;
    added are further special tokens, and tokens with settings of their own. Together the ids are 0 to vocab_size - 1,
    each once, or a ValueError says so. template names the special tokens that models of this vocabulary expect before
    and after a text; encode adds neither.
    """

    def __init__(
        self,
        tokens: Iterable[tuple[int, bytes]],
        special_tokens: Mapping[str, int],
        added: Iterable[AddedToken] = (),
        template: tuple[str | None, str | None] = (None, None),
    ):
        added = [*(AddedToken(text, i) for text, i in special_tokens.items()), *added]
        check_special(tuple(token.text for token in added if token.special))
        check_added(added)
        together = sorted([*tokens, *((token.id, token.text.encode()) for token in added)])
        ids = [i for i, _ in together]
        if ids != list(range(len(ids))):
            raise ValueError(
                f"{len(ids)} tokens need the ids 0 to {len(ids) - 1}, each once; received {reprlib.repr(ids)}"
            )
        self.added_tokens = sorted(added, key=lambda token: token.id)
        self.special_tokens = {token.text: token.id for token in self.added_tokens if token.special}
        self._tokens = [token for _, token in together]
        # What a token gives at the start of a text, where that is something else, and the ids that leave it the start.
        self._starts: list[bytes] | None = None
        self._silent: frozenset[int] = frozenset()
        self.template = template
        self._as_given = AddedTokenFinder({token.text: token for token in added if not token.normalized})

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self._tokens)

    @property
    def begin_of_text(self) -> int | None:
        """The id that goes before a text, or None: of `<s>`, `<|begin_of_text|>`, `[CLS]`, END_OF_TEXT."""
        return self._role((self.template[0], *BEGINS))

    @property
    def end_of_text(self) -> int | None:
        """The id that ends a text, or None: of `</s>`, `<|end_of_text|>`, `[SEP]`, END_OF_TEXT."""
        return self._role((self.template[1], *ENDS))

    @property
    def mask_token(self) -> int | None:
        """The id of MASK or `[MASK]`, or None if the vocabulary has no such special token."""
        return self._role(MASKS)

    def _role(self, names: Iterable[str | None]) -> int | None:
        return next((self.special_tokens[name] for name in names if name in self.special_tokens), None)

    def encode(self, text: str, special: bool = True) -> np.ndarray:
        """The ids of a text, int32 (T,). No token is added to it.

        special=True turns the text of a special token into its id; False treats it as plain text, which is
        what text from outside should get. TypeError for anything but a str; ValueError for a lone surrogate.
        """
        check_text(text)
        ids: list[Iterable[int]] = []
        for place, part in self._as_given.split(text, special):
            if isinstance(part, AddedToken):
                ids.append([part.id])
                continue
            for inner_place, inner in self._in_normalized.split(self._normalize(part), special):
                if isinstance(inner, AddedToken):
                    ids.append([inner.id])
                else:
                    ids.append(self._encode_plain(inner, place == inner_place == 0))
        return np.fromiter(chain.from_iterable(ids), dtype=np.int32)

    @cached_property
    def _in_normalized(self) -> AddedTokenFinder:
        normalized = (token for token in self.added_tokens if token.normalized)
        return AddedTokenFinder({self._normalize(token.text): token for token in normalized})

    def _normalize(self, text: str) -> str:
        """A text without added tokens, not empty, as its tokens spell it."""
        return text

    def _encode_plain(self, text: str, at_start: bool) -> Iterable[int]:
        """The ids of normalised text without added tokens; at_start: nothing stands before it."""
        raise NotImplementedError

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The bytes that ids (T,) stand for, special tokens included; ValueError for an id out of range."""
        return b"".join(self._spell(ids, at_start=True)[0])

    def _spell(self, ids, at_start: bool) -> tuple[list[bytes], bool]:
        """The bytes of each id, and whether what comes after them still is the start of the text."""
        ids = np.asarray(ids)
        if ids.size == 0:
            return [], at_start
        whole = ids.dtype == object and all(isinstance(token, int) for token in ids.flat)  # too large for an int64
        if ids.ndim != 1 or ids.dtype.kind not in "iu" and not whole:
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
        ids = ids.tolist()
        parts = list(map(self._tokens.__getitem__, ids))
        for place, i in enumerate(ids):
            if not at_start or self._starts is None:
                break
            parts[place] = self._starts[i]
            at_start = i in self._silent
        return parts, at_start

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text that ids (T,) stand for; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token, not at the start of a text; ValueError for an id out of range."""
        return self._spell([id], at_start=False)[0][0]

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
        names = {i: text for text, i in self.special_tokens.items()}
        if self.begin_of_text != self.end_of_text:
            config["bos_token"] = names.get(self.begin_of_text)
        config["eos_token"] = names.get(self.end_of_text)
        config = {key: value for key, value in config.items() if value is not None}
        for name, data in ("tokenizer.json", self.to_json()), ("tokenizer_config.json", config):
            write_text(Path(folder) / name, json.dumps(data, ensure_ascii=False, indent=2) + "\n")


class TokenStream:
    """Decodes ids one at a time, and holds back the bytes of a character that is not complete yet.

    All the pieces joined, finish() included, are the tokenizer's decode() of all the ids. To go on from a text, feed
    its ids first: the start of a text may be spelled in another way than the middle.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = True

    def feed(self, id: int) -> str:
        """The text that this id completes, possibly empty; ValueError for an id out of range."""
        (token,), self._at_start = self._tokenizer._spell([id], self._at_start)
        return self._decoder.decode(token)

    def finish(self) -> str:
        """What is left at the end: U+FFFD for an incomplete character, or nothing. The stream starts anew."""
        self._at_start = True
        return self._decoder.decode(b"", final=True)


def plain_parts(text: str, special_tokens: Iterable[str]) -> list[str]:
    """What of a text stands between special tokens."""
    finder = AddedTokenFinder({special: AddedToken(special, i) for i, special in enumerate(special_tokens)})
    return [part for _, part in finder.split(text, special=True) if isinstance(part, str)]


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


def check_added(added: Sequence[AddedToken]) -> None:
    for token in added:
        check_text(token.text)
        if not token.text:
            raise ValueError(f"the added token with the id {token.id} is empty; remove it")
    texts = [token.text for token in added]
    if len(set(texts)) != len(texts):
        raise ValueError(f"added tokens must differ from each other, received {reprlib.repr(texts)}")
