"""A straight line down."""


def linear(progress: float, floor: float) -> float:
    """1 - (1 - floor) s

    With floor 0 what BERT was trained with: Devlin et al. 2018 (arXiv 1810.04805), section A.2.
    """
    return 1 - (1 - floor) * progress
