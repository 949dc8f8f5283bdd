"""WordPiece, the tokenizer of BERT: words, and for words without a token the longest parts that have one.

Devlin et al. 2019, arXiv 1810.04805; tokenization.py of the published code. Text is not kept: white space is lost, and
with models of lower case, capitals and accents are. What a mark or a sign is, this Python's Unicode tables say; the
tokenizers library's are of Unicode 8, so that the two differ in some five hundred characters of rare scripts.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from .added import WHITE, WHITE_SPACE, AddedToken
from .base import Tokenizer
from .description import (
    check_settings,
    field,
    pipeline,
    read_added_tokens,
    read_post_processor,
    read_vocab,
    refusal,
    step_settings,
)
from .merging import WordCache, check_lengths

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PREFIX = "##"  # of a token that goes on with a word
LONGEST_WORD = 100  # in characters; a longer one is unknown

_CONTROL = ("Cc", "Cf", "Co")  # Unicode's categories of control, format and private characters
# Blocks of Chinese characters, each of which is a word; one begins later than the block does, as in the library.
_CHINESE = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class WordPieceTokenizer(Tokenizer):
    """WordPiece: vocab maps each ordinary token to its id, the special token unknown stands for a word without parts.

    clean removes control characters and makes white space plain, chinese cuts around Chinese characters, lowercase
    and strip_accents do what they say; strip_accents is as lowercase if it is None. tidy: decoding leaves out the
    space before signs, in the way of the tokenizers library's clean-up.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        added: Iterable[AddedToken],
        unknown: str = "[UNK]",
        *,
        template: tuple[str | None, str | None] = (None, None),
        clean: bool = True,
        chinese: bool = True,
        strip_accents: bool | None = None,
        lowercase: bool = True,
        longest_word: int = LONGEST_WORD,
        tidy: bool = True,
    ):
        check_lengths(vocab)
        super().__init__(((i, _bytes_of(token, tidy)) for token, i in vocab.items()), {}, added, template)
        if unknown not in self.special_tokens:
            raise ValueError(f"the unknown token {unknown!r} is not among the special tokens {self.special_tokens}")
        self.tokens = dict(vocab)
        self.vocab = {token.encode(): i for token, i in vocab.items()}
        self.unknown, self.longest_word, self.tidy = unknown, longest_word, tidy
        self.clean, self.chinese, self.lowercase = clean, chinese, lowercase
        self.strip_accents = strip_accents
        names = {i: text for text, i in {**vocab, **self.special_tokens}.items()}
        names |= {token.id: token.text for token in self.added_tokens}
        self._starts = [_tidy(names[i], tidy).encode() for i in range(self.vocab_size)]
        for token in self.added_tokens:
            self._tokens[token.id] = _bytes_of(token.text, tidy)
        self._longest_token = max(map(len, vocab), default=0)
        self._words = WordCache(self._encode_word)

    def _normalize(self, text: str, goes_on: bool = False) -> str:
        text = text.translate(_characters(self.clean, self.chinese))
        if self.lowercase if self.strip_accents is None else self.strip_accents:
            text = unicodedata.normalize("NFD", text).translate(_WITHOUT_ACCENTS)
        return text.translate(_LOWERCASE) if self.lowercase else text

    def _joints(self) -> re.Pattern | None:
        """Before white space, which ends a word; nowhere if an added token of normalised text has some in it."""
        if any(" " in self._normalize(token.text) for token in self.added_tokens if token.normalized):
            return None
        return re.compile(f"[^{WHITE}](?=[{_ENDING}])")

    def _encode_plain(self, text: str, at_start: bool, goes_on: bool) -> list[int]:
        ids: list[int] = []
        for word in text.translate(_APART).split(" "):
            if word:
                ids += self._words[word]
        return ids

    def _encode_word(self, word: str) -> list[int]:
        """The longest token that the word begins with, then the longest that goes on; all unknown if one is missing."""
        ids, start = [], 0
        if len(word) > self.longest_word:
            return [self.special_tokens[self.unknown]]
        while start < len(word):
            prefix = PREFIX if start else ""
            for end in range(min(len(word), start + self._longest_token), start, -1):
                found = self.tokens.get(prefix + word[start:end])
                if found is not None:
                    break
            else:
                return [self.special_tokens[self.unknown]]
            ids.append(found)
            start = end
        return ids

    def to_json(self) -> dict:
        """A WordPiece model with BERT's normalizer, as files of BERT have it."""
        vocab = self.tokens | {token.text: token.id for token in self.added_tokens}
        model = {
            "type": "WordPiece",
            "unk_token": self.unknown,
            "continuing_subword_prefix": PREFIX,
            "max_input_chars_per_word": self.longest_word,
            "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
        }
        normalizer = {
            "type": "BertNormalizer",
            "clean_text": self.clean,
            "handle_chinese_chars": self.chinese,
            "strip_accents": self.strip_accents,
            "lowercase": self.lowercase,
        }
        decoder = {"type": "WordPiece", "prefix": PREFIX, "cleanup": self.tidy}
        return pipeline(self, model, decoder, {"type": "BertPreTokenizer"}, normalizer)

    @classmethod
    def from_json(cls, data: dict) -> "WordPieceTokenizer":
        """The tokenizer of a file like BERT's; ValueError for anything else."""
        added = read_added_tokens(data)
        bert = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
        normalizer = data.get("normalizer")
        accents = normalizer.get("strip_accents") if isinstance(normalizer, dict) else None
        if accents not in (None, True, False):
            raise refusal(f"normalizer.strip_accents is {accents!r}, expected: true, false or null")
        if accents is not None:
            bert["strip_accents"] = bool(accents)
        settings = step_settings(normalizer, "normalizer", {"BertNormalizer": bert})
        decoder = step_settings(data.get("decoder"), "decoder", {"WordPiece": {"prefix": PREFIX, "cleanup": True}})
        tokenizer = cls(
            read_vocab(data, added),
            added,
            field(data, "model.unk_token", str),
            template=read_post_processor(data, added),
            clean=settings["clean_text"],
            chinese=settings["handle_chinese_chars"],
            strip_accents=settings["strip_accents"],
            lowercase=settings["lowercase"],
            longest_word=field(data, "model.max_input_chars_per_word", int),
            tidy=decoder["cleanup"],
        )
        check_settings(data, tokenizer.to_json(), [".normalizer", ".decoder.cleanup"])
        return tokenizer


