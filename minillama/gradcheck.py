"""Finite differences: the check that a gradient written by hand is the gradient."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike


def numerical_gradient(f: Callable[[], float], x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """(f(x + step e_i) - f(x - step e_i)) / (2 step) for every element i of x

    f a function of no arguments that reads x, an array of float64, and returns a float; x is changed in place and put
    back. The error is of the order step^2 (truncation) plus 1e-16 / step (rounding): smallest near step 1e-5.
    """
    _require_float64(x)
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        kept = x[i]
        x[i] = kept + step
        above = f()
        x[i] = kept - step
        below = f()
        x[i] = kept
        gradient[i] = (above - below) / (2 * step)
    return gradient


def directional_derivative(f: Callable[[], float], x: np.ndarray, direction: np.ndarray, step: float = 1e-5) -> float:
    """The derivative of f along a direction, by the difference of fourth order; one number for a whole array

    (8 (f(x + s d) - f(x - s d)) - (f(x + 2 s d) - f(x - 2 s d))) / (12 s), to be compared with sum(gradient * d).
    With random directions this finds a wrong gradient with two evaluations a direction instead of two an element.
    """
    _require_float64(x)
    kept, values = x.copy(), []
    for factor in (1, -1, 2, -2):
        x[...] = kept + factor * step * direction
        values.append(f())
    x[...] = kept
    return (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * step)


def relative_error(a: ArrayLike, b: ArrayLike) -> float:
    """max |a - b| / max |b|, one number for two arrays; |a - b| itself where b is 0 everywhere."""
    largest = np.max(np.abs(b))
    return float(np.max(np.abs(np.asarray(a) - b)) / (largest if largest > 0 else 1))


def _require_float64(x: np.ndarray) -> None:
    if x.dtype != np.float64:
        raise ValueError(f"finite differences need float64: rounding in {x.dtype} would hide the gradient")
