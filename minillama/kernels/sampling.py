"""From logits to a token, compiled: what NumPy does in a dozen passes, of which exp alone takes as long as a layer."""

import math

import numpy as np
from numba import njit

from ..runtime.memory import empty
from .elementary import exp2
from .simd import FAST, JIT, VECTOR_BYTES, store, vector_load

_WIDTH = 4 * VECTOR_BYTES  # each step of an exponential waits for the one before: four registers take turns
LANES = _WIDTH // 8
LOG2_E = 1 / math.log(2)
_BLOCK = 256  # weights whose sum is taken first
_load = vector_load(_WIDTH)


def softmax_weights(logits, temperature):
    size = -(-len(logits) // LANES) * LANES
    z, weights = empty((size,), np.float64), empty((size,), np.float64)
    _softmax_weights(logits, float(temperature), z, weights)
    return z[: len(logits)], weights[: len(logits)]


def draw(weights, u):
    return _draw(weights, u)


@njit(**JIT)
def _softmax_weights(logits, temperature, z, weights):
    """The distance to the largest logit, in units of the temperature, and its exponential in vectors.
    NumPy: z = (logits - logits.max()) / temperature; weights = np.exp(z)
    """
    if _all_finite(logits):
        _subtract_largest(logits, temperature, z)
        _exponentials(z, weights)
    else:
        z[:] = weights[:] = np.nan


@njit(**JIT)
def _all_finite(x):
    infinity, others = x.dtype.type(np.inf), 0
    for i in range(len(x)):
        others += 0 if abs(x[i]) < infinity else 1  # NaN is not below anything
    return others == 0


@njit(**{**JIT, "fastmath": FAST - {"arcp"}})  # a division stays one: the reciprocal of a tiny temperature is infinite
def _subtract_largest(logits, temperature, z):
    largest = np.float64(_largest(logits))
    for i in range(len(logits)):
        z[i] = (np.float64(logits[i]) - largest) / temperature
    for i in range(len(logits), len(z)):  # up to a whole vector
        z[i] = -np.inf


@njit(**JIT)
def _exponentials(z, weights):
    for i in range(0, len(z), LANES):
        store(weights, i, exp2(_load(z, i) * LOG2_E))


@njit(**{**JIT, "fastmath": {*FAST, "nnan"}})  # a maximum vectorises only where NaN need not be kept
def _largest(x):
    largest = x[0]
    for i in range(len(x)):
        largest = max(largest, x[i])
    return largest


@njit(**JIT)
def _draw(weights, u):
    """Running sums up to the end of each block, then the block where they pass the target, then the place in it.
    The sum of a block is taken in vectors; one long running sum would wait for every addition.
    NumPy: np.searchsorted(np.cumsum(weights), u * weights.sum(), "right")
    """
    ends, total = np.empty(-(-len(weights) // _BLOCK)), 0.0
    for block in range(len(ends)):
        part, own = weights[block * _BLOCK : (block + 1) * _BLOCK], 0.0
        for i in range(len(part)):
            own += part[i]
        total += own
        ends[block] = total
    target, block = u * ends[-1], 0
    while ends[block] <= target:  # u is below 1, so the last end is above the target
        block += 1
    running, last = ends[block - 1] if block > 0 else 0.0, 0
    for i in range(block * _BLOCK, min((block + 1) * _BLOCK, len(weights))):
        if weights[i] > 0:
            running += weights[i]
            last = i  # where rounding alone keeps the sum from passing the target, the last one that can be drawn
            if running > target:
                break
    return last
