"""Attention without the T x T array: tiles of keys against tiles of queries, the softmax taken as the keys go by.

Scores are computed transposed, S^T = K Q^T, with queries in the lanes of the vector registers, so that a query's
running maximum, its exponentials and their sum are all lane by lane, with no sum across a register. Every other product
has the head's D numbers in the lanes and reads P^T or dS^T number by number, where it was written. Memory: the keys and
values of one head, and tiles: linear in T.

    for a tile of queries:                              for a tile of queries (backward):
        for a tile of the keys that they read:              for a tile of the keys that they read:
            S^T = K Q^T - slope * distance                       P^T = exp(K Q^T - slope * distance - log denominator)
            P^T = exp(S^T - maximum so far)                      dS^T = P^T * (V dO^T - rowsum(dO * O))
            rescale O and the sum to the new maximum             dV += P^T dO,   dK += dS^T Q
            O += P V                                             dQ += dS K

Q here is the query matrix already divided by sqrt(D), and K is multiplied by log2(e): e^x is taken as 2^(x log2(e)).
What the causal mask hides is not computed, but for the rest of a step: each product takes no more of the keys (or
queries) than its rows read. Keys that are padding end the loop over the keys. Where there is no causal mask, every
query reads a whole tile: that is all that differs.

Source of the idea: Dao et al. 2022, FlashAttention (arXiv 2205.14135), and Dao 2023 (arXiv 2307.08691), algorithm 1,
which has the queries in the outer loop as here; the running softmax: Milakov and Gimelshein 2018 (arXiv 1805.02867).
"""

import math

import numpy as np
from numba import njit

from ..runtime.memory import empty, frame
from .elementary import exp2
from .simd import (
    JIT,
    REGISTERS,
    VECTOR_BYTES,
    maximum,
    register_tile,
    replace_first,
    store,
    sum_of_lanes,
    transpose,
    vector_load,
)

