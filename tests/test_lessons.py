"""The checkers of the course: right answers pass whatever their style, wrong ones fail with the hint that helps."""

import importlib

import pytest

from minillama.lessons import EXERCISES, check

ANSWERS = [importlib.import_module(f"tests.lessons.answers_{n:02d}") for n in range(7)]
RIGHT = {name: functions for module in ANSWERS for name, functions in module.RIGHT.items()}
WRONG = {name: functions for module in ANSWERS for name, functions in module.WRONG.items()}


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


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name, answer", _cases(RIGHT))
def test_right_answers_pass(name, answer, seed):
    report = check(_named(answer, name), seed)
    assert report.passed, report
    assert sum(report.counts.values()) >= 5


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name, answer", _cases(WRONG))
def test_wrong_answers_get_the_hint_that_helps(name, answer, seed):
    function, part = answer
    report = check(_named(function, name), seed)
    assert report.status == "wrong", f"accepted, or not even called: {report!r}"
    assert part in report.hint, report


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("result", [None, ...])
def test_a_stub_is_not_started(name, result):
    assert check(_named(lambda *arguments: result, name)).status == "not started"
