"""RMSNorm, a row at a time: a row stays in the first-level cache between the sum of its squares and its scaling."""

import numpy as np
from numba import njit

from ...runtime.memory import empty
from ..simd import JIT


def rmsnorm(x, weight, eps):
    y, inverse_rms = fused_rmsnorm(x.reshape(-1, len(weight)), weight, None, eps)
    return y.reshape(x.shape), inverse_rms.reshape(x.shape[:-1])


def rmsnorm_backward(dy, x, weight, inverse_rms, dweight):
    rows = (a.reshape(-1, len(weight)) for a in (dy, x))
    return fused_rmsnorm_backward(*rows, weight, inverse_rms.reshape(-1), dweight, None).reshape(x.shape)


def fused_rmsnorm(x, weight, bias, eps):
    y, inverse_rms = empty(x.shape, x.dtype), empty((len(x),), x.dtype)
    has_bias = bias is not None
    _rmsnorm(x, weight, bias if has_bias else weight, has_bias, x.dtype.type(eps), y, inverse_rms)
    return y, inverse_rms


def fused_rmsnorm_backward(dy, x, weight, saved, dweight, dbias, dx=None):
    adds, has_bias = dx is not None, dbias is not None
    if not adds:
        dx = empty(x.shape, x.dtype)
    _rmsnorm_backward(dy, x, weight, saved, dweight, dbias if has_bias else dweight, has_bias, dx, adds)
    return dx


@njit(**JIT)
def _rmsnorm(x, weight, bias, has_bias, eps, y, inverse_rms):
    N, C = x.shape
    for n in range(N):
        row, out = x[n], y[n]
        total = x.dtype.type(0)
        for c in range(C):
            total += row[c] * row[c]
        inverse = x.dtype.type(1) / np.sqrt(total / x.dtype.type(C) + eps)
        inverse_rms[n] = inverse
        for c in range(C):
            out[c] = weight[c] * (row[c] * inverse)
        if has_bias:
            for c in range(C):
                out[c] += bias[c]


@njit(**JIT)
def _rmsnorm_backward(dy, x, weight, inverse_rms, dweight, dbias, has_bias, dx, adds):
    N, C = x.shape
    for n in range(N):
        row, grad, out, inverse = x[n], dy[n], dx[n], inverse_rms[n]
        total = x.dtype.type(0)  # sum(g u)
        for c in range(C):
            u = row[c] * inverse
            total += weight[c] * grad[c] * u
            dweight[c] += grad[c] * u
        if has_bias:
            for c in range(C):
                dbias[c] += grad[c]
        mean = total / x.dtype.type(C)
        if not adds:
            out[:] = 0
        for c in range(C):
            out[c] += (weight[c] * grad[c] - row[c] * inverse * mean) * inverse
