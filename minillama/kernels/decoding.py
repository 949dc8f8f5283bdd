"""A token in one compiled call, on several threads that share its rows.

Decoding one sequence reads every weight once for each token, so memory sets its speed, and Python between the
operations would cost more than the arithmetic. A token is a row of turns, and every thread runs through all of them:

    embedding;   for each block:   heads of q, k and v, with their norm, their rotation and their place in the cache;
    attention, a head at a time;   rows of w_o;   rows of gate and up with SwiGLU;   rows of w_down;   at last, logits

A turn is cut into units of about UNIT_BYTES of weights, which threads take from a counter (minillama.kernels.turns). To
wake a thread takes longer than a small model's token, so helpers stay awake for the next one, some milliseconds. How
rows of each kind of weights are multiplied: minillama.kernels.weights. What it equals: `minillama.ops.decoding.decode`.
"""

import functools
import os
from weakref import WeakKeyDictionary

import numpy as np
from numba import njit

from ..ops import decoding
from ..ops.positions.rope import ROPE_LAYOUTS
from ..runtime.memory import aligned_zeros, empty
from ..runtime.workers import available_threads
from .elementary import exp
from .simd import FAST, JIT
from .turns import LINE, LOOKS, add, finish, read, take, wait, yield_processor
from .weights import block, cut, multiply, read_row, rows_of

UNIT_BYTES = 2**16  # less costs more visits to the counter, more leaves threads idle at the end of a turn
LEAST_BYTES_TO_SHARE = 2**22  # of weights; a smaller model stays in the cache of one core, which is faster alone
LINGER = 5000  # looks of a helper that no token comes for, until it goes home: 5 to 10 ms on a busy machine
DOOR, DISMISSED, TOKEN, POSITION = 0, LINE, LINE + 1, LINE + 2  # where a session's `control` has them
PHASE = 2**16  # of the door: the helpers inside are counted below it; the number of openings and closings above


def decode(config, p, weights, token, rotation, cache, workers):
    with workers.alone():
        session = _sessions.get(cache)
        if session is None or session.weights is not weights or session.workers is not workers:
            if rows_of(weights.dtypes) is None:
                return decoding.decode(config, p, weights, token, rotation, cache, workers)
            session = _sessions[cache] = _Session(config, weights, rotation, cache, workers)
        session.decode(token, cache.length)
        logits = empty((config.vocab_size,), session.logits.dtype)
        logits[:] = session.logits
        return logits


_sessions = WeakKeyDictionary()  # {KVCache: its _Session}
if hasattr(os, "register_at_fork"):  # a forked process has none of the threads that a session may wait for
    os.register_at_fork(after_in_child=_sessions.clear)


class _Session:
    """The tokens of one cache: the arrays that all threads share, and the door to them

    The calling thread opens the door for a token, closes it again and goes on when the last helper has left, all in one
    compiled call, where no Ctrl-C comes between. Helpers read and write behind the open door only, so that it does
    not matter when they come or whether they come at all.
    """

    def __init__(self, config, weights, rotation, cache, workers):
        H, D, F, C = config.heads, config.head_dim, config.ffn, config.dim
        embedding, blocks, norms, output = weights.stacked(config)
        dtype = norms.dtype
        self.weights, self.workers, self.logits = weights, workers, np.empty(config.vocab_size, dtype)
        self.shares = workers.threads > 1 and weights.nbytes > LEAST_BYTES_TO_SHARE
        # Awake helpers need a processor each, or they would take the caller's.
        self.linger = LINGER if workers.threads <= available_threads() else 0
        self.control = control = aligned_zeros(2 * LINE, np.int64)
        self.dismiss = functools.partial(control.__setitem__, DISMISSED, 1)
        self.scratch = functools.partial(aligned_zeros, C + D + F + config.context, dtype)
        self.own = self.scratch()
        x, hidden, q, mixed = np.empty(C, dtype), np.empty(F, dtype), np.empty((H, D), dtype), np.empty((H, D), dtype)
        turns = aligned_zeros(2 * (5 * config.layers + 2) * LINE, np.int64)
        self.shared = (
            embedding, blocks, norms, output, *rotation, _pairs(config.rope_layout, D),
            cache.keys[:, 0], cache.values[:, 0], dtype.type(config.norm_eps), x, q, mixed, hidden, self.logits, turns,
            control,
        )  # fmt: skip

    def decode(self, token, position):
        if self.shares:
            self.control[DISMISSED] = 0
            self.workers.lend(self.help, self.dismiss)
        _take_part(*self.shared, self.own, True, token, position, 0)

    def help(self):
        _take_part(*self.shared, self.scratch(), False, 0, 0, self.linger)


