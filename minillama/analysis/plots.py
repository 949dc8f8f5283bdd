"""Figures of a run. One palette (Okabe and Ito 2008, distinct to the colour-blind), axes with units."""

from pathlib import Path
from textwrap import wrap

import numpy as np

from ..files import replacing
from ..messages import needs
from ..training.run import LOG_EVERY, read_metrics, read_state

with needs("plots", "drawing a figure"):
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.font_manager import findfont, get_font
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

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
    return _save(figure, path)


def _columns(rows, name):
    return [row["step"] for row in rows], [row[name] for row in rows]


def _scaled(factor):
    return lambda y: y * factor, lambda y: y / factor


_PARTS = {  # of a model's parameters: field of catalogue.table.Row, colour, hatching (for grey print)
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
    return _save(figure, path)


def _family(row):
    return row.model.rsplit(" ", 1)[0]


def _stack_shares(axes, rows, places):
    left = [0.0] * len(rows)
    for label, (field, colour, hatch) in _PARTS.items():
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


# From white to nearly black through one hue: light is little and dark is much, in grey print and to the colour-blind.
SHARES = LinearSegmentedColormap.from_list("shares", ["white", "#9ecbe8", COLOURS["blue"], "#00304d"])
_UNREAD = "#e4e4e4"
_LABELS_AT_MOST = 40  # tokens along an axis; of a longer text every second, third ... one is named


def attention_maps(maps, tokens, path, title=""):
    """Draw the attention of the heads of a layer, maps (H, T, T), side by side; returns the PNG's path

    tokens: a label for each of the T positions. Row i of a map shows how position i shares its attention among the
    positions that it reads; what is exactly 0, as the future is in a causal model, is grey.
    """
    H, T, _ = maps.shape
    columns = next(columns for columns in range(1, H + 1) if columns**2 >= H and H % columns == 0)
    rows = H // columns
    side = min(max(1.5, 0.15 * T), 4.5)
    labels, step = _drawable(tokens), -(-T // _LABELS_AT_MOST)
    margin = 0.6 + 0.07 * max(map(len, labels))
    width = max(4.5, columns * side + margin + 0.9)
    title = _wrapped(title, width)
    size = width, rows * (side + 0.3) + margin + 0.3 + 0.17 * title.count("\n")
    figure = Figure(figsize=size, dpi=150, layout="compressed")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    colours = SHARES.with_extremes(bad=_UNREAD)
    for head, axes in enumerate(grid.flat):
        image = axes.imshow(np.ma.masked_equal(maps[head], 0), cmap=colours, norm=PowerNorm(0.5, 0, 1))
        axes.set_title(f"head {head}", fontsize=9)
        axes.set_xticks(range(0, T, step), labels[::step], rotation=90, fontsize=7, parse_math=False)
        axes.set_yticks(range(0, T, step), labels[::step], fontsize=7, parse_math=False)
        axes.tick_params(length=2)
        axes.spines[:].set_color("#bbbbbb")
    figure.supxlabel("token that is read", fontsize=9)
    figure.supylabel("token that reads", fontsize=9)
    bar = figure.colorbar(image, ax=grid, shrink=0.8, aspect=30, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1])
    bar.set_label("share of the attention\n(each row adds up to 1)", fontsize=9)  # the bar of one short row is short
    bar.ax.set_yticklabels([f"{100 * tick:g} %" for tick in bar.get_ticks()], fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10, parse_math=False)
    return _save(figure, path)


def stream_norms(norms, tokens, path, title=""):
    """Draw the length of the residual stream on its way through the model, norms (2 L + 1, T); returns the PNG's path

    A grey line for each position, the median of all, and the first position, which often goes a way of its own.
    """
    places = np.arange(len(norms)) / 2
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    faintness = max(0.15, min(0.6, 10 / len(tokens)))
    for i, line in enumerate(norms.T[1:]):
        label = "each other position" if i == 0 else None
        axes.plot(places, line, color=COLOURS["grey"], lw=0.7, alpha=faintness, label=label)
    first = f"first position: {_drawable(tokens)[0]}"
    axes.plot(places, norms[:, 0], color=COLOURS["red"], lw=1.5, ls="--", label=first)
    median = np.median(norms, axis=1)
    axes.plot(places, median, color=COLOURS["blue"], lw=2, label="median of all positions")
    axes.plot(places[::2], median[::2], color=COLOURS["blue"], ls="", marker="s", ms=5,
              label="embedding, then after each feed-forward")  # fmt: skip
    axes.plot(places[1::2], median[1::2], color=COLOURS["blue"], ls="", marker="o", ms=5, mfc="white",
              label="after each attention")  # fmt: skip
    axes.set(xlabel="layers that the stream has passed", ylabel="length of the stream |x|")
    if norms.min() > 0:
        axes.set(yscale="log", ylim=(norms.min() / 1.3, norms.max() * 1.3))  # so that a norm's rounding looks like none
        if norms.max() < 300 * norms.min():  # within two decades, powers of ten alone say too little
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if norms.max() > 3 * norms.min() else range(1, 10)))
            axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.set_title(_wrapped(title, 6), fontsize=10, parse_math=False)
    for text in axes.legend(frameon=False, fontsize=8).get_texts():
        text.set_parse_math(False)
    return _save(figure, path)


