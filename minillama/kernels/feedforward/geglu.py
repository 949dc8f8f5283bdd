"""GEGLU in one pass over the gate and up columns; Phi is recomputed in the backward, not kept."""

from numba import njit

from ...runtime.memory import empty
from ..elementary import normal
from ..simd import JIT


def geglu(gate_up):
    h = empty((len(gate_up), gate_up.shape[1] // 2), gate_up.dtype)
    _geglu(gate_up, h)
    return h


def geglu_backward(dh, gate_up):
    dgate_up = empty(gate_up.shape, gate_up.dtype)
    _geglu_backward(dh, gate_up, dgate_up)
    return dgate_up


@njit(**JIT)
def _geglu(gate_up, h):
    N, F = h.shape
    for n in range(N):
        gate, up, out = gate_up[n, :F], gate_up[n, F:], h[n]
        for f in range(F):
            distribution, _ = normal(gate[f])
            out[f] = gate[f] * distribution * up[f]


@njit(**JIT)
def _geglu_backward(dh, gate_up, dgate_up):
    N, F = dh.shape
    for n in range(N):
        gate, up, grad = gate_up[n, :F], gate_up[n, F:], dh[n]
        dgate, dup = dgate_up[n, :F], dgate_up[n, F:]
        for f in range(F):
            distribution, density = normal(gate[f])
            dgate[f] = grad[f] * up[f] * (distribution + gate[f] * density)
            dup[f] = grad[f] * (gate[f] * distribution)
