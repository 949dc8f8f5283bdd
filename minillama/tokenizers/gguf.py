"""The tokenizer in the values of a GGUF file.

`tokenizer.ggml.model` says which: "gpt2" is BPE over bytes, with the merges as texts "LEFT RIGHT" and a name, `pre`,
for how text is cut into words; "llama" is SentencePiece's BPE, with a score for each piece. A token has a type: normal,
unknown, control (a special token), user-defined (always found in a text), unused, byte.
Source: docs/gguf.md of github.com/ggml-org/ggml; gguf-py/gguf/vocab.py and src/llama-vocab.cpp of
github.com/ggml-org/llama.cpp, for what is taken where a value is missing too.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .added import AddedToken
from .base import Tokenizer
from .byte_level import BPETokenizer
from .byte_symbols import to_bytes, to_symbols
from .description import split_step
from .llama2c import piece_scores
from .patterns import DIGITS_PATTERN, GPT2_PATTERN, GPT2_PATTERN_IN_FULL, LLAMA3_PATTERN
from .sentencepiece import BYTE_TOKEN, SentencePieceTokenizer, add_piece

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_K = "tokenizer.ggml."
_WITHOUT = (None, "none", "no_vocab")  # what the kind of a file without a tokenizer is
_TO_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_GPT2_CUT = _TO_BYTES | {"use_regex": True}


class _Cut(NamedTuple):
    """What a name of `pre` stands for."""

    pre_tokenizer: dict  # as tokenizer.json describes it
    ignore_merges: bool = False
    begins: bool = False  # whether a text begins with the token of that name, where the file does not say


_CUTS = {
    "gpt-2": _Cut(_GPT2_CUT),
    "smollm": _Cut({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _GPT2_CUT]}),
    "llama-bpe": _Cut({"type": "Sequence", "pretokenizers": [split_step(LLAMA3_PATTERN), _TO_BYTES]}, True, True),
}
_SAME_NAME = {"llama3": "llama-bpe", "llama-v3": "llama-bpe"}
# {how text is cut here: the name that is written}; of the digits' pattern the nearest, see `nearly`
_WRITTEN = {
    (GPT2_PATTERN,): "gpt-2",
    (GPT2_PATTERN_IN_FULL,): "gpt-2",
    (r"\p{N}|[^\p{N}]+", GPT2_PATTERN): "smollm",
    (LLAMA3_PATTERN,): "llama-bpe",
    (DIGITS_PATTERN,): "smollm",
}


def read_gguf(values: Mapping[str, Any]) -> BPETokenizer | SentencePieceTokenizer | None:
    """The tokenizer of a file's values; None where there is none. ValueError for one that would give other ids."""
    kind = values.get(_K + "model")
    if kind in _WITHOUT:
        return None
    tokens, types = _tokens(values)
    if kind == "gpt2":
        return _read_bpe(values, tokens, types)
    if kind == "llama":
        return _read_sentencepiece(values, tokens, types)
    raise ValueError(f"{_K}model is {kind!r:.60}; supported are 'gpt2' and 'llama'")


def _tokens(values):
    """The texts of the tokens, and their types."""
    tokens = values.get(_K + "tokens")
    if not isinstance(tokens, list) or not tokens:
        raise ValueError(f"{_K}tokens must be an array of texts; received {tokens!r:.60}")
    types = values.get(_K + "token_type")
    types = [_NORMAL] * len(tokens) if types is None else list(types)
    if len(types) != len(tokens):
        raise ValueError(f"{_K}token_type has {len(types)} types for {len(tokens)} tokens")
    while types and types[-1] == _UNUSED:  # rows that a model has more than its tokenizer
        types.pop()
    try:
        return [token.decode("utf-8") for token in tokens[: len(types)]], types
    except UnicodeDecodeError as error:
        raise ValueError(f"{_K}tokens holds {error.object[:40]!r}, which is not UTF-8") from None


def _read_bpe(values, tokens, types):
    pre = values.get(_K + "pre", "gpt-2")
    cut = _CUTS.get(_SAME_NAME.get(pre, pre)) if isinstance(pre, str) else None
    if cut is None:
        raise ValueError(
            f"{_K}pre is {pre!r:.60}; supported are {', '.join(_CUTS)}, as others cut text in other places"
        )
    added, symbols = [], {}
    for i, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind == _USER_DEFINED:
            added.append(AddedToken(token, i, special=False))
        elif kind in (_CONTROL, _UNKNOWN, _UNUSED):
            added.append(AddedToken(token, i))
        else:
            symbols[token] = i
    merges = values.get(_K + "merges")
    if not isinstance(merges, list):
        raise ValueError(f"{_K}merges must be an array of texts; received {merges!r:.60}")
    pairs = []
    for number, merge in enumerate(merges):
        left, space, right = merge.decode("utf-8", errors="replace").partition(" ")
        if not space or left not in symbols or right not in symbols:
            raise ValueError(
                f"{_K}merges has {merge[:60]!r} at {number}, expected two ordinary tokens with a space between"
            )
        pairs.append((symbols[left], symbols[right]))
    return BPETokenizer(
        {to_bytes(symbol): i for symbol, i in symbols.items()},
        pairs,
        {},
        added=added,
        template=_ends(values, tokens, begins=cut.begins),
        pre_tokenizer=cut.pre_tokenizer,
        ignore_merges=cut.ignore_merges,
    )


