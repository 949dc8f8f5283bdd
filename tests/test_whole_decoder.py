"""Lesson 08's tools: the reference decoder and its mistakes, the reader's functions, the picture."""

import json

import nbformat
import numpy as np
import pytest

from minillama import Config, Model
from minillama.gradcheck import relative_error
from minillama.lessons import EXERCISES, check, decoder_flow, gradient_mistakes, reference_llama
from minillama.lessons.lesson_08 import BACKWARD_MISTAKES, FORWARD_MISTAKES
from minillama.lessons.notebooks import FOLDER
from minillama.lessons.own_functions import WORKING, fetch
from minillama.lessons.put_in import Trained

SHAPE = {"dim": 16, "layers": 3, "heads": 4, "ffn": 5, "context": 16, "norm_eps": 0.1, "rope_theta": 50.0}


def tiny(**changes):
    """A model, its weights as a dict, ids and targets."""
    model = Model(Config(7, **SHAPE, **changes), seed=1, dtype=np.float64, threads=1, init_std=0.5)
    rng = np.random.default_rng(2)
    model.parameters.vectors[:] = rng.uniform(0.5, 2, model.parameters.vectors.shape)
    return model, dict(model.parameters), *rng.integers(7, size=(2, 2, 6))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layout", ["rotate_half", "interleaved"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_reference_is_the_library(tied, layout, kv_heads):
    model, p, ids, targets = tiny(tied=tied, rope_layout=layout, kv_heads=kv_heads)
    np.testing.assert_allclose(reference_llama.logits(p, ids, model.config), model.logits(ids), atol=1e-12)
    expected, gradients = model.loss_and_gradients(ids, targets)
    loss, found = reference_llama.gradients(p, ids, targets, model.config)
    assert loss == pytest.approx(expected, rel=1e-12)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(found[name], gradient, atol=1e-10)


def test_every_mistake_changes_something():
    cases = [tiny(tied=tied, kv_heads=2) for tied in (False, True)]
    for mistake in FORWARD_MISTAKES:
        wrong = [reference_llama.logits(p, ids, model.config, mistake) for model, p, ids, _ in cases]
        assert any(
            relative_error(z, model.logits(ids)) > 1e-4 for z, (model, _, ids, _) in zip(wrong, cases, strict=True)
        )
    for mistake in BACKWARD_MISTAKES:
        errors = [
            relative_error(found, right[name])
            for model, p, ids, targets in cases
            for right in [reference_llama.gradients(p, ids, targets, model.config)[1]]
            for name, found in reference_llama.gradients(p, ids, targets, model.config, mistake)[1].items()
        ]
        assert max(errors) > 1e-4, mistake


@pytest.mark.parametrize("name", WORKING)
def test_the_functions_that_take_the_place_of_the_readers_pass(name):
    def working(*arguments):
        return WORKING[name](*arguments)

    working.__name__ = name
    for seed in range(3):
        assert check(working, seed).passed


def notebook(folder, lesson, name, source):
    """A notebook of this lesson whose exercise cell is source."""
    cells = [
        nbformat.v4.new_code_cell("import numpy as np"),
        nbformat.v4.new_code_cell(f"{source}\n\n\ncheck({name})", metadata={"tags": ["exercise"]}),
    ]
    path = folder / f"{lesson}-lesson.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


ANSWERS = {  # what stands in the cell of shared_head_gradient -> what is said of it
    "def shared_head_gradient(dk, kv_heads):\n    B, T, H, D = dk.shape\n"
    "    return np.sum(dk.reshape(B, T, kv_heads, -1, D), axis=3)": "yours: passed",
    "def shared_head_gradient(dk, kv_heads): ...": "a working one: not started",
    "def shared_head_gradient(dk, kv_heads):\n    return dk[:, :, :kv_heads]": "a working one: wrong. ",
    "def shared_head_gradient(dk, kv_heads):\n    return helper(dk)": "stopped with NameError",
    "1 / 0\ndef shared_head_gradient(dk, kv_heads): ...": "the cell in 06-lesson.ipynb stops with ZeroDivisionError",
    "def another(dk): ...": "stops with NameError",
    "raise SystemExit": "stops with SystemExit",
}


@pytest.mark.parametrize("source", ANSWERS)
def test_the_readers_functions_come_from_their_notebooks(tmp_path, capsys, source):
    notebook(tmp_path, "06", "shared_head_gradient", source)
    own = fetch(tmp_path)
    said = next(line for line in capsys.readouterr().out.splitlines() if "shared_head_gradient" in line)
    assert ANSWERS[source] in said
    assert (own.shared_head_gradient is WORKING["shared_head_gradient"]) == ("yours" not in said)
    assert own.swiglu_backward is WORKING["swiglu_backward"]


