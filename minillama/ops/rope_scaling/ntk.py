"""NTK-aware scaling: a larger theta, so that the slow pairs carry the stretch and the fast ones keep neighbours apart.

The name stands for neural tangent kernel, whose theory says that networks need high frequencies to tell near points
apart.
"""

import numpy as np


def ntk_scaling(frequencies, config, length, low, high):
    """f'_i = theta'^(-2i/D),  theta' = theta factor^(D/(D - 2))

    The fastest pair (i = 0) is left alone, the slowest (i = D/2 - 1) is slowed by exactly the factor, and each one
    between by a power of it. Source: the user bloc97 of r/LocalLLaMA, June 2023, "NTK-aware scaled RoPE"; written down
    in Peng et al. 2023, YaRN (arXiv 2309.00071), section 3.1, equations 15 and 16.
    """
    return raise_base(frequencies, config.rope_factor), 1.0


def raise_base(frequencies, factor):
    """theta'^(-2i/D) for the larger theta' that slows the slowest pair by the factor: f_i factor^(-2i/(D - 2))

    frequencies (D/2,) -> (D/2,). The exponents run from 0 to -1; a lone pair (D = 2) has no theta and stays as it is.
    """
    return frequencies * factor ** -np.linspace(0.0, 1.0, len(frequencies))
