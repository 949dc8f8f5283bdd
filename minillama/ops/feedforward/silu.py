"""SiLU without a gate: a number times its own sigmoid."""

import numpy as np


def silu(z):
    """h = z sigmoid(z)

    z (N, F) -> h (N, F).
    Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2; Swish with beta 1 in Ramachandran, Zoph and Le
    2017 (arXiv 1710.05941).
    """
    return z * _sigmoid(z)


def silu_backward(dh, z):
    """dz = dh silu'(z),   silu'(z) = s + z s (1 - s) with s = sigmoid(z)

    dh (N, F), z (N, F) -> dz (N, F).
    """
    s = _sigmoid(z)
    return dh * (s + z * s * (1 - s))


def _sigmoid(z):
    """1 / (1 + exp(-z)), written with exp(-|z|) so that no z overflows."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)
