"""Checking a reader's function by its properties, with a word on what is probably wrong.

A lesson asks for a function; its checker calls the function on random shapes and tests what must hold: finite
differences, an invariance, zeros where the future is. Where something fails, the answer is compared with what the
well-known mistakes give on the same input, and if one fits, its hint is the diagnosis.
"""

import html
import os
import sysconfig
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..gradcheck import numerical_gradient, relative_error

EXERCISES: dict[str, Any] = {}  # function name -> Exercise, in the order of the lessons
_TOLERANCE = 1e-6  # of float64 results and finite differences; a mistake in a formula is far above it
_LIBRARIES = [
    Path(__file__).parents[1],
    *(sysconfig.get_path(p) for p in ("stdlib", "platstdlib", "purelib", "platlib")),
]


@dataclass(frozen=True)
class Exercise:
    """A function that a lesson asks for."""

    lesson: str  # "03"
    name: str  # of the function
    title: str
    difficulty: int  # 1 to 3
    minutes: int
    checker: Callable  # checker(answer, trial) -> None


@dataclass(frozen=True)
class Report:
    """What a check found. The last line of a cell, it is shown as text, and in colour where the reader can."""

    exercise: str
    status: str  # "passed", "wrong" or "not started"
    hint: str  # what is probably wrong; empty when passed
    evidence: str = ""  # the numbers that say so
    counts: Counter = field(default_factory=Counter)  # property -> how often it was tested

    @property
    def passed(self):
        return self.status == "passed"

    def __repr__(self):
        if self.passed:
            tested = "; ".join(f"{what}: {n}" for what, n in self.counts.items())
            return f"{self.exercise}: passed. Tested: {tested}."
        lines = [f"{self.exercise}: {self.status}. {self.hint}", self.evidence]
        return "\n".join(line for line in lines if line)

    def _repr_html_(self):
        colour = {"passed": "#009E73", "wrong": "#D55E00", "not started": "#666666"}[self.status]
        sign = {"passed": "✓", "wrong": "✗", "not started": "…"}[self.status]
        text = html.escape(repr(self)).replace("\n", "<br>")
        return f'<div style="border-left: 4px solid {colour}; padding: 0.3em 0.8em">{sign} {text}</div>'


class Wrong(Exception):
    """An answer fails: hint says what is probably wrong, evidence shows it in numbers."""

    def __init__(self, hint, evidence=""):
        super().__init__(hint)
        self.hint, self.evidence = hint, evidence


class NotStarted(Exception):
    """The function is still the lesson's stub."""


