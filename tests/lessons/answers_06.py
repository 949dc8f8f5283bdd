"""Right and wrong answers to the exercises of lesson 06."""

import numpy as np


def split_by_reshape(x, heads):
    B, T, C = x.shape
    return x.reshape(B, T, heads, C // heads).swapaxes(1, 2)


def split_by_slices(x, heads):
    return np.stack(np.split(x, heads, axis=2), axis=1)


def split_by_columns_first(x, heads):
    B, T, C = x.shape
    return x.swapaxes(1, 2).reshape(B, heads, C // heads, T).swapaxes(2, 3)


def split_by_loop(x, heads):
    B, T, C = x.shape
    D = C // heads
    out = np.empty((B, heads, T, D), x.dtype)
    for b in range(B):
        for t in range(T):
            for c in range(C):
                out[b, c // D, t, c % D] = x[b, t, c]
    return out


def split_at_once(x, heads):
    B, T, C = x.shape
    return x.reshape(B, heads, T, C // heads)


def split_strided(x, heads):
    return np.stack([x[:, :, h::heads] for h in range(heads)], axis=1)


def split_columns_first_wrong(x, heads):
    B, T, C = x.shape
    return np.ascontiguousarray(x.transpose(0, 2, 1)).reshape(B, heads, T, C // heads)


def split_without_swap(x, heads):
    B, T, C = x.shape
    return x.reshape(B, T, heads, C // heads)


def split_backwards(x, heads):
    return split_by_reshape(x, heads)[:, ::-1]


def split_rolled(x, heads):
    return split_by_reshape(np.roll(x, 1, axis=2), heads)


def sum_by_reshape(dk, kv_heads):
    B, T, H, D = dk.shape
    return dk.reshape(B, T, kv_heads, H // kv_heads, D).sum(axis=3)


def sum_by_loop(dk, kv_heads):
    B, T, H, D = dk.shape
    out = np.zeros((B, T, kv_heads, D), dk.dtype)
    for h in range(H):
        out[:, :, h // (H // kv_heads)] += dk[:, :, h]
    return out


def sum_by_add_reduceat(dk, kv_heads):
    return np.add.reduceat(dk, np.arange(0, dk.shape[2], dk.shape[2] // kv_heads), axis=2)


def sum_by_matrix(dk, kv_heads):
    member = np.repeat(np.eye(kv_heads, dtype=dk.dtype), dk.shape[2] // kv_heads, axis=0)  # (H, K)
    return np.einsum("bthd,hk->btkd", dk, member)


def group_mean(dk, kv_heads):
    B, T, H, D = dk.shape
    return dk.reshape(B, T, kv_heads, -1, D).mean(axis=3)


def group_first(dk, kv_heads):
    return dk[:, :, :: dk.shape[2] // kv_heads]


def group_last(dk, kv_heads):
    group = dk.shape[2] // kv_heads
    return dk[:, :, group - 1 :: group]


def group_by_remainder(dk, kv_heads):
    return np.stack([dk[:, :, k::kv_heads].sum(axis=2) for k in range(kv_heads)], axis=2)


def group_by_remainder_mean(dk, kv_heads):
    return np.stack([dk[:, :, k::kv_heads].mean(axis=2) for k in range(kv_heads)], axis=2)


def group_everything(dk, kv_heads):
    return np.repeat(np.sum(dk, axis=2, keepdims=True), kv_heads, axis=2)


def group_without_sum(dk, kv_heads):
    B, T, H, D = dk.shape
    return dk.reshape(B, T, kv_heads, H // kv_heads, D)


def group_squared(dk, kv_heads):
    return sum_by_reshape(dk, kv_heads) / np.sqrt(dk.shape[2] // kv_heads).astype(dk.dtype)


def group_mean_of_one(dk, kv_heads):
    return group_mean(dk, kv_heads) if kv_heads == 1 else sum_by_reshape(dk, kv_heads)


def group_float64(dk, kv_heads):
    B, T, H, D = dk.shape
    out = np.zeros((B, T, kv_heads, D))
    for h in range(H):
        out[:, :, h // (H // kv_heads)] += dk[:, :, h]
    return out


def group_running_total(dk, kv_heads):
    group = dk.shape[2] // kv_heads
    return np.cumsum(dk, axis=2)[:, :, group - 1 :: group]


def sum_by_running_total(dk, kv_heads):
    totals = group_running_total(dk, kv_heads)
    return np.diff(totals, axis=2, prepend=np.zeros_like(totals[:, :, :1]))


def group_twice(dk, kv_heads):
    return sum_by_reshape(dk, kv_heads) * (dk.shape[2] // kv_heads)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def step_by_loop(q, k, v, cache_k, cache_v):
    cache_k, cache_v = np.concatenate([cache_k, k[None]]), np.concatenate([cache_v, v[None]])
    (H, D), K = q.shape, len(k)
    o = np.empty_like(q)
    for h in range(H):
        g = h // (H // K)
        o[h] = softmax(cache_k[:, g] @ q[h] / np.sqrt(D).astype(q.dtype)) @ cache_v[:, g]
    return o, cache_k, cache_v


def step_by_repeat(q, k, v, cache_k, cache_v):
    cache_k, cache_v = np.append(cache_k, k[np.newaxis], axis=0), np.append(cache_v, v[np.newaxis], axis=0)
    keys, values = (np.repeat(x, len(q) // len(k), axis=1) for x in (cache_k, cache_v))
    p = softmax(np.einsum("hd,shd->hs", q, keys) / q.shape[1] ** 0.5)
    return np.einsum("hs,shd->hd", p, values), cache_k, cache_v


def step_by_groups(q, k, v, cache_k, cache_v):
    (H, D), (K, _) = q.shape, k.shape
    cache_k, cache_v = np.vstack([cache_k, k[None]]), np.vstack([cache_v, v[None]])
    grouped = q.reshape(K, H // K, D)
    p = softmax(grouped @ cache_k.transpose(1, 2, 0) / D**0.5)
    return (p @ cache_v.swapaxes(0, 1)).reshape(H, D), cache_k, cache_v


def _step(append=True, scale=None, tile=False, first=False, axis=-1, shifted=True, front=False, swap=False, own=False):
    def step(q, k, v, cache_k, cache_v):
        order = (lambda old, new: [new[None], old]) if front else (lambda old, new: [old, new[None]])
        new_k, new_v = np.concatenate(order(cache_k, k)), np.concatenate(order(cache_v, v))
        keys, values = (new_k, new_v) if append else (cache_k, cache_v)
        if own:
            keys, values = k[None], v[None]
        if swap:
            keys, values = values, keys
        group = len(q) // len(k)
        if first:
            keys, values = (np.repeat(x[:, :1], len(q), axis=1) for x in (keys, values))
        else:
            keys, values = (np.tile(x, (1, group, 1)) if tile else np.repeat(x, group, 1) for x in (keys, values))
        scores = np.einsum("hd,shd->hs", q, keys) * (q.shape[1] ** -0.5 if scale is None else scale(q))
        scores = scores - scores.max(axis=axis, keepdims=True) if shifted else scores
        p = np.exp(scores)
        p /= p.sum(axis=axis, keepdims=True)
        return np.einsum("hs,shd->hd", p, values), new_k, new_v

    return step


def step_overwrites(q, k, v, cache_k, cache_v):
    if len(cache_k):
        cache_k[-1], cache_v[-1] = k, v
    return step_by_loop(q, k, v, cache_k[:-1], cache_v[:-1])


def step_keeps_old_cache(q, k, v, cache_k, cache_v):
    return step_by_loop(q, k, v, cache_k, cache_v)[0], cache_k, cache_v


def step_caches_the_query(q, k, v, cache_k, cache_v):
    o, _, new_v = step_by_loop(q, k, v, cache_k, cache_v)
    return o, np.concatenate([cache_k, q[None, : len(k)]]), new_v


def step_caches_keys_twice(q, k, v, cache_k, cache_v):
    o, new_k, _ = step_by_loop(q, k, v, cache_k, cache_v)
    return o, new_k, np.concatenate([cache_v, k[None]])


def step_doubles_own(q, k, v, cache_k, cache_v):
    new_k, new_v = np.concatenate([cache_k, k[None]]), np.concatenate([cache_v, v[None]])
    return step_by_loop(q, k, v, new_k, new_v)[0], new_k, new_v  # appends once more


def step_by_tile_when_empty(q, k, v, cache_k, cache_v):
    o, new_k, new_v = step_by_groups(q, k, v, cache_k, cache_v)
    return o if len(cache_k) else np.tile(v, (len(q) // len(k), 1)), new_k, new_v


def _step_with(softmax, groups_first=True):
    def step(q, k, v, cache_k, cache_v):
        (H, D), (K, _) = q.shape, k.shape
        cache_k, cache_v = np.concatenate([cache_k, k[None]]), np.concatenate([cache_v, v[None]])
        grouped = q.reshape(K, H // K, D) if groups_first else q.reshape(H // K, K, D).swapaxes(0, 1)
        o = softmax(grouped @ cache_k.transpose(1, 2, 0) / D**0.5) @ cache_v.swapaxes(0, 1)
        return (o if groups_first else o.swapaxes(0, 1)).reshape(H, D), cache_k, cache_v

    return step


def softmax_clipped(s):
    e = np.exp(np.clip(s, -50, 50))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_of_all(s):
    e = np.exp(s - s.max())
    return e / e.sum()


def softmax_by_one_maximum(s):
    e = np.exp(s - s.max())
    return e / e.sum(axis=-1, keepdims=True)


def step_with_values_in_another_order(q, k, v, cache_k, cache_v):
    new_k, new_v = np.concatenate([cache_k, k[None]]), np.concatenate([cache_v, v[None]])
    keys, values = np.repeat(new_k, len(q) // len(k), 1), np.tile(new_v, (1, len(q) // len(k), 1))
    p = softmax(np.einsum("hd,shd->hs", q, keys) / q.shape[1] ** 0.5)
    return np.einsum("hs,shd->hd", p, values), new_k, new_v


def step_by_streaming(q, k, v, cache_k, cache_v):
    """The online softmax of lesson 05: one key at a time."""
    new_k, new_v = np.insert(cache_k, len(cache_k), k, axis=0), np.insert(cache_v, len(cache_v), v, axis=0)
    (H, D), group = q.shape, len(q) // len(k)
    highest, total, o = np.full((H, 1), -np.inf, q.dtype), np.zeros((H, 1), q.dtype), np.zeros_like(q)
    for key, value in zip(new_k, new_v, strict=True):
        s = np.sum(q * key.repeat(group, 0), axis=1, keepdims=True) / D**0.5
        before, highest = highest, np.maximum(highest, s)
        total = total * np.exp(before - highest) + np.exp(s - highest)
        o = o * np.exp(before - highest) + np.exp(s - highest) * value.repeat(group, 0)
    return o / total, new_k, new_v


def step_out_of_order(q, k, v, cache_k, cache_v):
    """Views that are not contiguous, and heads in the last axis while it computes."""
    new_k = np.append(cache_k, k[None], axis=0).transpose(1, 2, 0)  # (K, D, S + 1)
    new_v = np.append(cache_v, v[None], axis=0).transpose(1, 2, 0)
    group = len(q) // len(k)
    o = [new_v[h // group] @ softmax(q[h] @ new_k[h // group] / len(q[h]) ** 0.5) for h in range(len(q))]
    return np.stack(o, axis=1).T, new_k.transpose(2, 0, 1), new_v.transpose(2, 0, 1)


def chunk_by_steps(q, k, v, cache_k, cache_v):
    outputs = []
    for t in range(len(q)):
        o, cache_k, cache_v = step_by_groups(q[t], k[t], v[t], cache_k, cache_v)
        outputs.append(o)
    return np.stack(outputs), cache_k, cache_v


def _chunk(visible, scale=None, tile=False, front=False):
    """visible(T, S) -> bool (T, S): what each token of the chunk reads of the S positions."""

    def read(q, k, v, cache_k, cache_v):
        parts = (lambda old, new: [new, old]) if front else (lambda old, new: [old, new])
        new_k, new_v = np.concatenate(parts(cache_k, k)), np.concatenate(parts(cache_v, v))
        group = q.shape[1] // k.shape[1]
        keys, values = (np.tile(x, (1, group, 1)) if tile else np.repeat(x, group, 1) for x in (new_k, new_v))
        scores = np.einsum("thd,shd->hts", q, keys) * (q.shape[2] ** -0.5 if scale is None else scale(q))
        scores = np.where(visible(len(q), len(new_k)), scores, -np.inf)
        return np.einsum("hts,shd->thd", softmax(scores), values), new_k, new_v

    return read


def all_so_far(T, S):
    return np.tril(np.ones((T, S), bool), k=S - T)


def chunk_causal_by_positions(q, k, v, cache_k, cache_v):
    return _chunk(lambda T, S: np.arange(S) <= np.arange(S - T, S)[:, None])(q, k, v, cache_k, cache_v)


def chunk_masked_with_zeros(q, k, v, cache_k, cache_v):
    new_k, new_v = np.concatenate([cache_k, k]), np.concatenate([cache_v, v])
    keys, values = (np.repeat(x, q.shape[1] // k.shape[1], 1) for x in (new_k, new_v))
    scores = np.einsum("thd,shd->hts", q, keys) / q.shape[2] ** 0.5 * all_so_far(len(q), len(new_k))
    return np.einsum("hts,shd->thd", softmax(scores), values), new_k, new_v


def chunk_appends_late(q, k, v, cache_k, cache_v):
    o = _chunk(lambda T, S: np.ones((T, S), bool))(q, k[:0], v[:0], cache_k, cache_v)[0] if len(cache_k) else q * 0
    return o, np.concatenate([cache_k, k]), np.concatenate([cache_v, v])


def chunk_unmasked_when_empty(q, k, v, cache_k, cache_v):
    mask = all_so_far if len(cache_k) else lambda T, S: np.ones((T, S), bool)
    return _chunk(mask)(q, k, v, cache_k, cache_v)


def chunk_strict(T, S):
    return np.tri(T, S, S - T - 1, dtype=bool) | (np.arange(S) == 0)


def chunk_reads_itself_only(T, S):
    return (np.arange(S) < S - T) | (np.arange(S) == np.arange(S - T, S)[:, None])


def chunk_without_maximum(q, k, v, cache_k, cache_v):
    new_k, new_v = np.concatenate([cache_k, k]), np.concatenate([cache_v, v])
    keys, values = (np.repeat(x, q.shape[1] // k.shape[1], 1) for x in (new_k, new_v))
    e = np.exp(np.einsum("thd,shd->hts", q, keys) / q.shape[2] ** 0.5) * all_so_far(len(q), len(new_k))
    return np.einsum("hts,shd->thd", e.astype(q.dtype) / e.sum(axis=2, keepdims=True), values), new_k, new_v


def chunk_with_a_large_number(q, k, v, cache_k, cache_v):
    """Masks by adding a large negative number, in the shape of the scores (T, H, S + T)."""
    new_k, new_v = np.append(cache_k, k, axis=0), np.append(cache_v, v, axis=0)
    keys, values = (np.repeat(x, q.shape[1] // k.shape[1], 1) for x in (new_k, new_v))
    future = np.triu(np.ones((len(q), len(new_k)), q.dtype), k=len(cache_k) + 1)
    scores = np.einsum("thd,shd->ths", q, keys) / q.shape[2] ** 0.5 - 1e30 * future[:, None]
    return np.einsum("ths,shd->thd", softmax(scores), values), new_k, new_v


def chunk_with(softmax_of):
    """softmax_of(scores (H, T, S), visible (T, S)) -> weights."""

    def read(q, k, v, cache_k, cache_v):
        new_k, new_v = np.concatenate([cache_k, k]), np.concatenate([cache_v, v])
        keys, values = (np.repeat(x, q.shape[1] // k.shape[1], 1) for x in (new_k, new_v))
        scores = np.einsum("thd,shd->hts", q, keys) / q.shape[2] ** 0.5
        p = softmax_of(scores, all_so_far(len(q), len(new_k)))
        return np.einsum("hts,shd->thd", p.astype(q.dtype), values), new_k, new_v

    return read


def masked_by(number):
    return lambda scores, visible: softmax(np.where(visible, scores, number).astype(scores.dtype))


def masked_by_adding(number):
    return lambda scores, visible: softmax(scores + scores.dtype.type(number) * ~visible)


def with_maximum_over_hidden(scores, visible):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True)) * visible
    return e / e.sum(axis=-1, keepdims=True)


def with_one_maximum(scores, visible):
    scores = np.where(visible, scores, -np.inf)
    e = np.exp(scores - scores.max())
    return e / e.sum(axis=-1, keepdims=True)


def masked_after(scores, visible):
    return softmax(scores) * visible


def chunk_off_by_one(q, k, v, cache_k, cache_v):
    return _chunk(lambda T, S: np.tril(np.ones((T, S), bool), k=S - T + 1))(q, k, v, cache_k, cache_v)


def bytes_in_a_line(model, context, batch, bits):
    width = model["dim"] // model["heads"]
    return 2 * model["layers"] * model["kv_heads"] * width * context * batch * bits // 8


def bytes_by_array(model, context, batch, bits):
    shape = (2, model["layers"], batch, context, model["kv_heads"], model["dim"] // model["heads"])
    return int(np.prod(shape, dtype=np.int64)) * bits // 8


def bytes_by_layers(model, context, batch, bits):
    total = 0
    for _ in range(model["layers"]):
        for _ in ("keys", "values"):
            total += batch * context * model["kv_heads"] * (model["dim"] // model["heads"]) * bits
    return total // 8


def bytes_in_32_bits(model, context, batch, bits):
    with np.errstate(all="ignore"):
        shape = 2, model["layers"], batch, context, model["kv_heads"], model["dim"] // model["heads"], bits
        return int(np.prod(shape, dtype=np.int32)) // 8


def bytes_divided_first(model, context, batch, bits):
    width = model["dim"] // model["heads"]
    return 2 * model["layers"] * model["kv_heads"] * width * context * batch * (bits // 8)


def bytes_of_wide_heads(model, context, batch, bits):
    width = model["dim"] // model["kv_heads"]
    return 2 * model["layers"] * model["kv_heads"] * width * context * batch * bits // 8


def _bytes(factor):
    return lambda model, context, batch, bits: int(
        bytes_in_a_line(model, context, batch, bits) * factor(model, context, batch, bits)
    )


RIGHT = {  # exercise -> list of functions
    "split_heads": [split_by_reshape, split_by_slices, split_by_columns_first, split_by_loop],
    "shared_head_gradient": [sum_by_reshape, sum_by_loop, sum_by_add_reduceat, sum_by_matrix, sum_by_running_total],
    "decode_step": [step_by_loop, step_by_repeat, step_by_groups, _step(), step_by_streaming, step_out_of_order],
    "read_chunk": [
        chunk_by_steps,
        _chunk(all_so_far),
        chunk_causal_by_positions,
        chunk_with_a_large_number,
        chunk_with(masked_by(-np.inf)),
    ],
    "cache_bytes": [bytes_in_a_line, bytes_by_array, bytes_by_layers],
}
WRONG = {  # exercise -> list of (function, a part of the hint that it must get)
    "split_heads": [
        (split_at_once, "swap two axes"),
        (split_strided, "every H-th column"),
        (split_columns_first_wrong, "before the reshape"),
        (split_without_swap, "must have shape"),
        (split_backwards, "opposite order"),
        (split_rolled, "does not have the numbers that it should"),
        (lambda x, heads: split_by_reshape(x, heads).astype(np.float64), "dtype of the input"),
    ],
    "shared_head_gradient": [
        (group_mean, "not averaged"),
        (group_first, "only one query head"),
        (group_last, "only one query head"),
        (group_by_remainder, "h // G"),
        (group_by_remainder_mean, "h // G"),
        (group_everything, "its own group only"),
        (group_without_sum, "must have shape"),
        (lambda dk, K: sum_by_reshape(dk, K) / dk.dtype.type(dk.shape[2]), "number of heads"),
        (group_squared, "square root of the number"),
        (group_twice, "not the gradient"),
        (group_running_total, "not the gradient"),
        (group_mean_of_one, "with one kv head everything is does not hold"),
        (group_float64, "dtype of the input"),
    ],
    "decode_step": [
        (_step(append=False), "before you attend"),
        (_step(scale=lambda q: 1), "not divided by sqrt(D)"),
        (_step(scale=lambda q: 1 / q.shape[1]), "square root"),
        (_step(scale=lambda q: q.size**-0.5), "not of all H heads"),
        (_step(tile=True), "h % K"),
        (_step(first=True), "kv head 0"),
        (_step(front=True), "at the end of the cache"),
        (_step(swap=True), "swapped"),
        (_step(own=True), "itself only"),
        (_step(axis=0), "one softmax"),
        (_step(shifted=False), "exponential of a large number"),
        (step_overwrites, "changed an array"),
        (step_keeps_old_cache, "must have shape"),
        (step_caches_the_query, "nothing else"),
        (step_caches_keys_twice, "swapped"),
        (step_doubles_own, "one softmax"),
        (_step_with(lambda s: softmax(s) / s.shape[-1]), "averaged once more"),
        (_step_with(lambda s: softmax(0 * s)), "same weight"),
        (_step(scale=lambda q: q.shape[1] ** 0.5), "multiplied by sqrt(D)"),
        (step_with_values_in_another_order, "one softmax"),
        (step_by_tile_when_empty, "when it is empty"),
        (_step_with(softmax_clipped), "do not clip"),
        (_step_with(softmax_of_all), "one softmax"),
        (_step_with(softmax_by_one_maximum), "for all heads"),
        (_step_with(softmax, groups_first=False), "h % K"),
    ],
    "read_chunk": [
        (_chunk(lambda T, S: np.ones((T, S), bool)), "there is no mask"),
        (_chunk(lambda T, S: np.tril(np.ones((T, S), bool))), "does not count the cache"),
        (_chunk(lambda T, S: all_so_far(T, S) & (np.arange(S) >= S - T)), "does not read the cache"),
        (_chunk(all_so_far, scale=lambda q: 1), "not divided by sqrt(D)"),
        (_chunk(all_so_far, tile=True), "h % K"),
        (_chunk(all_so_far, front=True), "at the end of the cache"),
        (chunk_masked_with_zeros, "set to 0"),
        (chunk_appends_late, "one softmax"),
        (chunk_off_by_one, "just behind it"),
        (chunk_with(masked_by(-1e2)), "hide with -inf"),
        (chunk_with(masked_by(-1e3)), "hide with -inf"),
        (chunk_with(masked_by(-1e5)), "hide with -inf"),
        (chunk_with(masked_by_adding(-1e4)), "hide with -inf"),
        (chunk_with(with_maximum_over_hidden), "over the hidden keys too"),
        (chunk_with(with_one_maximum), "for the whole array"),
        (chunk_with(masked_after), "masked after the softmax"),
        (chunk_with(lambda s, visible: np.where(visible, 1.0, 0.0) / visible.sum(1)[:, None] + 0 * s), "same weight"),
        (chunk_unmasked_when_empty, "when it is empty"),
        (_chunk(chunk_strict), "reads its own key"),
        (_chunk(chunk_reads_itself_only), "one softmax"),
        (chunk_without_maximum, "exponential of a large number"),
    ],
    "cache_bytes": [
        (_bytes(lambda model, *_: 1 / 2), "factor 2"),
        (_bytes(lambda model, *_: model["heads"] / model["kv_heads"]), "fewer of them than query heads"),
        (_bytes(lambda *_: 8), "these are bits"),
        (_bytes(lambda model, *_: 1 / model["layers"]), "every layer"),
        (_bytes(lambda model, context, batch, bits: 1 / batch), "every sequence"),
        (_bytes(lambda model, context, batch, bits: 32 / bits), "4 bytes for each"),
        (_bytes(lambda model, *_: model["heads"] / model["kv_heads"] / 2), "only of the key/value heads"),
        (lambda *given: bytes_in_a_line(*given) / 1, "must be of type int"),
        (_bytes(lambda model, *_: 4 / 3), "does not hold"),
        (bytes_divided_first, "bits // 8 is 0"),
        (bytes_in_32_bits, "ends at 2³¹"),
        (bytes_of_wide_heads, "each dim / heads wide"),
        (_bytes(lambda model, *_: model["heads"] / model["kv_heads"] ** 2), "does not hold"),
    ],
}
