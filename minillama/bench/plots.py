"""The figures of a benchmark: bars of the training steps, the roofline of this machine, time against length."""

from math import atan2, degrees
from pathlib import Path
from statistics import median

from ..analysis.plots import COLOURS
from ..files import replacing
from ..messages import needs
from .shapes import SHAPES

with needs("plots", "drawing a figure"):
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

CONTESTANTS = {  # colour and hatching: told apart in grey print too
    "minillama": (COLOURS["blue"], ""),
    "minillama int8": (COLOURS["green"], ".."),
    "PyTorch": (COLOURS["orange"], "//"),
    "torch.compile": (COLOURS["red"], "xx"),
}
_ROOFLINE_COLOURS = {
    "training": COLOURS["blue"],
    "prefill": COLOURS["red"],
    "decoding": COLOURS["green"],
    "decoding int8": "white",
    "attention": COLOURS["orange"],
    "elementwise": COLOURS["grey"],
}
_MARKERS = "oDs^vPXp"  # of the roofline: one for each model


def drawn(folder, parts):
    """The paths that `draw` writes to when these parts were measured."""
    return [Path(folder) / name for name, (_, needed) in _FIGURES.items() if needed <= set(parts)]


def draw(rows, machine, folder):
    """Write the figures that the rows suffice for into folder; returns their paths."""
    rows = [row for row in rows if "unavailable" not in row]
    paths = drawn(folder, {row["part"] for row in rows})
    for path in paths:
        figure = _FIGURES[path.name][0](rows, machine)
        with replacing(path) as new:
            figure.savefig(new, format="png")
    return paths


def training_bars(rows, machine):
    """Tokens a second of a training step, and the share of the machine's SGEMM rate, shape by shape."""
    rows = [row for row in rows if row["part"] == "training"]
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    contestants = [name for name in CONTESTANTS if any(row["contestant"] == name for row in rows)]
    width = 0.8 / len(contestants)
    figure = Figure(figsize=(9, 6.5), dpi=150, layout="constrained")
    speed, share = figure.subplots(2, sharex=True)
    for i, name in enumerate(contestants):
        colour, hatch = CONTESTANTS[name]
        style = {"width": 0.92 * width, "color": colour, "hatch": hatch, "edgecolor": "white", "label": name}
        mine = {row["shape"]: row for row in rows if row["contestant"] == name}
        places = [k + (i - (len(contestants) - 1) / 2) * width for k, shape in enumerate(shapes) if shape in mine]
        mine = [mine[shape] for shape in shapes if shape in mine]
        baselines = [_ours(rows, row) for row in mine]
        bars = speed.bar(places, [base["min"] / row["min"] for row, base in zip(mine, baselines, strict=True)], **style)
        speed.bar_label(bars, [f"{1e3 * row['min']:,.0f}" for row in mine], padding=2, fontsize=8)
        shares = [100 * row["flops"] / row["min"] / 1e9 / row["limits"]["matmul_gflops"] for row in mine]
        bars = share.bar(places, shares, **style)
        share.bar_label(bars, [f"{value:.0f}" for value in shares], padding=2, fontsize=8)
    speed.set(ylabel="speed (minillama = 1)", title="Training step: forward, backward, clipping, AdamW; float32")
    speed.legend(frameon=False, ncols=len(contestants), loc="upper right", bbox_to_anchor=(1, 1.0))
    speed.margins(y=0.3)
    share.set(ylabel="share of SGEMM (%)", ylim=(0, 110), xticks=range(len(shapes)), xticklabels=shapes)
    share.axhline(100, color=COLOURS["grey"], ls="--", lw=1)
    for axes in (speed, share):
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(_described(machine) + "; above the bars of speed: milliseconds of the fastest step", fontsize=8)
    return figure