def logit_lens(best, probabilities, tokens, path, following=None, right=None, title=""):
    """Draw the likeliest token of the logit lens in each cell, by layer and position; returns the PNG's path

    best: labels (L + 1, T), from the embedding to the last layer, which stands at the top. probabilities (L + 1, T) of
    these tokens are the colours. tokens: labels of the T tokens that are read. following: of the tokens that the text
    goes on with, for a model that predicts them; right (L + 1, T): where they are the likeliest, which gets a frame.
    """
    rows, T = probabilities.shape
    longest = max(len(label) for labels in [*best, tokens] for label in labels)
    width = max(6, 1.6 + T * (0.2 + 0.065 * longest))
    title = _wrapped(title, width)
    size = width, 1.7 + 0.27 * rows + 0.17 * title.count("\n")
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(probabilities, cmap=SHARES, vmin=0, vmax=1, aspect="auto", origin="lower")
    for row, labels in enumerate(best):
        for place, label in enumerate(_drawable(labels)):
            colour = "white" if probabilities[row, place] > 0.55 else "black"
            axes.text(place, row, label, ha="center", va="center", fontsize=7, color=colour, parse_math=False)
            if right is not None and right[row, place]:
                axes.add_patch(Rectangle((place - 0.46, row - 0.42), 0.92, 0.84, fill=False, ec=COLOURS["red"], lw=1.5))
    axes.set_xticks(range(T), _drawable(tokens), fontsize=8, parse_math=False)
    step = -(-rows // 40)
    axes.set_yticks(range(0, rows, step), ["embedding", *(f"layer {i}" for i in range(rows - 1))][::step], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("token that is read", fontsize=9)
    if following is not None:
        top = axes.secondary_xaxis("top")
        top.set_xticks(range(T), _drawable(following), fontsize=8, parse_math=False)
        top.tick_params(length=0)
        top.spines[:].set_visible(False)
        top.set_xlabel("token that follows in the text (framed where it is the likeliest)", fontsize=9)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 0.25, 0.5, 0.75, 1], aspect=15)
    bar.ax.set_yticklabels(["0 %", "25 %", "50 %", "75 %", "100 %"], fontsize=8)
    bar.set_label("probability", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=10, parse_math=False)
    return _save(figure, path)


def _wrapped(title, width):
    """A title of size 10 in lines that a figure of this width, in inches, has room for."""
    return "\n".join(wrap(title, int(10 * width)))


def _drawable(labels):
    """The labels with what the font has no sign for as its code point."""
    font = get_font(findfont("DejaVu Sans"))
    return ["".join(c if font.get_char_index(ord(c)) else f"\\u{ord(c):04x}" for c in label) for label in labels]


def _save(figure, path):
    with replacing(path) as new:
        figure.savefig(new, format="png")
    return Path(path)
