"""Checkers of lesson 02."""

import numpy as np

from ..ops.loss import IGNORED
from .checks import exercise


def _one_hot(indices, size):
    return (indices[:, None] == np.arange(size)).astype(float)


@exercise("02", "Undoing a broadcast", difficulty=1, minutes=10)
def unbroadcast(answer, trial):
    """answer(dy, shape) -> dx of that shape, for the x that was broadcast to dy's shape"""
    cases = [((3, 4), (4,)), ((3, 4), (3, 1)), ((2, 3, 4), (1, 4)), ((2, 3, 4), (2, 1, 1)), ((3, 4), (3, 4))]
    for full, shape in [*(cases[i] for i in trial.rng.permutation(len(cases))), ((5,), (1,))]:
        x, weights = trial.rng.standard_normal(shape), trial.rng.standard_normal(full)
        result = trial.call(answer, weights, tuple(shape), returns=[("dx", shape)])
        added = len(full) - len(shape)
        axes = tuple(range(added)) + tuple(i + added for i, n in enumerate(shape) if n == 1)
        one_copy = weights[(0,) * added][tuple(slice(0, n) for n in shape)]
        average = weights.mean(axis=axes).reshape(shape)
        everything = np.full(shape, weights.sum())
        trial.gradient(
            "dx",
            result,
            lambda x=x, weights=weights: float(np.sum(weights * x)),
            x,
            {
                "the copies' gradients are added up, not averaged: sum, not mean": average,
                "one of the copies was taken: every copy has a gradient, and they add up": one_copy,
                "this is the sum over every axis: sum over the axes that were broadcast only": everything,
            },
            "dx is not the sum over the axes that broadcasting added or stretched",
        )


@exercise("02", "The backward of a linear map, stored the other way round", difficulty=2, minutes=15)
def gpt2_linear_backward(answer, trial):
    """answer(dy, x, weight) -> dx, dweight, dbias, for y = x weight + bias with x (B, T, C) and weight (C, F)"""
    for case in range(6):
        B, T = trial.rng.permutation([2, 3, 4])[:2]  # not the same, so that a mean shows of what it is
        C = F = int(trial.rng.integers(2, 6))  # square in every other case: a missing transpose has the right shape
        if case % 2:
            F += 1 + int(trial.rng.integers(1, 4))
        dtype = np.float32 if case == 5 else np.float64
        x, weight, bias, dy = (
            trial.rng.standard_normal(shape).astype(dtype) for shape in ((B, T, C), (C, F), (F,), (B, T, F))
        )
        dx, dweight, dbias = trial.call(
            answer, dy, x, weight, returns=[("dx", (B, T, C)), ("dweight", (C, F)), ("dbias", (F,))]
        )
        if dtype == np.float32:
            wide = [a.astype(np.float64) for a in (dy, x, weight)]
            trial.same("dx in float32", dx, wide[0] @ wide[2].T, tolerance=1e-4)
            trial.same("dweight in float32", dweight, np.einsum("btc,btf->cf", wide[1], wide[0]), tolerance=1e-4)
            continue

        def loss(dy=dy, x=x, weight=weight, bias=bias):
            return float(np.sum(dy * (x @ weight + bias)))

        square = C == F
        transposed = "{} looks transposed: here y = x weight, so the weight is (in, out), not (out, in)".format
        shares = np.einsum("btc,btf->bcf", x, dy)  # of each sequence in dweight
        one_share = "dweight has only one sequence's share: the weight is used by all rows of all sequences"
        averaged = {"dx is averaged over the outputs; each output adds its own": dy @ weight.T / F}
        trial.gradient("dx", dx, loss, x, averaged | ({transposed("dx"): dy @ weight} if square else {}))
        mistakes = {
            "dweight is averaged over the rows; every row of every sequence adds its own": shares.sum(0) / (B * T),
            "dweight is averaged over the positions; every position adds its own": shares.sum(0) / T,
            "dweight is averaged over the sequences; every sequence adds its own": shares.mean(0),
            f"{one_share}, not by the last one": shares[-1],
            f"{one_share}, not by the first one": shares[0],
        }
        if square:
            mistakes[transposed("dweight")] = shares.sum(0).T
        trial.gradient("dweight", dweight, loss, weight, mistakes)
        trial.gradient(
            "dbias",
            dbias,
            loss,
            bias,
            {
                "dbias is averaged: the bias is added to every row, so the rows' gradients add up": dy.mean((0, 1)),
                "dbias is averaged over the sequences; the gradients of all rows add up": dy.sum((0, 1)) / B,
                "dbias is averaged over the positions; the gradients of all rows add up": dy.sum((0, 1)) / T,
                "dbias has only one sequence's share: sum over both the sequences and the positions": dy[0].sum(0),
            },
        )


