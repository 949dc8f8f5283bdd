"""The scaling of Llama 3.1 and 3.2: slow pairs are interpolated, fast ones left alone, with a ramp by turns between."""

import numpy as np


def llama3_scaling(frequencies, config, length, low, high):
    """f' = (1 - g) f / factor + g f,  g = (r - low) / (high - low) within 0 and 1,  r = original f / (2 pi)

    r is the number of turns that a pair makes over the original context. A slow pair (r < low) never showed the model
    its whole circle: it is slowed by the factor, so that no angle is new. A fast one (r > high) tells neighbours apart
    and is left alone. Source: `apply_scaling` in Meta's code for Llama 3.1 (github.com/meta-llama/llama-models); the
    form is that of NTK-by-parts, Peng et al. 2023 (arXiv 2309.00071), equations 17 to 20.
    """
    original = config.rope_original_context or config.context
    turns = original * frequencies / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 - kept) * frequencies / config.rope_factor + kept * frequencies, 1.0
