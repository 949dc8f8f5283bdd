"""No decay at all."""


def constant(progress: float) -> float:
    """1: the peak, from the end of the warm-up to the last step."""
    return 1.0