@exercise("02", "Softmax with cross-entropy, some targets ignored", difficulty=2, minutes=25)
def cross_entropy_gradients(answer, trial):
    """answer(logits, targets) -> loss, dlogits; the mean over the targets that are not -100"""
    for case in range(6):
        N = int(trial.rng.integers(3, 7))
        V = N + int(trial.rng.integers(1, 4))  # more than the targets, so that a mean shows of what it is
        logits = trial.rng.standard_normal((N, V)) * 2
        targets = trial.rng.integers(0, V, N)
        targets[0] = 0  # which must not be mistaken for "no target"; in case 1 it is certain to count
        ignored = 1 if case == 0 else 0 if case == 1 else int(trial.rng.integers(1, N))
        targets[trial.rng.permutation(N)[:ignored]] = IGNORED
        _cross_entropy_case(answer, trial, logits, targets)

    logits, targets = trial.rng.standard_normal((4, 5)), np.array([1, IGNORED, 0, 3])
    far = logits + trial.rng.permutation([-2000.0, 0.0, 1500.0, 3000.0])[:, None]  # a shift of a row changes nothing
    returns = [("loss", float), ("dlogits", logits.shape)]
    near = trial.call(answer, logits, targets, returns=returns)
    shifted = trial.call(
        answer,
        far,
        targets,
        returns=returns,
        finite="the loss of large logits is finite",
        not_finite="an exponential of a large number is infinite: subtract the largest logit of each row first",
    )
    trial.same("loss, every row's logits shifted", shifted[0], near[0])
    trial.same("dlogits, every row's logits shifted", shifted[1], near[1])
    wide = logits.copy()
    wide[0, 0], wide[2, 4] = 3000, 2000  # the probability of these rows' targets is 0 in floating point, its log is not
    loss, _ = trial.call(
        answer,
        wide,
        targets,
        returns=returns,
        finite="the loss of logits far apart is finite",
        not_finite="the target's probability is 0 in floating point, and its logarithm is infinite: do not take the "
        "log of a softmax; subtract, z - max - log(sum(exp(z - max)))",
    )
    shifted = wide - wide.max(axis=1, keepdims=True)
    exact = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(4), np.where(targets == IGNORED, 0, targets)]
    trial.same(
        "the loss of logits far apart",
        loss,
        exact[targets != IGNORED].mean(),
        otherwise="a very improbable target has a very large loss: a small number added to the probability, or a clip, "
        "puts a ceiling on it",
    )
    hint = "if every target is ignored there is a mean over nothing, 0 / 0: return the loss 0 and dlogits 0"
    loss, dlogits = trial.call(answer, logits, np.full(4, IGNORED), returns=returns, not_finite=hint)
    trial.that("the loss is 0 if every target is ignored", loss == 0, hint)
    trial.same("dlogits of ignored targets only", dlogits, np.zeros_like(logits))


