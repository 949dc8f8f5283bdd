"""Scores of attention that a careless softmax gets wrong, for the checkers of lessons 05 and 06."""

import numpy as np

_MAXIMUM = "subtract from each row its largest visible score before the exponential"


def hard_scores(rng, T, S):
    """[(property, scores (T, S), hint)]: where softmax with a causal mask goes wrong in floating point

    Every mistake fails with its own scores and gets through those before it.
    """
    behind = np.arange(S - T, S)[:, None] - np.arange(S)
    scores, visible = rng.normal(size=(T, S)) * 2, behind >= 0
    hide = (
        "hidden keys get a share when all visible scores are lower than the number that stands for hidden ones: hide "
        "with -inf, whose exponential is 0 whatever the others are"
    )
    return [
        (
            "visible scores of -400 and hidden ones of 0",  # whose exponentials are not 0 yet
            np.where(visible, scores - 400, 0.0),
            f"{hide}. Or were the scores clipped?",
        ),
        (
            "hidden scores 750 above the visible ones",  # near enough to 0 for exponentials that are not shifted
            np.where(visible, scores / 2 - 50, 703.0),
            "the largest score of a row was taken over the hidden keys too: next to it, all exponentials of the "
            f"visible ones are 0. Hide first, then {_MAXIMUM}",
        ),
        (
            "rows whose scores lie 800 apart",
            scores + np.linspace(-400, 400, T)[:, None],
            "one largest score was taken for the whole array: next to it, all exponentials of another row are 0. "
            f"Or were the scores clipped? {_MAXIMUM.capitalize()}",
        ),
        (
            "scores in the thousands",
            np.where(visible, 1000 + np.round(np.abs(scores) * 20000) / 2 + 0.25 * np.arange(S), 0.0),
            "small scores are right and large ones are not, as an exponential of a large number is infinite: "
            f"{_MAXIMUM}, and do not clip",
        ),
        (
            "visible scores of -100,000,000 and hidden ones of 0",
            np.where(visible, scores - 1e8, 0.0),
            hide,
        ),
    ]


def queries_and_keys(scores, D=16):
    """q (T, D) and k (S, D) with q k^T / sqrt(D) = scores, exactly, as D has a whole root; S is at most D."""
    T, S = scores.shape
    q = np.zeros((T, D), scores.dtype)
    q[:, :S] = scores * D**0.5
    return q, np.eye(S, D, dtype=scores.dtype)
