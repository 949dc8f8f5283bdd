"""Attention with any mask, for arrays whose positions are the last axis but one.

`minillama.ops.attention` is the same formula for the masks that the models have, with the axes as their projections
leave them; it has a kernel, and this has none.
"""

import numpy as np


def masked_attention(q, k, v, mask=None):
    """o_i = sum_j p_ij v_j,   p_i = softmax over the j that query i may read of (q_i . k_j / sqrt(D))

    q (..., T, D), k (..., S, D), v (..., S, E) -> o (..., T, E), and the log of each softmax's denominator (..., T) for
    the backward. The axes in front are those of q, k and v alike. Of the last of them, the heads, k and v may have
    fewer than q: with q (..., H, T, D) and k (..., K, S, D) query head h reads key/value head h // (H / K).

    mask: truth values that broadcast to (..., T, S), True where query i may read key j; None: everywhere. A query that
    may read nothing gives 0, passes no gradient, and has the log denominator -inf. ValueError for shapes that do not
    belong together, and for a mask of numbers.
    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1; grouped heads: Ainslie et al. 2023 (arXiv 2305.13245).
    """
    q, k, v = map(np.asarray, (q, k, v))
    _check(q, k, v, mask)
    scores = _scores(q, k, mask)  # (..., T, S)
    largest = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    p = np.exp(scores - np.where(largest == -np.inf, 0, largest).astype(q.dtype))
    denominator = np.sum(p, axis=-1, keepdims=True)
    o = (p / np.where(denominator == 0, 1, denominator)) @ _for_queries(v, q)
    with np.errstate(divide="ignore"):  # the log of 0 is -inf, as it should be
        return o, (largest + np.log(denominator))[..., 0]


def masked_attention_backward(do, q, k, v, o, log_denominator, mask=None):
    """With P the probabilities and S the scores, as for minillama.ops.attention:

    dV = P^T dO,   dP = dO V^T,   dS = P * (dP - rowsum(dO * O)),   dQ = dS K / sqrt(D),   dK = dS^T Q / sqrt(D)

    do, o (..., T, E); the others as in the forward -> dq, dk, dv, each of the shape of what it is the gradient of.
    """
    known = np.where(log_denominator == -np.inf, 0, log_denominator).astype(q.dtype)
    p = np.exp(_scores(q, k, mask) - known[..., None])  # (..., T, S), 0 in the row of a query that reads nothing
    dp = do @ _for_queries(v, q).swapaxes(-1, -2)
    ds = p * (dp - np.sum(do * o, axis=-1, keepdims=True)) / q.shape[-1] ** 0.5
    dq = ds @ _for_queries(k, q)
    return dq, _for_keys(ds.swapaxes(-1, -2) @ q, k), _for_keys(p.swapaxes(-1, -2) @ do, v)


def _scores(q, k, mask):
    """q_i . k_j / sqrt(D), and -inf where query i may not read key j: (..., T, S)."""
    scores = q @ _for_queries(k, q).swapaxes(-1, -2) / q.shape[-1] ** 0.5
    return scores if mask is None else np.where(mask, scores, np.array(-np.inf, q.dtype))


def _for_queries(x, q):
    """Keys or values with each head once for every query head that reads it."""
    return x if x.shape[:-2] == q.shape[:-2] else np.repeat(x, q.shape[-3] // x.shape[-3], axis=-3)


def _for_keys(dx, x):
    """The gradients (..., H, S, D) of repeated keys or values, added up for each of their heads: the shape of x."""
    return dx if dx.shape == x.shape else dx.reshape(*x.shape[:-2], -1, *x.shape[-2:]).sum(axis=-3)


def _check(q, k, v, mask):
    fits = min(q.ndim, k.ndim, v.ndim) >= 2 and q.shape[-1] == k.shape[-1] and k.shape[:-1] == v.shape[:-1]
    if fits and q.shape[:-2] != k.shape[:-2]:  # then the heads are grouped
        fits = q.ndim == k.ndim >= 3 and q.shape[:-3] == k.shape[:-3] and q.shape[-3] % max(k.shape[-3], 1) == 0
        fits = fits and 0 < k.shape[-3] < q.shape[-3]
    if not fits:
        raise ValueError(
            f"attention needs q (..., H, T, D), k (..., K, S, D) and v (..., K, S, E) with the same axes in front, and "
            f"a K that divides H; received {q.shape}, {k.shape} and {v.shape}"
        )
    if mask is None:
        return
    if np.asarray(mask).dtype != bool:
        raise ValueError(
            f"a mask is of truth values, True where a query may read a key; received {np.asarray(mask).dtype}. Of a "
            f"mask that is added to the scores, with 0 and -inf, pass mask == 0"
        )
    shape = *q.shape[:-1], k.shape[-2]
    try:
        fits = np.broadcast_shapes(np.shape(mask), shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"the mask must broadcast to (..., T, S) = {shape}; received {np.shape(mask)}")
