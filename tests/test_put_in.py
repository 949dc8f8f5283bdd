"""A reader's function in the model: a right one trains as the library's does, a wrong one does visible harm."""

import importlib

import numpy as np
import pytest

from minillama import backend
from minillama.lessons import EXERCISES, check
from minillama.lessons.put_in import PLACES, WHOLE, library, put_in, train, train_with

FEW = 20  # steps


def right(name):
    """The first right answer to an exercise, under its name."""
    answers = importlib.import_module(f"tests.lessons.answers_{EXERCISES[name].lesson}")
    function = answers.RIGHT[name][0]

    def answer(*arguments):
        return function(*arguments)

    answer.__name__ = name
    return answer


@pytest.mark.parametrize("name", PLACES)
def test_a_right_function_trains_as_the_library_does(name):
    kv_heads = PLACES[name].kv_heads
    with put_in(name, right(name)):
        own = train(FEW, kv_heads=kv_heads)
    expected = library(FEW, kv_heads)
    np.testing.assert_allclose(own.losses, expected.losses, rtol=1e-10)
    assert own.validation == pytest.approx(expected.validation, rel=1e-10)
    assert own.story == expected.story


@pytest.mark.parametrize("name", PLACES)
def test_a_wrong_function_does_visible_harm_and_does_not_pass(name):
    wrong = PLACES[name].mistaken(right(name))
    wrong.__name__ = name
    assert check(wrong).status == "wrong"
    kv_heads = PLACES[name].kv_heads
    with put_in(name, wrong):
        harmed = train(kv_heads=kv_heads)
    assert harmed.validation > library(kv_heads=kv_heads).validation + 0.15


def test_the_mean_over_a_group_in_place_of_the_sum_is_not_seen_in_training():
    """AdamW divides a gradient by its size; so lesson 06 puts in another mistake, and says why."""

    def mean(dk, kv_heads):
        return right("shared_head_gradient")(dk, kv_heads) / (dk.shape[2] // kv_heads)

    with put_in("shared_head_gradient", mean):
        hidden = train(kv_heads=2)
    assert abs(hidden.validation - library(kv_heads=2).validation) < 0.05


@pytest.mark.parametrize("name", PLACES)
def test_the_function_is_called_in_every_layer_and_gone_afterwards(name):
    calls, function = [], right(name)

    def counting(*arguments):
        calls.append(name)
        return function(*arguments)

    with put_in(name, counting):
        train(1)
        assert len(calls) >= (1 if PLACES[name].operation == WHOLE else 2)
        calls.clear()
        library.__wrapped__(1)  # the library's own, inside of the block too
    with backend.use("numpy"):
        train(1)
    assert calls == []


def test_an_error_in_the_function_leaves_the_backend_as_it_was():
    before = backend.active()
    with pytest.raises(ZeroDivisionError), put_in("swiglu_backward", lambda dh, gate, up: 1 / 0):
        train(1)
    assert backend.active() is before


def test_what_does_not_pass_is_not_put_in(capsys):
    def swiglu_backward(dh, gate, up): ...

    train_with(swiglu_backward)
    assert "swiglu_backward: not started" in capsys.readouterr().out

    def swiglu_backward(dh, gate, up):
        return dh, dh

    train_with(swiglu_backward)
    said = capsys.readouterr().out
    assert "swiglu_backward: wrong" in said and "nats" not in said


def test_the_three_trainings_and_the_story_are_printed(capsys):
    train_with(right("swiglu_backward"), steps=3)
    said = capsys.readouterr().out
    assert "(the same)" in said and "dgate and dup exchanged" in said and "Yours tells" in said


@pytest.mark.parametrize("steps", [0, 2])
def test_a_function_that_passes_and_runs_into_infinity_is_told(capsys, steps):
    """The checker tries small shapes."""
    calls, function = [], right("swiglu_backward")

    def swiglu_backward(dh, gate, up):
        calls.append(dh.size)
        large = sum(size > 1000 for size in calls) > 2 * steps  # a call for each of two blocks
        return tuple(d * np.inf if large else d for d in function(dh, gate, up))

    train_with(swiglu_backward, steps=3)
    assert f"ANOTHER ONE: it ran into infinity after {steps} steps" in capsys.readouterr().out


@pytest.mark.parametrize("name", PLACES)
def test_inside_of_the_block_models_compute_with_numpy(name):
    with put_in(name, right(name)):
        assert backend.active().name == "numpy"


@pytest.mark.parametrize("function", [lambda dh: dh, 3])
def test_a_function_without_a_place_is_refused(function):
    with pytest.raises(ValueError, match="no exercise with a place in the model.*swiglu_backward"):
        train_with(function)


def test_a_name_that_is_no_operation_is_refused():
    with pytest.raises(ValueError, match="did you mean 'swiglu_backward'"), backend.replaced(swiglu_backwards=len):
        pass
