"""Right and wrong answers to the exercises of lesson 00."""

import math
from collections import Counter

import numpy as np


def windows_reshape(tokens, T, offset):
    B = (len(tokens) - offset - 1) // T
    stop = offset + B * T
    return tokens[offset:stop].reshape(B, T), tokens[offset + 1 : stop + 1].reshape(B, T)


def windows_loop(tokens, T, offset):
    ids, targets = [], []
    start = offset
    while start + T + 1 <= len(tokens):
        window = tokens[start : start + T + 1]
        ids.append(window[:-1])
        targets.append(window[1:])
        start += T
    return np.stack(ids), np.array(targets)


def windows_places(tokens, T, offset):
    starts = np.arange(offset, len(tokens) - T, T)
    places = starts[:, None] + np.arange(T)
    return tokens[places], tokens[places + 1]


def windows_views(tokens, T, offset):
    """Two views of one array, not contiguous, in a list."""
    view = np.lib.stride_tricks.sliding_window_view(tokens[offset:], T + 1)[::T]
    return [view[:, :-1], view[:, 1:]]


def windows_last_lost(tokens, T, offset):
    B = (len(tokens) - offset - 1) // T - 1
    return tokens[offset:][: B * T].reshape(B, T), tokens[offset + 1 :][: B * T].reshape(B, T)


