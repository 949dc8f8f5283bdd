"""Warm-up, stable, decay: the peak is kept, and left in a last short part of the training."""


def wsd(progress: float, floor: float, decay_share: float) -> float:
    """1 for s <= 1 - d, and then 1 - (1 - floor) (s - (1 - d)) / d,   d = decay_share

    What was trained at the peak serves trainings of any length: only the decay is done anew for each.
    Source: Hu et al. 2024 (MiniCPM, arXiv 2404.06395), section 4, which leaves the form of the decay open and finds a
    tenth of the steps enough for it; a straight line as in Hägele et al. 2024 (arXiv 2405.18392).
    """
    decayed = max(0.0, progress - (1 - decay_share)) / decay_share
    return 1 - (1 - floor) * decayed
