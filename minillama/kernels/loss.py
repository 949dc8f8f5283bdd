"""Cross-entropy: two passes over a row forward (largest, sum of exponentials), one backward, in place."""

import numpy as np
from numba import njit

from ..memory import empty
from ..ops.loss import IGNORED
from .vectors import JIT, exp


def cross_entropy(logits, targets):
    losses, log_denominator = (empty((len(logits),), logits.dtype) for _ in range(2))
    _cross_entropy(logits, targets, losses, log_denominator)
    return losses, log_denominator


def cross_entropy_backward(scale, logits, targets, log_denominator):
    _cross_entropy_backward(logits.dtype.type(scale), logits, targets, log_denominator)
    return logits


@njit(**{**JIT, "fastmath": True})
def _largest(row):
    # A maximum vectorises only where NaN may be ignored; a NaN in the row still reaches the sum that follows.
    largest = row[0]
    for z in row:
        largest = max(largest, z)
    return largest


@njit(**JIT)
def _cross_entropy(logits, targets, losses, log_denominator):
    zero = logits.dtype.type(0)
    for n in range(len(logits)):
        row = logits[n]
        largest = _largest(row)
        total = zero
        for v in range(len(row)):
            total += exp(row[v] - largest)
        log_denominator[n] = largest + np.log(total)
        losses[n] = zero if targets[n] == IGNORED else log_denominator[n] - row[targets[n]]


@njit(**JIT)
def _cross_entropy_backward(scale, logits, targets, log_denominator):
    for n in range(len(logits)):
        row, shift = logits[n], log_denominator[n]
        if targets[n] == IGNORED:
            row[:] = 0
        else:
            for v in range(len(row)):
                row[v] = scale * exp(row[v] - shift)
            row[targets[n]] -= scale
