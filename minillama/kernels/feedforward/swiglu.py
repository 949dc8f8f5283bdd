"""SwiGLU in one pass over the gate and up columns; sigmoid is recomputed in the backward, not kept."""

from numba import njit

from ...runtime.memory import empty
from ..elementary import exp
from ..simd import JIT


def swiglu(gate_up):
    h = empty((len(gate_up), gate_up.shape[1] // 2), gate_up.dtype)
    _swiglu(gate_up, h)
    return h


def swiglu_backward(dh, gate_up):
    dgate_up = empty(gate_up.shape, gate_up.dtype)
    _swiglu_backward(dh, gate_up, dgate_up)
    return dgate_up


@njit(**JIT)
def _swiglu(gate_up, h):
    N, F = h.shape
    one = h.dtype.type(1)
    for n in range(N):
        gate, up, out = gate_up[n, :F], gate_up[n, F:], h[n]
        for f in range(F):
            out[f] = gate[f] / (one + exp(-gate[f])) * up[f]


@njit(**JIT)
def _swiglu_backward(dh, gate_up, dgate_up):
    N, F = dh.shape
    one = dh.dtype.type(1)
    for n in range(N):
        gate, up, grad = gate_up[n, :F], gate_up[n, F:], dh[n]
        dgate, dup = dgate_up[n, :F], dgate_up[n, F:]
        for f in range(F):
            s = one / (one + exp(-gate[f]))
            silu = gate[f] * s
            dgate[f] = grad[f] * up[f] * (s + silu * (one - s))
            dup[f] = grad[f] * silu
