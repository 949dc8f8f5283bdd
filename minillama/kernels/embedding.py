"""Row copies and row sums."""

from numba import njit

from ..runtime.memory import empty
from .simd import JIT


def embedding(ids, weight):
    y = empty((len(ids), weight.shape[1]), weight.dtype)
    _gather(ids, weight, y)
    return y


def embedding_backward(dy, ids, dweight):
    _scatter_add(dy, ids, dweight)


@njit(**JIT)
def _gather(ids, weight, y):
    for n in range(len(ids)):
        y[n, :] = weight[ids[n]]


@njit(**JIT)
def _scatter_add(dy, ids, dweight):
    for n in range(len(ids)):
        row, source = dweight[ids[n]], dy[n]
        for c in range(len(row)):
            row[c] += source[c]
