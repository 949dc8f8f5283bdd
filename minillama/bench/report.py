"""The rows of a benchmark as tables of text, and as JSON."""

import json

from ..files import write_text
from .machine import MEGABYTES, SIZE


def _milliseconds(key):
    return lambda row, _: _digits(1e3 * row[key])


def _digits(value):
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _gflops(row, _):
    return _digits(row["flops"] / row["min"] / 1e9)


def _gigabytes(row, _):
    return _digits(row["bytes"] / row["median"] / 1e9)


def _share_of_matmul(row, _):
    limit = row["limits"]["matmul_one_gflops" if row["threads"] == 1 else "matmul_gflops"]
    return f"{row['flops'] / row['min'] / 1e9 / limit:.0%}"


def _share_of(limit):
    """Of a limit of memory. Medians on both sides: see limits.rates."""
    return lambda row, _: f"{row['bytes'] / row['median'] / 1e9 / row['limits'][limit]:.0%}"


def _tokens(key):
    return lambda row, _: f"{row['tokens'] / row[key]:,.0f}"


def _memory(row, _):
    return "-" if row["memory"] is None else _digits(row["memory"] / 1e6)


def _against(row, rows):
    """How many times as long as minillama's this contestant's step takes, at the minima."""
    ours = [r for r in rows if r["contestant"] == BASELINE.get(row["part"], "minillama") and _same(r, row)]
    return f"{row['min'] / ours[0]['min']:.2f}x" if ours and "min" in ours[0] else "-"


BASELINE = {"matmul": "BLAS"}


def _same(one, other):
    """Whether two rows are of the same work; the rungs of the matmul ladder are jobs of one contestant."""
    keys = ("part", "shape", "threads") if one["part"] == "matmul" else ("part", "shape", "threads", "job")
    return all(one[key] == other[key] for key in keys)


_TIMES = {"min ms": _milliseconds("min"), "median ms": _milliseconds("median")}
_COMPUTE = {"GFLOP/s": _gflops, "of SGEMM": _share_of_matmul}

# Each part: its title, the fields that name a row beside its shape, and its columns {heading: (row, rows) -> text}.
_TABLES = {
    "training": (
        "Training step: forward, backward, clipping, AdamW",
        ("contestant",),
        {
            **_TIMES,
            "relative": _against,
            "tokens/s": _tokens("median"),
            **_COMPUTE,
            "peak MB": _memory,
            "first s": lambda row, _: _digits(row["first"]),
        },
    ),
    "prefill": (
        "Prefill: reading a prompt",
        ("contestant",),
        {**_TIMES, "relative": _against, "tokens/s": _tokens("median"), **_COMPUTE},
    ),
    "decoding": (
        "Decoding: one sequence, sampled token by token",
        ("contestant",),
        {
            "best tokens/s": _tokens("min"),
            "median tokens/s": _tokens("median"),
            "relative": _against,
            "GB/s": _gigabytes,
            "of memory read": _share_of("read_gb"),
            "peak MB": _memory,
        },
    ),
    "attention": (
        "Attention alone, causal",
        ("threads", "job", "contestant"),
        {**_TIMES, "relative": _against, **_COMPUTE},
    ),
    "length": (
        "Length of one sequence, at the width of `long`",
        ("job", "contestant"),
        {**_TIMES, "relative": _against, **_COMPUTE, "peak MB": _memory},
    ),
    "matmul": (
        "Matrix product, rung by rung, against BLAS",
        ("threads", "job"),
        {**_TIMES, "relative": _against, "GFLOP/s": _gflops},
    ),
    "checkpoint": (
        "A checkpoint of 1.2 B random weights, bfloat16 in the file",
        ("contestant", "job"),
        {
            "min s": lambda row, _: _digits(row["min"]),
            "median s": lambda row, _: _digits(row["median"]),
            "tokens/s": lambda row, _: _digits(row["tokens"] / row["median"]) if row["tokens"] else "",
            "GB/s": lambda row, _: _gigabytes(row, _) if row["bytes"] else "",
            "of memory read": lambda row, _: _share_of("read_gb")(row, _) if row["bytes"] else "",
            "peak MB": _memory,
        },
    ),
    "elementwise": (
        "Operations that memory limits",
        ("job",),
        {
            **_TIMES,
            "GB/s": _gigabytes,
            "of memory update": _share_of("update_gb"),
        },
    ),
}

_LEGEND = (
    "relative: the time of the contestant's fastest step over that of minillama's (matmul: of BLAS's).",
    "of SGEMM, of memory: share of the limit that was measured in the same rounds with as many threads; SGEMM by the "
    "fastest, memory by the medians.",
    "peak MB: growth of the process over what it took before the model was made.",
    "first s: from a process without libraries and model to the end of the first step.",
)


def table(rows, machine):
    """Every part's rows under its title, and what the machine can do at all."""
    lines = [f"{machine['processor']}, {machine['system']}, {machine['threads']} threads, {machine['date']}"]
    lines.append(
        ", ".join(f"{name} {machine[name]}" for name in ("python", "numpy", "numba", "torch") if machine[name])
    )
    for part, (title, keys, columns) in _TABLES.items():
        chosen = [row for row in rows if row["part"] == part]
        if not chosen:
            continue
        heading = ["shape", *(key.replace("contestant", "") for key in keys), *columns]
        cells = []
        for row in chosen:
            names = [row["shape"], *(str(row[key]) for key in keys)]
            if "unavailable" in row:
                cells.append([row["shape"], f"{row['contestant']} not available: {row['unavailable']}"])
            else:
                cells.append([*names, *(column(row, chosen) for column in columns.values())])
        lines += ["", title, *_aligned([heading, *cells], 1 + len(keys))]
    limits = [row["limits"] for row in rows]
    matmul, read, update = (max(limit[key] for limit in limits) for key in ("matmul_gflops", "read_gb", "update_gb"))
    lines += [
        "",
        f"This machine at its best in the run: SGEMM {SIZE} square {matmul:.0f} GFLOP/s; reading {MEGABYTES} MB "
        f"{read:.1f} GB/s, updating them in place {update:.1f} GB/s.",
        *_LEGEND,
    ]
    return "\n".join(lines)


def _aligned(cells, names):
    """Lines in columns as wide as their widest cell: the first `names` columns to the left, numbers to the right."""
    complete = [row for row in cells if len(row) == len(cells[0])]
    widths = [max(len(row[i]) for row in complete) for i in range(len(cells[0]))]
    lines = []
    for row in cells:
        aligned = [
            cell.ljust(width) if i < names else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join(aligned).rstrip())
    return lines


def save(rows, machine, path):
    """Write everything that was measured as JSON."""
    write_text(path, json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
