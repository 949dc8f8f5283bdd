"""GELU, element by element; Phi is recomputed in the backward, not kept."""

from numba import njit

from ...runtime.memory import empty
from ..elementary import normal
from ..simd import JIT


def gelu(z):
    h = empty(z.shape, z.dtype)
    _gelu(z, h)
    return h


def gelu_backward(dh, z):
    dz = empty(z.shape, z.dtype)
    _gelu_backward(dh, z, dz)
    return dz


@njit(**JIT)
def _gelu(z, h):
    N, F = z.shape
    for n in range(N):
        row, out = z[n], h[n]
        for f in range(F):
            distribution, _ = normal(row[f])
            out[f] = row[f] * distribution


@njit(**JIT)
def _gelu_backward(dh, z, dz):
    N, F = z.shape
    for n in range(N):
        row, grad, out = z[n], dh[n], dz[n]
        for f in range(F):
            distribution, density = normal(row[f])
            out[f] = grad[f] * (distribution + row[f] * density)
