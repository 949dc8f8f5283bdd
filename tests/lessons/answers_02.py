"""Right and wrong answers to the exercises of lesson 02."""

import numpy as np


def log_softmax(z, axis=-1):
    z = z - z.max(axis=axis, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))


def softmax(z, axis=-1):
    return np.exp(log_softmax(z, axis))


# Undoing a broadcast
def _unbroadcast_axes(dy, shape):
    dy = dy.sum(axis=tuple(range(dy.ndim - len(shape))))
    return dy.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


def _unbroadcast_loop(dy, shape):
    dx = np.zeros(shape)
    for index in np.ndindex(dy.shape):
        own = index[dy.ndim - len(shape) :]
        dx[tuple(0 if n == 1 else i for i, n in zip(own, shape, strict=True))] += dy[index]
    return dx


def _unbroadcast_while(dy, shape):
    while dy.ndim > len(shape):
        dy = dy.sum(axis=0)
    for axis, n in enumerate(shape):
        if n == 1:
            dy = dy.sum(axis=axis, keepdims=True)
    return dy


def _unbroadcast_mean(dy, shape):
    padded = (1,) * (dy.ndim - len(shape)) + tuple(shape)
    axes = tuple(i for i, n in enumerate(padded) if n == 1)
    return dy.mean(axis=axes).reshape(shape)


def _unbroadcast_added_axes_only(dy, shape):
    return dy.sum(axis=tuple(range(dy.ndim - len(shape))))


def _unbroadcast_first(dy, shape):
    dy = dy[(0,) * (dy.ndim - len(shape))]
    return dy[tuple(slice(0, n) for n in shape)]


def _unbroadcast_everything(dy, shape):
    return np.full(shape, dy.sum())


def _unbroadcast_squeezed(dy, shape):
    dy = dy.sum(axis=tuple(range(dy.ndim - len(shape))))
    return dy.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1))


def _unbroadcast_twice(dy, shape):
    return 2 * _unbroadcast_axes(dy, shape)


# A linear map stored the other way round
def _linear_flat(dy, x, weight):
    x2, dy2 = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return dy @ weight.T, x2.T @ dy2, dy2.sum(axis=0)


def _linear_einsum(dy, x, weight):
    return np.einsum("btf,cf->btc", dy, weight), np.einsum("btc,btf->cf", x, dy), np.einsum("btf->f", dy)


def _linear_loop(dy, x, weight):
    dx, dweight, dbias = np.zeros_like(x), np.zeros_like(weight), np.zeros_like(dy[0, 0])
    for b, t in np.ndindex(dy.shape[:2]):
        dx[b, t] = weight @ dy[b, t]
        dweight += np.outer(x[b, t], dy[b, t])
        dbias += dy[b, t]
    return dx, dweight, dbias


def _linear_no_transpose(dy, x, weight):
    return (dy @ weight if weight.shape[0] == weight.shape[1] else dy @ weight.T), *_linear_flat(dy, x, weight)[1:]


def _linear_weight_transposed(dy, x, weight):
    dx, dweight, dbias = _linear_flat(dy, x, weight)
    return dx, dweight.T, dbias


def _linear_mean(dy, x, weight):
    dx, dweight, dbias = _linear_flat(dy, x, weight)
    return dx, dweight / dy[..., 0].size, dbias


def _linear_bias_mean(dy, x, weight):
    dx, dweight, _ = _linear_flat(dy, x, weight)
    return dx, dweight, dy.mean(axis=(0, 1))


def _linear_last_sequence(dy, x, weight):
    dx, dweight, dbias = _linear_flat(dy, x, weight)
    for b in range(len(x)):
        dweight = x[b].T @ dy[b]
    return dx, dweight, dbias


def _linear_bias_over_batch(dy, x, weight):
    dx, dweight, _ = _linear_flat(dy, x, weight)
    return dx, dweight, dy.sum(axis=0)


def _linear_reshaped(dy, x, weight):
    dx, _, dbias = _linear_flat(dy, x, weight)
    return dx, x.reshape(x.shape[-1], -1) @ dy.reshape(-1, dy.shape[-1]), dbias  # a reshape is not a transpose


