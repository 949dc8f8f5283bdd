"""Checkers of lesson 05."""

import tracemalloc

import numpy as np

from .checks import exercise
from .hard_scores import hard_scores, queries_and_keys

_LEAK = "a query's weights change when a key of its future changes"
_NOT_WEIGHTS = (
    "p is not the softmax of q k^T / sqrt(D) over the keys 0 to S - T + t: which entries are 0 in yours, and what does "
    "each row sum to?"
)
_ONLY_SMALL = "what is hidden must be 0, not only small: hide with -inf, whose exponential is 0"
_CORNER = (
    "the mask is anchored at the wrong corner: the T queries are the last T of the S positions, so query t reads the "
    "keys 0 to S - T + t"
)
_MASKS = {  # which mistake -> its hint
    "none": "nothing is hidden: a query also reads the keys behind its own position",
    "zero": "is a hidden score set to 0? exp(0) is 1, and the future keeps a share: hide with -inf, before the softmax",
    "after": "the weights are masked after the softmax: the hidden keys are still in the denominator, so the rows no "
    "longer sum to 1 and the future leaks through it",
    "next": "off by one: a query reads the key just behind its own position; its own is the last one that it may read",
    "own": "off by one: a query must read the key at its own position too",
    "corner": _CORNER,
    "past": "the mask is the wrong way round: it hides the past and shows the future",
}


@exercise("05", "Causal weights for a query at the end of a cache", difficulty=2, minutes=15)
def causal_weights(answer, trial):
    """answer(q, k) -> p: q (T, D), k (S, D) with S >= T, p (T, S) with softmax over the keys up to S - T + t"""
    rng = trial.rng
    for more in (0, 2, 4, 2, 0, 7):
        T, D = int(rng.integers(3, 6)), int(rng.integers(2, 7))
        S = T + more
        q, k = rng.normal(size=(T, D)) * 2, rng.normal(size=(S, D)) * 2
        p = trial.call(answer, q, k, returns=[("p", (T, S))])
        expected, visible = _weights(q, k)
        mistakes = {hint: _weights(q, k, mask)[0] for mask, hint in _MASKS.items()}
        mistakes |= {
            "the scores are not divided by sqrt(D)": _weights(q * D**0.5, k)[0],
            "the scores are divided by D; divide by its square root": _weights(q / D**0.5, k)[0],
            "the scores are divided by the square root of the number of tokens; D is the width of a head": _weights(
                q * (D / S) ** 0.5, k
            )[0],
            "a row is not divided by its own sum: the weights of a row must sum to 1": _exponentials(q, k),
            "the softmax runs over the queries: each row, over the keys, must sum to 1": _weights(q, k, axis=0)[0],
            "one softmax over the whole array: each row has its own denominator": _weights(q, k, axis=None)[0],
        }
        trial.same("weights over the visible keys", p, expected, mistakes, otherwise=_NOT_WEIGHTS)
        trial.same("each row sums to 1", p.sum(axis=1), np.ones(T))
        trial.that("hidden weights are exactly 0", np.all(p[~visible] == 0), _ONLY_SMALL)
    for what, scores, hint in hard_scores(rng, 3, 5):
        q, k = queries_and_keys(scores)
        p = trial.call(answer, q, k, returns=[("p", scores.shape)], not_finite=hint)
        trial.same(what, p, _weights(q, k)[0], otherwise=hint)
    for more in (0, 3, 2):
        T, D = int(rng.integers(3, 6)), int(rng.integers(2, 7))
        S = T + more
        q, k = rng.normal(size=(T, D)) * 2, rng.normal(size=(S, D)) * 2
        p = trial.call(answer, q, k, returns=[("p", (T, S))])
        t = int(rng.integers(T - 1))  # the future of query t changes, and has a very large score with it
        changed = k.copy()
        changed[S - T + t + 1 :] = rng.normal(size=(T - 1 - t, D)) + 5000 * q[t] / np.sum(q[t] ** 2)
        again = trial.call(answer, q, changed, returns=[("p", (T, S))])
        trial.same("no leak from the future", again[: t + 1], p[: t + 1], otherwise=_LEAK, tolerance=1e-12)


