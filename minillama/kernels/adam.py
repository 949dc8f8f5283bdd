"""Adam with L2 regularisation in one pass over the four arrays."""

import numpy as np
from numba import njit

from .simd import JIT


def adam(weight, gradient, mean, square, step, rate, betas, eps, decay, scale):
    beta1, beta2 = betas
    numbers = (1 - beta1, 1 - beta2, 1 / (1 - beta1**step), 1 / (1 - beta2**step), rate, eps, decay, scale)
    _adam(weight, gradient, mean, square, *(weight.dtype.type(number) for number in numbers))


@njit(**JIT)
def _adam(weight, gradient, mean, square, new1, new2, correct1, correct2, rate, eps, decay, scale):
    for i in range(len(weight)):
        g = scale * gradient[i] + decay * weight[i]
        m = mean[i] + new1 * (g - mean[i])
        v = square[i] + new2 * (g * g - square[i])
        mean[i] = m
        square[i] = v
        weight[i] -= rate * (m * correct1 / (np.sqrt(v * correct2) + eps))
