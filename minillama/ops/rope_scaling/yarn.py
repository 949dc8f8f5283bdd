"""YaRN: slow pairs are interpolated, fast ones left alone, with a ramp by dimension, and attention is sharpened."""

import math

import numpy as np


def yarn_scaling(frequencies, config, length, low, high):
    """f'_i = (1 - g_i) f_i / factor + g_i f_i,   cos and sin are multiplied by sqrt(1/t) = 0.1 ln(factor) + 1

    Slow pairs, which make less than `low` turns over the original context, are slowed by the factor; fast ones, with
    more than `high` turns, are left alone. Between them g falls linearly with the index i, from 1 at the pair that
    makes `high` turns to 0 at the one that makes `low`; pair i makes  r = original theta^(-2i/D) / (2 pi)  turns, so

        i(r) = D ln(original / (2 pi r)) / (2 ln theta)

    Interpolated positions spread attention more evenly. A temperature t below 1 undoes that: both queries and keys are
    longer by sqrt(1/t), so scores by 1/t. Source: Peng et al. 2023 (arXiv 2309.00071), equations 20 to 22. Their
    equation 18 has g linear in r; linear in i, with bounds rounded outwards to whole pairs, is what their code does,
    what models were trained with, and what this is. Needs theta > 1.
    """
    head_width = 2 * len(frequencies)
    original, factor = config.rope_original_context or config.context, config.rope_factor

    def pair(turns):
        return head_width * math.log(original / (2 * math.pi * turns)) / (2 * math.log(config.rope_theta))

    first = max(math.floor(pair(high)), 0)
    last = max(min(math.ceil(pair(low)), head_width - 1), first + 1)  # where all pairs are fast or slow, a step
    kept = 1 - np.clip((np.arange(head_width // 2) - first) / (last - first), 0.0, 1.0)
    return (1 - kept) * frequencies / factor + kept * frequencies, 0.1 * math.log(max(factor, 1.0)) + 1.0