def _weights(q, k, mask="causal", axis=1):
    (T, D), S = q.shape, len(k)
    behind = np.arange(S - T, S)[:, None] - np.arange(S)  # how far the key lies behind the query
    visible = {
        "none": np.ones((T, S), bool),
        "next": behind >= -1,
        "own": behind > 0,
        "corner": np.arange(T)[:, None] >= np.arange(S),
        "past": behind <= 0,
    }.get(mask, behind >= 0)
    scores = q @ k.T / D**0.5
    hidden = {"zero": 0.0, "after": scores}.get(mask, -np.inf)
    scores = np.where(visible, scores, hidden)
    p = np.exp(scores - scores.max(axis=axis, keepdims=True))
    p = p / p.sum(axis=axis, keepdims=True)
    return np.where(visible, p, 0) if mask == "after" else p, visible


def _exponentials(q, k):
    scores = q @ k.T / q.shape[1] ** 0.5
    return np.where(_weights(q, k)[1], np.exp(scores), 0)


@exercise("05", "Back through a softmax without its Jacobian", difficulty=2, minutes=15)
def scores_gradient(answer, trial):
    """answer(dp, p, temperature) -> ds: p = softmax(s / temperature) over the last axis; all of one shape (..., S)"""
    rng = trial.rng
    for outer in ((), (3,), (2, 4), (5,), (2, 1, 3)):
        shape = (*outer, int(rng.integers(3, 7)))
        temperature = float(rng.choice([0.4, 0.7, 1.7, 2.5]))
        s, dp = rng.normal(size=shape), rng.normal(size=shape) + 0.5
        p = _softmax(s / temperature)
        ds = trial.call(answer, dp, p, temperature, returns=[("ds", shape)])
        row = np.sum(dp * p, axis=-1, keepdims=True)
        right = p * (dp - row)
        mistakes = {
            "the temperature is missing: s is divided by it before the softmax, so the chain rule divides once more": (
                right
            ),
            "multiplied by the temperature: the derivative of s / temperature is 1 / temperature": right * temperature,
            "divided by the temperature twice: s is divided by it once": right / temperature**2,
            "the row sum is missing: raising one score lowers all other weights of its row too": p * dp / temperature,
            "only the diagonal of the Jacobian, p (1 - p): the terms -p_i p_j couple the scores of a row": (
                p * (1 - p) * dp / temperature
            ),
            "the mean of dp * p was subtracted; it is their sum, as the weights p add up to 1": (
                p * (dp - row / shape[-1]) / temperature
            ),
            "the mean of dp * p over the whole array was subtracted; each row has a sum of its own": (
                p * (dp - np.mean(dp * p)) / temperature
            ),
            "only dp is divided by the temperature: the row sum belongs into the same bracket": p
            * (dp / temperature - row),
            "only the row sum is divided by the temperature: dp belongs into the same bracket": p
            * (dp - row / temperature),
            "the factor p stands at dp alone: the row sum is multiplied by it too": (p * dp - row) / temperature,
            "the row sum is added: it is subtracted, as raising one score lowers the other weights": (
                p * (dp + row) / temperature
            ),
            "the sum over the row must be weighted by p: sum of dp * p": (
                p * (dp - dp.sum(axis=-1, keepdims=True)) / temperature
            ),
            "the mean of dp was subtracted; it is the mean under p, the sum of dp * p": (
                p * (dp - dp.mean(axis=-1, keepdims=True)) / temperature
            ),
            "the factor p in front is missing": (dp - row) / temperature,
            "the sign is wrong": -right / temperature,
            "the sum runs over the whole array: each row has a softmax, and a sum, of its own": (
                p * (dp - np.sum(dp * p)) / temperature
            ),
            "the sum runs over the first axis: it runs over the keys, the last one": (
                p * (dp - np.sum(dp * p, axis=0, keepdims=True)) / temperature
            ),
        }
        trial.gradient("ds", ds, lambda s=s, dp=dp, t=temperature: np.sum(dp * _softmax(s / t)), s, mistakes)
        trial.same("each row sums to 0", ds.sum(axis=-1), np.zeros(outer))
    p, dp = np.array([0.25, 0.0, 0.75, 0.0]), np.array([1.0, 50.0, -1.0, -70.0])
    ds = trial.call(answer, dp, p, 1.0, returns=[("ds", (4,))])
    trial.same("a hidden score has no gradient", ds[[1, 3]], [0.0, 0.0])
    p = _softmax(rng.normal(size=800))
    peak = _peak_bytes(lambda: trial.call(answer, rng.normal(size=800), p, 1.0, returns=[("ds", (800,))]))
    trial.that(
        "no array of S x S",
        peak < 2_000_000,
        "the Jacobian, S x S numbers, was built: multiply out what it does to dp, and none of it is needed",
        f"{peak / 1e6:.1f} MB were taken for {800} scores",
    )


