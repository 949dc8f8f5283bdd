"""GPT-2's vocab.json and merges.txt: {token: id}, and a merge a line."""

import json
import os
import reprlib
from collections.abc import Iterable
from pathlib import Path

from .base import check_text
from .byte_level import BPETokenizer
from .byte_symbols import to_bytes
from .patterns import GPT2_PATTERN

_CLASSES = ("GPT2Tokenizer", "GPT2TokenizerFast")  # of tokenizer_config.json, for which the pattern is GPT-2's


def read_vocab_and_merges(
    vocab: str | os.PathLike,
    merges: str | os.PathLike,
    special_tokens: Iterable[str] | None = None,
    pattern: str = GPT2_PATTERN,
) -> BPETokenizer:
    """The tokenizer of two files in the form of GPT-2's: vocab.json and merges.txt, or encoder.json and vocab.bpe

    Tokens stand there with the printable characters of BYTE_SYMBOLS for their bytes. The files say neither how words
    are cut nor which tokens are special. special_tokens: None for those that no text can give, being neither a byte nor
    made by a merge, which in GPT-2's is <|endoftext|>; ones that are not in the file get the next ids. Ids may have
    gaps. ValueError, with the file's name, for one that is damaged or does not fit the other.
    """
    vocab, merges = Path(vocab), Path(merges)
    try:
        ids = _read_vocab(json.loads(vocab.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{vocab}: {error}") from error
    try:
        pairs = list(_read_merges(merges.read_text(encoding="utf-8"), ids))
    except ValueError as error:
        raise ValueError(f"{merges}: {error}") from error
    tokens = {symbols: to_bytes(symbols) for pair in pairs for symbols in pair}
    made = {tokens[left] + tokens[right] for left, right in pairs}
    if special_tokens is None:
        special_tokens = [text for text in ids if len(text) > 1 and _bytes_of(text) not in made]
    special = set(special_tokens := list(special_tokens))
    by_id = {i: text.encode() if text in special else to_bytes(text) for text, i in ids.items()}
    return BPETokenizer.from_tokens(
        by_id, ((tokens[left], tokens[right]) for left, right in pairs), special_tokens, pattern
    )


def is_vocab(data) -> bool:
    """Whether parsed JSON is a vocab.json and no tokenizer.json."""
    return isinstance(data, dict) and bool(data) and all(type(i) is int for i in data.values())


def read_beside(path: Path) -> BPETokenizer:
    """The tokenizer of a vocab.json and of the merges.txt beside it, named alike: x-vocab.json has x-merges.txt

    A tokenizer_config.json beside them must be one of GPT-2: the files of other models look the same and are cut in
    other ways. added_tokens.json, {text: id}, has tokens that were added later.
    """
    merges = path.with_name(path.name.removesuffix("vocab.json") + "merges.txt")
    if not path.name.endswith("vocab.json") or not merges.is_file():
        raise ValueError(
            f"it is a vocabulary without merges, which are looked for in {merges.name} beside a vocab.json; with other "
            f"names, pass both files to minillama.tokenizers.read_vocab_and_merges"
        )
    config, added = (_read_object(path.with_name(name)) for name in ("tokenizer_config.json", "added_tokens.json"))
    kind = config.get("tokenizer_class", _CLASSES[0])
    if kind not in _CLASSES or config.get("add_prefix_space"):
        raise ValueError(
            f"tokenizer_config.json beside it is that of a {kind} with add_prefix_space "
            f"{bool(config.get('add_prefix_space'))}, supported: {_CLASSES[0]} without; use its tokenizer.json"
        )
    tokenizer = read_vocab_and_merges(path, merges)
    if not added:
        return tokenizer
    if not is_vocab(added):
        raise ValueError(f"added_tokens.json beside it is {reprlib.repr(added)}, expected texts and their ids")
    special = tokenizer.special_tokens | added
    return BPETokenizer(tokenizer.vocab, tokenizer.merges, special, GPT2_PATTERN, gaps=True)


def _read_vocab(data) -> dict[str, int]:
    if not is_vocab(data):
        raise ValueError(f"it is {reprlib.repr(data)}, expected an object of tokens and their ids")
    for text in data:
        check_text(text)
    by_id = {i: text for text, i in data.items()}
    for text, i in data.items():
        if by_id[i] != text:
            raise ValueError(f"the tokens {text!r} and {by_id[i]!r} have the same id, {i}")
    return data


def _read_merges(text: str, ids: dict[str, int]):
    """Pairs of symbols; the first line may be a comment with the version, the last one empty."""
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if (number == 1 and line.startswith("#version")) or not line:
            continue
        pair = tuple(line.split(" "))
        if len(pair) != 2 or not all(part in ids for part in pair):
            raise ValueError(f"line {number} is {line[:60]!r}, expected two tokens of the vocabulary")
        if pair[0] + pair[1] not in ids:
            raise ValueError(f"line {number} makes {pair[0] + pair[1]!r}, which is not in the vocabulary")
        yield pair


def _bytes_of(text: str) -> bytes | None:
    try:
        return to_bytes(text)
    except ValueError:  # a character that stands for no byte: only a special token has one
        return None


def _read_object(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} beside it is not complete JSON in UTF-8 ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} beside it holds a {type(data).__name__}, expected an object")
    return data
