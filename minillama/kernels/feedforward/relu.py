"""ReLU, element by element."""

from numba import njit

from ...runtime.memory import empty
from ..simd import JIT


def relu(z):
    h = empty(z.shape, z.dtype)
    _relu(z, h)
    return h


def relu_backward(dh, z):
    dz = empty(z.shape, z.dtype)
    _relu_backward(dh, z, dz)
    return dz


@njit(**JIT)
def _relu(z, h):
    N, F = z.shape
    zero = z.dtype.type(0)
    for n in range(N):
        row, out = z[n], h[n]
        for f in range(F):
            out[f] = zero if row[f] < zero else row[f]  # NaN is not below 0, and stays


@njit(**JIT)
def _relu_backward(dh, z, dz):
    N, F = z.shape
    zero, one = z.dtype.type(0), z.dtype.type(1)
    for n in range(N):
        row, grad, out = z[n], dh[n], dz[n]
        for f in range(F):
            step = one if row[f] > zero else zero if row[f] <= zero else row[f]  # the last is NaN
            out[f] = grad[f] * step