def _softmax(s):
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _peak_bytes(f):
    running = tracemalloc.is_tracing()
    if not running:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    try:
        f()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not running:
            tracemalloc.stop()


@exercise("05", "The backward pass of causal attention", difficulty=3, minutes=30)
def causal_attention_backward(answer, trial):
    """answer(do, q, k, v) -> dq, dk, dv: q (T, D), k (S, D), v (S, Dv), do (T, Dv), S >= T as in causal_weights"""
    rng = trial.rng
    for more in (0, 2, 0, 1):
        T = int(rng.integers(3, 5))
        D, S = int(rng.integers(3, 5)), T + more  # never D * D = S, nor D = S throughout: 1 / sqrt(S) must not pass
        E = D if more == 0 else D + 1
        q, k, v, do = (rng.normal(size=shape) for shape in ((T, D), (S, D), (S, E), (T, E)))
        returns = [("dq", (T, D)), ("dk", (S, D)), ("dv", (S, E))]
        dq, dk, dv = trial.call(answer, do, q, k, v, returns=returns)

        def loss(q=q, k=k, v=v, do=do):
            return np.sum(do * (_weights(q, k)[0] @ v))

        for i, (name, got, x) in enumerate((("dv", dv, v), ("dq", dq, q), ("dk", dk, k))):
            wrong = {hint: triple[name] for hint, triple in _wrong_backward(do, q, k, v).items() if name in triple}
            trial.gradient(name, got, loss, x, wrong, otherwise=_OTHERWISE[i])
        trial.same("the rows of dk sum to the vector 0", dk.sum(axis=0), np.zeros(D))
    for what, scores, hint in hard_scores(rng, 3, 5):
        q, k = queries_and_keys(scores)
        v, do = rng.normal(size=(5, 2)), rng.normal(size=(3, 2))
        returns = [("dq", q.shape), ("dk", k.shape), ("dv", v.shape)]
        _, _, dv = trial.call(answer, do, q, k, v, returns=returns, not_finite=hint)
        trial.same(what, dv, _weights(q, k)[0].T @ do, otherwise=hint)
    for more in (0, 2, 1):
        T, D = int(rng.integers(3, 5)), int(rng.integers(3, 5))
        S = T + more
        q, k, v, do = (rng.normal(size=shape) for shape in ((T, D), (S, D), (S, D), (T, D)))
        returns = [("dq", (T, D)), ("dk", (S, D)), ("dv", (S, D))]
        t = int(rng.integers(T - 1))  # a loss that reads the outputs 0 to t only
        dq, dk, dv = trial.call(answer, np.where(np.arange(T)[:, None] <= t, do, 0.0), q, k, v, returns=returns)
        future = slice(S - T + t + 1, None)
        trial.that(
            "no gradient to the future",
            not (np.any(dk[future]) or np.any(dv[future]) or np.any(dq[t + 1 :])),
            "keys and values that no query with a gradient reads must get a gradient of exactly 0",
        )


_OTHERWISE = (
    "dv is wrong: dv = p^T do, with the causal weights p",
    "dq is wrong: it is ds k / sqrt(D), and ds = p * (dp - rowsum(dp * p)) with dp = do v^T",
    "dk is wrong: it is ds^T q / sqrt(D), with the same ds as in dq",
)


