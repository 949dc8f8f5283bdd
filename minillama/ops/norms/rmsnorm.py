"""Root-mean-square normalisation, as in LLaMA."""

import numpy as np


def rmsnorm(x, weight, bias, eps, residual=None):
    """y = weight * x / rms(x) + bias,   rms(x) = sqrt(mean(x^2) + eps)

    x (N, C), weight (C,), bias (C,) or None -> y (N, C), and 1 / rms (N,) for the backward. With a residual (N, C),
    x += residual comes first, in place.
    Source: Zhang and Sennrich 2019 (arXiv 1910.07467), equation 4; eps inside the root as in LLaMA.
    """
    if residual is not None:
        x += residual
    inverse_rms = 1 / np.sqrt(np.mean(x * x, axis=-1) + eps)
    y = weight * (x * inverse_rms[..., None])
    if bias is not None:
        y += bias
    return y, inverse_rms


def rmsnorm_backward(dy, x, weight, inverse_rms, dweight, dbias, dx=None):
    """With u = x / rms(x) and g = weight * dy:   dx = (g - u mean(g u)) / rms(x)

    dweight += sum over rows of dy u,   dbias += sum over rows of dy

    The mean is what the gradient of rms(x) contributes: it takes out the part of g along x, so that dx is orthogonal
    to x when eps is 0 (scaling x does not change y).
    dy (N, C), x (N, C), weight (C,), inverse_rms (N,) -> dx (N, C); adds to dweight (C,), to dbias (C,) if it is not
    None, and to dx, the gradient that reaches the residual stream past the layer, where one is given.
    """
    rows = tuple(range(x.ndim - 1))  # every axis but the last
    u = x * inverse_rms[..., None]
    g = weight * dy
    dweight += np.sum(dy * u, axis=rows)
    if dbias is not None:
        dbias += np.sum(dy, axis=rows)
    through_norm = (g - u * np.mean(g * u, axis=-1, keepdims=True)) * inverse_rms[..., None]
    if dx is None:
        return through_norm
    dx += through_norm
    return dx
