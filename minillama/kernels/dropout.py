"""Dropout: the hash of an element's place is a dozen integer operations, which vectorise."""

import numpy as np
from numba import njit

from ..ops import dropout as specification
from ..runtime.memory import empty
from .simd import JIT

_hash32 = njit(**JIT)(specification.hash32)


def dropout(x, rate, key, first_row=0):
    if rate == 0:
        return x
    y = empty(x.shape, x.dtype)
    _dropout(x, np.uint32(rate * 2**32), x.dtype.type(1 / (1 - rate)), np.uint32(key), first_row, y)
    return y


@njit(**JIT)
def _dropout(x, threshold, scale, key, first_row, y):
    N, C = x.shape
    for n in range(N):
        row, out = x[n], y[n]
        first = np.uint32((first_row + n) * C)
        for c in range(C):
            place = np.uint32(first + c)
            kept = _hash32(np.uint32(_hash32(place) + key)) >= threshold
            out[c] = row[c] * scale if kept else x.dtype.type(0)
