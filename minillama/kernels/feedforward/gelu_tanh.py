"""GELU by way of tanh, element by element: (1 + tanh(a)) / 2 = sigmoid(2 a) = 1 / (1 + exp(-2 a)), for which no a is
too large."""

import math

from numba import njit

from ...runtime.memory import empty
from ..elementary import exp
from ..simd import JIT

TWICE_SCALE, CUBIC = 2 * math.sqrt(2 / math.pi), 0.044715


def gelu_tanh(z):
    h = empty(z.shape, z.dtype)
    _gelu_tanh(z, h)
    return h


def gelu_tanh_backward(dh, z):
    dz = empty(z.shape, z.dtype)
    _gelu_tanh_backward(dh, z, dz)
    return dz


@njit(**JIT)
def _gelu_tanh(z, h):
    N, F = z.shape
    one, scale, cubic = z.dtype.type(1), z.dtype.type(TWICE_SCALE), z.dtype.type(CUBIC)
    for n in range(N):
        row, out = z[n], h[n]
        for f in range(F):
            twice = scale * row[f] * (one + cubic * (row[f] * row[f]))  # 2 a
            out[f] = row[f] / (one + exp(-twice))


@njit(**JIT)
def _gelu_tanh_backward(dh, z, dz):
    N, F = z.shape
    one, three = z.dtype.type(1), z.dtype.type(3)
    scale, cubic = z.dtype.type(TWICE_SCALE), z.dtype.type(CUBIC)
    for n in range(N):
        row, grad, out = z[n], dh[n], dz[n]
        for f in range(F):
            square = cubic * (row[f] * row[f])
            s = one / (one + exp(-scale * row[f] * (one + square)))
            slope = scale * (one + three * square)  # 2 a'
            out[f] = grad[f] * (s + row[f] * s * (one - s) * slope)
