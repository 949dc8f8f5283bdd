"""What all tokenizers share: ids to bytes and text, added tokens, a stream of ids, saving."""

import codecs
import json
import os
import re
import reprlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_text
from .added import AddedToken, AddedTokenFinder
from .byte_symbols import BYTE_SYMBOLS
from .streaming import BLOCK, encode_blocks

END_OF_TEXT = "<|endoftext|>"
MASK = "<|mask|>"  # stands for a hidden token in masked language modelling

# Names of the special tokens of a role, of which the first that a vocabulary has counts: those of LLaMA 1 and 2,
# Llama 3, BERT, GPT-2.
BEGINS = ("<s>", "<|begin_of_text|>", "[CLS]", END_OF_TEXT)
ENDS = ("</s>", "<|end_of_text|>", "[SEP]", END_OF_TEXT)
MASK_NAMES = (MASK, "[MASK]")
LARGEST_ID = 2**31 - 1  # ids are int32


class Tokenizer:
    """What the tokenizers share: ids to bytes, added tokens, files. Use one of the classes below it, or load_tokenizer.

    tokens are the (id, bytes) of each ordinary token; special_tokens maps the text of each special token to its id;
    added are further special tokens, and tokens with settings of their own. Together the ids are 0 to vocab_size - 1,
    each once, or a ValueError says so; with gaps, some of them may stand for no token. template names the special
    tokens that models of this vocabulary expect before and after a text; encode adds neither.
    """

    def __init__(
        self,
        tokens: Iterable[tuple[int, bytes]],
        special_tokens: Mapping[str, int],
        added: Iterable[AddedToken] = (),
        template: tuple[str | None, str | None] = (None, None),
        gaps: bool = False,
    ) -> None:
        added = [*(AddedToken(text, i) for text, i in special_tokens.items()), *added]
        check_special(tuple(token.text for token in added if token.special))
        check_added(added)
        together = sorted([*tokens, *((token.id, token.text.encode()) for token in added)])
        ids = [i for i, _ in together]
        if not gaps and ids != list(range(len(ids))):
            raise ValueError(
                f"{len(ids)} tokens need the ids 0 to {len(ids) - 1}, each once; received {reprlib.repr(ids)}"
            )
        if gaps and (len(set(ids)) < len(ids) or not all(type(i) is int and 0 <= i <= LARGEST_ID for i in ids)):
            raise ValueError(
                f"ids must differ from each other and be integers from 0 to {LARGEST_ID}; received {reprlib.repr(ids)}"
            )
        self.added_tokens = sorted(added, key=lambda token: token.id)
        self.special_tokens = {token.text: token.id for token in self.added_tokens if token.special}
        self._tokens = dict(together)  # id -> bytes, in the order of the ids
        self._size = ids[-1] + 1 if ids else 0
        # What a token gives at the start of a text, where that is something else, and the ids that leave it the start.
        self._starts: Mapping[int, bytes] | Sequence[bytes] | None = None
        self._silent: frozenset[int] = frozenset()
        self.template = template
        self._as_given = self._find_as_given(self.added_tokens)
        # The special tokens that were last allowed, with what finds them.
        self._allowed: tuple[frozenset[str], AddedTokenFinder, AddedTokenFinder] | None = None

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens and gaps included: the largest id and one."""
        return self._size

    @property
    def ids(self) -> Collection[int]:
        """The ids that stand for a token, in order."""
        return self._tokens.keys()

    @property
    def has_gaps(self) -> bool:
        """Whether some ids below vocab_size stand for no token."""
        return len(self._tokens) < self._size

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
        return self._role(MASK_NAMES)

    def _role(self, names: Iterable[str | None]) -> int | None:
        return next((self.special_tokens[name] for name in names if name in self.special_tokens), None)

    def encode(self, text: str, special: bool | Collection[str] = True) -> np.ndarray:
        """The ids of a text, int32 (T,); encode(text).tolist() for a list. No token is added to it.

        special=True turns the text of a special token into its id, the longest where several begin at one place; False
        treats it as plain text, which is what text from outside should get; a collection of special tokens does so but
        for these. TypeError for anything but a str; ValueError for a lone surrogate and for an unknown special token.
        """
        check_text(text)
        return np.fromiter(chain.from_iterable(self._encode_parts(text, special)), dtype=np.int32)

    def encode_iterable(self, texts: Iterable[str], special: bool | Collection[str] = True) -> Iterator[int]:
        """The ids of all texts joined, one after the other: those of encode("".join(texts)), without that text

        texts may be a file that is open for reading. What is held of it is some thousand characters, or as many as it
        takes to a place where no token can reach across: the end of a word, in most tokenizers, so that memory does
        not grow with the text (as in `encode`, a bounded number of words is remembered). Errors as in `encode`, when
        the text that has them is reached.
        """
        return encode_blocks(self, checked_blocks(texts, BLOCK), special)

    def _encode_parts(
        self, text: str, special: bool | Collection[str], at_start: bool = True, goes_on: bool = False
    ) -> Iterator[Iterable[int]]:
        """The ids, part by part. at_start: nothing stands before the text; goes_on: plain text does, and no token."""
        as_given, in_normalized, special = self._finders(special)
        for place, part in as_given.split(text, special):
            if isinstance(part, AddedToken):
                yield [part.id]
                continue
            joined = goes_on and place == 0
            for inner_place, inner in in_normalized.split(self._normalize(part, joined), special):
                if isinstance(inner, AddedToken):
                    yield [inner.id]
                else:
                    first = inner_place == 0
                    yield self._encode_plain(inner, at_start and first and place == 0, joined and first)

    def _finders(self, special: bool | Collection[str]) -> tuple[AddedTokenFinder, AddedTokenFinder, bool]:
        """What finds added tokens in the text as given and in normalised text, and whether special ones count."""
        if isinstance(special, bool):
            return self._as_given, self._in_normalized, special
        if isinstance(special, str) or not isinstance(special, Collection):
            raise TypeError(f"special must be True, False or a collection of special tokens; received {special!r}")
        unknown = [text for text in special if text not in self.special_tokens]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is no special token; there are {', '.join(self.special_tokens) or 'none'}"
            )
        if not special:
            return self._as_given, self._in_normalized, False
        allowed = frozenset(special)
        if self._allowed is None or self._allowed[0] != allowed:
            tokens = [token for token in self.added_tokens if not token.special or token.text in allowed]
            self._allowed = allowed, self._find_as_given(tokens), self._find_in_normalized(tokens)
        return self._allowed[1], self._allowed[2], True

    def _find_as_given(self, tokens: Iterable[AddedToken]) -> AddedTokenFinder:
        return AddedTokenFinder({token.text: token for token in tokens if not token.normalized})

    def _find_in_normalized(self, tokens: Iterable[AddedToken]) -> AddedTokenFinder:
        return AddedTokenFinder({self._normalize(token.text): token for token in tokens if token.normalized})

    @cached_property
    def _in_normalized(self) -> AddedTokenFinder:
        return self._find_in_normalized(self.added_tokens)

    def _normalize(self, text: str, goes_on: bool = False) -> str:
        """A text without added tokens, not empty, as its tokens spell it; goes_on: plain text stands before it."""
        return text

    def _encode_plain(self, text: str, at_start: bool, goes_on: bool) -> Iterable[int]:
        """The ids of normalised text without added tokens; at_start: nothing stands before it, goes_on: plain text."""
        raise NotImplementedError

    def _joints(self) -> re.Pattern | None:
        """Where a plain text may be parted so that its parts have the ids of the whole; None: nowhere

        A place is the end of a match, which is one character, no white space, and a look at the next. It must be one
        whatever stands further before and behind it.
        """
        return None

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The bytes that ids (T,) stand for, special tokens included; ValueError for an id out of range."""
        return b"".join(self._spell(ids, at_start=True)[0])

    def _spell(self, ids: Sequence[int] | np.ndarray, at_start: bool) -> tuple[list[bytes], bool]:
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
        try:
            parts = list(map(self._tokens.__getitem__, ids))
        except KeyError as error:
            position = ids.index(error.args[0])
            raise ValueError(f"id {ids[position]} at position {position} is a gap: it stands for no token") from None
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
        """The contents of tokenizer.json; ValueError for what the format, or its readers here, cannot say."""
        raise NotImplementedError

    def save(self, folder: str | os.PathLike) -> None:
        """Write tokenizer.json and tokenizer_config.json into a folder, made if missing.

        load_tokenizer and transformers' AutoTokenizer.from_pretrained open the folder. Each file is replaced
        as a whole: a crash leaves the old one or the new one.
        """
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        names: dict[int | None, str] = {i: text for text, i in self.special_tokens.items()}
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

    def __init__(self, tokenizer: Tokenizer) -> None:
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


def check_kind(text: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, received {type(text).__name__}; decode bytes first")


def check_text(text: str) -> None:
    check_kind(text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text has a lone surrogate, {text[error.start]!r}, at position {error.start}, which is no "
            "character; read files with encoding='utf-8', or give their bytes to BPETokenizer.encode_bytes"
        ) from None


def checked_blocks(texts: Iterable[str], size: int) -> Iterator[str]:
    """The texts in parts of at most size characters, each checked before it is yielded."""
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise TypeError(f"texts must be several str, such as the lines of a file; received {type(texts).__name__}")
    for text in texts:
        check_kind(text)
        for start in range(0, len(text), size):
            block = text[start : start + size]
            check_text(block)
            yield block


def check_special(special_tokens: str | tuple[str, ...]) -> None:
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
