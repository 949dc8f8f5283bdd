"""The figures of an ablation: differences with their intervals, loss curves with bands, loss by position."""

from itertools import count
from math import isnan
from pathlib import Path

from ..analysis.plots import COLOURS
from ..files import replacing
from ..messages import needs
from .extrapolation import BINS, STRETCH, UNSCALED, stretched_by
from .jobs import CURVE_TOKENS
from .report import base_of, corpora_of, position_losses, runs_of, tables_of, times_of
from .statistics import CONFIDENCE, estimate
from .variants import CLOSE_UPS, STUDIES, close_ups

with needs("plots", "drawing a figure"):
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import (
        LogLocator,
        MaxNLocator,
        MultipleLocator,
        NullFormatter,
        PercentFormatter,
        StrMethodFormatter,
    )

VERDICTS = {  # colour and marker: told apart in grey print too
    "better": (COLOURS["blue"], "o"),
    "worse": (COLOURS["red"], "s"),
    "no difference shown": (COLOURS["grey"], "d"),
}
# Of the curves of a figure, in turn; a colour and its marker come back with another line style.
CURVES = list(zip([*(COLOURS[c] for c in ("blue", "red", "green", "orange", "grey")), "black"], "os^vDP", strict=True))
LINES = ("-", "--", "-.", ":")


def curve_styles():
    """(colour, line style, marker) of one curve after another, without end: the first 24 differ."""
    for i in count():
        colour, marker = CURVES[i % len(CURVES)]
        yield colour, LINES[(i + i // len(CURVES)) % len(LINES)], marker


def drawn(folder, studies=tuple(STUDIES)):
    """The paths that `draw` may write to for these studies, whatever the results are."""
    return [Path(folder) / f"ablation-{name}.png" for name in dict.fromkeys([*studies, *CLOSE_UPS])]


def draw(results, folder, studies=tuple(STUDIES)):
    """Write the figures of these studies that the results suffice for into folder; returns their paths."""
    corpora = corpora_of(results)
    figures = {}
    for study in dict.fromkeys(study for study, _ in tables_of(results, studies)):
        figures[f"ablation-{study}.png"] = forest(results, study)
    for name in close_ups(studies, base_of(results)):
        if _closely_seen(results, name):
            figures[f"ablation-{name}.png"] = close_up(results, name)
    if "extrapolation" in studies and any(position_losses(results, corpus) for corpus in corpora):
        figures["ablation-extrapolation.png"] = by_position(results)
    for name, figure in figures.items():
        with replacing(Path(folder) / name) as new:
            figure.savefig(new, format="png")
    return [Path(folder) / name for name in figures]


def forest(results, study):
    """The difference of each row of a study with its interval, a panel for each corpus."""
    tables = {corpus: rows for (name, corpus), rows in tables_of(results).items() if name == study}
    labels = list(dict.fromkeys(o.row.label for rows in tables.values() for o in rows if o.row.against is not None))
    figure = Figure(figsize=(4 + 3 * len(tables), 1.8 + 0.3 * len(labels)), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axes, (corpus, rows) in zip(panels, tables.items(), strict=True):
        axes.axvline(0, color="black", lw=1)
        for outcome in rows:
            if outcome.row.against is None:
                continue
            height, difference = labels.index(outcome.row.label), outcome.difference
            if outcome.diverged:  # above the interval, or in its place
                white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
                axes.text(
                    0.5, height - 0.35 if difference else height, outcome.diverged, ha="center", va="center",
                    fontsize=7, bbox=white, transform=axes.get_yaxis_transform(),
                )  # fmt: skip
            if difference is None:
                continue
            colour, marker = VERDICTS.get(outcome.verdict, VERDICTS["no difference shown"])
            if not isnan(difference.low):
                axes.plot([difference.low, difference.high], [height, height], color=colour, lw=1.8)
            axes.plot(difference.mean, height, marker, color=colour, ms=5)
        axes.set(
            title=corpus, xlabel=f"difference in validation loss\n(nats a {_unit(results, corpus)}; left is better)"
        )
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.4, -0.6))
    handles = [Line2D([], [], color=c, marker=m, ms=5, label=name) for name, (c, m) in VERDICTS.items()]
    figure.suptitle(f"{STUDIES[study].title}:\n{STUDIES[study].against}", fontsize=11)
    note = f"{CONFIDENCE:.0%} intervals of the mean over {_seeds(tables)}, paired"
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, title=note, title_fontsize=8
    )
    return figure


def _seeds(tables):
    counts = {outcome.difference.count for rows in tables.values() for outcome in rows if outcome.difference}
    least, most = min(counts), max(counts)
    return f"{most} seeds" if least == most else f"{least} to {most} seeds"


