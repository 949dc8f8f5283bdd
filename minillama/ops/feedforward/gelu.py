"""GELU: a number times the probability that a normal variable is smaller."""

import math

import numpy as np


def gelu(z):
    """h = z Phi(z),   Phi(z) = (1 + erf(z / sqrt(2))) / 2, the standard normal distribution

    z (N, F) -> h (N, F).
    Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2.
    """
    return z * _normal_distribution(z)


def gelu_backward(dh, z):
    """dz = dh (Phi(z) + z phi(z)),   phi(z) = Phi'(z) = exp(-z^2 / 2) / sqrt(2 pi)

    dh (N, F), z (N, F) -> dz (N, F).
    """
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return dh * (_normal_distribution(z) + z * density)


def _normal_distribution(z):
    """Phi(z) = erfc(-z / sqrt(2)) / 2: erfc = 1 - erf keeps the digits that 1 + erf loses where Phi is small."""
    return (_erfc(-math.sqrt(0.5) * z) / 2).astype(z.dtype)


_erfc = np.vectorize(math.erfc, otypes=[np.float64])  # NumPy has neither erf nor erfc