def roofline(rows, machine):
    """Every part's rate against its arithmetic intensity, under the roofs that were measured; all of them medians

    Source: Williams, Waterman and Patterson 2009, Roofline (doi 10.1145/1498765.1498785).
    """
    limits = [row["limits"] for row in rows]
    matmul = max(limit["matmul_gflops"] for limit in limits)
    read, update = (median(limit[key] for limit in limits) for key in ("read_gb", "update_gb"))
    points = _points(rows, machine["threads"])
    shapes = dict(zip(dict.fromkeys(shape for part, shape in points if part != "elementwise"), _MARKERS, strict=False))
    figure = Figure(figsize=(9, 6.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    left, right = 0.25, 3000
    axes.plot([left, matmul / read, right], [left * read, matmul, matmul], color="black", lw=1.8)
    axes.plot([left, matmul / update], [left * update, matmul], color="black", lw=1, ls="--")
    axes.annotate(
        f"matrix product, {matmul:.0f} GFLOP/s", (right, matmul), (-4, 5), textcoords="offset points", ha="right"
    )
    for (part, shape), (flops, traffic, seconds) in points.items():
        x, y = flops / traffic, flops / seconds / 1e9
        axes.plot(x, y, shapes.get(shape, "."), color=_ROOFLINE_COLOURS[part], mec=_edge(part), ms=9)
        if part == "elementwise":
            axes.annotate(
                shape, (x, y), (6, -3), textcoords="offset points", fontsize=8,
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )  # fmt: skip
    kinds = [
        Line2D([], [], ls="", marker="s", color=colour, mec=_edge(part), label=part)
        for part, colour in _ROOFLINE_COLOURS.items()
        if any(part == found for found, _ in points)
    ]
    models = [Line2D([], [], ls="", marker=marker, color="black", label=shape) for shape, marker in shapes.items()]
    axes.legend(handles=kinds + models, frameon=False, loc="lower right", ncols=2)
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(None, 2 * matmul))
    axes.set(xlabel="arithmetic intensity (FLOP for each byte of memory traffic)", ylabel="rate (GFLOP/s)")
    axes.set_title("Roofline: what this machine can do, and what minillama makes of it")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(f"{_described(machine)}; traffic: what must move if everything is moved once", fontsize=8)
    for rate, text in ((read, f"reading, {read:.0f} GB/s"), (update, f"reading and writing, {update:.0f} GB/s")):
        x, y = 0.85 * matmul / rate, 0.95 * matmul  # a little above the line, along it
        axes.text(
            x, y, text, ha="right", fontsize=9, rotation=degrees(atan2(y, x)), rotation_mode="anchor",
            transform_rotates_text=True,
        )  # fmt: skip
    return figure


def _edge(part):
    """The colour around a marker: a hollow one has that of the filled one beside it."""
    return _ROOFLINE_COLOURS["decoding"] if part == "decoding int8" else "white"


def _points(rows, threads):
    """{(part, shape): (FLOPs, bytes, seconds)} of minillama; attention is its forward and backward together."""
    points = {}
    for row in rows:
        if row["part"] in _ROOFLINE_COLOURS and row["contestant"].startswith("minillama") and row["threads"] == threads:
            part = row["part"] + row["contestant"].removeprefix("minillama")
            shape = row["job"] if part == "elementwise" else row["shape"]
            before = points.get((part, shape), (0, 0, 0))
            new = row["flops"], row["bytes"], row["median"]
            points[part, shape] = tuple(a + b for a, b in zip(before, new, strict=True))
    return points


def length_curves(rows, machine):
    """Time of attention and of all else in a training step against the length of the sequence."""
    rows = [row for row in rows if row["part"] == "length"]
    lengths = sorted({int(row["shape"].split()[1]) for row in rows})

    def times(contestant, *jobs):
        found = {(row["shape"], row["job"]): row["min"] for row in rows if row["contestant"] == contestant}
        return [1e3 * sum(found[f"T {T}", job] for job in jobs) for T in lengths]

    present = [name for name in ("minillama", "PyTorch") if any(row["contestant"] == name for row in rows)]
    layers = SHAPES["long"].config.layers
    figure = Figure(figsize=(10, 5), dpi=150, layout="constrained")
    alone, step = figure.subplots(1, 2)
    for name in present:
        colour, marker = CONTESTANTS[name][0], {"minillama": "o", "PyTorch": "s"}[name]
        attention = times(name, "forward", "backward")
        label = "F.scaled_dot_product_attention" if name == "PyTorch" else name
        alone.plot(lengths, attention, marker=marker, color=colour, label=label)
        step.plot(lengths, times(name, "step"), marker=marker, color=colour, label=f"{name}: whole step")
    ours = times("minillama", "forward", "backward")
    _slope(alone, lengths, ours[-1], 2)
    ours = [layers * time for time in ours]
    rest = [whole - part for whole, part in zip(times("minillama", "step"), ours, strict=True)]
    step.plot(lengths, ours, marker="^", ls=":", color=COLOURS["green"], label=f"minillama: attention, {layers} layers")
    step.plot(lengths, rest, marker="v", ls=":", color=COLOURS["red"], label="minillama: all the rest")
    _slope(step, lengths, ours[-1], 2)
    _slope(step, lengths, rest[-1], 1)
    alone.set(title="Causal attention alone, forward and backward", ylabel="time (ms)")
    step.set(title="A training step of one sequence", ylabel="time (ms)")
    for axes in (alone, step):
        axes.set(xscale="log", yscale="log", xlabel="length of the sequence T (tokens)", xticks=lengths)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, loc="upper left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    config = SHAPES["long"].config
    shape = f"{config.heads} heads of width {config.head_dim}, {config.kv_heads} key/value heads"
    figure.supxlabel(f"{shape}; {_described(machine)}; fastest of each", fontsize=8)
    return figure


def _slope(axes, lengths, last, power):
    """A dashed line of the given power of T through the last point."""
    axes.plot(lengths, [last * (T / lengths[-1]) ** power for T in lengths], ls="--", lw=1, color=COLOURS["grey"])
    place = lengths[0], last * (lengths[0] / lengths[-1]) ** power
    text = f"grows as T{'²' if power == 2 else ''}"
    axes.annotate(text, place, (16, -2), textcoords="offset points", color=COLOURS["grey"], fontsize=9, va="center")


def _ours(rows, row):
    return next(r for r in rows if r["contestant"] == "minillama" and r["shape"] == row["shape"])


def _described(machine):
    torch = f", PyTorch {machine['torch']}" if machine["torch"] else ""
    return (
        f"{machine['processor']}, {machine['threads']} threads, NumPy {machine['numpy']}{torch}, {machine['date'][:10]}"
    )


_FIGURES = {  # file: the function that draws it, and the parts that it shows
    "bench.png": (training_bars, {"training"}),
    "roofline.png": (roofline, {"training"}),
    "attention-length.png": (length_curves, {"length"}),
}
