"""What the lessons' experiments rest on: results that an interruption leaves whole, gradients, and what is stable."""

import json

import numpy as np
import pytest

from minillama.gradcheck import numerical_gradient, relative_error
from minillama.lessons import learning_rates, one_head


def test_an_interrupted_run_goes_on_behind_the_last_whole_line(tmp_path, monkeypatch):
    asked = []

    def train(corpus, variant, rate, warmup, seed, steps):
        asked.append((variant, rate, warmup, seed))
        return {"variant": variant, "rate": rate, "warmup": warmup, "seed": seed}

    monkeypatch.setattr(learning_rates, "train", train)
    monkeypatch.setattr(learning_rates, "encode_corpus", lambda name: None)
    monkeypatch.setattr(learning_rates, "RATES", (0.002, 0.004))
    path = tmp_path / "rates.jsonl"
    learning_rates.main(["--out", str(path), "--seeds", "0"])
    whole, jobs = path.read_text(encoding="utf-8"), list(asked)
    path.write_text(whole[:-20], encoding="utf-8")
    asked.clear()
    learning_rates.main(["--out", str(path), "--seeds", "0"])
    assert asked == jobs[-1:]
    assert path.read_text(encoding="utf-8") == whole
    assert len(learning_rates.read(path)) == len(jobs) == 2 * 2 * len(learning_rates.VARIANTS)
    asked.clear()
    path.write_text(whole[:10], encoding="utf-8")  # not one whole line
    learning_rates.main(["--out", str(path), "--seeds", "0"])
    assert asked == jobs and [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    "losses, expected",
    [
        ([3.0, 2.0, 2.1, 4.0], 0.3),
        ([3.0, 2.0, 2.3, 2.1], 0.2),  # what comes after the first unstable rate does not count
        ([2.0, None, 2.1, 2.1], 0.1),
        ([None, None, None, 5.0], 0.4),
        ([None, None, None, None], None),
    ],
)
def test_the_highest_stable_rate(losses, expected):
    results = [
        {"variant": "a", "warmup": 0, "seed": 1, "rate": rate, "loss": loss}
        for rate, loss in zip((0.1, 0.2, 0.3, 0.4), losses, strict=True)
    ]
    others = [{**result, "seed": 2, "loss": 0.0} for result in results]
    assert learning_rates.highest_stable(others + results[::-1], "a", 0, 1, slack=0.2) == expected


@pytest.mark.parametrize("mask", one_head.MASKS)
@pytest.mark.parametrize("task", [one_head.lookup_task, one_head.dice_task])
def test_the_gradients_of_one_head_are_those_of_its_own_mask(task, mask, rng):
    x, answers = task(rng, 2)[:2]
    shapes = [(x.shape[-1], 3)] * 3 + [(3, one_head.DIGITS)]
    matrices = [rng.normal(size=shape) for shape in shapes]
    found = one_head.gradients(matrices, x, answers, mask)[1]
    for got, matrix in zip(found, matrices, strict=True):
        expected = numerical_gradient(lambda: one_head.gradients(matrices, x, answers, mask)[0], matrix)
        assert relative_error(got, expected) < 1e-6


def test_the_answer_of_a_lookup_stands_with_the_letter_that_is_asked_for(rng):
    x, answers, places = one_head.lookup_task(rng, 5)
    letters, digits, wanted = (part.argmax(axis=-1) for part in np.split(x, 3, axis=-1))
    assert np.all(places <= np.arange(one_head.LENGTH))
    assert np.array_equal(np.take_along_axis(letters, places, axis=1), wanted)
    assert np.array_equal(np.take_along_axis(digits, places, axis=1), answers)
