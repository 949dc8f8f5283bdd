"""Layer normalisation, as in GPT-2."""

import numpy as np


def layernorm(x, weight, bias, eps, residual=None):
    """y = weight * (x - mean(x)) / std(x) + bias,   std(x) = sqrt(mean((x - mean(x))^2) + eps)

    x (N, C), weight (C,), bias (C,) or None -> y (N, C), and (mean, 1 / std), both (N,), for the backward. With a
    residual (N, C), x += residual comes first, in place.
    Source: Ba, Kiros and Hinton 2016 (arXiv 1607.06450), equations 3 and 4; eps inside the root as in GPT-2.
    """
    if residual is not None:
        x += residual
    mean = np.mean(x, axis=-1)
    centred = x - mean[..., None]
    inverse_std = 1 / np.sqrt(np.mean(centred * centred, axis=-1) + eps)
    y = weight * (centred * inverse_std[..., None])
    if bias is not None:
        y += bias
    return y, (mean, inverse_std)


def layernorm_backward(dy, x, weight, saved, dweight, dbias, dx=None):
    """With u = (x - mean(x)) / std(x) and g = weight * dy:   dx = (g - mean(g) - u mean(g u)) / std(x)

    dweight += sum over rows of dy u,   dbias += sum over rows of dy

    The means are what the gradients of mean(x) and std(x) contribute: adding a number to x does not change y, nor does
    scaling x when eps is 0, so dx is orthogonal to the row of ones, and then to u.
    dy (N, C), x (N, C), weight (C,), saved: mean and 1 / std, both (N,) -> dx (N, C); adds to dweight (C,), to dbias
    (C,) if it is not None, and to dx, the gradient that reaches the residual stream past the layer, where one is given.
    """
    mean, inverse_std = saved
    rows = tuple(range(x.ndim - 1))  # every axis but the last
    u = (x - mean[..., None]) * inverse_std[..., None]
    g = weight * dy
    dweight += np.sum(dy * u, axis=rows)
    if dbias is not None:
        dbias += np.sum(dy, axis=rows)
    mean_g, mean_gu = (np.mean(a, axis=-1, keepdims=True) for a in (g, g * u))
    through_norm = (g - mean_g - u * mean_gu) * inverse_std[..., None]
    if dx is None:
        return through_norm
    dx += through_norm
    return dx