def _cross_entropy_case(answer, trial, logits, targets):
    (N, V), kept = logits.shape, targets != IGNORED
    rows, safe = np.arange(N), np.where(kept, targets, 0)

    def losses():
        return np.log(np.exp(logits).sum(1)) - logits[rows, safe]

    def expected():
        return float(losses()[kept].sum() / kept.sum())

    total, count = losses()[kept].sum(), kept.sum()
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    with_zero = softmax - _one_hot(safe, V)
    right = with_zero * kept[:, None]
    with_softmax = np.where(kept[:, None], right, softmax)
    loss, dlogits = trial.call(answer, logits, targets, returns=[("loss", float), ("dlogits", (N, V))])
    trial.same(
        "loss",
        loss,
        expected(),
        {
            "the loss is divided by all N rows: the mean is over the targets that are not ignored": total / N,
            "the loss is averaged over the vocabulary too: a target has one loss": total / (count * V),
            "this is the loss in bits: it is in nats, with the natural logarithm": total / count / np.log(2),
            "the loss is a sum: divide it by the number of targets that are not ignored": total,
            "targets that are token 0 are left out: only -100 is ignored": losses()[targets > 0].sum()
            / max(1, (targets > 0).sum()),
            "the ignored targets are in the loss, as if they were token 0": losses().mean(),
            "the sign of the loss: it is minus the log of the target's probability": -expected(),
        },
        "the loss is not the mean of -log softmax(logits)[target] over the targets that are not -100",
    )
    ignored = "the rows of ignored targets must be 0; here "
    trial.gradient(
        "dlogits",
        dlogits,
        expected,
        logits,
        {
            "dlogits is not divided by the number of targets that count: the loss is a mean": right,
            "dlogits is divided by the size of the vocabulary: the loss is a mean over targets": right / (count * V),
            "dlogits is divided by the number of targets twice": right / count**2,
            "dlogits is divided by all N rows; the mean is over the targets that are not ignored": right / N,
            "the one-hot of the target is missing: this is the softmax alone": softmax * kept[:, None] / count,
            "the sign of dlogits: softmax minus one-hot, not one-hot minus softmax": -right / count,
            f"{ignored}they hold the softmax": with_softmax / count,
            f"{ignored}they hold the softmax, and the mean counts them": with_softmax / N,
            f"{ignored}token 0 is their target": with_zero / count,
            f"{ignored}token 0 is their target, and the mean counts them": with_zero / N,
        },
    )
    trial.same("the rows of dlogits add up to 0", dlogits.sum(1), np.zeros(N))
    exact = not dlogits[~kept].any()
    trial.that("ignored rows of dlogits are exactly 0", exact, "the rows of ignored targets must be exactly 0")


@exercise("02", "One matrix, used twice", difficulty=2, minutes=20)
def tied_backward(answer, trial):
    """answer(dx, dlogits, h, ids, weight) -> dh, dweight, for x = weight[ids] and logits = h weight^T"""
    for _ in range(6):
        V, C, T = int(trial.rng.integers(4, 7)), int(trial.rng.integers(2, 5)), int(trial.rng.integers(3, 6))
        weight = trial.rng.standard_normal((V, C))
        unused, *used = trial.rng.permutation(V)
        ids = trial.rng.choice(used, (2, T))
        ids[0, :2] = ids[1, 0] = used[0]  # three times the same, twice in one row
        dx, h = trial.rng.standard_normal((2, 2, T, C))
        dlogits = trial.rng.standard_normal((2, T, V))
        dh, dweight = trial.call(
            answer, dx, dlogits, h, ids, weight, returns=[("dh", (2, T, C)), ("dweight", (V, C))]
        )  # fmt: skip

        def loss(dx=dx, dlogits=dlogits, h=h, ids=ids, weight=weight):
            return float(np.sum(dx * weight[ids]) + np.sum(dlogits * (h @ weight.T)))

        trial.gradient("dh", dh, loss, h)
        head = np.einsum("btv,btc->vc", dlogits, h)
        looked_up = np.einsum("btv,btc->vc", ids[..., None] == np.arange(V), dx)
        times = np.maximum(1, np.bincount(ids.ravel(), minlength=V))[:, None]
        plus, over, in_turn = head.copy(), head.copy(), head.copy()
        over[ids] = dx
        plus[ids] += dx
        for row, share in zip(ids, dx, strict=True):
            in_turn[row] += share
        repeated = "a token that occurs twice must collect two gradients: "
        trial.gradient(
            "dweight",
            dweight,
            loss,
            weight,
            {
                f"{repeated}with dweight[ids] += dx it keeps only the last of them (see np.add.at)": plus,
                f"{repeated}within one sequence, too, += keeps only the last of them (see np.add.at)": in_turn,
                f"{repeated}they add up, they are not averaged": head + looked_up / times,
                "dweight[ids] = dx overwrites what the head has put there; both uses add up": over,
                "the embedding's share is missing: the matrix is used twice, and both gradients add up": head,
                "the head's share is missing: the matrix is used twice, and both gradients add up": looked_up,
                "the two gradients are averaged; two uses of one matrix add up": (head + looked_up) / 2,
            },
        )
        trial.same("a token that does not occur has the head's share only", dweight[unused], head[unused])


