"""The checkers of the course: right answers pass whatever their style, wrong ones fail with the hint that helps."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

from minillama.lessons import EXERCISES, check

NAMES = [*(f"{n:02d}" for n in range(9)), "08_table"]
ANSWERS = [importlib.import_module(f"tests.lessons.answers_{name}") for name in NAMES]
RIGHT = {name: functions for module in ANSWERS for name, functions in module.RIGHT.items()}
WRONG = {name: functions for module in ANSWERS for name, functions in module.WRONG.items()}
SEEDS = range(8)  # some mistakes look like another one with every tenth seed only


def _named(function, name):
    function.__name__ = name
    return function


def _cases(table):
    return [pytest.param(name, case, id=f"{name}-{i}") for name in table for i, case in enumerate(table[name])]


@pytest.mark.parametrize("name", EXERCISES)
def test_every_exercise_has_a_zoo(name):
    assert len(RIGHT.get(name, [])) >= 2, "at least two right answers, written differently"
    assert len(WRONG.get(name, [])) >= 3, "at least three plausible mistakes"


def test_no_answer_is_to_an_unknown_exercise():
    assert RIGHT.keys() | WRONG.keys() == EXERCISES.keys()


@pytest.mark.parametrize("name, answer", _cases(RIGHT))
def test_right_answers_pass(name, answer):
    for seed in SEEDS:
        report = check(_named(answer, name), seed)
        assert report.passed, f"seed {seed}: {report}"
        assert sum(report.counts.values()) >= 5


@pytest.mark.parametrize("name, answer", _cases(WRONG))
def test_wrong_answers_get_the_hint_that_helps(name, answer):
    function, part = answer
    for seed in SEEDS:
        report = check(_named(function, name), seed)
        assert report.status == "wrong", f"seed {seed}: accepted, or not even called: {report!r}"
        assert part in report.hint, f"seed {seed}: {report}"


STYLES = {  # of results, in which a right answer stays right
    "Fortran order": lambda result: np.asfortranarray(result) if np.ndim(result) > 1 else result,
    "a view of a part": lambda result: np.stack([result, result], axis=-1)[..., 0] if _is_array(result) else result,
    "read only": lambda result: np.broadcast_to(result, result.shape) if _is_array(result) else result,
    "NumPy scalars": lambda result: np.array(result)[()] if isinstance(result, int | float) else result,
    "arrays without axes": lambda result: np.array(result) if isinstance(result, int | float) else result,
    "Python scalars": lambda result: result.item() if isinstance(result, np.number) else result,
}


def _is_array(result):
    return isinstance(result, np.ndarray)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name, answer", _cases(RIGHT))
def test_right_answers_pass_in_other_styles(name, answer, style):
    def styled(*arguments):
        results = answer(*arguments)
        several = isinstance(results, tuple) or (isinstance(results, list) and any(map(_is_array, results)))
        return tuple(map(STYLES[style], results)) if several else STYLES[style](results)

    report = check(_named(styled, name))
    assert report.passed, report


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("result", [None, ...])
def test_a_stub_is_not_started(name, result):
    assert check(_named(lambda *arguments: result, name)).status == "not started"


def test_checkers_need_neither_jupyter_nor_matplotlib():
    asked = (
        "import sys, minillama.lessons; print([m for m in ('nbformat', 'IPython', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout == "[]\n"