def close_up(results, name):
    """Two variants: their loss curves with bands, the difference, and the time of a step; a row for each corpus."""
    title, sides = CLOSE_UPS[name]
    corpora = _closely_seen(results, name)
    figure = Figure(figsize=(12, 3.2 * len(corpora) + 0.8), dpi=150, layout="constrained")
    rows = figure.subplots(len(corpora), 3, width_ratios=(4, 3, 2), squeeze=False)
    for (curves, differences, times), corpus in zip(rows, corpora, strict=True):
        unit, losses = _unit(results, corpus), []
        for i, ((label, changes), style) in enumerate(zip(sides.items(), curve_styles(), strict=False)):
            runs = _whole(results, changes, corpus)
            losses.append({seed: [loss for _, loss in run["curve"]] for seed, run in runs.items()})
            run = next(iter(runs.values()))
            shares = [step / run["steps"] for step, _ in run["curve"]]  # steps differ at equal compute
            _band(curves, shares, list(zip(*losses[i].values(), strict=True)), style, f"{label}, {len(runs)} seeds")
            measured = times_of(results, changes, corpus)
            if measured is not None:
                times.bar(i, 1e3 * measured["median"], 0.6, color=style[0], alpha=0.6, hatch="//" if i else "")
                times.plot(i, 1e3 * measured["min"], "_", color="black", ms=24)
        seeds = sorted(losses[0].keys() & losses[1].keys())
        if seeds:
            changes = [[losses[1][s][k] - losses[0][s][k] for s in seeds] for k in range(len(shares))]
            _band(differences, shares, changes, (COLOURS["grey"], "-", "d"), None)
        differences.axhline(0, color="black", lw=1)
        # No floor: the true entropy that is known is that of the whole split.
        curves.set(title=corpus, ylabel=f"validation loss (nats a {unit}),\nfirst {CURVE_TOKENS:,} {unit}s")
        _logarithmic(curves)
        curves.legend(frameon=False)
        differences.set(title=" less ".join(reversed(sides)), ylabel=f"difference (nats a {unit})")
        times.set(xticks=range(len(sides)), xticklabels=list(sides), ylabel="time of a step (ms)", xlim=(-0.6, 1.6))
        for axes in (curves, differences, times):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        for axes in (curves, differences):
            axes.set_xlabel("share of the training")
            axes.xaxis.set_major_formatter(PercentFormatter(1))
    figure.suptitle(title)
    figure.supxlabel(
        f"bands: {CONFIDENCE:.0%} intervals of the mean over seeds, of the difference paired by seed; "
        f"time: median, and the minimum as a line; one thread, the variants in turn",
        fontsize=8,
    )
    return figure


def _closely_seen(results, name):
    """The corpora on which both sides of a close-up have runs."""
    _, sides = CLOSE_UPS[name]
    return [c for c in corpora_of(results) if all(_whole(results, changes, c) for changes in sides.values())]


def _whole(results, changes, corpus):
    """{seed: result} of a variant's runs that did not diverge."""
    return {seed: run for seed, run in runs_of(results, changes, corpus).items() if run["loss"] is not None}


def by_position(results):
    """Loss against position up to 4 contexts: position schemes, and RoPE's scalings, a row for each corpus."""
    corpora = [corpus for corpus in corpora_of(results) if position_losses(results, corpus)]
    base = base_of(results)
    context = base.context
    centres = [(i + 0.5) * (context // BINS) for i in range(STRETCH * BINS)]
    figure = Figure(figsize=(11, 4.2 * len(corpora) + 0.6), dpi=150, layout="constrained")
    for (schemes, scalings), corpus in zip(figure.subplots(len(corpora), 2, squeeze=False), corpora, strict=True):
        found = position_losses(results, corpus)
        unscaled = {position: losses for (position, scaling), losses in found.items() if scaling == UNSCALED}
        scaled = {
            f"{scaling}, {stretched_by(scaling)}": losses
            for (position, scaling), losses in found.items()
            if position == base.position
        }
        for axes, chosen in ((schemes, unscaled), (scalings, scaled)):
            for (label, losses), style in zip(chosen.items(), curve_styles(), strict=False):
                values = list(zip(*losses.values(), strict=True))
                if len(values) < len(centres):
                    label += f" (ends at {context})"
                _band(axes, centres[: len(values)], values, style, label)
            axes.axvline(context, color="black", lw=1, ls=":")
            unit = _unit(results, corpus)
            axes.set(xlabel=f"position ({unit}s)", ylabel=f"validation loss (nats a {unit})")
            axes.set_xlim(0, STRETCH * context)
            axes.xaxis.set_major_locator(MultipleLocator(context))
            _logarithmic(axes)
            axes.grid(alpha=0.25)
            axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.17))
            axes.spines[["top", "right"]].set_visible(False)
        schemes.set_title(f"{corpus}: position schemes")
        scalings.set_title(f"{corpus}: {base.position} with scalings, not trained further")
    figure.suptitle(f"Reading on beyond the trained context of {context} (dotted line)")
    figure.supxlabel(
        f"means over seeds with {CONFIDENCE:.0%} intervals; every position is measured on nearly the same tokens",
        fontsize=8,
    )
    return figure


def _band(axes, places, values, style, label):
    """A line through the means of the values at each place, and a band of their intervals."""
    colour, line, marker = style
    estimates = [estimate(list(at)) for at in values]
    axes.plot(places, [e.mean for e in estimates], line, marker=marker, ms=3, color=colour, lw=1.3, label=label)
    axes.fill_between(places, [e.low for e in estimates], [e.high for e in estimates], color=colour, alpha=0.2, lw=0)


def _logarithmic(axes):
    """A logarithmic y axis with figures as they are written elsewhere."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _unit(results, corpus):
    return next(result["unit"] for result in results.values() if result["corpus"] == corpus)
