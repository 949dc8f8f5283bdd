"""Right and wrong answers to the exercises of lesson 05."""

import numpy as np


def _soft(s, axis=-1):
    s = s - np.max(s, axis=axis, keepdims=True)
    return np.exp(s) / np.sum(np.exp(s), axis=axis, keepdims=True)


# --- causal_weights(q, k) ---


def _weights_loop(q, k):
    (T, D), S = q.shape, k.shape[0]
    p = np.zeros((T, S))
    for t in range(T):
        reads = S - T + t + 1
        scores = np.array([sum(q[t, d] * k[j, d] for d in range(D)) / D**0.5 for j in range(reads)])
        p[t, :reads] = np.exp(scores - scores.max())
        p[t] = p[t] / p[t].sum()
    return p


def _weights_tri(q, k):
    T, S = len(q), len(k)
    visible = np.tri(T, S, S - T, dtype=bool)
    return _soft(np.where(visible, q @ k.T / np.sqrt(q.shape[1]), -np.inf))


def _weights_added(q, k):
    T, S = len(q), len(k)
    return _soft(np.einsum("td,sd->ts", q, k) / q.shape[1] ** 0.5 + np.triu(np.full((T, S), -np.inf), S - T + 1))


def _weights_in_place(q, k):
    T, S = len(q), len(k)
    scores = (q / q.shape[1] ** 0.5) @ k.T
    scores[np.arange(S) > np.arange(T)[:, None] + S - T] = float("-inf")
    L = np.logaddexp.reduce(scores, axis=1)
    return np.exp(scores - L[:, None])


def _weights_with(visible, hidden=-np.inf, scale=None, axis=-1):
    def answer(q, k):
        (T, D), S = q.shape, len(k)
        scores = q @ k.T / (D**0.5 if scale is None else scale(D))
        return _soft(np.where(visible(T, S), scores, hidden), axis)

    return answer


def _right_mask(T, S):
    return np.tril(np.ones((T, S), bool), S - T)


def _weights_masked_after(q, k):
    return _soft(q @ k.T / q.shape[1] ** 0.5) * _right_mask(len(q), len(k))


def _weights_unstable(q, k):
    e = np.exp(np.where(_right_mask(len(q), len(k)), q @ k.T / q.shape[1] ** 0.5, -np.inf))
    return e / e.sum(axis=1, keepdims=True)


def _weights_small_not_minus_infinity(q, k):
    return _soft(np.where(_right_mask(len(q), len(k)), q @ k.T / q.shape[1] ** 0.5, -20.0))


def _weights_not_normalised(q, k):
    return np.exp(q @ k.T / q.shape[1] ** 0.5) * _right_mask(len(q), len(k))


def _weights_softmax_twice(q, k):
    return _soft(_weights_tri(q, k)) * _right_mask(len(q), len(k))


def _weights_window(q, k):
    """Only the last T keys, as if there were no cache before them."""
    p = np.zeros((len(q), len(k)))
    p[:, -len(q) :] = _weights_tri(q, k[-len(q) :])
    return p


def _weights_plus(hidden):
    """The mask is a large finite number that is added."""
    return lambda q, k: _soft(q @ k.T / q.shape[1] ** 0.5 + hidden * ~_right_mask(len(q), len(k)))


def _weights_one_maximum(q, k):
    scores = np.where(_right_mask(len(q), len(k)), q @ k.T / q.shape[1] ** 0.5, -np.inf)
    e = np.exp(scores - scores.max())
    return e / e.sum(axis=1, keepdims=True)


def _weights_minus_mean(q, k):
    """A mean is subtracted in place of the largest score."""
    scores, visible = q @ k.T / q.shape[1] ** 0.5, _right_mask(len(q), len(k))
    mean = np.sum(scores * visible, axis=1, keepdims=True) / visible.sum(axis=1, keepdims=True)
    e = np.exp(np.where(visible, scores - mean, -np.inf))
    return e / e.sum(axis=1, keepdims=True)


def _weights_clipped(q, k):
    scores = np.clip(q @ k.T / q.shape[1] ** 0.5, -60, 60)
    return _soft(np.where(_right_mask(len(q), len(k)), scores, -np.inf))


def _weights_lowest_float(q, k):
    scores = q @ k.T / q.shape[1] ** 0.5
    return _soft(np.where(_right_mask(len(q), len(k)), scores, np.finfo(scores.dtype).min))


