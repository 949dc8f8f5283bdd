"""Checkers of lesson 06: heads split and shared, the sum over a group, decoding with a cache, and its bytes."""

import numpy as np

from ..catalogue.presets import PRESETS
from ..catalogue.sizes import cache_bytes_per_token
from ..config import Config
from ..runtime.memory import KVCache
from .checks import exercise
from .hard_scores import hard_scores, queries_and_keys

FLOAT32 = 1e-4  # tolerance where the input is float32
_EMPTY_CACHE = "with keys in the cache the outputs are right; look at what happens when it is empty, S = 0"
_NOT_THE_LOOP = (
    "o is not what a loop over the heads gives: head h has one softmax, over all keys that its token may read, of q[h] "
    "with kv head h // (H / K), divided by sqrt(D); the same kv head's values are averaged"
)
_LARGE_SCORES = (
    "small scores are right and large ones are not, as an exponential of a large number is infinite: subtract the "
    "largest score of each row before the exponential, and do not clip"
)
_ROWS_APART = (
    "one largest score was taken for all heads: next to it, all exponentials of another head are 0. Or were the scores "
    "clipped? Subtract from the row of each head its own largest score, and do not clip"
)


@exercise("06", "Split the columns into heads", difficulty=1, minutes=5)
def split_heads(answer, trial):
    """answer(x, heads) -> (B, H, T, D): head h has the columns h D to (h + 1) D of every token."""
    for dtype in (np.float64,) * 5 + (np.float32,):
        B, H, D = trial.rng.integers(2, 5, 3)
        T = H + trial.rng.integers(1, 4)  # not H, so that a forgotten transpose shows in the shape
        x = trial.rng.standard_normal((B, T, H * D)).astype(dtype)
        got = trial.call(answer, x, int(H), returns=[("heads", (B, H, T, D))])
        expected = np.stack([x[:, :, h * D : (h + 1) * D] for h in range(H)], axis=1)
        trial.same(
            "every head has its own columns of every token",
            got,
            expected,
            {
                "a reshape keeps all numbers in their order, so reshaping (B, T, C) to (B, H, T, D) at once gives a "
                "head the numbers of some tokens and not of others; make (B, T, H, D) first, then swap two axes": (
                    x.reshape(B, H, T, D)
                ),
                "head h must have D neighbouring columns, h D to (h + 1) D; yours has every H-th column": (
                    x.reshape(B, T, D, H).transpose(0, 3, 1, 2)
                ),
                "you swap tokens and columns before the reshape; then a row of D numbers holds different tokens": (
                    x.swapaxes(1, 2).reshape(B, H, T, D)
                ),
                "the heads are right, but in the opposite order": expected[:, ::-1],
            },
            "a head does not have the numbers that it should: head h of token t is x[b, t, h D : (h + 1) D]",
        )


@exercise("06", "The gradient of a shared key/value head", difficulty=2, minutes=10)
def shared_head_gradient(answer, trial):
    """answer(dk, kv_heads) -> (B, T, K, D), from the gradient of every query head's copy (B, T, H, D)."""
    for _ in range(4):
        B, T, K, group, D = trial.rng.integers(2, 5, 5)
        dk, k = trial.rng.standard_normal((B, T, K * group, D)), trial.rng.standard_normal((B, T, K, D))
        got = trial.call(answer, dk, int(K), returns=[("dk of the kv heads", (B, T, K, D))])

        def loss(k=k, dk=dk, group=group):
            return np.sum(np.repeat(k, group, axis=2) * dk)

        trial.gradient("dk", got, loss, k, _wrong_group_sums(dk, K, group))
    dk = trial.rng.standard_normal((2, 3, 6, 2))
    got = trial.call(answer, dk, 6, returns=[("dk of the kv heads", dk.shape)])
    trial.same("with as many kv heads as query heads nothing is added up", got, dk)
    got = trial.call(answer, dk, 1, returns=[("dk of the kv heads", (2, 3, 1, 2))])
    trial.same("with one kv head everything is", got[:, :, 0], dk.sum(axis=2))
    dk = dk.astype(np.float32)
    got = trial.call(answer, dk, 3, returns=[("dk of the kv heads", (2, 3, 3, 2))])
    trial.same("float32 stays float32", got, dk[:, :, ::2] + dk[:, :, 1::2], tolerance=FLOAT32)


