"""The token embedding."""

import numpy as np


def embedding(ids, weight):
    """y[n] = weight[ids[n]]

    ids (N,) integers in [0, V), weight (V, C) -> y (N, C).
    """
    return weight[ids]


def embedding_backward(dy, ids, dweight):
    """dweight[ids[n]] += dy[n]: a token that occurs twice collects two gradients.

    dy (N, C), ids (N,); adds to dweight (V, C).
    """
    np.add.at(dweight, ids, dy)
