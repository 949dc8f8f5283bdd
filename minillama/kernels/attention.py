"""Attention without the T x T array: tiles of keys against tiles of queries, the softmax taken as the keys go by.

The queries of a tile lie in the lanes of the vector registers. Scores are computed transposed, S^T = K Q^T, so that a
query's running maximum, its exponentials and their sum are all lane by lane, with no sum across a register, and the
output O^T += V^T P^T reads P where it was written. Memory: the keys and values of one head, and tiles: linear in T.

    for a tile of queries:                              for a tile of queries (backward):
        for a tile of keys up to the queries:               for a tile of keys up to the queries:
            S^T = K Q^T                                          P^T = exp(K Q^T - log of the denominator)
            rescale O^T and the sum to the new maximum           dS^T = P^T * (V dO^T - rowsum(dO * O))
            P^T = exp(S^T - maximum)                             dV += P^T dO,   dK += dS^T Q
            O^T += V^T P^T                                       dQ^T += K^T dS^T

Q here is the query matrix already divided by sqrt(D). Source of the idea: Dao et al. 2022, FlashAttention (arXiv
2205.14135), and Dao 2023 (arXiv 2307.08691), algorithm 1, which has the queries in the outer loop as here; the running
softmax: Milakov and Gimelshein 2018 (arXiv 1805.02867).
"""

import numpy as np
from numba import njit

from ..memory import empty, frame
from .vectors import JIT, TILE_BYTES, TILE_ROWS, exp, multiply_tile

KEYS = 64  # keys in a tile of scores


def attention(q, k, v):
    (B, T, H, D), dtype = q.shape, q.dtype
    o, log_denominator = empty((B, T, H, D), dtype), empty((B, H, T), dtype)
    with frame():
        lanes, width, length = _padded(D, k.shape[1], dtype)
        keys, values = (empty((length, width), dtype) for _ in range(2))
        queries, outputs = (empty((width, lanes), dtype) for _ in range(2))
        scores, state = empty((KEYS, lanes), dtype), empty((4, lanes), dtype)
        _forward(q, k, v, o, log_denominator, keys, values, queries, outputs, scores, state)
    return o, log_denominator


def attention_backward(do, q, k, v, o, log_denominator):
    (B, T, H, D), K, dtype = q.shape, k.shape[2], q.dtype
    dqkv = empty((B, T, H + 2 * K, D), dtype)
    with frame():
        lanes, width, length = _padded(D, T, dtype)
        keys, values, dkeys, dvalues = (empty((length, width), dtype) for _ in range(4))
        columns = tuple(empty((width, lanes), dtype) for _ in range(3))  # Q^T, dO^T, dQ^T
        rows = tuple(empty((lanes, width), dtype) for _ in range(2))  # Q, dO
        scores, dscores, state = empty((KEYS, lanes), dtype), empty((KEYS, lanes), dtype), empty((2, lanes), dtype)
        packed = (keys, values, dkeys, dvalues, *columns, *rows, scores, dscores, state)
        _backward(do, q, k, v, o, log_denominator, dqkv, *packed)
    return dqkv


