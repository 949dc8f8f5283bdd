"""Figures of a run. One palette (Okabe and Ito 2008, distinct to the colour-blind), axes with units."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

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
    axes.set(xlabel="step", ylabel="loss (nats a token)", yscale="log")
    per_token = [axes]
    if state["characters_per_token"] > 1.001:
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
