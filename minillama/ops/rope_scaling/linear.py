"""Position interpolation: more positions are squeezed into the angles that the model knows."""


def position_interpolation(frequencies, config, length, low, high):
    """f' = f / factor, which is to say that position t has the angles of position t / factor

    Slow and fast pairs are slowed alike, so no angle is new, but neighbours differ by a smaller turn of the fast pairs
    than the model learned to tell apart. Source: Chen et al. 2023 (arXiv 2306.15595), equation 4.
    """
    return frequencies / config.rope_factor, 1.0