def _linear_tensordot(dy, x, weight):  # a list, and arrays that are not contiguous
    dx = np.moveaxis(np.einsum("cf,btf->cbt", weight, dy), 0, -1)
    return [dx, np.tensordot(dy, x, ((0, 1), (0, 1))).T, dy.sum(1).sum(0)]


def _linear_float64(dy, x, weight):
    return tuple(a.astype(np.float64) for a in _linear_flat(dy, x, weight))


def _linear_extra_factor(dy, x, weight):
    dx, dweight, dbias = _linear_flat(dy, x, weight)
    return 2 * dx, dweight, dbias


def _linear_divided(which, by):
    """One gradient is a mean along an axis in place of a sum."""

    def answer(dy, x, weight):
        gradients = list(_linear_flat(dy, x, weight))
        gradients[which] = gradients[which] / dy.dtype.type(by(dy))
        return gradients

    return answer


# Softmax with cross-entropy
def _entropy_select(logits, targets):
    kept = np.flatnonzero(targets != -100)
    dlogits = np.zeros_like(logits)
    if len(kept) == 0:
        return 0.0, dlogits
    logs = log_softmax(logits[kept], axis=1)
    dlogits[kept] = np.exp(logs)
    dlogits[kept, targets[kept]] -= 1
    return -logs[np.arange(len(kept)), targets[kept]].mean(), dlogits / len(kept)


def _entropy_loop(logits, targets):
    count, loss, dlogits = int(np.sum(targets != -100)), 0.0, np.zeros(logits.shape)
    for n, target in enumerate(targets):
        if target == -100:
            continue
        largest = max(logits[n])
        exponentials = np.exp(logits[n] - largest)
        loss += (np.log(exponentials.sum()) + largest - logits[n, target]) / count
        dlogits[n] = exponentials / exponentials.sum() / count
        dlogits[n, target] -= 1 / count
    return loss, dlogits


def _entropy_masked(logits, targets):
    kept = targets != -100
    weights = kept / max(1, kept.sum())
    one_hot = np.eye(logits.shape[1])[np.where(kept, targets, 0)]
    logs = log_softmax(logits, axis=1)
    return float(-(weights[:, None] * one_hot * logs).sum()), weights[:, None] * (np.exp(logs) - one_hot)


def _entropy(logits, targets, over_all=False, gradient_sum=False, gradient_over_all=False, sign=1, one_hot=True):
    kept = targets != -100
    rows, safe = np.arange(len(targets)), np.where(kept, targets, 0)
    losses = -log_softmax(logits, axis=1)[rows, safe]
    count = len(targets) if over_all else max(1, kept.sum())
    d = softmax(logits, axis=1)
    if one_hot:
        d[rows, safe] -= 1
    d = sign * d * kept[:, None]
    return losses[kept].sum() / count, d / (1 if gradient_sum else len(targets) if gradient_over_all else count)


def _entropy_overflows(logits, targets):
    loss, dlogits = _entropy_select(logits, targets)
    p = np.exp(logits)
    return loss + 0 * p.sum(), dlogits


def _entropy_token_zero(logits, targets):
    safe = np.maximum(targets, 0)
    return _entropy_select(logits, safe)


def _entropy_softmax_in_ignored_rows(logits, targets):
    loss, dlogits = _entropy_select(logits, targets)
    kept = targets != -100
    return loss, np.where(kept[:, None], dlogits, softmax(logits, axis=1) / max(1, kept.sum()))


def _entropy_empty_mean(logits, targets):
    kept = targets != -100
    losses = -log_softmax(logits, axis=1)[np.arange(len(targets)), np.where(kept, targets, 0)]
    return losses[kept].sum() / kept.sum(), _entropy_select(logits, targets)[1]


def _entropy_with(log_p, logits, targets, kept=None):
    kept = targets != -100 if kept is None else kept
    rows, safe, count = np.arange(len(targets)), np.maximum(targets, 0), max(1, kept.sum())
    dlogits = np.exp(log_p)
    dlogits[rows, safe] -= 1
    return -np.sum(log_p[rows, safe] * kept) / count, dlogits * kept[:, None] / count


def _entropy_global_maximum(logits, targets):
    e = np.exp(logits - logits.max())
    return _entropy_with(np.log(e / e.sum(axis=1, keepdims=True)), logits, targets)


