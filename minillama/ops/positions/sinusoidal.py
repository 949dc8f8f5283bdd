"""Sinusoidal positions: fixed waves of different lengths, one sine and one cosine of each, added to the embedding."""

import numpy as np


def sinusoidal_table(config, dtype=np.float32):
    """P[t, 2i] = sin(t w_i) / sqrt(C),  P[t, 2i + 1] = cos(t w_i) / sqrt(C),  w_i = 10000^(-2i/C)

    The paper multiplies the token's embedding by sqrt(C) (section 3.4) and leaves the waves as they are; here the waves
    are divided, which is the same up to a factor of the sum, and leaves the embedding as it is with other positions.
    -> (context, C). Computed in float64, then rounded to dtype. Row t + k is a rotation of row t, pair by pair, by the
    angles k w_i, which do not depend on t: that is what lets a linear map read distances. With an odd C the last sine
    has no cosine. Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5.
    """
    C = config.dim
    frequencies = 10000.0 ** (-np.arange(0, C, 2, dtype=np.float64) / C)
    angles = np.outer(np.arange(config.context, dtype=np.float64), frequencies)
    table = np.empty((config.context, C), dtype)
    table[:, 0::2] = np.sin(angles) / C**0.5
    table[:, 1::2] = np.cos(angles[:, : C // 2]) / C**0.5
    return table
