"""Gradient descent with momentum in one pass over the three arrays."""

from numba import njit

from .simd import JIT


def sgd(weight, gradient, velocity, rate, momentum, decay, scale):
    _sgd(weight, gradient, velocity, *(weight.dtype.type(number) for number in (rate, momentum, decay, scale)))


@njit(**JIT)
def _sgd(weight, gradient, velocity, rate, momentum, decay, scale):
    for i in range(len(weight)):
        u = momentum * velocity[i] + scale * gradient[i] + decay * weight[i]
        velocity[i] = u
        weight[i] -= rate * u
