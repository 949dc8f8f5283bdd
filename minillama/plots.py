"""Figures of a run. One palette (Okabe and Ito 2008, distinct to the colour-blind), axes with units."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg", force=False)
import matplotlib.pyplot as plt  # noqa: E402  (the backend must be chosen first)

from .files import replacing  # noqa: E402
from .train import read_metrics, read_state  # noqa: E402

COLOURS = {"blue": "#0072B2", "orange": "#E69F00", "green": "#009E73", "red": "#D55E00", "grey": "#666666"}


def loss_curve(folder, path=None):
    """Draw the losses of the run in folder, and the true entropy where it is known; returns the PNG's path."""
    rows, state = read_metrics(folder), read_state(folder)
    path = Path(path or Path(folder) / "loss.png")
    steps = [row["step"] for row in rows]
    figure, axes = plt.subplots(figsize=(7, 4), dpi=150, layout="constrained")
    axes.plot(
        steps,
        [row["train_loss"] for row in rows],
        color=COLOURS["blue"],
        lw=1.5,
        label="training (mean since the last point)",
    )
    axes.plot(
        steps,
        [row["val_loss"] for row in rows],
        color=COLOURS["red"],
        lw=1.5,
        marker="o",
        ms=4,
        label="validation, all of it",
    )
    if state["floor"] is not None:
        axes.axhline(state["floor"], color=COLOURS["grey"], ls="--", lw=1.2, label=f"true entropy {state['floor']:.3f}")
    axes.set(xlabel="step", ylabel="loss (nats a token)", yscale="log")
    axes.yaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
    right = axes.secondary_yaxis("right", functions=_scaled(1 / state["characters_per_token"]))
    right.set_ylabel("nats a character")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    with replacing(path) as new:
        figure.savefig(new, format="png")
    plt.close(figure)
    return path


def _scaled(factor):
    return lambda y: y * factor, lambda y: y / factor
