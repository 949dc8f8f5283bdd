"""Causal attention with grouped key/value heads.

Query head h reads key/value head h // (H / K). K = H is multi-head attention, K = 1 multi-query attention, anything
between them grouped-query attention: one path for all three.
"""

import numpy as np


def attention(q, k, v):
    """o_i = sum_j p_ij v_j,   p_i = softmax over j of (q_i . k_j / sqrt(D)),   j up to the query's own position

    q (B, T, H, D); k, v (B, S, K, D) with S >= T -> o (B, T, H, D), and the log of each softmax's denominator
    (B, H, T) for the backward. The T queries are the last T of the S positions: with S = T this is training, with
    S > T it is decoding with a cache.
    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1; grouped heads: Ainslie et al. 2023 (arXiv 2305.13245).
    """
    scores = _scores(q, k)  # (B, H, T, S)
    largest = scores.max(axis=-1, keepdims=True)
    p = np.exp(scores - largest)
    denominator = p.sum(axis=-1, keepdims=True)
    p /= denominator
    o = np.einsum("bhts,bshd->bthd", p, _repeat(v, q))
    return o, (largest + np.log(denominator))[..., 0]


def attention_backward(do, q, k, v, o, log_denominator):
    """With P the probabilities and S the scores:

    dV = P^T dO,   dP = dO V^T,   dS = P * (dP - rowsum(dO * O)),   dQ = dS K / sqrt(D),   dK = dS^T Q / sqrt(D)

    rowsum(dO * O) = rowsum(P * dP) is the softmax's own term: it needs no T x T array. The gradients of a key/value
    head are the sums over the query heads that read it.
    do, q, o (B, T, H, D); k, v (B, T, K, D); log_denominator (B, H, T) -> dqkv (B, T, H + 2 K, D): dq, dk and dv side
    by side, as the projection that made q, k and v lies.
    Source: Dao et al. 2022, FlashAttention (arXiv 2205.14135), appendix B.2.
    """
    B, T, H, D = q.shape
    K = k.shape[2]
    p = np.exp(_scores(q, k) - log_denominator[..., None])  # (B, H, T, T)
    dv = np.einsum("bhts,bthd->bshd", p, do)
    dp = np.einsum("bthd,bshd->bhts", do, _repeat(v, q))
    row_sum = np.einsum("bthd,bthd->bht", do, o)
    ds = p * (dp - row_sum[..., None]) / D**0.5
    dq = np.einsum("bhts,bshd->bthd", ds, _repeat(k, q))
    dk = np.einsum("bhts,bthd->bshd", ds, q)
    dk, dv = (grad.reshape(B, T, K, H // K, D).sum(axis=3) for grad in (dk, dv))
    return np.concatenate([dq, dk, dv], axis=2)


def _scores(q, k):
    """q_i . k_j / sqrt(D), and -inf where j lies in the future of i: (B, H, T, S)."""
    T, S, D = q.shape[1], k.shape[1], q.shape[3]
    scores = np.einsum("bthd,bshd->bhts", q, _repeat(k, q)) / D**0.5
    future = np.arange(S) > np.arange(S - T, S)[:, None]
    return np.where(future, np.array(-np.inf, q.dtype), scores)


def _repeat(x, q):
    """Each key/value head once for every query head of its group: (B, S, K, D) -> (B, S, H, D)."""
    return np.repeat(x, q.shape[2] // x.shape[2], axis=2)