def _wrong_group_sums(dk, K, group):
    B, T, _, D = dk.shape
    groups, strided = dk.reshape(B, T, K, group, D), dk.reshape(B, T, group, K, D)
    scale = "the copies' gradients must be added up, not averaged: k was used `group` times, and each use counts"
    order = (
        "query heads h G to (h + 1) G share a kv head, so the group is h // G; you added up heads that are K apart, "
        "h % K"
    )
    return {
        scale: groups.mean(axis=3),
        "only one query head of each group was taken: the gradient is the sum over all of them": groups[:, :, :, 0],
        "only one query head of each group was taken: the gradient is the sum over all of them (yours is the last)": (
            groups[:, :, :, -1]
        ),
        order: strided.sum(axis=2),
        f"{order}; and they must be added up, not averaged": strided.mean(axis=2),
        "divided by the square root of the number of copies: their gradients are added up, and nothing else": (
            groups.sum(axis=3) / group**0.5
        ),
        "divided by the number of heads: the copies' gradients are added up, and nothing else": (
            groups.sum(axis=3) / (K * group)
        ),
        "a kv head serves its own group only; you added up all query heads for each of them": (
            np.repeat(dk.sum(axis=2, keepdims=True), K, axis=2)
        ),
        "reshape splits the axis of the heads, (B, T, H, D) to (B, T, K, G, D), and the sum is over G": (
            dk.swapaxes(1, 2).reshape(B, T, K, group, D).sum(axis=3)
        ),
    }


@exercise("06", "One token, with the cache", difficulty=2, minutes=20)
def decode_step(answer, trial):
    """answer(q, k, v, cache_k, cache_v) -> o (H, D), and the caches with the new key and value (S + 1, K, D)."""

    def step(q, k, v, cache_k, cache_v, not_finite=""):
        after = (len(cache_k) + 1, *k.shape)
        returns = [("o", q.shape), ("cache_k", after), ("cache_v", after)]
        return trial.call(answer, q, k, v, cache_k, cache_v, returns=returns, not_finite=not_finite)

    for dtype, tolerance in ((np.float64, 1e-6),) * 3 + ((np.float32, FLOAT32),):
        K, group = trial.rng.integers(2, 4, 2)
        S, D = trial.rng.integers(2, 7), K * group + trial.rng.integers(1, 4)
        q, k, v = _random_heads(trial, 1, K * group, K, D, dtype)
        past_k, past_v = (_random_heads(trial, S, K, K, D, dtype)[0] for _ in range(2))
        o, cache_k, cache_v = step(q[0], k[0], v[0], past_k, past_v)
        _cache_is_longer(trial, cache_k, cache_v, past_k, past_v, k, v)
        keys, values = np.concatenate([past_k, k]), np.concatenate([past_v, v])
        expected = _attend(q, keys, values)[0]
        wrong = _wrong_steps(q, keys, values)
        trial.same("the new token's output", o, expected, wrong, _NOT_THE_LOOP, tolerance=tolerance)
    K, group, T, D = 2, 2, 6, 4
    q, k, v = _random_heads(trial, T, K * group, K, D)
    cache_k = cache_v = np.empty((0, K, D))
    outputs = []
    for t in range(T):
        o, cache_k, cache_v = step(q[t], k[t], v[t], cache_k, cache_v)
        outputs.append(o)
    trial.same(
        "token by token from an empty cache, as the whole text at once", outputs, _attend(q, k, v), None, _EMPTY_CACHE
    )
    rows = trial.rng.standard_normal((4, 5)) * 2
    for what, scores, hint in (
        ("heads whose scores lie 800 apart", rows + np.linspace(-400, 400, 4)[:, None], _ROWS_APART),
        ("scores in the thousands", 1000 + 20000 * np.abs(rows), _LARGE_SCORES),
    ):
        q, k = queries_and_keys(scores)  # (H, D), (S, D)
        k, v = np.stack([k, k], axis=1), trial.rng.standard_normal((5, 2, 16))
        o, _, _ = step(q, k[-1], v[-1], k[:-1], v[:-1], hint)
        trial.same(what, o, _attend(q[None], k, v)[0], otherwise=hint)