@functools.cache
def _pairs(layout, head_width):
    """The coordinates that RoPE turns together, (2, D/2)."""
    return np.stack(ROPE_LAYOUTS[layout](np.arange(head_width)))


@njit(**JIT)
def _take_part(
    embedding, blocks, norms, output, cos, sin, pairs, keys, values, eps, x, q, mixed, hidden, logits, turns, control,
    own, leads, token, position, linger,
):  # fmt: skip
    """The leading thread computes a token and returns when nobody else is inside any more. Another one helps with each
    token that it finds the door open for; it returns when it looked for the next `linger` times, or is dismissed.
    """
    last = 0  # phase in which this helper was inside: it does not come in a second time
    if leads:
        turns[:], control[TOKEN], control[POSITION] = 0, token, position
        add(control, DOOR, PHASE)
    while True:
        if not leads:
            looks, phase = 0, read(control, DOOR) // PHASE
            while phase % 2 == 0 or phase == last:
                looks += 1
                if looks > linger + LOOKS or read(control, DISMISSED):
                    return
                if looks > LOOKS:
                    yield_processor()
                phase = read(control, DOOR) // PHASE
            last = add(control, DOOR, 1) // PHASE
        if leads or last % 2:
            _decode(
                embedding, blocks, norms, output, control[TOKEN], cos, sin, pairs, keys, values, control[POSITION],
                eps, x, q, mixed, hidden, logits, own, turns,
            )  # fmt: skip
        if leads:
            add(control, DOOR, PHASE)
            looks = 0
            while read(control, DOOR) % PHASE:
                looks += 1
                if looks > LOOKS:
                    yield_processor()
            return
        add(control, DOOR, -1)


