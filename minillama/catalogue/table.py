"""The model table: what is stated of each model beside what follows from its shapes. Nothing is allocated."""

import csv
import io
from collections.abc import Callable
from itertools import groupby
from math import floor, log10
from textwrap import fill
from typing import NamedTuple

from ..layers.heads import HEADS
from ..messages import unknown
from .presets import PRESETS
from .sizes import (
    cache_bytes_per_token,
    encoder_parameters,
    flops_per_token,
    parameter_count,
    training_flops_per_token,
    weight_bytes,
)
from .stated import CORRECTIONS, PEAK_FLOPS, REMARKS, STATED, concerns


class Row(NamedTuple):
    """One model; None where nothing is stated, or nothing can be computed without it. Bytes, tokens and FLOPs."""

    name: str
    model: str
    stated_parameters: float | None
    parameters: int
    embedding: int
    attention: int
    feed_forward: int
    norms_and_biases: int
    head: int
    context: int | None = None
    cache_bytes_per_token: int | None = None  # in bfloat16; 0: the model keeps no cache
    cache_saving: float | None = None  # multi-head attention would keep so many times as much
    forward_flops_weights: int | None = None  # a token, without attention's scores
    forward_flops: int | None = None  # a token that reads the whole context
    bytes_float32: int | None = None
    bytes_bfloat16: int | None = None
    bytes_int8: int | None = None
    tokens: float | None = None
    sequence: int | None = None
    peak_lr: float | None = None
    training_flops_6nd: float | None = None
    training_flops: float | None = None
    gpu_hours: float | None = None
    gpu: str | None = None
    mfu_6nd: float | None = None
    mfu: float | None = None
    source: str | None = None

    @property
    def deviation(self):
        """Of the parameters from the stated size, as a share of it."""
        return self.stated_parameters and self.parameters / self.stated_parameters - 1


def model_rows(names=()):
    """[Row] of the presets of these names (default: all models of which something is stated), in their order

    A model whose head has parameters of its own, BERT, is followed by a row of its encoder with a pooler, as which it
    is usually counted.
    """
    for name in names:
        if name not in PRESETS:
            raise ValueError(unknown("model", name, PRESETS))
    rows = []
    for name in dict.fromkeys(names) or STATED:
        rows.append(_row(name))
        head = HEADS[PRESETS[name].head].parameters(PRESETS[name])
        if name in STATED and head is not None:  # that of a pre-training
            rows.append(_encoder_row(name))
    return rows


def _row(name):
    config, stated = PRESETS[name], STATED.get(name)
    counts = parameter_count(config)
    total, weights = counts.pop("total"), weight_bytes(config)
    row = Row(
        name,
        stated.label if stated else name,
        stated and stated.size,
        total,
        *counts.values(),
        context=config.context,
        cache_bytes_per_token=cache_bytes_per_token(config, 2),
        cache_saving=config.heads / config.kv_heads if config.causal else None,
        forward_flops_weights=flops_per_token(config, 0),
        forward_flops=flops_per_token(config),
        **{f"bytes_{kind}": weights[kind] for kind in ("float32", "bfloat16", "int8")},
    )
    if stated is None:
        return row
    sequence = stated.sequence or config.rope_original_context or config.context
    row = row._replace(sequence=sequence, **_picked(stated, "tokens", "peak_lr", "gpu_hours", "gpu", "source"))
    if stated.tokens is None:
        return row
    six_n_d, exact = 6 * total * stated.tokens, training_flops_per_token(config, sequence) * stated.tokens
    row = row._replace(training_flops_6nd=six_n_d, training_flops=exact)
    if stated.gpu_hours is None:
        return row
    possible = 3600 * stated.gpu_hours * PEAK_FLOPS[stated.gpu]
    return row._replace(mfu_6nd=six_n_d / possible, mfu=exact / possible)


def _picked(stated, *names):
    return {name: getattr(stated, name) for name in names}


def _encoder_row(name):
    counts = encoder_parameters(PRESETS[name])
    total = counts.pop("total")
    return Row(name, f"{STATED[name].label}, pooler", STATED[name].size, total, *counts.values())


class Column(NamedTuple):
    """A column of the printed table: how it is headed, and the text of a row's cell."""

    title: str
    cell: Callable


def _column(title, field, show, scale=1):
    """The column of a field of Row, divided by scale; a dash where the row has none."""

    def cell(row):
        value = getattr(row, field)
        return "-" if value is None else show(value / scale if scale != 1 else value)

    return Column(title, cell)


def _whole(value):
    return f"{value:,.0f}"


def _digits(value):
    """Three significant digits, and all that stand before the point."""
    return f"{value:,.{max(0, 2 - floor(log10(value)))}f}" if value else "0"