def _padded(D, S, dtype):
    """Lanes of a tile; head width and number of keys rounded up to whole tiles."""
    lanes = TILE_BYTES // dtype.itemsize
    unit = max(lanes, TILE_ROWS)
    return lanes, -(-D // unit) * unit, -(-S // TILE_ROWS) * TILE_ROWS


@njit(**JIT)
def _pack_rows(source, scale, target):
    """target[t, d] = scale * source[t, d], and 0 beyond the source: whole tiles for multiply_tile."""
    T, D = source.shape
    for t in range(len(target)):
        out = target[t]
        out[:] = 0
        if t < T:
            row = source[t]
            for d in range(D):
                out[d] = scale * row[d]


@njit(**JIT)
def _pack_columns(source, scale, target):
    """target[d, t] = scale * source[t, d], and 0 beyond the source."""
    T, D = source.shape
    target[:, :] = 0
    for t in range(T):
        row = source[t]
        for d in range(D):
            target[d, t] = scale * row[d]


@njit(**JIT)
def _scores(keys, first_key, count, values_or_queries, depth, scores):
    """scores[j, i] = keys[first_key + j] . column i, for count keys."""
    width, lanes = keys.shape[1], scores.shape[1]
    scores[:count, :] = 0
    for j in range(0, count, TILE_ROWS):
        multiply_tile(
            keys, (first_key + j) * width, width, 1, values_or_queries, 0, lanes, depth, scores, j * lanes, lanes
        )


@njit(**JIT)
def _hide_future(scores, count, last_key_of_first_query):
    """-inf where key j lies behind what query i may read; the first query of the tile reads up to the given key."""
    for j in range(max(0, last_key_of_first_query + 1), count):
        for i in range(min(j - last_key_of_first_query, scores.shape[1])):
            scores[j, i] = -np.inf


@njit(**JIT)
def _add_columns(rows, first_row, tile, count, depth, target):
    """target[d, i] += sum over j < count of rows[first_row + j, d] * tile[j, i]."""
    width, lanes = rows.shape[1], tile.shape[1]
    for d in range(0, depth, TILE_ROWS):
        multiply_tile(rows, first_row * width + d, 1, width, tile, 0, lanes, count, target, d * lanes, lanes)


@njit(**JIT)
def _add_rows(tile, count, rows, target, first_row):
    """target[first_row + j, d] += sum over i of tile[j, i] * rows[i, d], for count rows j."""
    width, lanes = rows.shape[1], tile.shape[1]
    for j in range(0, count, TILE_ROWS):
        for d in range(0, width, lanes):
            at = (first_row + j) * width + d
            multiply_tile(tile, j * lanes, lanes, 1, rows, d, width, lanes, target, at, width)


@njit(**JIT)
def _forward(q, k, v, o, log_denominator, keys, values, queries, outputs, scores, state):
    B, T, H, D = q.shape
    S, K = k.shape[1], k.shape[2]
    lanes = scores.shape[1]
    one = q.dtype.type(1)
    scale = one / np.sqrt(q.dtype.type(D))
    largest, peak, shrink, total = state[0], state[1], state[2], state[3]
    for b in range(B):
        for h in range(H):
            if h % (H // K) == 0:
                _pack_rows(k[b, :, h // (H // K)], one, keys)
                _pack_rows(v[b, :, h // (H // K)], one, values)
            for first in range(0, T, lanes):
                here = min(lanes, T - first)
                _pack_columns(q[b, first : first + here, h], scale, queries)
                outputs[:, :] = 0
                largest[:] = -np.inf
                total[:] = 0
                readable = S - T + first + here
                for key in range(0, readable, KEYS):
                    count = -(-min(KEYS, readable - key) // TILE_ROWS) * TILE_ROWS
                    _scores(keys, key, count, queries, D, scores)
                    _hide_future(scores, count, S - T + first - key)
                    for i in range(lanes):
                        peak[i] = largest[i]
                    for j in range(count):
                        for i in range(lanes):
                            peak[i] = max(peak[i], scores[j, i])
                    for i in range(lanes):
                        shrink[i] = exp(largest[i] - peak[i])
                        total[i] *= shrink[i]
                        largest[i] = peak[i]
                    for d in range(D):
                        for i in range(lanes):
                            outputs[d, i] *= shrink[i]
                    for j in range(count):
                        for i in range(lanes):
                            p = exp(scores[j, i] - peak[i])
                            scores[j, i] = p
                            total[i] += p
                    _add_columns(values, key, scores, count, D, outputs)
                for i in range(here):
                    log_denominator[b, h, first + i] = largest[i] + np.log(total[i])
                    inverse = one / total[i]
                    for d in range(D):
                        o[b, first + i, h, d] = outputs[d, i] * inverse


@njit(**JIT)
def _backward(
    do, q, k, v, o, log_denominator, dqkv,
    keys, values, dkeys, dvalues, queries, doutputs, dqueries, query_rows, doutput_rows, scores, dscores, state,
):  # fmt: skip
    B, T, H, D = q.shape
    K = k.shape[2]
    group = H // K
    lanes = scores.shape[1]
    one = q.dtype.type(1)
    scale = one / np.sqrt(q.dtype.type(D))
    log_total, row_sum = state[0], state[1]
    for b in range(B):
        for h in range(H):
            if h % group == 0:
                _pack_rows(k[b, :, h // group], one, keys)
                _pack_rows(v[b, :, h // group], one, values)
                dkeys[:, :] = 0
                dvalues[:, :] = 0
            for first in range(0, T, lanes):
                here = min(lanes, T - first)
                _pack_columns(q[b, first : first + here, h], scale, queries)
                _pack_columns(do[b, first : first + here, h], one, doutputs)
                _pack_rows(q[b, first : first + here, h], scale, query_rows)
                _pack_rows(do[b, first : first + here, h], one, doutput_rows)
                dqueries[:, :] = 0
                state[:, :] = 0
                for i in range(here):
                    log_total[i] = log_denominator[b, h, first + i]
                    for d in range(D):
                        row_sum[i] += do[b, first + i, h, d] * o[b, first + i, h, d]
                for key in range(0, first + here, KEYS):
                    count = -(-min(KEYS, first + here - key) // TILE_ROWS) * TILE_ROWS
                    _scores(keys, key, count, queries, D, scores)
                    _hide_future(scores, count, first - key)
                    _scores(values, key, count, doutputs, D, dscores)
                    for j in range(count):
                        for i in range(lanes):
                            p = exp(scores[j, i] - log_total[i])
                            scores[j, i] = p
                            dscores[j, i] = p * (dscores[j, i] - row_sum[i])
                    _add_rows(scores, count, doutput_rows, dvalues, key)
                    _add_rows(dscores, count, query_rows, dkeys, key)
                    _add_columns(keys, key, dscores, count, D, dqueries)
                for i in range(here):
                    for d in range(D):
                        dqkv[b, first + i, h, d] = scale * dqueries[d, i]
            if h % group == group - 1:
                dqkv[b, :, H + h // group] = dkeys[:T, :D]
                dqkv[b, :, H + K + h // group] = dvalues[:T, :D]