@njit(**JIT)
def _decode(
    embedding, blocks, norms, output, token, cos, sin, pairs, keys, values, position, eps, x, q, mixed, hidden, logits,
    own, turns,
):  # fmt: skip
    """One thread's part of a token. x, q, mixed, hidden, logits and turns are shared; own is this thread's scratch."""
    L, K, P, (H, D), C, F, V = len(keys), keys.shape[1], keys.shape[4], q.shape, len(x), len(hidden), len(logits)
    mixed_row = mixed.reshape(H * D)
    h, new, own_up, scores = own[:C], own[C : C + D], own[C + D : C + D + F], own[C + D + F : C + D + F + position + 1]
    rows_c = _rows_in_unit(embedding)
    rows_f = _rows_in_unit(cut(block(blocks, 0), C, F)[0])  # any rows of F weights; these are not those of w_down
    units = (H + 2 * K, H, -(-C // rows_c), -(-F // rows_c), -(-C // rows_f))

    if take(turns, 0) == 0:
        read_row(embedding, token, x)
        finish(turns, 0, 1)
    wait(turns, 0, 1)

    for layer in range(L):
        w_qkv, rest = cut(block(blocks, layer), (H + 2 * K) * D, C)
        w_o, rest = cut(rest, C, H * D)
        w_gate, rest = cut(rest, F, C)
        w_up, rest = cut(rest, F, C)
        w_down, rest = cut(rest, C, F)
        for step in range(5):
            turn = 1 + 5 * layer + step
            finished, unit = 0, take(turns, turn)
            if unit < units[step] and (step == 0 or step == 3):
                _rmsnorm(x, norms[2 * layer + step // 3], eps, h)
            while unit < units[step]:
                if step == 0:
                    head = q[unit] if unit < H else new
                    multiply(w_qkv, unit * D, h, head, False)
                    if unit < H + K:
                        _rotate(head, cos[position], sin[position], pairs)
                    if unit >= H:
                        stored = keys[layer, unit - H] if unit < H + K else values[layer, unit - H - K]
                        for d in range(D):
                            stored[position // P, d, position % P] = head[d]
                elif step == 1:
                    group = unit // (H // K)
                    _attend(q[unit], keys[layer, group], values[layer, group], scores, mixed[unit])
                elif step == 2:
                    multiply(w_o, unit * rows_c, mixed_row, x[unit * rows_c : (unit + 1) * rows_c], True)
                elif step == 3:
                    first = unit * rows_c
                    gate = hidden[first : first + rows_c]
                    up = own_up[: len(gate)]
                    multiply(w_gate, first, h, gate, False)
                    multiply(w_up, first, h, up, False)
                    _swiglu(gate, up)
                else:
                    multiply(w_down, unit * rows_f, hidden, x[unit * rows_f : (unit + 1) * rows_f], True)
                finished += 1
                unit = take(turns, turn)
            finish(turns, turn, finished)
            wait(turns, turn, units[step])

    turn, count, finished = 5 * L + 1, -(-V // rows_c), 0
    unit = take(turns, turn)
    if unit < count:
        _rmsnorm(x, norms[2 * L], eps, h)
    while unit < count:
        multiply(output, unit * rows_c, h, logits[unit * rows_c : (unit + 1) * rows_c], False)
        finished += 1
        unit = take(turns, turn)
    finish(turns, turn, finished)
    wait(turns, turn, count)


@njit(**JIT)
def _rows_in_unit(matrix):
    """How many rows of the matrix have about UNIT_BYTES; small arrays beside the first, as scales, do not count."""
    return max(1, UNIT_BYTES // (matrix[0].shape[1] * matrix[0].itemsize))


@njit(**JIT)
def _rmsnorm(x, weight, eps, h):
    total = x.dtype.type(0)
    for c in range(len(x)):
        total += x[c] * x[c]
    inverse = x.dtype.type(1) / np.sqrt(total / x.dtype.type(len(x)) + eps)
    for c in range(len(x)):
        h[c] = weight[c] * (x[c] * inverse)


@njit(**JIT)
def _rotate(head, cos, sin, pairs):
    for i in range(len(cos)):
        a, b = head[pairs[0, i]], head[pairs[1, i]]
        head[pairs[0, i]] = a * cos[i] - b * sin[i]
        head[pairs[1, i]] = a * sin[i] + b * cos[i]


@njit(**JIT)
def _swiglu(gate, up):
    """gate <- silu(gate) up"""
    for i in range(len(gate)):
        gate[i] = gate[i] / (gate.dtype.type(1) + exp(-gate[i])) * up[i]


@njit(**JIT)
def _attend(q, keys, values, scores, out):
    """softmax(keys q / sqrt(D)) values   for one query: q (D,), keys, values (blocks, D, P), scores (S,) -> out (D,)"""
    S, (_, D, P) = len(scores), keys.shape
    one = q.dtype.type(1)
    scale = one / np.sqrt(q.dtype.type(D))
    scores[:] = 0
    for start in range(0, S, P):
        block, part = keys[start // P], scores[start : min(start + P, S)]
        for d in range(0, D, 2):  # D is even; two coordinates at a time read and write the scores half as often
            first, second, a, b = block[d], block[d + 1], scale * q[d], scale * q[d + 1]
            for s in range(len(part)):
                part[s] += a * first[s] + b * second[s]
    largest = _largest(scores)
    denominator = q.dtype.type(0)
    for s in range(S):
        scores[s] = exp(scores[s] - largest)
        denominator += scores[s]
    out[:] = 0
    for start in range(0, S, P):
        block, part = values[start // P], scores[start : min(start + P, S)]
        for d in range(D):
            row, total = block[d], q.dtype.type(0)
            for s in range(len(part)):
                total += part[s] * row[s]
            out[d] += total
    inverse = one / denominator
    for d in range(D):
        out[d] *= inverse


@njit(**{**JIT, "fastmath": {*FAST, "nnan"}})  # a maximum vectorises only where NaN need not be kept; exp will meet it
def _largest(scores):
    largest = scores[0]
    for s in range(len(scores)):
        largest = max(largest, scores[s])
    return largest