def test_a_function_may_call_those_of_exercises_above_it(tmp_path, capsys):
    """As lesson 05 says of causal_weights."""
    sources = {
        "broken": "1 / 0",
        "split_heads": "def split_heads(x, heads):\n    return x.reshape(*x.shape[:2], heads, -1, x.shape[-1])",
        "shared_head_gradient": "def shared_head_gradient(dk, kv_heads):\n"
        "    return split_heads(dk, kv_heads).sum(axis=3)",
    }
    cells = [nbformat.v4.new_code_cell("import numpy as np")]
    for name, source in sources.items():
        cells.append(nbformat.v4.new_code_cell(f"{source}\n\n\ncheck({name})", metadata={"tags": ["exercise"]}))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "06-lesson.ipynb")
    fetch(tmp_path)
    assert "shared_head_gradient       yours: passed" in capsys.readouterr().out


def test_a_copy_of_a_notebook_is_not_taken_for_it(tmp_path, capsys):
    """JupyterLab calls it 06-lesson-Copy1.ipynb, which comes first in the order of the alphabet."""
    notebook(tmp_path, "06", "shared_head_gradient", next(iter(ANSWERS)))
    (tmp_path / "06-lesson-Copy1.ipynb").write_text("of last week", encoding="utf-8")
    fetch(tmp_path)
    assert "shared_head_gradient       yours: passed" in capsys.readouterr().out


def test_a_notebook_that_cannot_be_read_is_said(tmp_path, capsys):
    (tmp_path / "06-lesson.ipynb").write_text('{"cells": [', encoding="utf-8")
    assert fetch(tmp_path).shared_head_gradient is WORKING["shared_head_gradient"]
    assert "a working one: 06-lesson.ipynb cannot be read, NotJSONError" in capsys.readouterr().out


def test_the_lessons_leave_numbers_as_they_are_printed_here(tmp_path):
    notebook(tmp_path, "06", "shared_head_gradient", f"np.set_printoptions(precision=1)\n{next(iter(ANSWERS))}")
    before = np.get_printoptions()
    fetch(tmp_path)
    assert np.get_printoptions() == before


def test_what_is_not_there_is_said(tmp_path, capsys):
    notebook(tmp_path, "06", "split_heads", "def split_heads(x, heads): ...")
    fetch(tmp_path)
    said = capsys.readouterr().out
    assert "there is no notebook 07 in this folder" in said
    assert "06-lesson.ipynb has no cell of this exercise any more" in said
    assert len(said.splitlines()) == len(WORKING) and WORKING.keys() <= EXERCISES.keys()


def test_the_way_back_has_the_shapes_of_the_forward():
    texts = [[text.get_text() for text in decoder_flow.decoder_flow(back).axes[0].texts] for back in (False, True)]
    forward, backward = ({t.split("\n")[0].split(" =")[0]: t.split("\n")[1] for t in ts if "\n" in t} for ts in texts)
    for name, shape in forward.items():
        if name not in ("ids", "silu(gate) ⊙ up"):
            assert backward[f"d{name}"] == shape
    assert sum(text.startswith("+") for text in texts[1]) == 6 and not any(text.startswith("+") for text in texts[0])


def test_the_experiment_goes_on_where_it_stopped(tmp_path, monkeypatch):
    asked = []

    def training(mistake, seed):
        asked.append((mistake, seed))
        return {"mistake": mistake, "seed": seed, "loss": None}

    monkeypatch.setattr(gradient_mistakes, "training", training)
    path = tmp_path / "mistakes.jsonl"
    first = {"mistake": "sum", "seed": 1, "loss": 0.5}
    path.write_text(json.dumps(first), encoding="utf-8")  # an editor took its end away
    gradient_mistakes.main(["--out", str(path)])
    everything = {
        (m, s) for m in (gradient_mistakes.RIGHT, *gradient_mistakes.MISTAKES) for s in gradient_mistakes.SEEDS
    }
    assert set(asked) == everything - {("sum", 1)} and len(asked) == len(everything) - 1
    assert gradient_mistakes.read(path)[0] == first and len(gradient_mistakes.read(path)) == len(everything)
    assert gradient_mistakes.MISTAKES.keys() <= BACKWARD_MISTAKES.keys()


@pytest.mark.parametrize("loss, kept", [(2.5, 2.5), (np.nan, None), (np.inf, None)])
def test_a_training_that_runs_into_infinity_has_no_loss(monkeypatch, loss, kept):
    monkeypatch.setattr(gradient_mistakes, "train", lambda seed: Trained([], loss, ""))
    assert gradient_mistakes.training("sum", 1) == {"mistake": "sum", "seed": 1, "loss": kept}


def test_the_kept_trainings_are_all_there_is():
    kept = gradient_mistakes.read(FOLDER / "results" / "08-mistakes.jsonl")
    names = (gradient_mistakes.RIGHT, *gradient_mistakes.MISTAKES)
    expected = sorted((mistake, seed) for mistake in names for seed in gradient_mistakes.SEEDS)
    assert sorted((result["mistake"], result["seed"]) for result in kept) == expected
