"""The norms as the checkers of lesson 03 compute them, and what comes of an eps in the wrong place."""

import numpy as np


def rms(x, eps, k=None):
    return np.sqrt(np.mean(x[:, :k] ** 2, axis=1, keepdims=True) + eps)


def rmsnorm(x, weight, eps):
    return weight * x / rms(x, eps)


def layernorm(x, weight, bias, eps):
    return rmsnorm(x - np.mean(x, axis=1, keepdims=True), weight, eps) + bias


def misplaced_eps(mean_square, eps):
    """{hint: what stands in the place of sqrt(mean_square + eps)}: eps is there, but not where it belongs."""
    root = np.sqrt(mean_square)
    return {
        "is eps inside the square root? It is added to the mean of the squares, not to its root": root + eps,
        "is the larger of the root and eps taken? eps is added to the mean of the squares, inside the root": (
            np.maximum(root, eps)
        ),
        "is the larger of the mean of the squares and eps taken? eps is added to it": np.sqrt(
            np.maximum(mean_square, eps)
        ),
        "eps is added twice: once inside the root and once outside; it belongs inside only": (
            np.sqrt(mean_square + eps) + eps
        ),
        "eps is added twice inside the root; once is meant": np.sqrt(mean_square + 2 * eps),
        "the root of eps is added to the root: eps is added before the root is taken": root + np.sqrt(eps),
        "eps is squared: it is added to the mean of the squares as it is": np.sqrt(mean_square + eps**2),
    }


def small_row(x):
    """x with a first row so small that eps, 0.2 or more, is larger than its RMS: the larger of the two shows."""
    return np.concatenate([0.1 * x[:1], x[1:]])
