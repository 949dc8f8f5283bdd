"""Byte-pair encoding over characters, with bytes as a fallback: the tokenizer of LLaMA 1 and 2.

SentencePiece (Kudo, Richardson 2018, arXiv 1808.06226) writes a space as the visible character U+2581, puts one before
the text, and merges over the whole text without cutting it into words first. A character that has no token becomes
the tokens of its UTF-8 bytes, <0x00> to <0xFF>.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .added import WHITE, AddedToken
from .base import Tokenizer
from .description import (
    check_settings,
    field,
    pipeline,
    read_added_tokens,
    read_merge,
    read_post_processor,
    read_vocab,
    refusal,
    sequence,
    step_settings,
)
from .merging import WordCache, merge, merges_by_token

SPACE = "\u2581"  # how a space is written
BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")


class SentencePieceTokenizer(Tokenizer):
    """Byte-pair encoding over characters.

    pieces maps each ordinary token, tokens of bytes included, to its id; merges is a table as merging.merge takes it,
    in which a character c that is no piece has the symbol vocab_size + ord(c). unknown is the special token of a
    character that has no token, needed where the pieces have no tokens of bytes.

    prefix says when a space goes before the text: "always", "unless_space" (none is there), "first" (the same, but
    only at the very beginning, and not after an added token) or "never". cut: every space begins a word, across which
    nothing is merged. squeeze: of neighbouring spaces one is kept, and none at the ends. strip: decoding takes the
    space away that a prefix makes. in_normalizer: spaces are written before those added tokens are looked for that are
    to be found in normalised text.
    """

    def __init__(
        self,
        pieces: Mapping[str, int],
        merges: Mapping[tuple[int, int], tuple[int, int]],
        added: Iterable[AddedToken],
        unknown: str | None = None,
        *,
        template: tuple[str | None, str | None] = (None, None),
        prefix: str = "always",
        in_normalizer: bool = True,
        cut: bool = False,
        squeeze: bool = False,
        strip: bool = True,
    ):
        super().__init__(((i, _bytes_of(piece)) for piece, i in pieces.items()), {}, added, template)
        self.pieces = dict(pieces)
        bytes_first = sorted(pieces, key=lambda piece: BYTE_TOKEN.fullmatch(piece) is not None, reverse=True)
        self.vocab = {self._tokens[pieces[piece]]: pieces[piece] for piece in bytes_first}
        self._merges = dict(merges)
        self.unknown, self.prefix, self.in_normalizer = unknown, prefix, in_normalizer
        self.cut, self.squeeze, self.strip = cut, squeeze, strip

        byte_tokens = [pieces.get(f"<0x{byte:02X}>") for byte in range(256)]
        self._byte_ids: list[Any] | None = None if None in byte_tokens else byte_tokens
        self._unknown_id = None if unknown is None else self.special_tokens.get(unknown)
        if self._byte_ids is None and self._unknown_id is None:
            raise ValueError(
                f"characters without a token need either the tokens <0x00> to <0xFF> or an unknown token among the "
                f"special ones; received {sum(i is not None for i in byte_tokens)} of 256 and {unknown!r}"
            )
        if strip:
            starts = dict(self._tokens)
            for piece, i in pieces.items():
                if piece.startswith(SPACE):
                    starts[i] = _bytes_of(piece[1:])
            self._starts = starts
            self._silent = frozenset(self.special_tokens.values())
            if squeeze and SPACE in pieces:
                self._silent |= {pieces[SPACE]}

        self._find_words = re.compile(self._word_pattern()).findall
        self._words = WordCache(self._encode_word)

    @classmethod
    def from_scores(
        cls, pieces: Mapping[str, int], scores: Mapping[int, float], added: Sequence[AddedToken], **options: Any
    ) -> "SentencePieceTokenizer":
        """The tokenizer that, as SentencePiece does, merges the pair first whose joined piece has the highest score.

        scores: of each ordinary id. Other arguments as the class takes them.
        """
        plain = {piece: i for piece, i in pieces.items() if not BYTE_TOKEN.fullmatch(piece)}
        size = len(pieces) + len(added)
        parts = {c: size + ord(c) for c in set().union(*plain)} | plain
        order = {score: rank for rank, score in enumerate(sorted(set(scores.values()), reverse=True))}
        merges = merges_by_token(plain, parts, {i: order[score] for i, score in scores.items()})
        return cls(pieces, merges, added, **options)

    def _word_pattern(self) -> str:
        """A regular expression for parts of a text across whose ends nothing is merged, so that words are remembered.

        A space after something else is such an end if no piece has it in its middle; so are both sides of a character
        that is in no piece with others. Unknown characters side by side become one token and are not parted.
        """
        if self.cut:
            return f"{SPACE}[^{SPACE}]*|[^{SPACE}]+"
        joining = self._joining()
        if not joining:
            return r"[\s\S]+"
        joining = re.escape("".join(sorted(joining)))
        return f"{SPACE}*[{joining}]+|{SPACE}+|[^{SPACE}{joining}]+"

    def _joints(self) -> re.Pattern | None:
        """Before a space, and between characters across which nothing is merged, as `_word_pattern` has them."""
        joining, before_space = self._joining(), f"[^{SPACE}{WHITE}](?=[ {SPACE}])"
        normalized = [self._normalize(token.text) for token in self.added_tokens if token.normalized]
        if joining is None and not self.cut or any(re.search(before_space, text) for text in normalized):
            return None
        if joining is None or self.cut or normalized:
            return re.compile(before_space)
        joining = re.escape("".join(sorted(joining)))
        begins = f"[^ {SPACE}{WHITE}{joining}](?=[{joining}])"
        ends = f"(?![{WHITE}])[{joining}](?=[^ {SPACE}{joining}])"
        return re.compile(f"{before_space}|{begins}|{ends}")

    def _joining(self) -> set[str] | None:
        """The characters, without the space, that are in a piece with others; None where there are no ends of words."""
        joined = [piece for piece in self.pieces if len(piece) > 1 and not BYTE_TOKEN.fullmatch(piece)]
        joining = set().union(*joined) - {SPACE}
        parted = self._byte_ids is None and not {SPACE, *joining} <= self.pieces.keys()
        return None if not joining or parted or any(SPACE in piece.lstrip(SPACE) for piece in joined) else joining

    def _normalize(self, text: str, goes_on: bool = False) -> str:
        return self._with_spaces(text, True, goes_on) if self.in_normalizer else text

    def _with_spaces(self, text: str, at_start: bool, goes_on: bool) -> str:
        if self.squeeze:
            text = re.sub("  +", " ", text if goes_on else text.lstrip(" ")).rstrip(" " + SPACE)
        text = text.replace(" ", SPACE)
        if goes_on:
            return text
        if self.prefix == "always":
            add = text != ""
        else:
            wanted = self.prefix == "unless_space" or (self.prefix == "first" and at_start)
            add = wanted and not text.startswith(SPACE)
        return SPACE + text if add else text

    def _encode_plain(self, text: str, at_start: bool, goes_on: bool) -> list[int]:
        if not self.in_normalizer:
            text = self._with_spaces(text, at_start, goes_on)
        ids: list[int] = []
        for word in self._find_words(text):
            ids += self._words[word]
        return ids

    def _encode_word(self, word: str) -> list[int]:
        size = self.vocab_size
        symbols = [self.pieces.get(c, size + ord(c)) for c in word]
        ids: list[Any] = []
        after_unknown = False
        for symbol in merge(symbols, self._merges):
            unknown = symbol >= size
            if not unknown:
                ids.append(symbol)
            elif self._byte_ids is not None:
                ids += map(self._byte_ids.__getitem__, chr(symbol - size).encode())
            elif not after_unknown:  # unknown characters side by side are one token
                ids.append(self._unknown_id)
            after_unknown = unknown
        return ids

    def to_json(self) -> dict:
        """A BPE model with byte fallback, as Llama 2's tokenizer.json has it.

        Its merges come in a fixed order: where the merges here have equal priority, which two pieces of equal score
        or two ways to make one piece have, that order decides, and no longer the place in the text. ValueError if a
        merge is of a character that is no token by itself, which the format cannot say.
        """
        vocab = self.pieces | {token.text: token.id for token in self.added_tokens}
        names = {i: text for text, i in vocab.items()}
        if max(map(max, self._merges), default=0) >= self.vocab_size:
            raise ValueError("a piece has a character that is no piece itself, which tokenizer.json cannot describe")
        order = sorted(self._merges, key=lambda pair: (self._merges[pair][0], pair))
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": self.unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": self._byte_ids is not None,
            "ignore_merges": False,
            "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
            "merges": [[names[left], names[right]] for left, right in order],
        }
        decoders = [_replace(SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
        if self.strip:
            decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        decoder = {"type": "Sequence", "decoders": decoders}
        if self.in_normalizer:
            return pipeline(self, model, decoder, normalizer=_normalizer(self.prefix, self.squeeze))
        schemes = {name: scheme for scheme, name in _SCHEMES.items()}
        metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": schemes[self.prefix]}
        return pipeline(self, model, decoder, metaspace | {"split": self.cut})

    @classmethod
    def from_json(cls, data: dict) -> "SentencePieceTokenizer":
        """The tokenizer of a file like Llama 2's, in its older and newer forms; ValueError for anything else."""
        added = read_added_tokens(data)
        pieces = read_vocab(data, added)
        if "" in pieces:
            raise refusal("model.vocab has an empty token")
        plain = {piece: i for piece, i in pieces.items() if not BYTE_TOKEN.fullmatch(piece)}
        names = {i: piece for piece, i in plain.items()}
        merges = {}
        for rank, row in enumerate(field(data, "model.merges", list)):
            left, right = read_merge(row, plain)
            joined = plain.get(names[left] + names[right])
            if joined is None:
                raise refusal(f"model.merges has {row!r}, but model.vocab no ordinary token that joins the two")
            merges[left, right] = rank, joined
        unknown = data["model"].get("unk_token")
        tokenizer = cls(
            pieces,
            merges,
            added,
            None if unknown is None else field(data, "model.unk_token", str),
            template=read_post_processor(data, added),
            strip=_read_decoder(data.get("decoder")),
            **_read_spaces(data.get("normalizer"), data.get("pre_tokenizer")),
        )
        read = [".decoder", ".normalizer", ".pre_tokenizer"]
        if tokenizer._byte_ids is not None:
            read.append(".model.fuse_unk")  # no character is unknown
        check_settings(data, tokenizer.to_json(), read)
        return tokenizer