def _wrong_backward(do, q, k, v):
    """{hint: {"dq": what this mistake gives, ...}}"""
    (T, D), S = q.shape, len(k)
    p, visible = _weights(q, k)
    dp = do @ v.T
    ds = p * (dp - np.sum(dp * p, axis=1, keepdims=True))
    scale = D**-0.5

    def from_ds(ds, scale=scale):
        return {"dq": ds @ k * scale, "dk": ds.T @ q * scale}

    wrong = {hint: _backward_with(do, q, k, v, mask) for mask, hint in _MASKS.items() if mask != "own"}
    wrong |= {
        "the scores are not divided by sqrt(D) before the softmax": {"dv": _weights(q * D**0.5, k)[0].T @ do},
        "the sign of ds is wrong": from_ds(-ds),
        "the factor 1 / sqrt(D) is missing: it stands in the scores, so the chain rule puts it here": from_ds(ds, 1),
        "divided by D: 1 / sqrt(D) belongs here once, not twice": from_ds(ds, 1 / D),
        "the row sum is missing: ds = p * (dp - rowsum(dp * p))": from_ds(p * dp),
        "the mean of dp * p was subtracted: ds = p * (dp - rowsum(dp * p)), with a sum": from_ds(
            p * (dp - np.mean(dp * p, axis=1, keepdims=True))
        ),
        "the mean of dp was subtracted; it is the mean under p, rowsum(dp * p)": from_ds(
            p * (dp - dp.mean(axis=1, keepdims=True))
        ),
        "only dp is divided by sqrt(D): the row sum belongs into the same bracket": from_ds(
            p * (dp * scale - np.sum(dp * p, axis=1, keepdims=True)), 1
        ),
        "the factor p stands at dp alone: the row sum is multiplied by it too": from_ds(
            np.where(visible, p * dp - np.sum(dp * p, axis=1, keepdims=True), 0)
        ),
        "divided by the square root of the number of tokens; D is the width of a head": from_ds(ds, S**-0.5),
        "each gradient is a sum over keys or queries; this is a mean": {
            "dq": ds @ k * scale / S,
            "dk": ds.T @ q * scale / T,
            "dv": p.T @ do / T,
        },
        "the row sum must be weighted by p: rowsum(dp * p)": from_ds(p * (dp - dp.sum(axis=1, keepdims=True))),
        "the factor p is missing in ds = p * (dp - rowsum(dp * p))": from_ds(
            np.where(visible, dp - np.sum(dp * p, axis=1, keepdims=True), 0)
        ),
        "dp, the gradient of the weights, was used where ds, the gradient of the scores, belongs": from_ds(dp),
        "the softmax's sum runs over the queries: it is a sum over the keys of a row": from_ds(
            p * (dp - np.sum(dp * p, axis=0, keepdims=True))
        ),
    }
    if v.shape[1] == D:
        wrong["dk and dv are in each other's place: the order is dq, dk, dv"] = {"dv": ds.T @ q * scale}
    if S == T:
        wrong["a transpose is missing: what query t gives to key j stands in row t, column j, so sum over rows"] = {
            "dk": ds @ q * scale,
            "dv": p @ do,
        }
        wrong["ds is transposed: dq sums over the keys of a row"] = {"dq": ds.T @ k * scale}
    return wrong


def _backward_with(do, q, k, v, mask):
    """The gradients by a reader whose weights have the given mistake."""
    p, dp, scale = _weights(q, k, mask)[0], do @ v.T, q.shape[1] ** -0.5
    ds = p * (dp - np.sum(dp * p, axis=1, keepdims=True))
    return {"dq": ds @ k * scale, "dk": ds.T @ q * scale, "dv": p.T @ do}


