"""SiLU, element by element; the sigmoid is recomputed in the backward, not kept."""

from numba import njit

from ...runtime.memory import empty
from ..elementary import exp
from ..simd import JIT


def silu(z):
    h = empty(z.shape, z.dtype)
    _silu(z, h)
    return h


def silu_backward(dh, z):
    dz = empty(z.shape, z.dtype)
    _silu_backward(dh, z, dz)
    return dz


@njit(**JIT)
def _silu(z, h):
    N, F = z.shape
    one = z.dtype.type(1)
    for n in range(N):
        row, out = z[n], h[n]
        for f in range(F):
            out[f] = row[f] / (one + exp(-row[f]))


@njit(**JIT)
def _silu_backward(dh, z, dz):
    N, F = z.shape
    one = z.dtype.type(1)
    for n in range(N):
        row, grad, out = z[n], dh[n], dz[n]
        for f in range(F):
            s = one / (one + exp(-row[f]))
            out[f] = grad[f] * (s + row[f] * s * (one - s))