def add_piece(pieces: dict[str, int], scores: dict[int, float], piece: str, i: int, score: float) -> None:
    if not piece or piece in pieces or not math.isfinite(score):
        raise ValueError(f"piece {i} is {piece!r} with the score {score}, expected a new text and a finite number")
    pieces[piece], scores[i] = i, score


def _bytes_of(piece: str) -> bytes:
    found = BYTE_TOKEN.fullmatch(piece)
    return bytes([int(found[1], 16)]) if found else piece.replace(SPACE, " ").encode()


def _replace(old: str, new: str, kind: str = "String") -> dict:
    return {"type": "Replace", "pattern": {kind: old}, "content": new}


def _normalizer(prefix: str, squeeze: bool) -> dict:
    steps = []
    if squeeze:
        ends = f"\\A +|[ {SPACE}]+\\z"
        steps += [_replace(ends, "", "Regex"), _replace("  +", " ", "Regex")]
    if prefix == "always":
        steps.append({"type": "Prepend", "prepend": SPACE})
    return {"type": "Sequence", "normalizers": [*steps, _replace(" ", SPACE)]}


_SCHEMES = {"always": "unless_space", "first": "first", "never": "never"}  # Metaspace's words -> those used here


def _read_spaces(normalizer, pre_tokenizer) -> dict:
    """What a file does with spaces, as arguments of the class: its normalizer says so, or its pre_tokenizer."""
    if pre_tokenizer is None:
        for prefix in ("always", "never"):
            for squeeze in (False, True):
                steps = [step for _, step in sequence(normalizer, "normalizer", "normalizers")]
                if steps == _normalizer(prefix, squeeze)["normalizers"]:
                    return {"prefix": prefix, "squeeze": squeeze}
        raise refusal(f"normalizer is {normalizer!r}, supported: {_normalizer('always', False)!r}")
    if normalizer is not None:
        raise refusal(f"normalizer is {normalizer!r} beside a pre_tokenizer, supported: None")
    defaults = {"replacement": SPACE, "prepend_scheme": "always", "split": True, "add_prefix_space": True}
    settings = step_settings(pre_tokenizer, "pre_tokenizer", {"Metaspace": defaults})
    if "prepend_scheme" not in pre_tokenizer and not settings["add_prefix_space"]:  # older files
        settings["prepend_scheme"] = "never"
    if settings["replacement"] != SPACE or settings["prepend_scheme"] not in _SCHEMES:
        raise refusal(f"pre_tokenizer is {pre_tokenizer!r}, supported: {SPACE!r} and one of {', '.join(_SCHEMES)}")
    return {"prefix": _SCHEMES[settings["prepend_scheme"]], "cut": settings["split"], "in_normalizer": False}


def _read_decoder(decoder) -> bool:
    """Whether a file's decoder takes the first space away."""
    kinds: dict[str, Mapping[str, object]] = {
        "Replace": {"pattern": {}, "content": ""},
        "ByteFallback": {},
        "Fuse": {},
        "Strip": {"content": "", "start": 0, "stop": 0},
    }
    steps = [step_settings(step, path, kinds) for path, step in sequence(decoder, "decoder", "decoders")]
    expected = [_replace(SPACE, " "), {"type": "ByteFallback"}, {"type": "Fuse"}]
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    if steps not in (expected, expected + strip):
        raise refusal(f"decoder has the steps {[step['type'] for step in steps]}, supported: {expected + strip}")
    return steps != expected
