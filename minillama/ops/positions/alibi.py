"""ALiBi, attention with linear biases: nothing tells positions, but a score falls with the distance of its tokens."""

import numpy as np


def alibi_slopes(config, dtype=np.float32):
    """m_h = 2^(-8 (h + 1) / H):  score(i, j) = q_i k_j / sqrt(D) - m_h |i - j|

    -> (H,), computed in float64, then rounded to dtype. H = 8 has 1/2, 1/4, ..., 1/256: the first head sees a few
    tokens, the last some hundreds. A number of heads that is no power of two takes the slopes of the power of two below
    it, and the rest from those of twice that power which are not among them.
    Source: Press et al. 2021 (arXiv 2108.12409), section 3; the rule for other numbers of heads is in their code only.
    """
    heads = config.heads
    power = 1 << (heads.bit_length() - 1)  # the largest power of two that is not above heads
    slopes = np.concatenate([_geometric(power), _geometric(2 * power)[0::2]])
    return slopes[:heads].astype(dtype)


def _geometric(heads):
    return 2.0 ** (-8 * np.arange(1, heads + 1, dtype=np.float64) / heads)
