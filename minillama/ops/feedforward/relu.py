"""ReLU, the activation of the first transformer."""

import numpy as np


def relu(z):
    """h = max(z, 0)

    z (N, F) -> h (N, F).
    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 2.
    """
    return np.maximum(z, 0)


def relu_backward(dh, z):
    """dz = dh where z > 0, and 0 elsewhere, at z = 0 too: dh times the step function, which is NaN where z is

    dh (N, F), z (N, F) -> dz (N, F).
    """
    return dh * np.heaviside(z, 0)
