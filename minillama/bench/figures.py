"""The figures of a benchmark: bars of the training steps, the roofline of this machine, time against length."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from ..files import replacing
from ..plots import COLOURS

CONTESTANTS = {  # colour and hatching: told apart in grey print too
    "minillama": (COLOURS["blue"], ""),
    "minillama int8": (COLOURS["green"], ".."),
    "PyTorch": (COLOURS["orange"], "//"),
    "torch.compile": (COLOURS["red"], "xx"),
}
POINTS = {  # of the roofline: marker and colour of each part
    "training": ("o", COLOURS["blue"]),
    "prefill": ("s", COLOURS["red"]),
    "decoding": ("^", COLOURS["green"]),
    "attention": ("D", COLOURS["orange"]),
    "elementwise": ("v", COLOURS["grey"]),
}


def draw(rows, machine, folder):
    """Write the figures that the rows suffice for into folder; returns their paths."""
    rows = [row for row in rows if "unavailable" not in row]
    parts = {row["part"] for row in rows}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, function, needed in (
        ("bench.png", training_bars, {"training"}),
        ("roofline.png", roofline, {"training"}),
        ("attention-length.png", length_curves, {"length"}),
    ):
        if needed <= parts:
            figure = function(rows, machine)
            with replacing(folder / name) as new:
                figure.savefig(new, format="png")
            paths.append(folder / name)
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
        speed.bar_label(bars, [_milliseconds(row["min"]) for row in mine], padding=2, fontsize=8)
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
    figure.supxlabel(_described(machine) + "; above the bars: fastest step", fontsize=8)
    return figure


def roofline(rows, machine):
    """Every part's rate against its arithmetic intensity, under the two roofs that were measured

    Source: Williams, Waterman and Patterson 2009, Roofline (doi 10.1145/1498765.1498785).
    """
    limits = [row["limits"] for row in rows]
    matmul, read, update = (max(limit[key] for limit in limits) for key in ("matmul_gflops", "read_gb", "update_gb"))
    figure = Figure(figsize=(9, 6), dpi=150, layout="constrained")
    axes = figure.subplots()
    left, right = 0.2, 2000
    edge = matmul / read
    axes.plot([left, edge, right], [left * read, matmul, matmul], color="black", lw=1.8)
    axes.plot([left, matmul / update], [left * update, matmul], color="black", lw=1, ls="--")
    axes.annotate(f"SGEMM {matmul:.0f} GFLOP/s", (right, matmul), (0, 5), textcoords="offset points", ha="right")
    chosen = [
        row
        for row in rows
        if row["part"] in POINTS and row["contestant"].startswith("minillama") and row["threads"] == machine["threads"]
    ]
    for part, (marker, colour) in POINTS.items():
        mine = [row for row in chosen if row["part"] == part]
        x, y = [row["flops"] / row["bytes"] for row in mine], [row["flops"] / row["min"] / 1e9 for row in mine]
        axes.plot(x, y, marker, color=colour, ms=7, mec="white", label=part)
        for row, place in zip(mine, zip(x, y, strict=True), strict=True):
            axes.annotate(_point_name(row), place, (6, -3), textcoords="offset points", fontsize=7.5)
    axes.set(
        xscale="log", yscale="log", xlim=(left, right), xlabel="arithmetic intensity (FLOP per byte of memory traffic, at least)",
        ylabel="rate (GFLOP/s)", title="Roofline: what this machine can do, and what minillama does with it",
    )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.grid(alpha=0.25, which="major")
    axes.legend(frameon=False, loc="lower right")
    figure.supxlabel(_described(machine), fontsize=8)
    figure.draw_without_rendering()  # places the axes: the slope of the roof in the picture is known after it
    for rate, text, above in ((read, f"reading memory, {read:.0f} GB/s", False), (update, f"reading and writing, {update:.0f} GB/s", True)):
        start = axes.transData.transform((left, left * rate))
        angle = axes.transData.transform((10 * left, 10 * left * rate)) - start
        from math import atan2, degrees

        axes.annotate(
            text, (left * 1.3, left * 1.3 * rate), (-4, 6) if above else (8, -6), textcoords="offset points", fontsize=9,
            rotation=degrees(atan2(angle[1], angle[0])), rotation_mode="anchor", va="bottom" if above else "top",
        )  # fmt: skip
    return figure


def _point_name(row):
    if row["part"] == "decoding":
        return row["shape"] + (" int8" if row["contestant"].endswith("int8") else "")
    if row["part"] == "attention":
        return f"{row['shape']} {row['job']}"
    return row["job"] if row["part"] == "elementwise" else row["shape"]


def length_curves(rows, machine):
    """Time of attention and of all else in a training step against the length of the sequence."""
    rows = [row for row in rows if row["part"] == "length"]
    lengths = sorted({int(row["shape"].split()[1]) for row in rows})

    def times(contestant, *jobs):
        found = {(row["shape"], row["job"]): row["min"] for row in rows if row["contestant"] == contestant}
        return [1e3 * sum(found[f"T {T}", job] for job in jobs) for T in lengths]

    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    alone, step = figure.subplots(1, 2, sharey=True)
    present = [name for name in CONTESTANTS if any(row["contestant"] == name for row in rows)]
    for name in present:
        colour = CONTESTANTS[name][0]
        label = "F.scaled_dot_product_attention" if name == "PyTorch" else name
        marker = "o" if name == "minillama" else "s"
        alone.plot(lengths, times(name, "forward", "backward"), marker=marker, color=colour, label=label)
        step.plot(lengths, times(name, "step"), marker=marker, color=colour, label=f"{name}, whole step")
    return figure


def _ours(rows, row):
    return next(r for r in rows if r["contestant"] == "minillama" and r["shape"] == row["shape"])


def _milliseconds(seconds):
    return f"{1e3 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _described(machine):
    torch = f", PyTorch {machine['torch']}" if machine["torch"] else ""
    return f"{machine['processor']}, {machine['threads']} threads, NumPy {machine['numpy']}{torch}, {machine['date'][:10]}"