@exercise("06", "Several tokens, with the cache", difficulty=3, minutes=20)
def read_chunk(answer, trial):
    """answer(q, k, v, cache_k, cache_v) -> o (T, H, D), and the caches with the T new keys and values (S + T, K, D)."""

    def read(q, k, v, cache_k, cache_v, not_finite=""):
        after = (len(cache_k) + len(k), *k.shape[1:])
        returns = [("o", q.shape), ("cache_k", after), ("cache_v", after)]
        return trial.call(answer, q, k, v, cache_k, cache_v, returns=returns, not_finite=not_finite)

    for dtype, tolerance in ((np.float64, 1e-6),) * 3 + ((np.float32, FLOAT32),):
        K, group = trial.rng.integers(2, 4, 2)
        (S, T), D = trial.rng.integers(3, 6, 2), K * group + trial.rng.integers(1, 4)
        q, k, v = _random_heads(trial, T, K * group, K, D, dtype)
        past_k, past_v = (_random_heads(trial, S, K, K, D, dtype)[0] for _ in range(2))
        o, cache_k, cache_v = read(q, k, v, past_k, past_v)
        _cache_is_longer(trial, cache_k, cache_v, past_k, past_v, k, v)
        keys, values = np.concatenate([past_k, k]), np.concatenate([past_v, v])
        expected = _attend(q, keys, values)
        wrong = _wrong_chunks(q, keys, values) | _wrong_steps(q, keys, values)
        trial.same("the outputs of the chunk", o, expected, wrong, _NOT_THE_LOOP, tolerance=tolerance)
    K, group, D = 2, 2, 4
    cuts = [0, 3, 4, 4 + trial.rng.integers(2, 5), 10]
    q, k, v = _random_heads(trial, cuts[-1], K * group, K, D)
    cache_k = cache_v = np.empty((0, K, D))
    outputs = []
    for start, stop in zip(cuts, cuts[1:], strict=False):
        o, cache_k, cache_v = read(q[start:stop], k[start:stop], v[start:stop], cache_k, cache_v)
        outputs.append(o)
    together = np.concatenate(outputs)
    expected = _attend(q, k, v)
    trial.same("chunk by chunk from an empty cache, as the whole text at once", together, expected, None, _EMPTY_CACHE)
    for what, scores, hint in hard_scores(trial.rng, 3, 5):
        q, k = queries_and_keys(scores)
        q, k, v = np.stack([q] * 4, axis=1), np.stack([k] * 2, axis=1), trial.rng.standard_normal((5, 2, 16))
        o, _, _ = read(q, k[2:], v[2:], k[:2], v[:2], hint)
        trial.same(what, o, _attend(q, k, v), otherwise=hint)


