"""Figures: nothing that is drawn lies outside of the canvas, for texts of any length and titles too long for a line."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from minillama.analysis import plots
from minillama.catalogue.table import model_rows

LONG = "attention of layer 11, " + "which has a long title, " * 6


@pytest.fixture
def outside(monkeypatch):
    """outside(function, *arguments): by how many inches what the function draws goes beyond its figure, at most."""
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))

    def measure(function, *arguments):
        function(*arguments)
        figure = figures.pop()
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        box, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
        return max(-box.x0, -box.y0, box.x1 - width, box.y1 - height)

    return measure


def shares(*shape):
    maps = np.tril(np.random.default_rng(0).random(shape)) + np.eye(shape[-1])
    return maps / maps.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("label", ["a", "M" * 13])
@pytest.mark.parametrize("title", ["", "attention of layer 0", LONG], ids=["none", "short", "long"])
@pytest.mark.parametrize("T, H", [(1, 1), (1, 2), (2, 1), (2, 3), (3, 4), (9, 2)])
def test_attention_maps(T, H, title, label, outside):
    assert outside(plots.attention_maps, shares(H, T, T), [label] * T, "x.png", title) < 0.01


@pytest.mark.parametrize("label", ["a", "M" * 13])
@pytest.mark.parametrize("T, L, title", [(1, 1, "short"), (2, 2, LONG), (3, 12, ""), (9, 1, LONG)])
def test_lens_and_norms(T, L, title, label, outside):
    labels, rng = [label] * T, np.random.default_rng(0)
    probabilities = rng.random((L + 1, T))
    lens = [labels] * (L + 1), probabilities, labels, "x.png", labels, probabilities > 0.5, title
    assert outside(plots.logit_lens, *lens) < 0.01
    assert outside(plots.stream_norms, rng.random((2 * L + 1, T)) + 0.1, labels, "x.png", title) < 0.01


@pytest.mark.parametrize("names", [(), ("llama-7b",), ("bert-base",), ("tiny-llama", "llama-3.1-405b")], ids=str)
def test_the_model_table(names, outside):
    assert outside(plots.parameters_and_cache, model_rows(names), "x.png") < 0.01


@pytest.mark.parametrize("unit", ["token", "character"])
@pytest.mark.parametrize("losses", [[3.0], [1e-4, 2e-4], [5.0, 3.0, 2.9999]])
def test_a_loss_curve(losses, unit, outside, monkeypatch):
    rows = [{"step": i, "train_loss": loss, "val_loss": loss * 1.01} for i, loss in enumerate(losses, start=1)]
    monkeypatch.setattr(plots, "read_metrics", lambda folder: rows)
    state = {"floor": 0.3, "unit": unit, "characters_per_token": 3.9}
    monkeypatch.setattr(plots, "read_state", lambda folder: state)
    assert outside(plots.loss_curve, "run") < 0.01
