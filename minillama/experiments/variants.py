"""What is compared: variants of a LLaMA, ordered as studies.

A variant is a few fields of the base Config with other values, `changes`; a study is a list of rows, each of a variant
and the one that it is compared with. What can follow from the tables of switches does: a new norm is a new row here.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ..catalogue.presets import GPT2
from ..config import BIASES, SWITCHES
from ..messages import unknown

BASE = "LLaMA"  # what a variant without changes is called


class Variant(NamedTuple):
    """A variant of a study, and the one that it is compared with; both as changes to the base."""

    label: str
    words: str  # what differs between the two
    changes: dict
    against: dict | None  # None: this is where the study starts


class Study(NamedTuple):
    """A row of STUDIES."""

    title: str
    rows: Callable  # base Config -> list of Variant
    against: str | None  # what the losses of the rows are compared with, in words; None: it has no table of losses


# The way from GPT-2 to LLaMA, in this order: the field that goes from GPT-2's value to LLaMA's, and what that means.
GPT_TO_LLAMA = {
    "bias": ("no biases", "biases are left out"),
    "norm": ("RMSNorm", "RMSNorm for LayerNorm: no mean is subtracted"),
    "position": ("RoPE", "queries and keys are rotated; no learned vector is added to the embedding"),
    "feed_forward": ("SwiGLU", "a gate and SiLU in the feed-forward for GELU"),
    "tied": ("untied", "the output matrix is its own, not the embedding; this is LLaMA"),
}

_REMARKS = {"rope_layout": "; a control, as the layouts are the same up to the order of coordinates"}

# Switches that have no row in the leave-one-out, and why.
NOT_COMPARED = {
    "mask": "another mask is another task, and its loss another quantity",
    "head": "belongs to that other task",
    "rope_scaling": "acts beyond the trained context only: see the study of extrapolation",
}


def config_of(changes, base):
    """The base with these changes; the feed-forward has the width that is usual for its kind."""
    return replace(base, **{"ffn": None, **changes})


def name_of(changes):
    """The name of a variant in results: its changes, in the order of the alphabet."""

    def written(value):
        return "+".join(value) if isinstance(value, tuple) else str(value)

    return ", ".join(f"{field}={written(value)}" for field, value in sorted(changes.items())) or BASE


def ladder(base):
    """From GPT to LLaMA, one switch at a time: each rung against the one before, and the last against the first."""
    rows, left = [Variant("GPT", "learned positions, LayerNorm, GELU, biases, tied output", GPT2, None)], GPT2
    for field, (label, words) in GPT_TO_LLAMA.items():
        before, left = left, {name: value for name, value in left.items() if name != field}
        rows.append(Variant(f"+ {label}", words, left, before))
    return [*rows, Variant("all of these", "LLaMA against GPT", {}, GPT2)]


def leave_one_out(base):
    """LLaMA, and LLaMA with one choice changed at a time."""
    rows = [Variant(BASE, "RoPE, RMSNorm before each layer, SwiGLU, no biases, untied output", {}, None)]
    for switch, table in SWITCHES.items():
        if switch not in NOT_COMPARED:
            usual = getattr(base, switch)
            rows += [
                Variant(
                    f"{_spaced(switch)}: {name}", f"{name} for {usual}{_REMARKS.get(switch, '')}", {switch: name}, {}
                )
                for name in table
                if name != usual
            ]
    rows += [Variant(label, words, changes, {}) for label, words, changes in _other_changes(base)]
    return rows


def _other_changes(base):
    """(label, words, changes) of the choices that are no tables."""
    yield "biases", "biases at " + ", ".join(BIASES), {"bias": BIASES}
    for kv_heads in sorted({1, base.heads // 2} - {base.heads, 0}):
        words = f"{kv_heads} key/value head{'s' if kv_heads > 1 else ''} for {base.heads} query heads"
        yield f"key/value heads: {kv_heads}", words, {"kv_heads": kv_heads}
    yield "query-key norm", "each head's queries and keys are normalised", {"qk_norm": True}
    yield "embedding norm", "the embeddings are normalised", {"embedding_norm": True}
    yield "tied", "the output matrix is the embedding", {"tied": True}


def extrapolation(base):
    """LLaMA, and LLaMA with another way to know positions: those whose loss beyond the context is measured."""
    return [row for row in leave_one_out(base) if reads_on(row.changes)]


def reads_on(changes):
    """Whether the loss of this variant is measured beyond its context."""
    return changes.keys() <= {"position"}


STUDIES = {
    "ladder": Study(
        "From GPT to LLaMA, one switch at a time", ladder, "each row against the one above, the last against the first"
    ),
    "leave-one-out": Study("LLaMA with one choice changed at a time", leave_one_out, f"each row against {BASE}"),
    "extrapolation": Study("Reading beyond the trained context", extrapolation, None),
}

# Two comparisons that are looked at closely, with loss curves and time: title, then label and changes of each side.
CLOSE_UPS = {
    "norm": ("RMSNorm and LayerNorm", {"RMSNorm": {}, "LayerNorm": {"norm": "layernorm"}}),
    "position": ("RoPE and learned positions", {"RoPE": {}, "learned": {"position": "learned"}}),
}


def variants(studies, base, only=None):
    """The changes of every variant of these studies, each once

    only: names of fields; the variants that change others are left out. LLaMA, which changes none, always stays.
    """
    for study in studies:
        if study not in STUDIES:
            raise ValueError(unknown("study", study, STUDIES))
    rows = [row for study in studies for row in STUDIES[study].rows(base)]
    found = list({name_of(row.changes): row.changes for row in rows}.values())
    return found if only is None else _with_changes_of(only, found, studies)


def _with_changes_of(fields, found, studies):
    """Those of the variants found that change these fields alone; ValueError for a field that none of them changes."""
    known = list(dict.fromkeys(field for changes in found for field in changes))
    kept = [changes for changes in found if changes.keys() <= set(fields)]
    for field in fields:
        if field not in known:
            raise ValueError(unknown("field that these studies change", field, known))
        if not any(field in changes for changes in kept):
            raise ValueError(
                f"no variant of {', '.join(studies)} changes {field} without other fields; name those too, or leave "
                f"{field} out: they change {', '.join(known)}"
            )
    return kept


def close_ups(studies, base):
    """The rows of CLOSE_UPS of which both variants belong to these studies."""
    names = {name_of(changes) for changes in variants(studies, base)}
    return {name: row for name, row in CLOSE_UPS.items() if names.issuperset(map(name_of, row[1].values()))}


def _spaced(name):
    return name.replace("_", " ").replace("feed forward", "feed-forward")