@exercise("06", "Count the bytes of a cache", difficulty=1, minutes=10)
def cache_bytes(answer, trial):
    """answer(model, context, batch, bits) -> int; model has "dim", "layers", "heads" and "kv_heads"."""

    def count(model, context, batch, bits):
        model, numbers = dict(model), [int(n) for n in (context, batch, bits)]
        return trial.call(answer, model, *numbers, returns=[("the number of bytes", int)])

    for bits in (32, 16, 8, 4):
        group, layers, batch = trial.rng.permutation([3, 5, 7])  # forgotten factors must not look alike
        K, D, context = 2 ** trial.rng.integers(2, 4), 8 * trial.rng.integers(1, 5), trial.rng.integers(11, 200)
        model = {"dim": int(K * group * D), "layers": int(layers), "heads": int(K * group), "kv_heads": int(K)}
        right = int(2 * layers * batch * context * K * D * bits // 8)
        got = count(model, context, batch, bits)
        wrong = _wrong_bytes(right, layers, batch, context, K, group, bits)
        if bits == 4:
            wrong["bits // 8 is 0 for 4 bits: divide the whole product by 8, at the very end"] = 0
        trial.same("bytes of a random model", got, right, wrong, tolerance=0)
    model = {"dim": 24, "layers": 3, "heads": 6, "kv_heads": 2}
    cache = KVCache(Config(vocab_size=9, context=100, **model), batch_size=5, room=100)
    got = count(model, 100, 5, 32)
    trial.same(
        "what the arrays of minillama.runtime.memory.KVCache take",
        got,
        cache.keys.nbytes + cache.values.nbytes,
        tolerance=0,
    )
    config = PRESETS["llama-2-70b"]
    model = {name: getattr(config, name) for name in model}
    expected = 4096 * cache_bytes_per_token(config, 2)
    overflow = "small models are right, a large one is not: an int32 ends at 2³¹; use Python's ints, or int64"
    trial.same("Llama 2 70B, 4,096 tokens", count(model, 4096, 1, 16), expected, None, overflow, tolerance=0)


def _wrong_bytes(right, layers, batch, context, K, group, bits):
    return {
        "both keys and values are kept: a factor 2 is missing": right // 2,
        "only the key/value heads are kept, and fewer of them than query heads, each dim / heads wide": (right * group),
        "these are bits; a byte has 8 of them": right * 8,
        "a layer's cache was counted: every layer has its own": right // layers,
        "one sequence was counted: every sequence of the batch has its own": right // batch,
        "one position was counted: the cache grows with the context": right // context,
        "`bits` is the size of a number in bits; you took 4 bytes for each": right * 32 // bits,
        "both keys and values are kept, and only of the key/value heads": right * group // 2,
    }


def _random_heads(trial, T, H, K, D, dtype=np.float64):
    """q (T, H, D), k and v (T, K, D)."""
    return [trial.rng.standard_normal((T, heads, D)).astype(dtype) for heads in (H, K, K)]


def _attend(q, k, v, visible=None, scale=None, kv_head=None, uniform=False, hidden=None):
    """Attention of the last T of S positions, a query head and a position at a time; the defaults are right

    hidden: "zero" or "after", how keys are hidden by mistake.
    """
    (T, H, D), (S, K, _) = q.shape, k.shape
    o = np.zeros(q.shape)
    for t in range(T):
        seen = (slice(0, S - T + t + 1) if visible is None else visible(t)) if not uniform else slice(0, S)
        for h in range(H):
            g = h // (H // K) if kv_head is None else kv_head(h)
            keys, values = (k[:, g], v[:, g]) if hidden else (k[seen, g], v[seen, g])
            scores = keys.astype(np.float64) @ q[t, h] * (D**-0.5 if scale is None else scale)
            if hidden == "zero":
                scores[seen.stop :] = 0
            p = np.exp(scores - scores.max())
            total = p.sum()
            if hidden == "after":
                p[seen.stop :] = 0
            o[t, h] = p @ values / total
    return o


def _wrong_steps(q, k, v):
    """{hint: what the mistake gives}, in the shape of o: (T, H, D), or (H, D) of a single token."""
    (T, H, D), (S, K, _) = q.shape, k.shape
    group = H // K
    wrong = {
        "a token reads its own key and value too: add them to the cache before you attend": (
            _attend(q, k, v, visible=lambda t: slice(0, S - T + t))
        ),
        "the scores are not divided by sqrt(D)": _attend(q, k, v, scale=1),
        "the scores are divided by D; the scale is its square root": _attend(q, k, v, scale=1 / D),
        "the scale is sqrt of the width of a head, D, not of all H heads together": (
            _attend(q, k, v, scale=(H * D) ** -0.5)
        ),
        "query head h reads kv head h // (H / K), so neighbours share one; yours reads h % K (np.tile?)": (
            _attend(q, k, v, kv_head=lambda h: h % K)
        ),
        "every query head reads kv head 0; head h must read h // (H / K)": _attend(q, k, v, kv_head=lambda h: 0),
        "the new token reads itself only: it must attend to the whole cache": (
            _attend(q, k, v, visible=lambda t: slice(S - T + t, S - T + t + 1))
        ),
        "keys and values are swapped": _attend(q, v, k),
        "the values are averaged once more: the weights of a row sum to 1 already, so add p v up": _attend(q, k, v) / S,
        "the scores are divided by the square root of the number of keys; D is the width of a head": (
            _attend(q, k, v, scale=S**-0.5)
        ),
        "the scores are multiplied by sqrt(D); they are divided by it": _attend(q, k, v, scale=D**0.5),
        "all keys have the same weight: the softmax of the scores is missing": _attend(q, 0 * k, v),
        "h // K is not the kv head: the group has H / K members, so it is h // (H / K)": (
            _attend(q, k, v, kv_head=lambda h: min(h // K, K - 1)) if group != K else np.full(q.shape, np.inf)
        ),
    }
    return {hint: o[0] for hint, o in wrong.items()} if T == 1 else wrong


def _wrong_chunks(q, k, v):
    (T, _, _), S = q.shape, len(k)
    return {
        "there is no mask: token t of the chunk must not read the tokens of the chunk behind it": (
            _attend(q, k, v, uniform=True)
        ),
        "the mask does not count the cache: row t of the chunk stands at position S + t, so it reads S + t + 1 keys": (
            _attend(q, k, v, visible=lambda t: slice(0, t + 1))
        ),
        "is a hidden score set to 0? exp(0) is 1, and the future keeps a share: hide with -inf, before the softmax": (
            _attend(q, k, v, hidden="zero")
        ),
        "the weights are masked after the softmax: hidden keys are still in the denominator": (
            _attend(q, k, v, hidden="after")
        ),
        "off by one: a token of the chunk reads the token just behind it": (
            _attend(q, k, v, visible=lambda t: slice(0, S - T + t + 2))
        ),
        "the chunk does not read the cache": _attend(q, k, v, visible=lambda t: slice(S - T, S - T + t + 1)),
    }


def _cache_is_longer(trial, cache_k, cache_v, past_k, past_v, k, v):
    for name, cache, past, new in (("keys", cache_k, past_k, k), ("values", cache_v, past_v, v)):
        other = v if name == "keys" else k
        trial.same(
            f"the {name} of the cache, then the new ones",
            cache,
            np.concatenate([past, new]),
            {
                "the new key and value belong at the end of the cache, not at its beginning": (
                    np.concatenate([new, past])
                ),
                "keys and values are swapped": np.concatenate([past, other]),
            },
            f"the cache of {name} must be the given one with the new {name} behind it, nothing else",
        )