@exercise("02", "Two planted bugs", difficulty=3, minutes=25)
def repaired_gradients(answer, trial):
    """answer(ids, targets, embedding, w_in, w_out, w_head) -> the gradients of the four matrices"""
    for _ in range(5):
        V, C = int(trial.rng.integers(4, 7)), int(trial.rng.integers(2, 4))
        N = V + int(trial.rng.integers(1, 4))
        F = C + int(trial.rng.integers(1, 3))
        shapes = {"embedding": (V, C), "w_in": (F, C), "w_out": (C, F), "w_head": (V, C)}
        p = {name: trial.rng.standard_normal(shape) for name, shape in shapes.items()}
        ids, targets = trial.rng.integers(0, V, (2, N))
        ids[0] = ids[-1]
        found = trial.call(
            answer, ids, targets, *p.values(), returns=[(f"d{name}", shape) for name, shape in shapes.items()]
        )
        received = dict(zip(shapes, found, strict=True))

        def loss(ids=ids, targets=targets, p=p):
            return _network_loss(ids, targets, **p)

        wrong = {mistake: _network_gradients(ids, targets, **p, mistake=mistake) for mistake in _NETWORK_MISTAKES}
        for i, name in [(3, "w_head"), (2, "w_out"), (1, "w_in"), (0, "embedding")]:  # from the loss to the input
            trial.gradient(
                f"d{name}",
                received[name],
                loss,
                p[name],
                {hint: wrong[mistake][i] for mistake, hint in _NETWORK_MISTAKES.items()},
                f"d{name} is wrong, and all gradients nearer to the loss are right: look at the steps between",
            )


_SLOPE = "dw_out and dw_head are right, so the error is between h and z: "
_SKIP = "dw_in is right, so the error comes after it: x also went around the layer, and that gradient adds up as well"
_NETWORK_MISTAKES = {  # in _network_gradients -> what it looks like
    "mean": "every gradient is N times too large: the loss is a mean",
    "mean twice": "every gradient is N times too small: the mean is taken once, in dlogits",
    "mean of all": "every gradient is V times too small: the mean is over the N targets, not over the vocabulary",
    "slope sigmoid": _SLOPE + "s (1 - s) is the derivative of the sigmoid alone, and h = z s is a product",
    "slope product": _SLOPE + "differentiate z s by parts: the derivative of s is s (1 - s), not 1 - s",
    "slope half": _SLOPE + "h = z s is a product, and its derivative has two terms",
    "slope rest": _SLOPE + "h = z s is a product, and its derivative has two terms: s itself is one",
    "slope one": _SLOPE + "the derivative of SiLU is missing",
    "skip": _SKIP,
    "skip repeated": _SKIP + "; and a token that occurs twice collects both of its gradients",
    "layer": "dw_in is right, so the error comes after it: x also went through w_in, and that gradient adds up as well",
    "repeated": "dx is right, but a token that occurs twice does not collect both of its gradients",
}
_SLOPES = {
    "slope sigmoid": lambda z, s: s * (1 - s),
    "slope product": lambda z, s: s + z * (1 - s),
    "slope half": lambda z, s: s,
    "slope rest": lambda z, s: z * s * (1 - s),
    "slope one": lambda z, s: np.ones_like(s),
}


def _network_loss(ids, targets, embedding, w_in, w_out, w_head):
    x = embedding[ids]
    z = x @ w_in.T
    y = x + (z / (1 + np.exp(-z))) @ w_out.T
    logits = y @ w_head.T
    return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(ids)), targets]))


def _network_gradients(ids, targets, embedding, w_in, w_out, w_head, mistake):
    x = embedding[ids]
    z = x @ w_in.T
    s = 1 / (1 + np.exp(-z))
    y = x + (z * s) @ w_out.T
    logits = y @ w_head.T
    dlogits = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - _one_hot(targets, len(w_head))
    N, V = dlogits.shape
    dlogits = dlogits / {"mean": 1, "mean twice": N**2, "mean of all": N * V}.get(mistake, N)
    dy = dlogits @ w_head
    dh = dy @ w_out
    dz = dh * _SLOPES.get(mistake, lambda z, s: s + z * s * (1 - s))(z, s)
    dx = (0 if mistake.startswith("skip") else dy) + (0 if mistake == "layer" else dz @ w_in)
    dembedding = np.zeros_like(embedding)
    if mistake.endswith("repeated"):
        dembedding[ids] = dx
    else:
        np.add.at(dembedding, ids, dx)
    return dembedding, dz.T @ x, dy.T @ (z * s), dlogits.T @ y