def _weights_of_means(q, k):
    """A mean over the width in place of the sum, and the factor that undoes a part of it."""
    scores = np.mean(q[:, None] * k, axis=-1) * q.shape[1] ** 0.5
    return _soft(np.where(_right_mask(len(q), len(k)), scores, -np.inf))


def _weights_online(q, k):
    T, S = len(q), len(k)
    p = np.zeros((T, S))
    for t in range(T):
        m, total = -np.inf, 0.0
        for j in range(S - T + t + 1):
            score = q[t] @ k[j] / np.sqrt(q.shape[1])
            higher = max(m, score)
            p[t, :j] *= np.exp(m - higher)
            p[t, j] = np.exp(score - higher)
            total = total * np.exp(m - higher) + p[t, j]
            m = higher
        p[t] /= total
    return p


def _weights_minus_a_billion(q, k):
    return _soft((q / np.sqrt(q.shape[1])) @ k.T - 1e9 * ~_right_mask(len(q), len(k)))


def _weights_maximum_before_mask(q, k):
    scores = q @ k.T / q.shape[1] ** 0.5
    e = np.exp(scores - scores.max(axis=1, keepdims=True)) * _right_mask(len(q), len(k))
    return e / e.sum(axis=1, keepdims=True)


# --- scores_gradient(dp, p, temperature) ---


def _ds_fused(dp, p, temperature):
    return p * (dp - np.sum(dp * p, axis=-1, keepdims=True)) / temperature


def _ds_einsum(dp, p, temperature):
    weighted = dp * p / temperature
    return weighted - p * np.einsum("...i->...", weighted)[..., None]


def _ds_rows(dp, p, temperature):
    ds = np.empty_like(p)
    for row in np.ndindex(p.shape[:-1]):
        mean = float(np.dot(dp[row], p[row]))
        for j in range(p.shape[-1]):
            ds[row + (j,)] = p[row + (j,)] * (dp[row + (j,)] - mean) / temperature
    return ds


def _ds_jacobian(dp, p, temperature):
    jacobian = np.einsum("...i,ij->...ij", p, np.eye(p.shape[-1])) - p[..., :, None] * p[..., None, :]
    return (jacobian @ dp[..., None])[..., 0] / temperature


# --- causal_attention_backward(do, q, k, v) ---


def _backward_atomic(do, q, k, v):
    p = _weights_tri(q, k)
    root = np.sqrt(q.shape[1])
    dv = p.T @ do
    dp = do @ v.T
    ds = p * (dp - (dp * p).sum(axis=1, keepdims=True))
    return ds @ k / root, ds.T @ q / root, dv


def _backward_flash(do, q, k, v):
    p = _weights_in_place(q, k)
    o = p @ v
    ds = p * (do @ v.T - np.sum(do * o, axis=-1)[:, None]) * q.shape[-1] ** -0.5
    return np.einsum("ts,sd->td", ds, k), np.einsum("ts,td->sd", ds, q), np.einsum("ts,te->se", p, do)


def _backward_centred_keys(do, q, k, v):
    """The rows of ds sum to 0, so that the mean of the keys may be taken out of dq; a list, and Fortran order"""
    p, dp, root = _weights_tri(q, k), do @ v.T, np.sqrt(q.shape[1])
    ds = p * (dp - np.average(dp, axis=1, weights=p)[:, None])
    return [ds @ (k - k.mean(axis=0)) / root, np.asfortranarray(ds.T @ q / root), p.T @ do]


def _backward_loop(do, q, k, v):
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    p, D = _weights_loop(q, k), q.shape[1]
    for t in range(len(q)):
        reads = len(k) - len(q) + t + 1
        dp = [np.dot(do[t], v[j]) for j in range(reads)]
        mean = sum(dp[j] * p[t, j] for j in range(reads))
        for j in range(reads):
            ds = p[t, j] * (dp[j] - mean) / D**0.5
            dv[j] += p[t, j] * do[t]
            dq[t] += ds * k[j]
            dk[j] += ds * q[t]
    return dq, dk, dv


def _backward_by(weights=_weights_tri, ds=None, after=lambda dq, dk, dv, D: (dq, dk, dv)):
    def answer(do, q, k, v):
        p, dp = weights(q, k), do @ v.T
        s = p * (dp - np.sum(dp * p, axis=1, keepdims=True)) if ds is None else ds(p, dp)
        D = q.shape[1]
        return after(s @ k / D**0.5, s.T @ q / D**0.5, p.T @ do, D)

    return answer


def _backward_transposed(do, q, k, v):
    dq, dk, dv = _backward_atomic(do, q, k, v)
    return (dq, dk, _weights_tri(q, k) @ do) if len(q) == len(k) else (dq, dk, dv)


