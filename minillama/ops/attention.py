"""Attention with grouped key/value heads, causal or in both directions, over sequences of one or of several lengths.

Query head h reads key/value head h // (H / K). K = H is multi-head attention, K = 1 multi-query attention, anything
between them grouped-query attention: one path for all three. Any other mask: minillama.ops.masked_attention.
"""

import numpy as np


def attention(q, k, v, causal=True, slopes=None, lengths=None):
    """o_i = sum_j p_ij v_j,   p_i = softmax over j of (q_i . k_j / sqrt(D) - slope |i - j|),   j what query i reads

    q (B, T, H, D); k, v (B, S, K, D) with S >= T -> o (B, T, H, D), and the log of each softmax's denominator
    (B, H, T) for the backward. The T queries are the last T of the S positions: with S = T this is training, with
    S > T it is decoding with a cache.

    causal: a query reads no key behind its own position; otherwise it reads all of them, and S = T.
    slopes (H,), not negative, or None: ALiBi, a term for the distance in place of an embedding of the position. They
        are not learned.
    lengths (B,) integers, or None: keys from position lengths[b] on are padding of sequence b, and no query reads them.
        Queries at these positions compute something finite. The caller sees to it that 1 <= lengths[b] <= S: it is not
        checked here, a query without a key gives NaN, and a length above S counts as S.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1; grouped heads: Ainslie et al. 2023 (arXiv 2305.13245);
    slopes: Press, Smith and Lewis 2021 (arXiv 2108.12409), section 3; in both directions: Devlin et al. 2018 (arXiv
    1810.04805).
    """
    q, k, v = _by_head(q, k, v)
    scores = _scores(q, k, causal, slopes, lengths)  # (B, H, T, S)
    largest = scores.max(axis=-1, keepdims=True)
    p = np.exp(scores - largest)
    denominator = p.sum(axis=-1, keepdims=True)
    p /= denominator
    o = p @ v  # (B, H, T, D)
    return o.swapaxes(1, 2), (largest + np.log(denominator))[..., 0]


def attention_backward(do, q, k, v, o, log_denominator, causal=True, slopes=None, lengths=None):
    """With P the probabilities and S the scores:

    dV = P^T dO,   dP = dO V^T,   dS = P * (dP - rowsum(dO * O)),   dQ = dS K / sqrt(D),   dK = dS^T Q / sqrt(D)

    rowsum(dO * O) = rowsum(P * dP) is the softmax's own term: it needs no T x T array. The distance is added to the
    scores, so it changes P and no formula. The gradients of a key/value head are the sums over the query heads that
    read it, and exactly 0 at the positions that nobody reads, those from lengths[b] on.
    do, q, o (B, T, H, D); k, v (B, T, K, D); log_denominator (B, H, T); causal, slopes and lengths as in the forward
    -> dqkv (B, T, H + 2 K, D): dq, dk and dv side by side, as the projection that made q, k and v lies.
    Source: Dao et al. 2022, FlashAttention (arXiv 2205.14135), appendix B.2.
    """
    B, T, H, D = q.shape
    K = k.shape[2]
    p = attention_map(q, k, log_denominator, causal, slopes, lengths)  # (B, H, T, T)
    q, k, v, do, o = _by_head(q, k, v, do, o)
    dv = p.swapaxes(2, 3) @ do
    dp = do @ v.swapaxes(2, 3)
    row_sum = np.sum(do * o, axis=-1, keepdims=True)
    ds = p * (dp - row_sum) / D**0.5
    dq = ds @ k
    dk = ds.swapaxes(2, 3) @ q
    dk, dv = (grad.reshape(B, K, H // K, T, D).sum(axis=2) for grad in (dk, dv))
    return np.concatenate([dq, dk, dv], axis=1).swapaxes(1, 2)


def attention_map(q, k, log_denominator, causal=True, slopes=None, lengths=None):
    """p_ij = exp(q_i . k_j / sqrt(D) - slope |i - j| - log denominator_i),   0 where query i does not read key j

    The probabilities of `attention`, from its inputs and the denominators that it returned: a kernel never holds them,
    and whoever wants to see them computes them anew, as the backward does.
    q (B, T, H, D), k (B, S, K, D), log_denominator (B, H, T); causal, slopes and lengths as there -> p (B, H, T, S).
    """
    q, k = _by_head(q, k)
    return np.exp(_scores(q, k, causal, slopes, lengths) - log_denominator[..., None])


def _scores(q, k, causal, slopes, lengths):
    """q_i . k_j / sqrt(D) - slope |i - j|, and -inf where query i does not read key j: (B, H, T, S)."""
    T, S, D = q.shape[2], k.shape[2], q.shape[3]
    scores = q @ k.swapaxes(2, 3) / D**0.5
    distance = np.arange(S - T, S)[:, None] - np.arange(S)  # (T, S), negative where the key lies in the future
    if slopes is not None:
        scores -= slopes[:, None, None] * np.abs(distance).astype(q.dtype)
    hidden = causal & (distance < 0)
    if lengths is not None:
        hidden = hidden | (np.arange(S) >= np.reshape(lengths, (-1, 1, 1, 1)))
    return np.where(hidden, np.array(-np.inf, q.dtype), scores)


def _by_head(q, *others):
    """(B, S, heads, D) -> (B, H, S, D), each key/value head once for every query head of its group."""
    H = q.shape[2]
    return [np.repeat(x, H // x.shape[2], axis=2).swapaxes(1, 2) for x in (q, *others)]