QUERIES, KEYS = 64, 128  # a tile of scores, at most: 32 KB in float32
STEP = 16  # queries and keys are taken in steps of so many; STEP >= 2 ROWS and >= the lanes of a vector
VECTOR, HALF = 64, 32  # bytes: one register of AVX-512 or several of another processor; half of it for narrow heads
ROWS = min(8, REGISTERS // 2 * VECTOR_BYTES // VECTOR)  # of a tile whose sums fill half of the registers or less

load, load_half = vector_load(VECTOR), vector_load(HALF)
set_tile = register_tile(ROWS, 1, VECTOR, add=False)
add_tile, add_half_tile = register_tile(ROWS, 1, VECTOR), register_tile(2 * ROWS, 1, HALF)


def attention(q, k, v, causal=True, slopes=None, lengths=None):
    (B, T, H, D), S, dtype = q.shape, k.shape[1], q.dtype
    o, log_denominator = empty((B, T, H, D), dtype), empty((B, H, T), dtype)
    with frame():
        slopes, lengths = _each_head_and_sequence(slopes, lengths, q, S)
        width, padded = _padded(D, S, dtype)
        total, heads, rows = (empty(shape, dtype) for shape in ((B, H, T), (2, padded, width), (2, QUERIES, width)))
        columns = empty((width + KEYS + 4, QUERIES), dtype)
        q, k, v = map(_with_rows, (q, k, v))
        _forward(q, k, v, causal, slopes, lengths, o, log_denominator, total, heads, rows, columns)
        log_denominator *= math.log(2)
        log_denominator += np.log(total, out=total)
    return o, log_denominator


def attention_backward(do, q, k, v, o, log_denominator, causal=True, slopes=None, lengths=None):
    (B, T, H, D), K, dtype = q.shape, k.shape[2], q.dtype
    dqkv = empty((B, T, H + 2 * K, D), dtype)
    with frame():
        slopes, lengths = _each_head_and_sequence(slopes, lengths, q, T)
        width, padded = _padded(D, T, dtype)
        heads, rows = empty((4, padded, width), dtype), empty((3, QUERIES, width), dtype)
        columns = empty((2 * (width + KEYS) + 3, QUERIES), dtype)
        do, q, k, v, o = map(_with_rows, (do, q, k, v, o))
        _backward(do, q, k, v, o, log_denominator, causal, slopes, lengths, dqkv, heads, rows, columns)
    return dqkv


def _each_head_and_sequence(slopes, lengths, q, S):
    """slopes (H,) with 0 for none, lengths (B,) with S for none: arrays in any case, so that one kernel is compiled."""
    slopes = _filled(0 if slopes is None else slopes, q.shape[2:3], q.dtype)
    return slopes, _filled(S if lengths is None else lengths, q.shape[:1], np.int64)


def _with_rows(x):
    """x, or a copy of it where the D numbers of a head do not lie side by side, as vectors are loaded."""
    return x if x.strides[-1] == x.itemsize else _filled(x, x.shape, x.dtype)


def _filled(values, shape, dtype):
    array = empty(shape, dtype)
    array[...] = values
    return array


def _padded(D, S, dtype):
    """Head width rounded up to half vectors, number of keys to whole steps."""
    half = HALF // dtype.itemsize
    return -(-D // half) * half, -(-S // STEP) * STEP


@njit(**JIT)
def _pack(source, scale, target):
    """target[t, d] = scale * source[t, d], and 0 beyond the source."""
    (T, D), width, half = source.shape, target.shape[1], HALF // source.itemsize
    whole = D // half * half
    for t in range(T):
        row = source[t]
        for d in range(0, whole, half):
            store(target, t * width + d, load_half(row, d) * scale)
        for d in range(whole, D):
            target[t, d] = scale * row[d]
        for d in range(D, width):
            target[t, d] = 0
    target[T:] = 0


@njit(**JIT)
def _unpack(source, scale, target):
    """target[t, d] = scale * source[t, d]."""
    (T, D), width, half = target.shape, source.shape[1], HALF // source.itemsize
    whole = D // half * half
    for t in range(T):
        row = target[t]
        for d in range(0, whole, half):
            store(row, d, load_half(source, t * width + d) * scale)
        for d in range(whole, D):
            row[d] = scale * source[t, d]


@njit(**JIT)
def _scale_rows(rows, count, scale):
    """rows[i] *= scale[i] for count rows i."""
    width, half = rows.shape[1], HALF // rows.itemsize
    for i in range(count):
        for at in range(i * width, (i + 1) * width, half):
            store(rows, at, load_half(rows, at) * scale[i])


@njit(**JIT)
def _row_sums(packed, source, sums):
    """sums[t] = sum over d of packed[t, d] * source[t, d]."""
    (T, D), width, half = source.shape, packed.shape[1], HALF // packed.itemsize
    whole = D // half * half
    for t in range(T):
        row = source[t]
        products = load_half(packed, t * width) * 0
        for d in range(0, whole, half):
            products = products + load_half(packed, t * width + d) * load_half(row, d)
        sums[t] = sum_of_lanes(products)
        for d in range(whole, D):
            sums[t] += packed[t, d] * row[d]


@njit(**JIT)
def _transpose(rows, count, columns):
    """columns[d, i] = rows[i, d] for count rows i."""
    width, lanes, half = rows.shape[1], VECTOR // rows.itemsize, HALF // rows.itemsize
    for i in range(0, count, lanes):
        for d in range(0, width, half):
            transpose(rows, i * width + d, width, columns, d * QUERIES + i, QUERIES)


@njit(**JIT)
def _seen(visible, i, count):
    """How many of count keys a query of the step of queries that i lies in may read; query i reads `visible` + i."""
    return min(count, visible + i // STEP * STEP + STEP - 1)


@njit(**JIT)
def _scores(keys, key, count, columns, queries, depth, visible, scores):
    """scores[j, i] = keys[key + j] . column i for count keys j and those queries i that may read them."""
    width, lanes = keys.shape[1], VECTOR // keys.itemsize
    for j in range(0, count, ROWS):
        for i in range(max(0, j + 1 - visible) // STEP * STEP, queries, lanes):
            set_tile(keys, (key + j) * width, width, 1, columns, i, QUERIES, depth, scores, j * QUERIES + i, QUERIES)


@njit(**JIT)
def _add_to_queries(scores, count, queries, visible, keys, key, target):
    """target[i] += sum over those keys j < count that query i may read of scores[j, i] * keys[key + j]."""
    width, lanes, half = keys.shape[1], VECTOR // keys.itemsize, HALF // keys.itemsize
    for d in range(0, width - half, lanes):
        for i in range(0, queries, ROWS):
            depth = min(count, visible + i + ROWS - 1)
            if depth > 0:
                add_tile(scores, i, 1, QUERIES, keys, key * width + d, width, depth, target, i * width + d, width)
    if width % lanes > 0:
        d = width - half
        for i in range(0, queries, 2 * ROWS):
            depth = min(count, visible + i + 2 * ROWS - 1)
            if depth > 0:
                add_half_tile(scores, i, 1, QUERIES, keys, key * width + d, width, depth, target, i * width + d, width)


@njit(**JIT)
def _add_to_keys(scores, count, queries, visible, rows, target, key):
    """target[key + j] += sum over those queries i that may read key j of scores[j, i] * rows[i] for count keys j."""
    width, lanes, half = rows.shape[1], VECTOR // rows.itemsize, HALF // rows.itemsize
    for d in range(0, width - half, lanes):
        for j in range(0, count, ROWS):
            i = max(0, j + 1 - visible)
            at = (key + j) * width + d
            add_tile(scores, j * QUERIES + i, QUERIES, 1, rows, i * width + d, width, queries - i, target, at, width)
    if width % lanes > 0:
        d = width - half
        for j in range(0, count, 2 * ROWS):
            i = max(0, j + 1 - visible)
            at = (key + j) * width + d
            add_half_tile(
                scores, j * QUERIES + i, QUERIES, 1, rows, i * width + d, width, queries - i, target, at, width
            )


@njit(**JIT)
def _subtract_distances(scores, count, queries, visible, ahead, slope, offsets):
    """scores[j, i] -= slope * |ahead + i - j| for count keys j and those queries i that may read them

    Query 0 lies `ahead` positions behind key 0, offsets[i] = i. The distance is a whole number and exact; a slope times
    a position, taken from both sides, would lose the small differences between near keys in large numbers.
    """
    lanes = VECTOR // scores.itemsize
    for i in range(0, queries, lanes):
        distance = load(offsets, i) + ahead
        for j in range(_seen(visible, i, count)):
            at = j * QUERIES + i
            store(scores, at, load(scores, at) - maximum(distance, 0 - distance) * slope)
            distance = distance - 1


@njit(**JIT)
def _softmax(scores, count, queries, visible, largest, shrink, total):
    """scores = 2^(scores - largest), with largest and total brought up to date and shrink = 2^(old - new largest)."""
    lanes = VECTOR // scores.itemsize
    hidden = -np.inf
    for i in range(0, queries, lanes):
        seen = _seen(visible, i, count)
        seen_by_all = max(0, min(seen, visible + i)) // 2 * 2  # two at a time, or each maximum waits for the last one
        old = load(largest, i)
        peak = old
        for j in range(0, seen_by_all, 2):
            two = maximum(load(scores, j * QUERIES + i), load(scores, (j + 1) * QUERIES + i))
            peak = maximum(two, peak)
        for j in range(seen_by_all, seen):
            s = replace_first(load(scores, j * QUERIES + i), j + 1 - visible - i, hidden)
            store(scores, j * QUERIES + i, s)
            peak = maximum(s, peak)
        shrunk = exp2(old - peak)
        sum_of_p = load(total, i) * shrunk
        for j in range(seen):
            p = exp2(load(scores, j * QUERIES + i) - peak)
            store(scores, j * QUERIES + i, p)
            sum_of_p = sum_of_p + p
        store(largest, i, peak)
        store(shrink, i, shrunk)
        store(total, i, sum_of_p)


@njit(**JIT)
def _forward(q, k, v, causal, slopes, lengths, o, log2_largest, denominator, heads, rows, columns):
    """Writes the logarithm in base 2 of each softmax's largest term, and its denominator divided by that term."""
    (B, T, H, D), S, K = q.shape, k.shape[1], k.shape[2]
    group, width = H // K, rows.shape[2]
    one = q.dtype.type(1)
    scale, log2_e = one / np.sqrt(q.dtype.type(D)), q.dtype.type(1 / math.log(2))
    keys, values = heads[0], heads[1]
    queries, outputs = rows[0], rows[1]
    query_columns, scores = columns[:width], columns[width : width + KEYS]
    largest, shrink, total, offsets = columns[-4], columns[-3], columns[-2], columns[-1]
    for i in range(QUERIES):
        offsets[i] = i
    for b in range(B):
        length = min(lengths[b], S)
        for h in range(H):
            slope = slopes[h] * log2_e
            if h % group == 0:
                _pack(k[b, :length, h // group], log2_e, keys)
                _pack(v[b, :length, h // group], one, values)
            for first in range(0, T, QUERIES):
                here = min(QUERIES, T - first)
                wide = -(-here // STEP) * STEP
                _pack(q[b, first : first + here, h], scale, queries)
                _transpose(queries, wide, query_columns)
                outputs[:] = 0
                largest[:] = -np.inf
                total[:] = 0
                end = min(length, S - T + first + here) if causal else length
                for key in range(0, end, KEYS):
                    count, ahead = min(KEYS, end - key), S - T + first - key
                    visible = ahead + 1 if causal else KEYS  # keys of this tile that the first query may read
                    _scores(keys, key, count, query_columns, wide, D, visible, scores)
                    if slope != 0:
                        _subtract_distances(scores, count, wide, visible, ahead, slope, offsets)
                    _softmax(scores, count, wide, visible, largest, shrink, total)
                    if key > 0:
                        _scale_rows(outputs, here, shrink)
                    _add_to_queries(scores, count, wide, visible, values, key, outputs)
                for i in range(here):
                    log2_largest[b, h, first + i] = largest[i]
                    denominator[b, h, first + i] = total[i]
                    shrink[i] = one / total[i]
                _scale_rows(outputs, here, shrink)
                _unpack(outputs, one, o[b, first : first + here, h])


@njit(**JIT)
def _probabilities(scores, dscores, count, queries, visible, log2_denominator, row_sum):
    """scores = P^T = 2^(scores - log2_denominator), 0 where hidden; dscores = P^T * (dscores - row_sum)."""
    lanes = VECTOR // scores.itemsize
    for i in range(0, queries, lanes):
        log2_total, sum_of_row = load(log2_denominator, i), load(row_sum, i)
        for j in range(_seen(visible, i, count)):
            at = j * QUERIES + i
            p = exp2(load(scores, at) - log2_total)
            if j >= visible + i:
                p = replace_first(p, j + 1 - visible - i, 0.0)
            store(scores, at, p)
            store(dscores, at, p * (load(dscores, at) - sum_of_row))


@njit(**JIT)
def _backward(do, q, k, v, o, log_denominator, causal, slopes, lengths, dqkv, heads, rows, columns):
    (B, T, H, D), K = q.shape, k.shape[2]
    group, width = H // K, rows.shape[2]
    one = q.dtype.type(1)
    scale, log2_e, ln_2 = one / np.sqrt(q.dtype.type(D)), q.dtype.type(1 / math.log(2)), q.dtype.type(math.log(2))
    keys, values, dkeys, dvalues = heads[0], heads[1], heads[2], heads[3]
    queries, doutputs, dqueries = rows[0], rows[1], rows[2]
    query_columns, doutput_columns = columns[:width], columns[width : 2 * width]
    scores, dscores = columns[2 * width : 2 * width + KEYS], columns[2 * width + KEYS : 2 * (width + KEYS)]
    log2_total, row_sum, offsets = columns[-3], columns[-2], columns[-1]
    for i in range(QUERIES):
        offsets[i] = i
    for b in range(B):
        length = min(lengths[b], T)
        for h in range(H):
            slope = slopes[h] * log2_e
            if h % group == 0:
                _pack(k[b, :length, h // group], log2_e, keys)
                _pack(v[b, :length, h // group], one, values)
                dkeys[:] = 0
                dvalues[:] = 0
            for first in range(0, T, QUERIES):
                here = min(QUERIES, T - first)
                wide = -(-here // STEP) * STEP
                _pack(q[b, first : first + here, h], scale, queries)
                _pack(do[b, first : first + here, h], one, doutputs)
                _transpose(queries, wide, query_columns)
                _transpose(doutputs, wide, doutput_columns)
                dqueries[:] = 0
                columns[-3:-1] = 0
                for i in range(here):
                    log2_total[i] = log_denominator[b, h, first + i] * log2_e
                _row_sums(doutputs, o[b, first : first + here, h], row_sum)
                end = min(length, first + here) if causal else length
                for key in range(0, end, KEYS):
                    count, ahead = min(KEYS, end - key), first - key
                    visible = ahead + 1 if causal else KEYS
                    _scores(keys, key, count, query_columns, wide, D, visible, scores)
                    if slope != 0:
                        _subtract_distances(scores, count, wide, visible, ahead, slope, offsets)
                    _scores(values, key, count, doutput_columns, wide, D, visible, dscores)
                    _probabilities(scores, dscores, count, wide, visible, log2_total, row_sum)
                    _add_to_keys(scores, count, wide, visible, doutputs, dvalues, key)
                    _add_to_keys(dscores, count, wide, visible, queries, dkeys, key)
                    _add_to_queries(dscores, count, wide, visible, keys, key, dqueries)
                _unpack(dqueries, scale * ln_2, dqkv[b, first : first + here, h])
            if h % group == group - 1:
                heads[2:, length:] = 0  # what tiles of several keys added to the padding behind the last key
                _unpack(dkeys, one, dqkv[b, :, H + h // group])
                _unpack(dvalues, one, dqkv[b, :, H + K + h // group])