def _backward_ds_not_transposed(do, q, k, v):
    p, dp = _weights_tri(q, k), do @ v.T
    ds = p * (dp - np.sum(dp * p, axis=1, keepdims=True)) / q.shape[1] ** 0.5
    return ds @ k, ds @ q if len(q) == len(k) else ds.T @ q, p.T @ do


def _backward_scaled_by_tokens(do, q, k, v):
    dq, dk, dv = _backward_atomic(do, q, k, v)
    return dq * (q.shape[1] / len(k)) ** 0.5, dk * (q.shape[1] / len(k)) ** 0.5, dv


def _backward_first_key_gets_all(do, q, k, v):
    dq, dk, dv = _backward_atomic(do, q, k, v)
    dk[0] *= 2
    return dq, dk, dv


def _backward_by_means(which):
    def answer(do, q, k, v):
        gradients = list(_backward_atomic(do, q, k, v))
        gradients[which] = gradients[which] / (len(k) if which == 0 else len(q))
        return gradients

    return answer


def _backward_scaled_within(do, q, k, v):
    """1 / sqrt(D) at dp, and not at the row sum."""
    p, dp = _weights_tri(q, k), do @ v.T
    ds = p * (dp / q.shape[1] ** 0.5 - np.sum(dp * p, axis=1, keepdims=True))
    return ds @ k, ds.T @ q, p.T @ do


def _backward_float32(do, q, k, v):
    return tuple(g.astype(np.float32) for g in _backward_atomic(do, q, k, v))


# --- merge_attention(o1, L1, o2, L2) ---


def _merge_logaddexp(o1, L1, o2, L2):
    L = np.logaddexp(L1, L2)
    return np.exp(L1 - L)[:, None] * o1 + np.exp(L2 - L)[:, None] * o2, L


def _merge_maximum(o1, L1, o2, L2):
    m = np.maximum(L1, L2)
    w1, w2 = np.exp(L1 - m), np.exp(L2 - m)
    total = w1 + w2
    return (w1[:, None] * o1 + w2[:, None] * o2) / total[:, None], m + np.log(total)


def _merge_loop(o1, L1, o2, L2):
    o, L = np.empty_like(o1), np.empty_like(L1)
    for t in range(len(o1)):
        high, low = (L1[t], L2[t]) if L1[t] >= L2[t] else (L2[t], L1[t])
        L[t] = high + np.log1p(np.exp(low - high))
        o[t] = o1[t] + (o2[t] - o1[t]) * np.exp(L2[t] - L[t])
    return o, L


def _merge_stacked(o1, L1, o2, L2):
    L = np.stack([L1, L2])
    e = np.exp(L - L.max(axis=0))
    return np.einsum("it,itd->td", e / e.sum(axis=0), np.stack([o1, o2])), L.max(axis=0) + np.log(e.sum(axis=0))


def _merge_first_is_never_smaller(o1, L1, o2, L2):
    share = (1 / (1 + np.exp(L2 - L1)))[:, None]
    return share * o1 + (1 - share) * o2, L1 + np.log1p(np.exp(L2 - L1))


def _merge_larger_half_only(o1, L1, o2, L2):
    return np.where((L1 > L2)[:, None], o1, o2), np.logaddexp(L1, L2)


def _merge_by(o, L=np.logaddexp):
    def answer(o1, L1, o2, L2):
        return o(o1, L1[:, None], o2, L2[:, None]), L(L1, L2)

    return answer


def _merged_o(o1, L1, o2, L2):
    return _merge_logaddexp(o1, L1[:, 0], o2, L2[:, 0])[0]


def _merge_unstable(o1, L1, o2, L2):
    w1, w2 = np.exp(L1), np.exp(L2)
    return (w1[:, None] * o1 + w2[:, None] * o2) / (w1 + w2)[:, None], np.log(w1 + w2)


def _merge_one_maximum(o1, L1, o2, L2):
    m = max(L1.max(), L2.max())
    w1, w2 = np.exp(L1 - m), np.exp(L2 - m)
    return (w1[:, None] * o1 + w2[:, None] * o2) / (w1 + w2)[:, None], m + np.log(w1 + w2)


def _merge_one_share_for_all(o1, L1, o2, L2):
    L = np.logaddexp(L1, L2)
    return np.exp(L1 - L).mean() * o1 + np.exp(L2 - L).mean() * o2, L


