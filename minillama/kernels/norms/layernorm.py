"""Layer normalisation, a row at a time: a row stays in the first-level cache between its mean, the mean of the squares
of what is left, and its scaling."""

import numpy as np
from numba import njit

from ...runtime.memory import empty
from ..simd import JIT


def layernorm(x, weight, eps):
    y, saved = fused_layernorm(x.reshape(-1, len(weight)), weight, None, eps)
    return y.reshape(x.shape), tuple(a.reshape(x.shape[:-1]) for a in saved)


def layernorm_backward(dy, x, weight, saved, dweight):
    rows = (a.reshape(-1, len(weight)) for a in (dy, x))
    return fused_layernorm_backward(*rows, weight, [a.reshape(-1) for a in saved], dweight, None).reshape(x.shape)


def fused_layernorm(x, weight, bias, eps):
    y, mean, inverse_std = empty(x.shape, x.dtype), empty((len(x),), x.dtype), empty((len(x),), x.dtype)
    has_bias = bias is not None
    _layernorm(x, weight, bias if has_bias else weight, has_bias, x.dtype.type(eps), y, mean, inverse_std)
    return y, (mean, inverse_std)


def fused_layernorm_backward(dy, x, weight, saved, dweight, dbias, dx=None):
    adds, has_bias = dx is not None, dbias is not None
    if not adds:
        dx = empty(x.shape, x.dtype)
    _layernorm_backward(dy, x, weight, *saved, dweight, dbias if has_bias else dweight, has_bias, dx, adds)
    return dx


@njit(**JIT)
def _layernorm(x, weight, bias, has_bias, eps, y, means, inverse_stds):
    N, C = x.shape
    for n in range(N):
        row, out = x[n], y[n]
        total = x.dtype.type(0)
        for c in range(C):
            total += row[c]
        mean = total / x.dtype.type(C)
        squares = x.dtype.type(0)
        for c in range(C):
            centred = row[c] - mean
            squares += centred * centred
        inverse = x.dtype.type(1) / np.sqrt(squares / x.dtype.type(C) + eps)
        means[n], inverse_stds[n] = mean, inverse
        for c in range(C):
            out[c] = weight[c] * ((row[c] - mean) * inverse)
        if has_bias:
            for c in range(C):
                out[c] += bias[c]


@njit(**JIT)
def _layernorm_backward(dy, x, weight, means, inverse_stds, dweight, dbias, has_bias, dx, adds):
    N, C = x.shape
    for n in range(N):
        row, grad, out, mean, inverse = x[n], dy[n], dx[n], means[n], inverse_stds[n]
        total = total_along = x.dtype.type(0)  # sum(g) and sum(g u)
        for c in range(C):
            u = (row[c] - mean) * inverse
            g = weight[c] * grad[c]
            total += g
            total_along += g * u
            dweight[c] += grad[c] * u
        if has_bias:
            for c in range(C):
                dbias[c] += grad[c]
        mean_g, mean_along = total / x.dtype.type(C), total_along / x.dtype.type(C)
        if not adds:
            out[:] = 0
        for c in range(C):
            u = (row[c] - mean) * inverse
            out[c] += (weight[c] * grad[c] - mean_g - u * mean_along) * inverse
