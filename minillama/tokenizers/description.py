"""The parts of a tokenizer.json: what the readers and the writers of each kind of tokenizer share."""

import reprlib
from collections.abc import Mapping

from .base import check_text


def refusal(reason: str) -> ValueError:
    remedy = "use a tokenizer saved by minillama, or open this one with the tokenizers library"
    return ValueError(f"{reason}; {remedy}")


_TEXT_ALONE = [{"Sequence": {"id": "A", "type_id": 0}}]


def split_step(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def pipeline(special_tokens: Mapping[str, int], pre_tokenizer: dict, decoder: dict, model: dict) -> dict:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    by_id = sorted(special_tokens.items(), key=lambda item: item[1])
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **flags} for text, i in by_id],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def field(data, path: str, kind: type):
    """The value at a dotted path of parsed JSON; ValueError unless it is there and of this kind."""
    value = data
    for key in path.split("."):
        if isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            value = value.get(key) if isinstance(value, dict) else None
    if type(value) is not kind:
        raise refusal(f"{path} is {reprlib.repr(value)}, expected: {kind.__name__}")
    return value


def read_vocab(data: dict) -> tuple[dict[str, int], dict[str, int]]:
    """The ordinary and the special tokens of a tokenizer.json, each text -> id."""
    added = field(data, "added_tokens", list)
    special_tokens = {field(token, "content", str): field(token, "id", int) for token in added}
    vocab = dict(field(data, "model.vocab", dict))
    for text, i in vocab.items():
        check_text(text)
        if type(i) is not int or special_tokens.get(text, i) != i:
            expected = special_tokens.get(text, "an int")
            raise refusal(f"model.vocab gives {text!r} the id {reprlib.repr(i)}, expected {expected}")
    return {text: i for text, i in vocab.items() if text not in special_tokens}, special_tokens


def read_merge(merge, vocab: Mapping[str, int]) -> tuple[int, int]:
    """The ids of a merge, which is ["a", "b"] or, in older files, "a b"."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if isinstance(parts, list) and len(parts) == 2 and all(type(p) is str and p in vocab for p in parts):
        return vocab[parts[0]], vocab[parts[1]]
    raise refusal(f"model.merges has {reprlib.repr(merge)}, expected two ordinary tokens of model.vocab")


def check_settings(found, expected, path: str = "") -> None:
    """Compare a file with what its tokenizer writes: a setting that differs is one it would not follow.

    A setting that is missing, null, false or empty is off.
    """
    if path in (".model.vocab", ".model.merges"):
        return  # read before, in whichever of their forms
    if path == ".post_processor" and isinstance(found, dict) and found.get("single") == _TEXT_ALONE:
        return  # transformers writes this template, which adds nothing to a text
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            check_settings(found.get(key), expected.get(key), f"{path}.{key}")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            check_settings(one, other, f"{path}.{i}")
    elif (found or None) != (expected or None):
        raise refusal(f"{path[1:]} is {reprlib.repr(found)}, supported: {reprlib.repr(expected)}")
