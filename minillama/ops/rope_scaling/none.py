"""Rotary frequencies as the model was trained with."""


def no_scaling(frequencies, config, length, low, high):
    """f' = f: every pair turns as fast as in training, and positions beyond the training have angles never seen."""
    return frequencies, 1.0
