"""Matrix products go to BLAS, straight into scratch memory."""

import numpy as np

from ..runtime.memory import empty, frame


def linear(x, weight, bias=None):
    y = np.matmul(x, weight.T, out=empty((len(x), len(weight)), x.dtype))
    if bias is not None:
        y += bias
    return y


SLAB = 2**23  # numbers of a gradient in scratch at a time: that of a large vocabulary is the largest array of a step


def linear_backward(dy, x, weight, dweight, dbias=None):
    with frame():
        slab = empty((min(len(weight), max(1, SLAB // weight.shape[1])), weight.shape[1]), x.dtype)
        for start in range(0, len(weight), len(slab)):
            target = dweight[start : start + len(slab)]
            target += np.matmul(dy[:, start : start + len(slab)].T, x, out=slab[: len(target)])
        if dbias is not None:
            dbias += np.sum(dy, axis=0, out=empty(dbias.shape, dy.dtype))
    return np.matmul(dy, weight, out=empty(x.shape, x.dtype))