def _entropy_log_of_softmax(logits, targets):
    kept = targets != -100
    picked = softmax(logits, axis=1)[np.arange(len(targets)), np.maximum(targets, 0)]
    return -np.sum(np.log(picked[kept])) / max(1, kept.sum()), _entropy_select(logits, targets)[1]


def _entropy_padded_logarithm(logits, targets):
    return _entropy_with(np.log(softmax(logits, axis=1) + 1e-9), logits, targets)


def _entropy_drops_token_zero(logits, targets):
    return _entropy_with(log_softmax(logits, axis=1), logits, targets, targets > 0)


def _entropy_bits(logits, targets):
    loss, dlogits = _entropy_select(logits, targets)
    return loss / np.log(2), dlogits


def _entropy_logaddexp(logits, targets):
    kept = targets != -100
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return _entropy_with(log_p, logits, targets, kept)


def _entropy_scaled_down(logits, targets):
    loss, dlogits = _entropy_select(logits, targets)
    return loss, dlogits * 0.7


def _entropy_scaled(of_loss, of_gradient):
    """Loss and gradient, divided by a function each of the targets that count, and V."""

    def answer(logits, targets):
        (loss, dlogits), size = _entropy_select(logits, targets), (max(1, sum(targets != -100)), logits.shape[1])
        return loss / of_loss(*size), dlogits / of_gradient(*size)

    return answer


# One matrix, used twice
def _tied_add_at(dx, dlogits, h, ids, weight):
    dweight = np.einsum("btv,btc->vc", dlogits, h)
    np.add.at(dweight, ids, dx)
    return dlogits @ weight, dweight


def _tied_one_hot(dx, dlogits, h, ids, weight):
    (V, C), one_hot = weight.shape, np.eye(len(weight))[ids.ravel()]
    flat = dlogits.reshape(-1, V)
    return (flat @ weight).reshape(h.shape), flat.T @ h.reshape(-1, C) + one_hot.T @ dx.reshape(-1, C)


def _tied_loop(dx, dlogits, h, ids, weight):
    dh, dweight = np.zeros_like(h), np.zeros_like(weight)
    for b, t in np.ndindex(ids.shape):
        dh[b, t] = weight.T @ dlogits[b, t]
        dweight += np.outer(dlogits[b, t], h[b, t])
        dweight[ids[b, t]] += dx[b, t]
    return dh, dweight


def _tied(dx, dlogits, h, ids, weight):
    return np.einsum("btv,vc->btc", dlogits, weight), np.einsum("btv,btc->vc", dlogits, h)


def _tied_plus_equals(dx, dlogits, h, ids, weight):
    dh, dweight = _tied(dx, dlogits, h, ids, weight)
    dweight[ids] += dx
    return dh, dweight


def _tied_in_turn(dx, dlogits, h, ids, weight):
    dh, dweight = _tied(dx, dlogits, h, ids, weight)
    for b in range(len(ids)):
        dweight[ids[b]] += dx[b]
    return dh, dweight


def _tied_mean_of_repeated(dx, dlogits, h, ids, weight):
    dh, dweight = _tied(dx, dlogits, h, ids, weight)
    for v in np.unique(ids):
        dweight[v] += dx[ids == v].mean(axis=0)
    return dh, dweight


def _tied_sorted(dx, dlogits, h, ids, weight):
    dh, dweight = _tied(dx, dlogits, h, ids, weight)
    order = np.argsort(ids, axis=None, kind="stable")
    used, starts = np.unique(ids.ravel()[order], return_index=True)
    dweight[used] += np.add.reduceat(dx.reshape(-1, dx.shape[-1])[order], starts)
    return [dh, dweight]


def _tied_overwrites(dx, dlogits, h, ids, weight):
    dh, dweight = _tied(dx, dlogits, h, ids, weight)
    dweight[ids] = dx
    return dh, dweight


def _tied_assigned_apart(dx, dlogits, h, ids, weight):
    dh, dweight = _tied(dx, dlogits, h, ids, weight)
    looked_up = np.zeros_like(weight)
    looked_up[ids] = dx
    return dh, dweight + looked_up


def _tied_embedding_only(dx, dlogits, h, ids, weight):
    dweight = np.zeros_like(weight)
    np.add.at(dweight, ids, dx)
    return dlogits @ weight, dweight