class Trial:
    """What a checker tests an answer with: a source of random numbers, and the tests, which are counted."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.counts = Counter()
        self._answered = False  # whether the answer has returned something: then it is no stub

    def call(self, answer, *arguments, returns, finite="", not_finite=""):
        """answer(*arguments), whose results are what `returns` says: a list of (name, shape or Python type)

        Arrays among the arguments are copied, and must come back unchanged; a checker copies lists and dicts itself.
        Results must be real and finite numbers, and arrays of floats have the dtype of the first such array given.
        finite: a property to be counted, that the results are finite; not_finite: the hint where they are not. One
        result is returned as it is, several as a tuple.
        """
        given = [np.array(a) if isinstance(a, np.ndarray) else a for a in arguments]
        try:
            results = answer(*given)
        except Exception as error:
            if isinstance(error, NotImplementedError) and not self._answered:
                raise NotStarted from error
            raise Wrong(
                f"it stopped with {type(error).__name__}: {error}{_line(error)}", f"called with {_described(arguments)}"
            ) from error
        if results is None or results is Ellipsis:
            if not self._answered:
                raise NotStarted
            raise Wrong(
                "it returned nothing here, and something before: is there a way through it that ends without a return?",
                f"called with {_described(arguments)}",
            )
        self._answered = True
        names = ", ".join(name for name, _ in returns)
        if len(returns) == 1:
            results = (results,)
        elif not isinstance(results, tuple | list) or len(results) != len(returns):
            raise Wrong(f"it must return {len(returns)} things, ({names}); it returned {_described([results])}")
        for before, after in zip(arguments, given, strict=True):
            if isinstance(before, np.ndarray) and not np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
                raise Wrong("it changed an array that it was given; work on a copy, or write y = x + 1 for x += 1")
        dtype = next((a.dtype for a in arguments if isinstance(a, np.ndarray) and a.dtype.kind == "f"), None)
        for (name, shape), result in zip(returns, results, strict=True):
            self._conforms(name, shape, result, dtype, arguments)
            _finite(name, result, arguments, not_finite)
        if finite:
            self.counts[finite] += 1
        return results[0] if len(returns) == 1 else tuple(results)

    def _conforms(self, name, shape, result, dtype, arguments):
        if isinstance(shape, type):
            number = {int: int | np.integer, float: int | float | np.integer | np.floating}.get(shape, shape)
            if isinstance(result, np.ndarray) and result.ndim == 0:
                result = result[()]
            if not isinstance(result, number) or isinstance(result, bool) != (shape is bool):
                raise Wrong(f"{name} must be of type {shape.__name__}; it is {_described([result])}")
        elif not isinstance(result, np.ndarray):
            raise Wrong(f"{name} must be a NumPy array of shape {shape}; it is {_described([result])}")
        if isinstance(result, np.ndarray) and result.dtype.kind not in "biuf":
            raise Wrong(f"{name} must hold real numbers; its dtype is {result.dtype}")
        if isinstance(shape, type):
            return
        shape = tuple(int(n) for n in shape)
        if result.shape != shape:
            hint = f"{name} must have shape {shape}; it has {result.shape}"
            raise Wrong(hint, f"called with {_described(arguments)}")
        if dtype is not None and result.dtype.kind == "f" and result.dtype != dtype:
            raise Wrong(f"{name} must have the dtype of the input, {dtype}; it has {result.dtype}")

    def same(self, what, got, expected, mistakes=None, otherwise="", tolerance=_TOLERANCE):
        """Fails unless got equals expected, up to tolerance times the largest |expected|

        what: the property, in a few words; it is counted, and named in the report. mistakes: {hint: what this mistake
        gives on the same input}; the first that fits is the diagnosis. otherwise: the hint where none fits.
        """
        self.counts[what] += 1
        got, expected = np.asarray(got), np.asarray(expected)
        if _close(got, expected, tolerance):
            return
        place = np.unravel_index(np.argmax(np.abs(got - expected)), expected.shape)
        at = f" at index {tuple(int(i) for i in place)}" if expected.ndim else ""
        evidence = f"{what}: expected {expected[place]:.6g}{at}, got {got[place]:.6g}"
        for hint, wrong in (mistakes or {}).items():
            if _close(got, np.asarray(wrong), tolerance):
                raise Wrong(hint, evidence)
        raise Wrong(otherwise or f"{what} does not hold", evidence)

    def gradient(self, name, got, f, x, mistakes=None, otherwise=""):
        """Fails unless got is the gradient of the float f() with respect to the float64 array x that f reads."""
        self.same(
            f"{name} against finite differences",
            got,
            numerical_gradient(f, x),
            mistakes,
            otherwise
            or f"{name} is not the gradient of the forward pass: compare it with your derivation, term by term",
        )

    def equal(self, what, got, expected, case, mistakes=None, otherwise=""):
        """Fails unless got == expected: numbers, texts, lists and tuples of them, not arrays

        case: what the function was called with, in words, for the evidence. mistakes, otherwise: as of same().
        """
        hint = next((hint for hint, wrong in (mistakes or {}).items() if _identical(wrong, got)), otherwise)
        self.that(
            what, _identical(got, expected), hint or f"{what} does not hold", f"{case}: expected {expected}, got {got}"
        )

    def all_equal(self, cases):
        """equal() of each of the cases, tuples of its arguments

        Of one case a wrong number may fit a mistake by chance: here one is the diagnosis only if it explains them all.
        """
        fits = [hint for hint in cases[0][4] if all(mistakes[hint] == got for _, got, _, _, mistakes, _ in cases)]
        for what, got, expected, case, mistakes, otherwise in cases:
            self.equal(what, got, expected, case, {hint: mistakes[hint] for hint in fits}, otherwise)

    def that(self, what, holds, hint, evidence=""):
        """Fails with the hint unless holds is true."""
        self.counts[what] += 1
        if not holds:
            raise Wrong(hint, evidence)


def exercise(lesson, title, difficulty, minutes):
    """Makes a checker, checker(answer, trial), of the exercise of its own name."""

    def register(checker):
        name = checker.__name__
        assert name not in EXERCISES, f"two exercises are called {name}"
        EXERCISES[name] = Exercise(lesson, name, title, difficulty, minutes, checker)
        return checker

    return register


def check(answer, seed=0):
    """Check the answer to the exercise of the function's name; returns a Report

    seed: of the random cases. An answer that is right passes with every seed.
    """
    name = getattr(answer, "__name__", None)
    if name not in EXERCISES:
        raise ValueError(
            f"there is no exercise {name!r}: give the function itself, under the name that the lesson gave it; "
            f"the exercises are {', '.join(EXERCISES)}"
        )
    trial = Trial([zlib.crc32(name.encode()), seed])
    try:
        with np.errstate(all="ignore"):  # what is not finite is reported, once
            EXERCISES[name].checker(answer, trial)
    except NotStarted:
        return Report(name, "not started", "It returns nothing yet: write it, with a return, and run this cell again.")
    except Wrong as wrong:
        return Report(name, "wrong", wrong.hint, wrong.evidence, trial.counts)
    return Report(name, "passed", "", counts=trial.counts)


def _finite(name, result, arguments, hint):
    if not isinstance(result, np.ndarray | float | np.floating):
        return
    n = int(np.sum(~np.isfinite(result)))
    if n:
        what = f"has {n} numbers that are not finite (nan or inf)" if np.ndim(result) else f"is {result}"
        raise Wrong(
            hint or f"{name} {what}: is there a division by 0, or an exponential of a large number?",
            f"{name} {what}, called with {_described(arguments)}" if hint else f"called with {_described(arguments)}",
        )


def _identical(a, b):
    try:
        return bool(a == b)
    except ValueError:  # an array stands in one of the lists, and its comparison is neither true nor false
        return False


def _close(a, b, tolerance):
    return a.shape == b.shape and bool(relative_error(a, b) <= tolerance)


def _described(values):
    """Arguments or results in a few words: arrays by shape and dtype."""

    def described(value):
        if isinstance(value, np.ndarray):
            return f"array{value.shape} of {value.dtype}"
        if isinstance(value, tuple | list) and value and all(isinstance(v, np.ndarray) for v in value):
            return "(" + ", ".join(map(described, value)) + ")"
        text = repr(value)
        return text if len(text) <= 60 else text[:57] + "..."

    return ", ".join(map(described, values))


def _line(error):
    """The line of the reader's own code that failed."""
    libraries = tuple(os.path.normcase(f"{folder}{os.sep}") for folder in _LIBRARIES)
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.line and not os.path.normcase(f.filename).startswith(libraries)]
    return f" (line {own[-1].lineno} of {own[-1].name}: {own[-1].line})" if own else ""
