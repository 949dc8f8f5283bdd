"""Cross-entropy: two passes over a row forward (largest, sum of exponentials), one backward, in place."""

import numpy as np
from numba import njit

from ..ops.loss import IGNORED
from ..runtime.memory import empty, frame
from .elementary import exp
from .simd import JIT


def cross_entropy(logits, targets):
    losses, log_denominator = (empty((len(logits),), logits.dtype) for _ in range(2))
    with frame():
        largest = np.max(logits, axis=1, out=empty((len(logits),), logits.dtype))  # NumPy's is explicit SIMD code
        _cross_entropy(logits, targets, largest, losses, log_denominator)
    return losses, log_denominator


def cross_entropy_backward(weights, logits, targets, log_denominator):
    _cross_entropy_backward(weights, logits, targets, log_denominator)
    return logits


@njit(**JIT)
def _cross_entropy(logits, targets, largest, losses, log_denominator):
    zero = logits.dtype.type(0)
    for n in range(len(logits)):
        row, shift = logits[n], largest[n]
        total = zero
        for v in range(len(row)):
            total += exp(row[v] - shift)
        log_denominator[n] = shift + np.log(total)
        losses[n] = zero if targets[n] == IGNORED else log_denominator[n] - row[targets[n]]


@njit(**JIT)
def _cross_entropy_backward(weights, logits, targets, log_denominator):
    for n in range(len(logits)):
        row, shift, weight = logits[n], log_denominator[n], weights[n]
        if targets[n] == IGNORED:
            row[:] = 0
        else:
            for v in range(len(row)):
                row[v] = weight * exp(row[v] - shift)
            row[targets[n]] -= weight