def _read_sentencepiece(values, tokens, types):
    scores, count = values.get(_K + "scores"), len(values[_K + "tokens"])
    if not isinstance(scores, np.ndarray) or len(scores) != count:
        raise ValueError(f"{_K}scores must have a number for each of {count} tokens; received {scores!r:.60}")
    added: list[AddedToken] = []
    pieces: dict[str, int] = {}
    of_pieces: dict[int, float] = {}
    unknown = None
    for i, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind == _USER_DEFINED:
            added.append(AddedToken(token, i, special=False))
        elif kind in (_CONTROL, _UNKNOWN, _UNUSED):
            added.append(AddedToken(token, i))
            unknown = token if kind == _UNKNOWN else unknown
        elif (kind == _BYTE) == (BYTE_TOKEN.fullmatch(token) is not None):
            add_piece(pieces, of_pieces, token, i, float(scores[i]))
        else:
            raise ValueError(f"token {i}, {token!r:.40}, has the type {kind}, which is not that of such a text")
    prefix = values.get(_K + "add_space_prefix", True)
    return SentencePieceTokenizer.from_scores(
        pieces,
        of_pieces,
        added,
        unknown=unknown,
        template=_ends(values, tokens, begins=True),
        prefix="always" if prefix else "never",
        strip=bool(prefix),
    )


def _ends(values, tokens, begins):
    """The texts of the tokens that go before and after a text, or None; begins: what is so where the file is silent"""

    def named(asked, name):
        i = values.get(f"{_K}{name}_token_id")
        if not asked or i is None:
            return None
        if type(i) is not int or not 0 <= i < len(tokens):
            raise ValueError(f"{_K}{name}_token_id is {i!r:.40}; there are {len(tokens)} tokens")
        return tokens[i]

    return named(values.get(_K + "add_bos_token", begins), "bos"), named(values.get(_K + "add_eos_token", False), "eos")


def gguf_values(tokenizer: Tokenizer, rows: int | None = None) -> dict[str, tuple[str, Any]]:
    """{name: (kind of a value, value)} of a tokenizer; ValueError, with the reason, for one that GGUF does not have

    rows: that the model has; those for which there is no token get names that no text has, as unused tokens.
    """
    if isinstance(tokenizer, BPETokenizer):
        found = _bpe_values(tokenizer)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        found = _sentencepiece_values(tokenizer)
    else:
        raise ValueError(
            f"GGUF has byte-level BPE and SentencePiece's BPE; this tokenizer is a {type(tokenizer).__name__}"
        )
    for i in range(tokenizer.vocab_size, rows or 0):
        found[_K + "tokens"][1].append(f"[PAD{i}]")
        found[_K + "token_type"][1].append(_UNUSED)
        if _K + "scores" in found:
            found[_K + "scores"][1].append(0.0)
    begin, end = tokenizer.template
    for name, token, asked in (
        ("bos", tokenizer.begin_of_text, begin is not None),
        ("eos", tokenizer.end_of_text, end is not None),
    ):
        if token is not None:
            found[f"{_K}{name}_token_id"] = "uint32", token
        found[f"{_K}add_{name}_token"] = "bool", asked
    return found


def nearly(tokenizer: Tokenizer) -> str | None:
    """In which texts llama.cpp finds other ids than this tokenizer, in words; None: in none that is known."""
    if isinstance(tokenizer, BPETokenizer) and tokenizer._steps == [DIGITS_PATTERN]:
        return "llama.cpp cuts white space of two and more characters before a digit in another place"
    return None


def _bpe_values(tokenizer):
    pre = _WRITTEN.get(tuple(tokenizer._steps))
    if pre is None or tokenizer.ignore_merges != _CUTS[pre].ignore_merges or tokenizer.has_gaps:
        raise ValueError("llama.cpp has no name for how this tokenizer cuts text into words")
    added = {token.id: token for token in tokenizer.added_tokens}
    texts = {i: to_symbols(token) for i, token in tokenizer._tokens.items() if i not in added}
    texts |= {i: token.text for i, token in added.items()}
    order = range(tokenizer.vocab_size)
    return {
        _K + "model": ("string", "gpt2"),
        _K + "pre": ("string", pre),
        _K + "tokens": ("string", [texts[i] for i in order]),
        _K + "token_type": ("int32", [_type(added, i) for i in order]),
        _K + "merges": ("string", [f"{texts[left]} {texts[right]}" for left, right in tokenizer.merges]),
    }


def _sentencepiece_values(tokenizer):
    if tokenizer.cut or tokenizer.squeeze or tokenizer.prefix not in ("always", "never"):
        raise ValueError("llama.cpp puts a space before every text or none; this tokenizer does something else")
    scores = piece_scores(tokenizer, "GGUF")
    added = {token.id: token for token in tokenizer.added_tokens}
    texts = {i: piece for piece, i in tokenizer.pieces.items()} | {i: token.text for i, token in added.items()}
    order = range(tokenizer.vocab_size)

    def kind(i):
        if i in added:
            return _UNKNOWN if added[i].text == tokenizer.unknown else _type(added, i)
        return _BYTE if BYTE_TOKEN.fullmatch(texts[i]) else _NORMAL

    return {
        _K + "model": ("string", "llama"),
        _K + "pre": ("string", "default"),
        _K + "tokens": ("string", [texts[i] for i in order]),
        _K + "scores": ("float32", [scores.get(i, 0.0) for i in order]),
        _K + "token_type": ("int32", [kind(i) for i in order]),
        _K + "add_space_prefix": ("bool", tokenizer.prefix == "always"),
    }


def _type(added: Mapping[int, AddedToken], i: int) -> int:
    if i not in added:
        return _NORMAL
    return _CONTROL if added[i].special else _USER_DEFINED
