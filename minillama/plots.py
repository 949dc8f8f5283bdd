"""Figures of a run. One palette (Okabe and Ito 2008, distinct to the colour-blind), axes with units."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from .files import replacing
from .train import LOG_EVERY, read_metrics, read_state

COLOURS = {"blue": "#0072B2", "orange": "#E69F00", "green": "#009E73", "red": "#D55E00", "grey": "#666666"}


def loss_curve(folder, path=None):
    """Draw the losses of the run in folder, and the true entropy where it is known; returns the PNG's path."""
    rows, state = read_metrics(folder), read_state(folder)
    path = Path(path or Path(folder) / "loss.png")
    evaluated = [row for row in rows if row["val_loss"] is not None]
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")  # without pyplot: no window, no global state
    axes = figure.subplots()
    axes.plot(*_columns(rows, "train_loss"), color=COLOURS["blue"], lw=1, label=f"training, mean of {LOG_EVERY} steps")
    axes.plot(*_columns(evaluated, "val_loss"), color=COLOURS["red"], lw=1.5, marker="o", ms=4, label="validation")
    if state["floor"] is not None:
        label = f"true entropy of the source, {state['floor']:.3f}"
        axes.axhline(state["floor"], color=COLOURS["grey"], ls="--", lw=1.2, label=label)
    axes.set(xlabel="step", ylabel=f"loss (nats a {state['unit']})", yscale="log")
    per_token = [axes]
    if state["unit"] == "token" and state["characters_per_token"] > 1.001:
        right = axes.secondary_yaxis("right", functions=_scaled(1 / state["characters_per_token"]))
        right.set_ylabel("loss (nats a character)")
        per_token.append(right)
    for scale in per_token:
        scale.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        scale.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        scale.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    with replacing(path) as new:
        figure.savefig(new, format="png")
    return path


def _columns(rows, name):
    return [row["step"] for row in rows], [row[name] for row in rows]


def _scaled(factor):
    return lambda y: y * factor, lambda y: y / factor


PARTS = {  # of a model's parameters: field of minillama.table.Row, colour, hatching (told apart in grey print too)
    "embedding": ("embedding", COLOURS["blue"], ""),
    "attention": ("attention", COLOURS["orange"], "///"),
    "feed-forward": ("feed_forward", COLOURS["green"], ""),
    "output matrix or head": ("head", COLOURS["red"], "xxx"),
    "norms and biases": ("norms_and_biases", "black", ""),
}


def parameters_and_cache(rows, path):
    """Draw where the parameters of each row of the model table are, and its cache; returns the PNG's path

    Left: the share of each part, and the sum in millions. Right: the cache of a token in bfloat16, and what multi-head
    attention would keep.
    """
    path = Path(path)
    rows = [row for row in rows if row.context is not None]
    places, place = [], 0.0
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None:
            place += 1.0 if _family(before) == _family(row) else 1.6
        places.append(place)
    figure = Figure(figsize=(10, 1.9 + 0.25 * (place + 1)), dpi=150, layout="constrained")
    shares, cache = figure.subplots(1, 2, sharey=True, width_ratios=(1.3, 1))
    _stack_shares(shares, rows, places)
    _compare_caches(cache, rows, places)
    shares.set_yticks(places, [row.model for row in rows])
    shares.set_ylim(place + 0.7, -0.7)
    for axes in (shares, cache):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    with replacing(path) as new:
        figure.savefig(new, format="png")
    return path


def _family(row):
    return row.model.rsplit(" ", 1)[0]


def _stack_shares(axes, rows, places):
    left = [0.0] * len(rows)
    for label, (field, colour, hatch) in PARTS.items():
        widths = [100 * getattr(row, field) / row.parameters for row in rows]
        label = label if max(widths) > 0.5 else f"{label}, below 0.5 %"
        axes.barh(places, widths, 0.8, left, color=colour, hatch=hatch, edgecolor="white", lw=0, label=label)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, row in zip(places, rows, strict=True):
        axes.text(119, place, f"{row.parameters / 1e6:,.{0 if row.parameters >= 1e7 else 2}f}",
                  va="center", ha="right", fontsize=8)  # fmt: skip
    axes.text(119, -0.8, "millions", va="bottom", ha="right", fontsize=8)
    axes.set(xlabel="share of the parameters (%)", xlim=(0, 120), xticks=range(0, 101, 20))
    axes.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1.02), fontsize=8, columnspacing=1)


def _compare_caches(axes, rows, places):
    """Points and not bars, as the length of a bar says nothing on a logarithmic axis."""
    shown = [(place, row, row.cache_bytes_per_token / 1e3) for place, row in zip(places, rows, strict=True)]
    kept = [(place, row, size) for place, row, size in shown if size]
    if kept:
        grouped = [(place, size, size * row.cache_saving) for place, row, size in kept if row.cache_saving > 1]
        for place, size, full in grouped:
            axes.plot([size, full], [place, place], color=COLOURS["grey"], lw=1, zorder=1)
        if grouped:
            axes.scatter([full for *_, full in grouped], [place for place, *_ in grouped], s=36, facecolor="white",
                         edgecolor=COLOURS["red"], label="with keys and values for every query head")  # fmt: skip
        axes.scatter([size for *_, size in kept], [place for place, *_ in kept], s=36, color=COLOURS["blue"],
                     label="kept, in bfloat16")  # fmt: skip
        least, most = min(size for *_, size in kept), max([full for *_, full in grouped] + [size for *_, size in kept])
        low = least / 2.5
        ticks = [
            first * 10**power for power in range(-3, 9) for first in (1, 3) if low < first * 10**power < 1.5 * most
        ]
        axes.set(xscale="log", xlim=(low, low * (most / low) ** (1 / 0.72)))  # room on the right for the figures
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="x", labelsize=9)
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1.02), fontsize=8)
    for place, row, size in shown:
        saving = f"{row.cache_saving:g} x less" if size and row.cache_saving > 1 else ""
        text = f"{size:,.{0 if size >= 100 else 1}f}" if size else "none: it reads both ways"
        axes.text(0.86, place, text, va="center", ha="right", fontsize=8, transform=axes.get_yaxis_transform())
        axes.text(0.88, place, saving, va="center", fontsize=8, transform=axes.get_yaxis_transform())
    axes.text(0.86, -0.8, "kB", va="bottom", ha="right", fontsize=8, transform=axes.get_yaxis_transform())
    axes.set_xlabel("cache of a token (kB)")
    axes.grid(axis="x", alpha=0.3)
