"""The parts of a tokenizer.json: what the readers and the writers of each kind of tokenizer share.

A reader follows the settings that it knows, and then compares the whole file with what its tokenizer would write: a
setting that differs is one that it would not follow, and is refused.
"""

import reprlib
from collections.abc import Iterable, Mapping, Sequence

from .added import AddedToken
from .base import Tokenizer, check_text


def refusal(reason: str) -> ValueError:
    remedy = "use a tokenizer saved by minillama, or open this one with the tokenizers library"
    return ValueError(f"{reason}; {remedy}")


def pipeline(
    tokenizer: Tokenizer,
    model: dict,
    decoder: dict,
    pre_tokenizer: dict | None = None,
    normalizer: dict | None = None,
) -> dict:
    """The contents of tokenizer.json: what is done with a text, in the order of the library's pipeline."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token.id,
                "content": token.text,
                "single_word": False,
                "lstrip": token.lstrip,
                "rstrip": token.rstrip,
                "normalized": token.normalized,
                "special": token.special,
            }
            for token in tokenizer.added_tokens
        ],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _template(tokenizer, *tokenizer.template) if any(tokenizer.template) else None,
        "decoder": decoder,
        "model": model,
    }


def split_step(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


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


def step_settings(step, path: str, kinds: Mapping[str, Mapping[str, object]]) -> dict:
    """The settings of a step of the pipeline, with its type: those of kinds[type], with their defaults.

    ValueError for a step of another type, a setting of another type than its default's, and one that is not listed
    but switched on.
    """
    kind = step.get("type") if isinstance(step, dict) else None
    if type(kind) is not str or kind not in kinds:
        raise refusal(f"{path} is {reprlib.repr(step)}, supported: {', '.join(kinds)}")
    settings = {"type": kind, **kinds[kind]}
    for name, value in step.items():
        if name not in settings:
            if value:
                raise refusal(f"{path}.{name} is {reprlib.repr(value)}, supported: None")
        elif type(value) is type(settings[name]):
            settings[name] = value
        elif value is not None:
            raise refusal(f"{path}.{name} is {reprlib.repr(value)}, expected: {type(settings[name]).__name__}")
    return settings


def sequence(step, path: str, name: str) -> list[tuple[str, object]]:
    """The steps of a Sequence, which lists them under this name, each with its path; or the one step alone."""
    if step is None:
        return []
    if isinstance(step, dict) and step.get("type") == "Sequence":
        steps = step_settings(step, path, {"Sequence": {name: []}})[name]
        return [(f"{path}.{name}.{i}", inner) for i, inner in enumerate(steps)]
    return [(path, step)]


def read_added_tokens(data: dict) -> list[AddedToken]:
    flags = {"special": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokens = []
    for row in field(data, "added_tokens", list):
        found = {name: row.get(name) or False for name in flags} if isinstance(row, dict) else flags
        token = AddedToken(field(row, "content", str), field(row, "id", int), **found)
        for name, value in found.items():
            if type(value) is not bool:
                raise refusal(f"{name} of the added token {token.text!r} is {reprlib.repr(value)}, expected: bool")
        tokens.append(token)
    return tokens


def read_vocab(data: dict, added: Iterable[AddedToken]) -> dict[str, int]:
    """The ordinary tokens of a tokenizer.json, text -> id: those of model.vocab that are not added tokens."""
    added_ids = {token.text: token.id for token in added}
    vocab = field(data, "model.vocab", dict)
    for text, i in vocab.items():
        check_text(text)
        if type(i) is not int or added_ids.get(text, i) != i:
            expected = added_ids.get(text, "an int")
            raise refusal(f"model.vocab gives {text!r} the id {reprlib.repr(i)}, expected {expected}")
    return {text: i for text, i in vocab.items() if text not in added_ids}


def read_merge(merge, vocab: Mapping[str, int]) -> tuple[int, int]:
    """The ids of a merge, which is ["a", "b"] or, in older files, "a b"."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if isinstance(parts, list) and len(parts) == 2 and all(type(p) is str and p in vocab for p in parts):
        return vocab[parts[0]], vocab[parts[1]]
    raise refusal(f"model.merges has {reprlib.repr(merge)}, expected two ordinary tokens of model.vocab")


_OFFSETS_ONLY = {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}  # they change no id


def read_post_processor(data: dict, added: Iterable[AddedToken]) -> tuple[str | None, str | None]:
    """The special tokens that the file's post_processor puts before and after a text, at most one of each."""
    ids = {token.text: token.id for token in added if token.special}
    kinds: dict[str, Mapping[str, object]] = {
        "ByteLevel": _OFFSETS_ONLY,
        "TemplateProcessing": {"single": [], "pair": [], "special_tokens": {}},
        "BertProcessing": {"cls": [], "sep": []},
    }
    before: list[str] = []
    after: list[str] = []
    for path, step in sequence(data.get("post_processor"), "post_processor", "processors"):
        settings = step_settings(step, path, kinds)
        if settings["type"] == "TemplateProcessing":
            side, texts = before, 0
            for item in settings["single"]:
                if isinstance(item, dict) and item.keys() == {"Sequence"}:
                    side, texts = after, texts + 1
                else:
                    name = field(item, "SpecialToken.id", str)
                    stands_for = settings["special_tokens"].get(name)
                    if name not in ids or not isinstance(stands_for, dict) or stands_for.get("ids") != [ids[name]]:
                        raise refusal(f"{path}.single has {name!r}, which stands for no special token of the file")
                    side.append(name)
            if texts != 1:
                raise refusal(f"{path}.single has a text {texts} times, supported: once")
        elif settings["type"] == "BertProcessing":
            for side, name in (before, "cls"), (after, "sep"):
                pair = settings[name]
                if len(pair) != 2 or type(pair[0]) is not str or ids.get(pair[0]) != pair[1]:
                    raise refusal(f"{path}.{name} is {reprlib.repr(pair)}, expected a special token and its id")
                side.append(pair[0])
    if len(before) > 1 or len(after) > 1:
        raise refusal(f"post_processor puts {before} before a text and {after} after it, supported: one token each")
    return before[0] if before else None, after[0] if after else None


def _template(tokenizer: Tokenizer, begin: str | None, end: str | None) -> dict:
    """A post_processor that puts the token `begin` before a text and `end` after it, where they are given."""

    def around(text: str, type_id: int, begin: str | None) -> list[dict]:
        special = [[{"SpecialToken": {"id": name, "type_id": type_id}}] if name else [] for name in (begin, end)]
        return [*special[0], {"Sequence": {"id": text, "type_id": type_id}}, *special[1]]

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0, begin),
        "pair": around("A", 0, begin) + around("B", 1, None if end else begin),  # [CLS] A [SEP] B [SEP]; <s> A <s> B
        "special_tokens": {
            name: {"id": name, "ids": [tokenizer.special_tokens[name]], "tokens": [name]}
            for name in (begin, end)
            if name
        },
    }


def check_settings(found, expected, read: Sequence[str] = (), path: str = "") -> None:
    """Compare a file with what its tokenizer writes: a setting that differs is one it would not follow.

    A setting that is missing, null, false or empty is off. read: paths of parts that may differ, for they have been
    read before, in whichever of their forms, as the vocabulary has.
    """
    if path in (".model.vocab", ".model.merges", ".post_processor", *read):
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            check_settings(found.get(key), expected.get(key), read, f"{path}.{key}")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            check_settings(one, other, read, f"{path}.{i}")
    elif (found or None) != (expected or None):
        raise refusal(f"{path[1:]} is {reprlib.repr(found)}, supported: {reprlib.repr(expected)}")