@exercise("05", "Merge two halves of an attention", difficulty=2, minutes=20)
def merge_attention(answer, trial):
    """answer(o1, L1, o2, L2) -> o, L: o1, o2 (T, D) attention over two sets of keys, L1, L2 (T,) log denominators"""
    rng = trial.rng
    for large, apart in ((0, 0), (0, 0), (0, 0), (_EACH_ROW, 0), (1000, 0), (-1000, 0), (-1000, 2000)):
        T, D, S = (int(n) for n in rng.integers(2, 7, size=3))
        s, v = rng.normal(size=(T, S + 2)) * 2, rng.normal(size=(S + 2, D))
        cut = int(rng.integers(1, S + 2))
        s[:, cut:] += apart
        s += np.linspace(-400, 400, T)[:, None] if large == _EACH_ROW else large
        first, second, whole = _part(s[:, :cut], v[:cut]), _part(s[:, cut:], v[cut:]), _part(s, v)
        returns = [("o", (T, D)), ("L", (T,))]
        hint = _ONE_FOR_ALL if large == _EACH_ROW else _LARGER_HALF if apart else _LARGE_L
        o, L = trial.call(answer, *first, *second, returns=returns, not_finite=hint)
        (o1, L1), (o2, L2) = first, second
        share = (1 / (1 + np.exp(L2 - L1)))[:, None]  # of the first part in the denominator
        tops = s[:, :cut].max(axis=1), s[:, cut:].max(axis=1)
        linear = (L1 / (L1 + L2))[:, None]
        mistakes = {
            "the outputs are added without weights: each was divided by its own denominator": o1 + o2,
            "the outputs are averaged: the part with the larger denominator weighs more": (o1 + o2) / 2,
            "weighted by L itself: L is the logarithm of the denominator, exp(L) is the weight": (
                linear * o1 + (1 - linear) * o2
            ),
            "the weights are the wrong way round": (1 - share) * o1 + share * o2,
            "averaged by the number of keys": (cut * o1 + (S + 2 - cut) * o2) / (S + 2),
            "o1 keeps its whole weight: it too must be rescaled to the new denominator": o1 + (1 - share) * o2,
            "o2 keeps its whole weight: it too must be rescaled to the new denominator": share * o1 + o2,
            "the sum is not divided by the new denominator: rescaled to the larger L, the weights do not add up to 1": (
                np.exp(L1 - np.maximum(L1, L2))[:, None] * o1 + np.exp(L2 - np.maximum(L1, L2))[:, None] * o2
            ),
        }
        trial.same("o of all keys", o, whole[0], mistakes)
        trial.same(
            "L of all keys",
            L,
            whole[1],
            {
                "L is not the sum of the two: denominators add up, not their logarithms": L1 + L2,
                "L is the logarithm of the mean of the two denominators; it is that of their sum": whole[1] - np.log(2),
                "L is the larger of the two: the smaller denominator must be added to it": np.maximum(L1, L2),
                "L is the denominator; its logarithm is asked for": np.exp(L1) + np.exp(L2),
                "L is the largest score; the logarithm of the sum is missing": np.maximum(*tops),
            },
        )
        o, L = trial.call(answer, *second, *first, returns=returns, not_finite=hint)
        trial.same("the order of the halves does not matter", o, whole[0])
        nothing = rng.normal(size=(T, D)), np.full(T, -np.inf)
        for halves in ((*first, *nothing), (*nothing, *first)):
            o, L = trial.call(answer, *halves, returns=returns, not_finite=_EMPTY)
            trial.same("an empty half, L = -inf, changes nothing", o, o1)
            trial.same("an empty half leaves L", L, L1)
        if apart == 0 and large != _EACH_ROW:
            o, L = trial.call(answer, *(part.astype(np.float32) for part in (*first, *second)), returns=returns)
            trial.same("in float32", o, whole[0], tolerance=1e-3)


_EACH_ROW = "each row elsewhere"
_ONE_FOR_ALL = (
    "rows whose L lie far apart: was one number subtracted from all of them? Each row needs the larger of its own two L"
)
_LARGER_HALF = (
    "where the second L is far above the first, exp(L2 - L1) is infinite: subtract the larger of the two L, whichever "
    "half it belongs to"
)
_LARGE_L = "exp(L) is infinite for L = 1000, and 0 for L = -1000: subtract the larger of the two L of each row first"
_EMPTY = (
    "a half without keys has L = -inf and the weight 0: subtract the larger of the two L, whichever half it belongs "
    "to, and nowhere -inf from -inf"
)


def _part(s, v):
    m = s.max(axis=1, keepdims=True)
    e = np.exp(s - m)
    return e @ v / e.sum(axis=1, keepdims=True), (m + np.log(e.sum(axis=1, keepdims=True)))[:, 0]