def _tied_average(dx, dlogits, h, ids, weight):
    dh, dweight = _tied_add_at(dx, dlogits, h, ids, weight)
    return dh, dweight / 2


def _tied_dh_with_dx(dx, dlogits, h, ids, weight):
    dh, dweight = _tied_add_at(dx, dlogits, h, ids, weight)
    return dh + dx, dweight


# Two planted bugs
def _repaired(ids, targets, embedding, w_in, w_out, w_head, slope=None, skip=True, add=True, mean=True, head=True):
    x = embedding[ids]
    z = x @ w_in.T
    s = 1 / (1 + np.exp(-z))
    h = z * s
    y = x + h @ w_out.T
    dlogits = softmax(y @ w_head.T, axis=1)
    dlogits[np.arange(len(ids)), targets] -= 1
    if mean:
        dlogits /= len(ids)
    dw_head = dlogits.T @ (y if head else h @ w_out.T)
    dy = dlogits @ w_head
    dw_out = dy.T @ h
    dz = (dy @ w_out) * (slope(z, s) if slope else s * (1 + z * (1 - s)))
    dx = dz @ w_in + (dy if skip else 0)
    dembedding = np.zeros_like(embedding)
    if add:
        np.add.at(dembedding, ids, dx)
    else:
        dembedding[ids] += dx
    return dembedding, dz.T @ x, dw_out, dw_head


def _repaired_loop(ids, targets, embedding, w_in, w_out, w_head):
    grads = [np.zeros_like(w) for w in (embedding, w_in, w_out, w_head)]
    for token, target in zip(ids, targets, strict=True):
        x = embedding[token]
        z = w_in @ x
        s = 1 / (1 + np.exp(-z))
        h = z * s
        y = x + w_out @ h
        d = softmax(w_head @ y) / len(ids)
        d[target] -= 1 / len(ids)
        dy = w_head.T @ d
        dz = (w_out.T @ dy) * (s + h * (1 - s))
        for grad, share in zip(grads[1:], (np.outer(dz, x), np.outer(dy, h), np.outer(d, y)), strict=True):
            grad += share
        grads[0][token] += dy + w_in.T @ dz
    return tuple(grads)


def _repaired_without_layer(ids, targets, embedding, w_in, w_out, w_head):
    _, *others = _repaired(ids, targets, embedding, w_in, w_out, w_head)
    x = embedding[ids]
    z = x @ w_in.T
    dlogits = softmax((x + (z / (1 + np.exp(-z))) @ w_out.T) @ w_head.T) - np.eye(len(w_head))[targets]
    dembedding = np.zeros_like(embedding)
    np.add.at(dembedding, ids, dlogits @ w_head / len(ids))
    return dembedding, *others


def _with(function, **settings):
    return lambda *arguments: function(*arguments, **settings)


