"""Root-mean-square normalisation, as in LLaMA."""

import numpy as np


def rmsnorm(x, weight, eps):
    """y = weight * x / rms(x),   rms(x) = sqrt(mean(x^2) + eps)

    x (..., C), weight (C,) -> y (..., C), and 1 / rms (...) for the backward.
    Source: Zhang and Sennrich 2019 (arXiv 1910.07467), equation 4; eps inside the root as in LLaMA.
    """
    inverse_rms = 1 / np.sqrt(np.mean(x * x, axis=-1) + eps)
    return weight * (x * inverse_rms[..., None]), inverse_rms


def rmsnorm_backward(dy, x, weight, inverse_rms, dweight):
    """With u = x / rms(x) and g = weight * dy:   dx = (g - u mean(g u)) / rms(x)

    dweight += sum over rows of dy u

    The mean is what the gradient of rms(x) contributes: it takes out the part of g along x, so that dx is orthogonal
    to x when eps is 0 (scaling x does not change y).
    dy, x (..., C), weight (C,), inverse_rms (...) -> dx (..., C); adds to dweight (C,).
    """
    u = x * inverse_rms[..., None]
    g = weight * dy
    dweight += np.sum((dy * u).reshape(-1, len(weight)), axis=0)
    return (g - u * np.mean(g * u, axis=-1, keepdims=True)) * inverse_rms[..., None]