def read_vocab_file(path: Path) -> WordPieceTokenizer:
    """The tokenizer of a vocab.txt, which has a token a line; its number, counted from 0, is the id.

    A tokenizer_config.json beside it says whether the model is one of lower case; without one a vocabulary that has no
    capital letter, and so no way to keep one, is.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"the file is not UTF-8 ({error}); fetch it again") from error
    tokens = [line.rstrip("\r") for line in lines]
    if tokens[-1] == "":
        tokens.pop()
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) < len(tokens) or "" in ids:
        same = next(token for i, token in enumerate(tokens) if ids[token] != i or not token)
        raise ValueError(f"the file has {same!r} in several lines, expected a token of its own in each")
    if not {"[UNK]", "[CLS]", "[SEP]"} <= ids.keys():
        raise ValueError(f"the file has {len(ids)} tokens, but not [UNK], [CLS] and [SEP]; is it BERT's vocab.txt?")
    added = [AddedToken(text, ids[text]) for text in SPECIAL_TOKENS if text in ids]
    vocab = {token: i for token, i in ids.items() if token not in SPECIAL_TOKENS}
    config = _read_config(path.with_name("tokenizer_config.json"))
    return WordPieceTokenizer(
        vocab,
        added,
        template=("[CLS]", "[SEP]"),
        chinese=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", all(token == token.lower() for token in vocab)),
    )


def _read_config(path: Path) -> dict[str, bool]:
    """The settings of a tokenizer_config.json that are of use here."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} beside it is not complete JSON in UTF-8 ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path.name} beside it holds a {type(config).__name__}, expected an object")
    names = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
    return {name: config[name] for name in names if isinstance(config.get(name), bool)}


def _bytes_of(token: str, tidy: bool) -> bytes:
    """What a token gives that is not the first of a text."""
    text = token[len(PREFIX) :] if token.startswith(PREFIX) else " " + token
    return _tidy(text, tidy).encode()


def _tidy(text: str, tidy: bool) -> str:
    """Signs without the space before them, as the library's clean-up of English leaves them."""
    if tidy:
        for old, new in _TIDIED:
            text = text.replace(old, new)
    return text


_TIDIED = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
    (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip

# White space that is not removed as control characters are
_ENDING = "".join(c for c in sorted(WHITE_SPACE) if c in "\t\n\r" or unicodedata.category(c) not in _CONTROL)


class _Table(dict):
    """A table for str.translate that computes a character's entry when it first comes up."""

    def __init__(self, entry):
        super().__init__()
        self._entry = entry

    def __missing__(self, code: int) -> str:
        self[code] = self._entry(chr(code))
        return self[code]


@cache
def _characters(clean: bool, chinese: bool) -> _Table:
    """Characters cleaned, and Chinese ones with spaces around them."""

    def entry(character: str) -> str:
        code = ord(character)
        if clean:
            if character not in "\t\n\r" and (code == 0xFFFD or unicodedata.category(character) in _CONTROL):
                return ""
            if character in WHITE_SPACE:
                return " "
        return f" {character} " if chinese and any(a <= code <= b for a, b in _CHINESE) else character

    return _Table(entry)


def _apart(character: str) -> str:
    """White space as a plain space, and a space on both sides of signs: where BERT cuts words."""
    if character in WHITE_SPACE:
        return " "
    sign = (character.isascii() and character.isprintable() and not character.isalnum()) or (
        unicodedata.category(character)[0] == "P"
    )
    return f" {character} " if sign else character


_APART = _Table(_apart)
_WITHOUT_ACCENTS = _Table(lambda c: "" if unicodedata.category(c) == "Mn" else c)
_LOWERCASE = _Table(str.lower)