def windows_of_floats(tokens, T, offset):
    ids, targets = np.zeros((2, (len(tokens) - offset - 1) // T, T))
    ids[:], targets[:] = windows_reshape(tokens, T, offset)
    return ids, targets


def windows_columns(tokens, T, offset):
    ids, targets = windows_reshape(tokens, T, offset)
    return ids.reshape(T, -1).T, targets.reshape(T, -1).T


def windows_leak(tokens, T, offset):
    ids, _ = windows_reshape(tokens, T, offset)
    return ids, ids.copy()


def windows_backwards(tokens, T, offset):
    starts = np.arange(offset, len(tokens) - T, T)
    places = starts[:, None] + np.arange(T)
    return tokens[places], tokens[places - 1]


def windows_roll(tokens, T, offset):
    ids, _ = windows_reshape(tokens, T, offset)
    return ids, np.concatenate([ids[:, 1:], ids[:, :1]], axis=1)


def windows_no_offset(tokens, T, offset):
    B = (len(tokens) - offset - 1) // T
    return tokens[: B * T].reshape(B, T), tokens[1 : B * T + 1].reshape(B, T)


def windows_apart(tokens, T, offset):
    rest = tokens[offset:]
    B = (len(rest) - 1) // T
    rest = np.concatenate([rest, np.repeat(rest[-1:], B + T + 1)])
    ids = np.stack([rest[b * (T + 1) : b * (T + 1) + T] for b in range(B)])
    targets = np.stack([rest[b * (T + 1) + 1 : b * (T + 1) + T + 1] for b in range(B)])
    return ids, targets


def windows_fewer(tokens, T, offset):
    rest = tokens[offset:]
    B = len(rest) // (T + 1)
    pairs = rest[: B * (T + 1)].reshape(B, T + 1)
    return pairs[:, :-1], pairs[:, 1:]


def windows_all_starts(tokens, T, offset):
    view = np.lib.stride_tricks.sliding_window_view(tokens[offset:], T + 1)
    return view[:, :-1], view[:, 1:]


def windows_wide(tokens, T, offset):
    made = [tokens[s : s + T + 1] for s in range(offset, len(tokens) - T, T)]
    return np.stack(made), np.stack(made)


def windows_narrow(tokens, T, offset):
    made = np.stack([tokens[s : s + T] for s in range(offset, len(tokens) - T, T)])
    return made[:, :-1], made[:, 1:]


def windows_transposed(tokens, T, offset):
    ids, targets = windows_reshape(tokens, T, offset)
    return ids.T, targets.T


def windows_backward_ids(tokens, T, offset):
    ids, targets = windows_reshape(tokens, T, offset)
    return targets, ids


def bits_sum(losses, text):
    return losses.sum() / math.log(2) / len(text.encode("utf-8"))


def bits_mean(losses, text):
    tokens_per_byte = len(losses) / len(bytes(text, "utf-8"))
    return float(np.mean(losses) * tokens_per_byte * np.log2(np.e))


def bits_loop(losses, text):
    bits = 0.0
    for loss in losses:
        bits += -math.log2(math.exp(-loss))
    return bits / sum(1 for _ in text.encode())


def bits_zero_dimensions(losses, text):
    return np.array(losses.sum() * math.log2(math.e) / len(text.encode()))


def bits_characters(losses, text):
    return losses.sum() / math.log(2) / len(text)


def bits_nats(losses, text):
    return losses.sum() / len(text.encode())


def bits_multiplied(losses, text):
    return losses.sum() * math.log(2) / len(text.encode())


def bits_token(losses, text):
    return np.log2(np.exp(losses)).mean()


def bits_hartley(losses, text):
    return losses.sum() / math.log(10) / len(text.encode())


def bits_wide_characters(losses, text):
    return losses.sum() / math.log(2) / len(text.encode("utf-16"))


def bits_first_loss(losses, text):
    return (losses.sum() - losses[0]) / math.log(2) / len(text.encode())


def bits_mean_by_bytes(losses, text):
    return losses.mean() / math.log(2) / len(text.encode())


def log_softmax_shift(logits):
    z = logits - logits.max(axis=-1, keepdims=True)
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


def log_softmax_library(logits):
    return logits - np.logaddexp.reduce(logits, axis=-1)[..., None]


def log_softmax_rows(logits):
    rows = logits.reshape(-1, logits.shape[-1])
    result = np.empty_like(rows)
    for n, row in enumerate(rows):
        top = max(row)
        result[n] = row - top - np.log(np.exp(row - top).sum())
    return result.reshape(logits.shape)


def log_softmax_einsum(logits):
    largest = np.max(logits, -1)[..., None]
    return logits - (largest + np.log(np.einsum("...v->...", np.exp(logits - largest))[..., None]))


def log_softmax_mean_shift(logits):
    """Shifts by the mean: not stable where one logit is far above the others."""
    z = logits - logits.mean(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def log_softmax_clipped_logits(logits):
    z = np.clip(logits, -80, 80)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def log_softmax_denominator(logits):
    return np.logaddexp.reduce(logits, axis=-1, keepdims=True) + np.zeros_like(logits)


def log_softmax_shifted_twice(logits):
    largest = logits.max(axis=-1, keepdims=True)
    return logits - largest - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def log_softmax_only_shift(logits):
    return logits - logits.max(axis=-1, keepdims=True)


def log_softmax_first_axis(logits):
    z = logits - logits.max(axis=0)
    return z - np.log(np.exp(z).sum(axis=0))


def log_softmax_second_axis(logits):
    axis = 1 if logits.ndim > 1 else 0
    z = logits - logits.max(axis=axis, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))


def log_softmax_unstable(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def log_softmax_global_shift(logits):
    z = logits - logits.max()
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def log_softmax_of_probabilities(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.log(e / e.sum(axis=-1, keepdims=True))


def log_softmax_clipped(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.log(e / e.sum(axis=-1, keepdims=True) + 1e-8)


def log_softmax_no_logarithm(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax_all(logits):
    z = logits - logits.max()
    return z - np.log(np.exp(z).sum())


def log_softmax_no_keepdims(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1))


def log_softmax_in_place(logits):
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def log_softmax_half_shifted(logits):
    largest = logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits - largest).sum(axis=-1, keepdims=True))


def log_softmax_bits(logits):
    return log_softmax_shift(logits) * np.float32(1 / math.log(2))


def interpolated_arrays(tokens, V, weight):
    counts = np.zeros((V, V))
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    unigram = np.bincount(tokens, minlength=V) / len(tokens)
    P = np.tile(unigram, (V, 1))
    seen = counts.sum(axis=1) > 0
    bigram = counts[seen] / counts[seen].sum(axis=1, keepdims=True)
    P[seen] = weight * bigram + (1 - weight) * unigram
    return P


def interpolated_loops(tokens, V, weight):
    pairs = Counter(zip(tokens.tolist(), tokens.tolist()[1:], strict=False))
    singles, followed = Counter(tokens.tolist()), Counter(tokens.tolist()[:-1])
    P = np.zeros((V, V))
    for i in range(V):
        for j in range(V):
            unigram = singles[j] / len(tokens)
            P[i, j] = weight * pairs[i, j] / followed[i] + (1 - weight) * unigram if followed[i] else unigram
    return P


def interpolated_flat(tokens, V, weight):
    counts = np.bincount(tokens[:-1] * V + tokens[1:], minlength=V * V).reshape(V, V).astype(float)
    unigram = np.bincount(tokens, minlength=V) / len(tokens)
    counts[counts.sum(axis=1) == 0] = unigram
    return weight * counts / counts.sum(axis=1)[:, None] + (1 - weight) * unigram[None, :]


def interpolated_histogram(tokens, V, weight):
    edges = np.arange(V + 1) - 0.5
    counts = np.histogram2d(tokens[:-1], tokens[1:], bins=[edges, edges])[0]
    unigram = np.histogram(tokens, bins=edges)[0] / tokens.size
    with np.errstate(invalid="ignore"):
        bigram = counts / counts.sum(axis=1, keepdims=True)
    return np.where(np.isnan(bigram), unigram, weight * bigram + (1 - weight) * unigram)


def _counts(tokens, V):
    one_hot = np.eye(V)[tokens]
    counts = one_hot[:-1].T @ one_hot[1:]
    return counts, counts.sum(axis=1), one_hot.mean(axis=0)


def interpolated_no_keepdims(tokens, V, weight):
    counts, total, unigram = _counts(tokens, V)
    mixed = weight * counts / np.where(total > 0, total, 1) + (1 - weight) * unigram
    return np.where(total[:, None] > 0, mixed, unigram)


def interpolated_unigram_down(tokens, V, weight):
    counts, total, unigram = _counts(tokens, V)
    mixed = weight * counts / np.where(total > 0, total, 1)[:, None] + (1 - weight) * unigram[:, None]
    return np.where(total[:, None] > 0, mixed, unigram)


def interpolated_by_occurrence(tokens, V, weight):
    """Divides by how often a token occurs, which is one too many for the last token of all."""
    counts, total, unigram = _counts(tokens, V)
    mixed = weight * counts / np.maximum(np.bincount(tokens, minlength=V), 1)[:, None] + (1 - weight) * unigram
    return np.where(total[:, None] > 0, mixed, unigram)


def interpolated_no_minlength(tokens, V, weight):
    counts, total, _ = _counts(tokens, V)
    unigram = np.bincount(tokens) / len(tokens)
    mixed = weight * counts / np.where(total > 0, total, 1)[:, None] + (1 - weight) * unigram
    return np.where(total[:, None] > 0, mixed, unigram)


def interpolated_backoff(tokens, V, weight):
    """The bigram where a pair was seen, else the unigram: not in the checker's table."""
    counts, total, unigram = _counts(tokens, V)
    return np.where(counts > 0, counts / np.where(total > 0, total, 1)[:, None], unigram)


def interpolated_nan(tokens, V, weight):
    counts = np.zeros((V, V))
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    unigram = np.bincount(tokens, minlength=V) / len(tokens)
    return weight * counts / counts.sum(axis=1, keepdims=True) + (1 - weight) * unigram


def interpolated_once(tokens, V, weight):
    counts = np.zeros((V, V))
    counts[tokens[:-1], tokens[1:]] += 1
    unigram = np.bincount(tokens, minlength=V) / len(tokens)
    seen = counts.sum(axis=1, keepdims=True)
    return np.where(seen > 0, weight * counts / np.maximum(seen, 1) + (1 - weight) * unigram, unigram)


def interpolated_leaky(tokens, V, weight):
    counts = np.zeros((V, V))
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    unigram = np.bincount(tokens, minlength=V) / len(tokens)
    return weight * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) + (1 - weight) * unigram


def interpolated_transposed(tokens, V, weight):
    return interpolated_arrays(tokens, V, weight).T.copy()


def interpolated_swapped(tokens, V, weight):
    return interpolated_loops(tokens, V, 1 - weight)


def interpolated_pure(tokens, V, weight):
    return interpolated_arrays(tokens, V, 1.0)


def interpolated_joint(tokens, V, weight):
    counts = np.zeros((V, V))
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    return weight * counts / (len(tokens) - 1) + (1 - weight) * np.bincount(tokens, minlength=V) / len(tokens)


def interpolated_uniform(tokens, V, weight):
    """Mixes in 1/V, where the unigram is asked for: not in the checker's table."""
    counts = np.zeros((V, V))
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    seen = counts.sum(axis=1, keepdims=True)
    return np.where(seen > 0, weight * counts / np.maximum(seen, 1) + (1 - weight) / V, 1 / V)


def interpolated_from_behind(tokens, V, weight):
    """The predecessors' table: row i says what comes before i."""
    return interpolated_arrays(tokens[::-1].copy(), V, weight)


def interpolated_with(shares):
    """shares(weight): what bigram and unigram are multiplied by."""

    def answer(tokens, V, weight):
        bigram, unigram = (interpolated_arrays(tokens, V, w) for w in (1.0, 0.0))
        known = np.isin(np.arange(V), tokens[:-1])[:, None]
        of_bigram, of_unigram = shares(weight)
        return np.where(known, of_bigram * bigram + of_unigram * unigram, unigram)

    return answer


RIGHT = {
    "windows": [windows_reshape, windows_loop, windows_places, windows_views],
    "bits_per_byte": [bits_sum, bits_mean, bits_loop, bits_zero_dimensions],
    "log_softmax": [log_softmax_shift, log_softmax_library, log_softmax_rows, log_softmax_einsum],
    "interpolated_bigram": [interpolated_arrays, interpolated_loops, interpolated_flat, interpolated_histogram],
}
WRONG = {
    "windows": [
        (windows_leak, "the answer leaks into the question"),
        (windows_of_floats, "must hold integers"),
        (windows_backwards, "shift the other way"),
        (windows_roll, "np.roll"),
        (windows_no_offset, "the offset is not used"),
        (windows_apart, "T + 1 apart"),
        (windows_fewer, "T + 1 apart"),
        (windows_all_starts, "overlap"),
        (windows_wide, "T + 1 columns"),
        (windows_narrow, "T - 1 columns"),
        (windows_transposed, "transposed"),
        (windows_backward_ids, "ids are shifted"),
        (windows_last_lost, "not (B + 1) T"),
        (windows_columns, "in a row"),
    ],
    "bits_per_byte": [
        (bits_characters, "len(text.encode())"),
        (bits_nats, "divide by ln 2"),
        (bits_multiplied, "multiplied by ln 2"),
        (bits_token, "bits per token"),
        (bits_hartley, "hartley"),
        (bits_mean_by_bytes, "not their mean"),
        (bits_wide_characters, "the number of bytes in UTF-8"),
        (bits_first_loss, "the sum of the losses in bits"),
    ],
    "log_softmax": [
        (log_softmax_first_axis, "the last"),
        (log_softmax_second_axis, "axis 1"),
        (log_softmax_unstable, "not stable"),
        (log_softmax_global_shift, "own largest logit"),
        (log_softmax_of_probabilities, "the logarithm of the softmax"),
        (log_softmax_clipped, "to avoid log(0)"),
        (log_softmax_no_logarithm, "its logarithm is missing"),
        (log_softmax_all, "a distribution of its own"),
        (log_softmax_no_keepdims, "could not be broadcast"),
        (log_softmax_in_place, "changed an array"),
        (log_softmax_half_shifted, "in the exponential only"),
        (log_softmax_bits, "base 2"),
        (log_softmax_mean_shift, "not the mean"),
        (log_softmax_clipped_logits, "clipped"),
        (log_softmax_denominator, "logarithm of the denominator"),
        (log_softmax_shifted_twice, "leave the exponential too"),
        (log_softmax_only_shift, "z minus the largest only"),
    ],
    "interpolated_bigram": [
        (interpolated_nan, "not finite"),
        (interpolated_once, "np.add.at"),
        (interpolated_leaky, "adds up to 1 - weight"),
        (interpolated_transposed, "transposed"),
        (interpolated_swapped, "belongs to the bigram"),
        (interpolated_pure, "mix in the unigram"),
        (interpolated_with(lambda weight: (1.0, 1 - weight)), "the bigram is not multiplied"),
        (interpolated_with(lambda weight: (weight, 1.0)), "the unigram is not multiplied"),
        (interpolated_with(lambda weight: (1.0, 1.0)), "so that a row adds up to 1"),
        (interpolated_with(lambda weight: (0.5, 0.5)), "the mean of the two"),
        (interpolated_joint, "number of all pairs"),
        (interpolated_uniform, "compare with weight"),
        (interpolated_no_keepdims, "keepdims=True"),
        (interpolated_unigram_down, "down the columns"),
        (interpolated_by_occurrence, "how often its token occurs"),
        (interpolated_no_minlength, "could not be broadcast"),
        (interpolated_backoff, "compare with weight"),
        (interpolated_from_behind, "p(previous | next)"),
    ],
}
