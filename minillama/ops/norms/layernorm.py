"""Layer normalisation, as in GPT-2."""

import numpy as np


def layernorm(x, weight, eps):
    """y = weight * (x - mean(x)) / std(x),   std(x) = sqrt(mean((x - mean(x))^2) + eps)

    x (..., C), weight (C,) -> y (..., C), and (mean, 1 / std), both (...), for the backward. The paper adds a bias; a
    model may have one behind any norm, or behind none (minillama.ops.norms.Norm.with_bias).
    Source: Ba, Kiros and Hinton 2016 (arXiv 1607.06450), equations 3 and 4; eps inside the root as in GPT-2.
    """
    mean = np.mean(x, axis=-1)
    centred = x - mean[..., None]
    inverse_std = 1 / np.sqrt(np.mean(centred * centred, axis=-1) + eps)
    return weight * (centred * inverse_std[..., None]), (mean, inverse_std)


def layernorm_backward(dy, x, weight, saved, dweight):
    """With u = (x - mean(x)) / std(x) and g = weight * dy:   dx = (g - mean(g) - u mean(g u)) / std(x)

    dweight += sum over rows of dy u

    The means are what the gradients of mean(x) and std(x) contribute: adding a number to x does not change y, nor does
    scaling x when eps is 0, so dx is orthogonal to the row of ones, and then to u.
    dy, x (..., C), weight (C,), saved: mean and 1 / std, both (...) -> dx (..., C); adds to dweight (C,).
    """
    mean, inverse_std = saved
    u = (x - mean[..., None]) * inverse_std[..., None]
    g = weight * dy
    dweight += np.sum((dy * u).reshape(-1, len(weight)), axis=0)
    mean_g, mean_gu = (np.mean(a, axis=-1, keepdims=True) for a in (g, g * u))
    return (g - mean_g - u * mean_gu) * inverse_std[..., None]