RIGHT = {  # exercise -> list of functions
    "unbroadcast": [_unbroadcast_axes, _unbroadcast_loop, _unbroadcast_while],
    "gpt2_linear_backward": [_linear_flat, _linear_einsum, _linear_loop, _linear_tensordot],
    "cross_entropy_gradients": [_entropy_select, _entropy_loop, _entropy_masked, _entropy_logaddexp],
    "tied_backward": [_tied_add_at, _tied_one_hot, _tied_loop, _tied_sorted],
    "repaired_gradients": [_repaired, _repaired_loop],
}
WRONG = {  # exercise -> list of (function, a part of the hint that it must get)
    "unbroadcast": [
        (_unbroadcast_mean, "not averaged"),
        (_unbroadcast_added_axes_only, "must have shape"),
        (_unbroadcast_first, "one of the copies"),
        (_unbroadcast_everything, "sum over the axes that were broadcast only"),
        (_unbroadcast_squeezed, "must have shape"),
        (_unbroadcast_twice, "dx is not the sum over the axes"),
        (lambda dy, shape: dy, "must have shape"),
    ],
    "gpt2_linear_backward": [
        (_linear_no_transpose, "dx looks transposed"),
        (_linear_weight_transposed, "dweight looks transposed"),
        (lambda dy, x, weight: (dy @ weight, *_linear_flat(dy, x, weight)[1:]), "dx looks transposed"),
        (_linear_mean, "averaged over the rows"),
        (_linear_bias_mean, "dbias is averaged"),
        (_linear_divided(1, lambda dy: len(dy)), "dweight is averaged over the sequences"),
        (_linear_divided(1, lambda dy: dy.shape[1]), "dweight is averaged over the positions"),
        (_linear_divided(2, lambda dy: len(dy)), "dbias is averaged over the sequences"),
        (_linear_divided(2, lambda dy: dy.shape[1]), "dbias is averaged over the positions"),
        (_linear_divided(0, lambda dy: dy.shape[2]), "averaged over the outputs"),
        (_linear_last_sequence, "only one sequence's share"),
        (_linear_bias_over_batch, "dbias must have shape"),
        (_linear_reshaped, "dweight is not the gradient"),
        (_linear_float64, "must have the dtype of the input"),
        (_linear_extra_factor, "dx is not the gradient"),
    ],
    "cross_entropy_gradients": [
        (_with(_entropy, over_all=True), "the loss is divided by all N rows"),
        (_with(_entropy, gradient_sum=True), "is not divided by the number of targets"),
        (_with(_entropy, gradient_over_all=True), "dlogits is divided by all N rows"),
        (_with(_entropy, sign=-1), "softmax minus one-hot"),
        (_with(_entropy, one_hot=False), "the one-hot of the target is missing"),
        (_entropy_overflows, "subtract the largest logit"),
        (_entropy_token_zero, "as if they were token 0"),
        (_entropy_softmax_in_ignored_rows, "here they hold the softmax"),
        (_entropy_empty_mean, "a mean over nothing"),
        (_entropy_global_maximum, "exponential of a large number"),
        (_entropy_log_of_softmax, "do not take the log of a softmax"),
        (_entropy_padded_logarithm, "puts a ceiling on it"),
        (_entropy_drops_token_zero, "only -100 is ignored"),
        (_entropy_bits, "in bits"),
        (_entropy_scaled(lambda N, V: V, lambda N, V: 1), "averaged over the vocabulary"),
        (_entropy_scaled(lambda N, V: 1, lambda N, V: V), "divided by the size of the vocabulary"),
        (_entropy_scaled(lambda N, V: 1, lambda N, V: N), "number of targets twice"),
        (_entropy_scaled_down, "dlogits is not the gradient"),
        (lambda logits, targets: (-_entropy_select(logits, targets)[0], logits * 0), "the sign of the loss"),
    ],
    "tied_backward": [
        (_tied_plus_equals, "keeps only the last"),
        (_tied_in_turn, "within one sequence"),
        (_tied_mean_of_repeated, "they are not averaged"),
        (_tied_overwrites, "overwrites what the head"),
        (_tied_assigned_apart, "keeps only the last"),
        (_tied, "the embedding's share is missing"),
        (_tied_embedding_only, "the head's share is missing"),
        (_tied_average, "averaged"),
        (_tied_dh_with_dx, "dh is not the gradient"),
    ],
    "repaired_gradients": [
        (_with(_repaired, slope=lambda z, s: s * (1 - s), skip=False), "the sigmoid alone"),
        (_with(_repaired, slope=lambda z, s: s * (1 - s)), "the sigmoid alone"),
        (_with(_repaired, slope=lambda z, s: s + z * (1 - s)), "not 1 - s"),
        (_with(_repaired, slope=lambda z, s: s), "two terms"),
        (_with(_repaired, slope=lambda z, s: z * s * (1 - s)), "s itself is one"),
        (_repaired_without_layer, "x also went through w_in"),
        (_with(_repaired, slope=lambda z, s: 1), "SiLU is missing"),
        (_with(_repaired, slope=lambda z, s: s + s * (1 - s)), "dw_in is wrong, and all gradients nearer"),
        (_with(_repaired, skip=False), "x also went around the layer"),
        (_with(_repaired, skip=False, add=False), "x also went around the layer"),
        (_with(_repaired, add=False), "does not collect both"),
        (_with(_repaired, mean=False), "N times too large"),
        (lambda ids, *rest: [g / len(ids) for g in _repaired(ids, *rest)], "N times too small"),
        (lambda *given: [g / len(given[2]) for g in _repaired(*given)], "V times too small"),
        (_with(_repaired, head=False), "dw_head is wrong"),
    ],
}