def _short(value):
    """7000000000.0 -> 7B"""
    size, letter = next((size, letter) for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")) if value >= size)
    return f"{value / size:g}{letter}"


def _percent(value):
    return f"{100 * value:.1f} %"


def _signed_percent(value):
    return f"{100 * value:+.1f} %"


_MODEL = Column("model", lambda row: row.model)
SECTIONS = {  # the heading: its columns
    "Parameters, stated and from the shapes; the parts in millions": (
        _MODEL,
        _column("parameters", "parameters", _whole),
        _column("stated", "stated_parameters", _short),
        _column("deviation", "deviation", _signed_percent),
        _column("embedding", "embedding", _digits, 1e6),
        _column("attention", "attention", _digits, 1e6),
        _column("feed-forward", "feed_forward", _digits, 1e6),
        _column("norms, biases", "norms_and_biases", _digits, 1e6),
        _column("head", "head", _digits, 1e6),
    ),
    "Use: cache in bfloat16, arithmetic of one token forward, memory of the weights": (
        _MODEL,
        _column("context", "context", _whole),
        _column("cache a\ntoken, B", "cache_bytes_per_token", lambda value: _whole(value) if value else "none"),
        _column("saved by\ngrouping", "cache_saving", lambda value: f"{value:g} x"),
        Column("cache of the\ncontext, GB", lambda row: _digits(row.context * row.cache_bytes_per_token / 1e9)),
        _column("GFLOPs,\nweights", "forward_flops_weights", _digits, 1e9),
        _column("GFLOPs at\ncontext", "forward_flops", _digits, 1e9),
        _column("float32,\nGB", "bytes_float32", _digits, 1e9),
        _column("bfloat16,\nGB", "bytes_bfloat16", _digits, 1e9),
        _column("int8,\nGB", "bytes_int8", _digits, 1e9),
    ),
    "Training: tokens, learning rate and GPU-hours as stated": (
        _MODEL,
        _column("tokens", "tokens", _short),
        _column("sequence", "sequence", _whole),
        _column("peak\nLR", "peak_lr", lambda value: f"{value:.1e}".replace("e-0", "e-").replace(".0", "")),
        _column("FLOPs,\n6 N D", "training_flops_6nd", lambda value: f"{value:.2e}".replace("+", "")),
        _column("with\nattention", "training_flops", lambda value: f"{value:.2e}".replace("+", "")),
        _column("GPU-hours", "gpu_hours", _whole),
        _column("GPU", "gpu", str),
        _column("MFU,\n6 N D", "mfu_6nd", _percent),
        _column("MFU with\nattention", "mfu", _percent),
    ),
}
EXPLANATIONS = (
    "Parts: embedding is of tokens, positions and types; head is the output matrix where it is not the embedding "
    "matrix, and the matrix of a masked-LM head.",
    "Cache: keys and values, 2 layers x kv_heads x head width numbers a token. Memory is of the weights alone: "
    "matrices in the type that is named, int8 with a float32 scale for each 64 weights of a row, norms and biases in "
    "float32; 1 GB is 10^9 bytes.",
    "FLOPs: 2 for each weight that a token is multiplied with, and 4 x dim x layers for each position that it reads "
    "(arXiv 2001.08361, table 1). Training is three forward passes, 6 N D with N parameters and D tokens; with "
    "attention, a token of a causal model reads half of its sequence on average, and looking up an embedding is free.",
    "MFU: those FLOPs as a share of what the GPU-hours could have given (arXiv 2204.02311, appendix B), at the dense "
    "bfloat16 peak of NVIDIA's data sheets: A100 312 TFLOP/s, H100 SXM 989 TFLOP/s.",
)


def sections(rows):
    """[(heading, columns, rows)] of what there is to say of the rows."""
    use = [row for row in rows if row.context is not None]
    trained = [row for row in use if row.tokens is not None]
    shown = zip(SECTIONS.items(), (rows, use, trained), strict=True)
    return [(heading, columns, chosen) for (heading, columns), chosen in shown if chosen]


def notes(rows):
    """[(heading, [text])]: how the columns are computed, remarks on the rows, corrections of the card, and sources."""
    names = [row.name for row in rows]
    stated = [row for row in rows if row.source is not None]
    found = [
        ("How it is computed", list(EXPLANATIONS)),
        ("Remarks", [text for models, text in REMARKS if concerns(models, names)]),
        (
            "Where the reference card is imprecise",
            [
                f'"{entry.claim}": {entry.correction} ({entry.source}).'
                for entry in CORRECTIONS
                if concerns(entry.models, names)
            ],
        ),
        (
            "Sources of what is stated",
            [
                f"{', '.join(row.model for row in same)}: {source}."
                for source, same in groupby(stated, key=lambda row: row.source)
            ],
        ),
    ]
    return [(heading, texts) for heading, texts in found if texts]


def as_text(rows):
    """Columns for a terminal, and the notes."""
    parts = []
    for heading, columns, chosen in sections(rows):
        titles = [column.title.split("\n") for column in columns]
        height = max(map(len, titles))
        head = list(zip(*([""] * (height - len(title)) + title for title in titles), strict=True))
        body = [[column.cell(row) for column in columns] for row in chosen]
        widths = [max(map(len, cells)) for cells in zip(*head, *body, strict=True)]
        lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in head + body]
        lines.insert(height, "  ".join("-" * width for width in widths))
        parts.append("\n".join([heading, "", *(line.rstrip() for line in lines)]))
    for heading, texts in notes(rows):
        parts.append("\n".join([heading, "", *(fill(text, 118, initial_indent="- ", subsequent_indent="  ",
                                                   break_on_hyphens=False) for text in texts)]))  # fmt: skip
    return "\n\n".join(parts)


def as_markdown(rows):
    """Tables and lists for a page of Markdown."""
    parts = []
    for heading, columns, chosen in sections(rows):
        titles = [column.title.replace("\n", " ") for column in columns]
        lines = [titles, ["---", *["---:"] * (len(columns) - 1)]]
        lines += [[column.cell(row) for column in columns] for row in chosen]
        parts.append("\n".join([f"**{heading}**", "", *(f"| {' | '.join(line)} |" for line in lines)]))
    for heading, texts in notes(rows):
        parts.append("\n".join([f"**{heading}**", "", *(f"- {text}" for text in texts)]))
    return "\n\n".join(parts)


def as_csv(rows):
    """One line a row with every field of Row and the deviation, unrounded; nothing stands for what there is not."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*Row._fields, "deviation"])
    writer.writerows([*row, row.deviation] for row in rows)
    return out.getvalue().rstrip("\n")


STYLES = {"text": as_text, "markdown": as_markdown, "csv": as_csv}