RIGHT = {
    "causal_weights": [
        _weights_loop,
        _weights_tri,
        _weights_added,
        _weights_in_place,
        _weights_online,
        _weights_minus_a_billion,
        _weights_lowest_float,
        _weights_plus(-1e30),
        _weights_of_means,
    ],
    "scores_gradient": [_ds_fused, _ds_einsum, _ds_rows],
    "causal_attention_backward": [_backward_atomic, _backward_flash, _backward_loop, _backward_centred_keys],
    "merge_attention": [_merge_logaddexp, _merge_maximum, _merge_loop, _merge_stacked],
}

WRONG = {
    "causal_weights": [
        (_weights_with(_right_mask, hidden=0.0), "set to 0"),
        (_weights_masked_after, "after the softmax"),
        (_weights_with(lambda T, S: np.tri(T, S, S - T + 1, dtype=bool)), "just behind its own position"),
        (_weights_with(lambda T, S: np.tri(T, S, S - T - 1, dtype=bool)), ""),  # row 0 reads nothing: not finite
        (_weights_with(lambda T, S: np.tri(T, S, dtype=bool)), "wrong corner"),
        (_weights_with(lambda T, S: ~np.tri(T, S, S - T - 1, dtype=bool)), "wrong way round"),
        (_weights_with(lambda T, S: np.ones((T, S), bool)), "nothing is hidden"),
        (_weights_with(_right_mask, scale=lambda D: 1.0), "not divided by sqrt(D)"),
        (_weights_with(_right_mask, scale=lambda D: D), "divide by its square root"),
        (_weights_with(_right_mask, axis=0), "over the queries"),
        (_weights_with(_right_mask, scale=lambda D: 2.5), "not the softmax of"),
        (_weights_not_normalised, "not divided by its own sum"),
        (_weights_softmax_twice, "not the softmax of"),
        (_weights_window, "not the softmax of"),
        (_weights_small_not_minus_infinity, ""),
        (_weights_with(_right_mask, hidden=-1e2), "hide with -inf"),
        (_weights_with(_right_mask, hidden=-1e3), "hide with -inf"),
        (_weights_with(_right_mask, hidden=-1e4), "hide with -inf"),
        (_weights_with(_right_mask, hidden=-1e5), "hide with -inf"),
        (_weights_with(_right_mask, hidden=-1e7), "hide with -inf"),
        (_weights_plus(-1e3), "hide with -inf"),
        (_weights_plus(-1e5), "hide with -inf"),
        (_weights_unstable, "exponential of a large number is infinite"),
        (_weights_minus_mean, "exponential of a large number is infinite"),
        (_weights_clipped, "were the scores clipped"),
        (_weights_maximum_before_mask, "over the hidden keys too"),
        (_weights_one_maximum, "for the whole array"),
    ],
    "scores_gradient": [
        (lambda dp, p, t: p * (dp - np.sum(dp * p, axis=-1, keepdims=True)), "temperature is missing"),
        (lambda dp, p, t: p * (dp - np.sum(dp * p, axis=-1, keepdims=True)) * t, "multiplied by the temperature"),
        (lambda dp, p, t: p * (dp - np.sum(dp * p, axis=-1, keepdims=True)) / t**2, "temperature twice"),
        (lambda dp, p, t: p * (dp - np.mean(dp * p, axis=-1, keepdims=True)) / t, "the mean of dp * p was"),
        (lambda dp, p, t: p * (dp - np.mean(dp * p)) / t, "mean of dp * p"),  # of one axis: the same as the line before
        (lambda dp, p, t: p * (dp - np.mean(dp, axis=-1, keepdims=True)) / t, "the mean of dp was"),
        (lambda dp, p, t: p * (dp / t - np.sum(dp * p, axis=-1, keepdims=True)), "only dp is divided"),
        (lambda dp, p, t: p * (dp - np.sum(dp * p, axis=-1, keepdims=True) / t), "only the row sum is divided"),
        (lambda dp, p, t: (p * dp - np.sum(dp * p, axis=-1, keepdims=True)) / t, "at dp alone"),
        (lambda dp, p, t: p * dp / t, "row sum is missing"),
        (lambda dp, p, t: p * (1 - p) * dp / t, "only the diagonal"),
        (lambda dp, p, t: p * (dp - dp.sum(axis=-1, keepdims=True)) / t, "weighted by p"),
        (lambda dp, p, t: (dp - np.sum(dp * p, axis=-1, keepdims=True)) / t, "factor p"),
        (lambda dp, p, t: p * (dp - np.sum(dp * p)) / t, "whole array"),
        (lambda dp, p, t: p * (dp + np.sum(dp * p, axis=-1, keepdims=True)) / t, "the row sum is added"),
        (_ds_jacobian, "Jacobian, S x S numbers, was built"),
    ],
    "causal_attention_backward": [
        (_backward_by(after=lambda dq, dk, dv, D: (dq * D**0.5, dk, dv)), "1 / sqrt(D) is missing"),
        (_backward_by(after=lambda dq, dk, dv, D: (dq, dk * D**0.5, dv)), "1 / sqrt(D) is missing"),
        (_backward_by(after=lambda dq, dk, dv, D: (dq / D**0.5, dk / D**0.5, dv)), "once, not twice"),
        (_backward_by(ds=lambda p, dp: p * dp), "row sum is missing"),
        (_backward_by(ds=lambda p, dp: p * (dp - np.sum(dp, axis=1, keepdims=True))), "weighted by p"),
        (_backward_by(ds=lambda p, dp: p * (dp - np.sum(dp * p, axis=0, keepdims=True))), "over the queries"),
        (_backward_by(ds=lambda p, dp: dp), "dp, the gradient of the weights"),
        (_backward_by(_weights_with(lambda T, S: np.ones((T, S), bool))), "nothing is hidden"),
        (_backward_by(_weights_with(lambda T, S: np.tri(T, S, dtype=bool))), "wrong corner"),
        (_backward_by(_weights_with(_right_mask, hidden=0.0)), "set to 0"),
        (_backward_by(_weights_masked_after), "after the softmax"),
        (_backward_by(_weights_with(_right_mask, scale=lambda D: 1.0)), "before the softmax"),
        (_backward_by(after=lambda dq, dk, dv, D: (-dq, -dk, dv)), "sign of ds"),
        (_backward_by(after=lambda dq, dk, dv, D: (dq, dv, dk)), "each other's place"),
        (_backward_scaled_by_tokens, "D is the width of a head"),
        (_backward_by(ds=lambda p, dp: p * (dp - np.mean(dp * p, axis=1, keepdims=True))), "mean of dp * p"),
        (_backward_by(ds=lambda p, dp: p * (dp - np.mean(dp, axis=1, keepdims=True))), "the mean of dp was"),
        (_backward_by(ds=lambda p, dp: (p > 0) * (p * dp - np.sum(dp * p, axis=1, keepdims=True))), "at dp alone"),
        (_backward_scaled_within, "only dp is divided"),
        (_backward_by_means(0), "this is a mean"),
        (_backward_by_means(1), "this is a mean"),
        (_backward_by_means(2), "this is a mean"),
        (_backward_by(_weights_with(_right_mask, hidden=-1e3)), "hide with -inf"),
        (_backward_by(_weights_plus(-1e5)), "hide with -inf"),
        (_backward_by(_weights_maximum_before_mask), "over the hidden keys too"),
        (_backward_by(_weights_one_maximum), "for the whole array"),
        (_backward_transposed, "transpose is missing"),
        (_backward_ds_not_transposed, "transpose is missing"),
        (_backward_first_key_gets_all, "dk is wrong"),
        (_backward_by(_weights_unstable), "exponential of a large number is infinite"),
        (_backward_float32, "dtype"),
    ],
    "merge_attention": [
        (_merge_by(lambda o1, L1, o2, L2: o1 + o2), "without weights"),
        (_merge_by(lambda o1, L1, o2, L2: (o1 + o2) / 2), "averaged"),
        (_merge_by(lambda o1, L1, o2, L2: (L1 * o1 + L2 * o2) / (L1 + L2)), "weighted by L itself"),
        (_merge_by(lambda o1, L1, o2, L2: _merged_o(o2, L1, o1, L2)), "wrong way round"),
        (_merge_by(lambda o1, L1, o2, L2: o1 + o2 * np.exp(L2 - np.logaddexp(L1, L2))), "o1 keeps"),
        (_merge_by(_merged_o, np.maximum), "the larger of the two"),
        (_merge_by(_merged_o, np.add), "not the sum of the two"),
        (_merge_one_share_for_all, "o of all keys does not hold"),
        (_merge_by(_merged_o, lambda L1, L2: np.logaddexp(L1, L2) - np.log(2)), "the mean of the two denominators"),
        (_merge_one_maximum, "far apart"),
        (_merge_unstable, "exp(L) is infinite"),
        (_merge_first_is_never_smaller, "whichever half it belongs to"),
        (_merge_larger_half_only, "o of all keys does not hold"),
    ],
}
