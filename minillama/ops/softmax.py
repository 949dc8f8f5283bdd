"""The softmax and its logarithm, along any axis: numbers as the shares of a whole."""

import numpy as np


def softmax(x, axis=-1):
    """p_i = exp(x_i) / sum over j of exp(x_j)

    x of any shape -> p of the same shape, whose sums along the axis are 1. The largest x is taken from all of them
    first, which changes no share and keeps exp from overflowing. -inf has the share 0; where all along the axis are
    -inf, or one is NaN or +inf, there are no shares, and all are NaN.
    Source: Bridle 1990, "Probabilistic interpretation of feedforward classification network outputs".
    """
    weights = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return weights / np.sum(weights, axis=axis, keepdims=True)


def softmax_backward(dp, p, axis=-1):
    """dx_i = p_i (dp_i - sum over j of dp_j p_j)

    The sum is what the common denominator contributes: dx adds up to 0 along the axis, as a number that is added to all
    x changes no share. dp and p, what the forward returned, of one shape -> dx of that shape.
    """
    return p * (dp - np.sum(dp * p, axis=axis, keepdims=True))


def log_softmax(x, axis=-1):
    """y_i = log softmax(x)_i = x_i - log(sum over j of exp(x_j))

    x of any shape -> y of the same shape. Unlike the logarithm of softmax(x) it keeps shares that are too small for a
    floating-point number.
    """
    shifted = x - np.max(x, axis=axis, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def log_softmax_backward(dy, y, axis=-1):
    """dx_i = dy_i - exp(y_i) sum over j of dy_j

    dy and y, what the forward returned, of one shape -> dx of that shape.
    """
    return dy - np.exp(y) * np.sum(dy, axis=axis, keepdims=True)
