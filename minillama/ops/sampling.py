"""From logits to a token: the weights of a softmax in float64, and a draw by weight."""

import numpy as np

from ..runtime.memory import empty


def softmax_weights(logits, temperature):
    """z = (logits - max logits) / temperature and exp(z): (V,) -> z, weights (V,) in float64, not divided by their sum

    NaN in all places if a logit is not finite.
    """
    z, weights = empty(logits.shape, np.float64), empty(logits.shape, np.float64)
    if not np.isfinite(logits).all():
        z[:] = weights[:] = np.nan
        return z, weights
    z[:] = logits
    z -= z.max()
    with np.errstate(over="ignore"):  # a tiny temperature makes -inf, whose exp is 0, as it should be
        z /= temperature
    np.exp(z, out=weights)
    return z, weights


def draw(weights, u):
    """The index where the running sum of weights (V,) passes the share u, in [0, 1), of its total."""
    sums = np.add.reduceat(weights, np.arange(0, len(weights), 256))  # by blocks: one long running sum is slow
    running = sums.cumsum()
    target = u * running[-1]
    block = int(running.searchsorted(target, "right"))
    part = weights[256 * block : 256 * (block + 1)]
    place = int((running[block] - sums[block] + part.cumsum()).searchsorted(target, "right"))
    if place == len(part):  # by rounding alone
        place = int(np.flatnonzero(part)[-1])
    return 256 * block + place
