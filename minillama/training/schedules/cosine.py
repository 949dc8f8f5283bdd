"""The half cosine that LLaMA was trained with."""

from math import cos, pi


def cosine(progress: float, floor: float) -> float:
    """floor + (1 - floor) (1 + cos(pi s)) / 2

    Source: Loshchilov and Hutter 2017 (arXiv 1608.03983), equation 5, without restarts; with floor 0.1 Touvron et al.
    2023 (arXiv 2302.13971), section 2.3.
    """
    return floor + (1 - floor) * (1 + cos(pi * progress)) / 2
