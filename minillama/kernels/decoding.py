"""A token in one compiled call, on several threads that share its rows.

Decoding one sequence reads every weight once for each token, so memory sets its speed, and Python between the
operations would cost more than the arithmetic. A token is a row of turns, and every thread runs through all of them:

    embedding;   for each block:   heads of q, k and v, with their norm, their rotation and their place in the cache;
    attention, a head at a time;   rows of w_o;   rows of gate and up with SwiGLU;   rows of w_down;   at last, logits

A turn is cut into units of about UNIT_BYTES of weights, which threads take from a counter, and the next turn begins
when all units are finished. So nobody waits for a thread that has not begun: one that the system starts late passes
through finished turns and joins in where the others are. To wake a thread takes longer than a small model's token, so
helpers stay awake for the next one, some milliseconds. What it equals: `minillama.ops.decoding.decode`.
"""

import functools
import os
import sys
from weakref import WeakKeyDictionary

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from ..ops.positions.rope import ROPE_LAYOUTS
from ..runtime.memory import aligned_zeros, empty
from ..runtime.workers import available_threads
from .elementary import exp
from .narrow import widen
from .simd import FAST, JIT, VECTOR_BYTES

UNIT_BYTES = 2**16  # less costs more visits to the counter, more leaves threads idle at the end of a turn
LEAST_BYTES_TO_SHARE = 2**22  # of weights; a smaller model stays in the cache of one core, which is faster alone
PATIENCE = 1000  # looks at a counter before a waiting thread offers its processor to others
LINGER = 5000  # looks of a helper that no token comes for, until it goes home: 5 to 10 ms on a busy machine
GROUP = 64  # minillama.ops.narrow.GROUP; a constant of this file, as compiled code is kept by its own file
LANES = VECTOR_BYTES // 4
LINE = 8  # int64 in a cache line: every counter has its own
DOOR, DISMISSED, TOKEN, POSITION = 0, LINE, LINE + 1, LINE + 2  # where a session's `control` has them
HALVES = types.uint16, types.int16  # the bits of bfloat16 and of half precision
PHASE = 2**16  # of the door: the helpers inside are counted below it; the number of openings and closings above


def decode(config, p, token, rotation, cache, workers):
    with workers.alone():
        session = _sessions.get(cache)
        if session is None or session.p is not p or session.workers is not workers:
            session = _sessions[cache] = _Session(config, p, rotation, cache, workers)
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

    def __init__(self, config, p, rotation, cache, workers):
        H, D, F, C = config.heads, config.head_dim, config.ffn, config.dim
        embedding, blocks, norms, output = p.stacked
        dtype = norms.dtype
        self.p, self.workers, self.logits = p, workers, np.empty(config.vocab_size, dtype)
        self.shares = workers.threads > 1 and p.nbytes > LEAST_BYTES_TO_SHARE
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
        _add(control, DOOR, PHASE)
    while True:
        if not leads:
            looks, phase = 0, _read(control, DOOR) // PHASE
            while phase % 2 == 0 or phase == last:
                looks += 1
                if looks > linger + PATIENCE or _read(control, DISMISSED):
                    return
                if looks > PATIENCE:
                    _yield_processor()
                phase = _read(control, DOOR) // PHASE
            last = _add(control, DOOR, 1) // PHASE
        if leads or last % 2:
            _decode(
                embedding, blocks, norms, output, control[TOKEN], cos, sin, pairs, keys, values, control[POSITION],
                eps, x, q, mixed, hidden, logits, own, turns,
            )  # fmt: skip
        if leads:
            _add(control, DOOR, PHASE)
            looks = 0
            while _read(control, DOOR) % PHASE:
                looks += 1
                if looks > PATIENCE:
                    _yield_processor()
            return
        _add(control, DOOR, -1)


@njit(**JIT)
def _decode(
    embedding, blocks, norms, output, token, cos, sin, pairs, keys, values, position, eps, x, q, mixed, hidden, logits,
    own, turns,
):  # fmt: skip
    """One thread's part of a token. x, q, mixed, hidden, logits and turns are shared; own is this thread's scratch."""
    L, K, P, (H, D), C, F, V = len(keys), keys.shape[1], keys.shape[4], q.shape, len(x), len(hidden), len(logits)
    mixed_row = mixed.reshape(H * D)
    h, new, own_up, scores = own[:C], own[C : C + D], own[C + D : C + D + F], own[C + D + F : C + D + F + position + 1]
    rows_c, rows_f = _rows_in_unit(blocks, C), _rows_in_unit(blocks, F)
    units = (H + 2 * K, H, -(-C // rows_c), -(-F // rows_c), -(-C // rows_f))

    if _take(turns, 0) == 0:
        _read_row(embedding, token, x)
        _finish(turns, 0, 1)
    _wait(turns, 0, 1)

    for layer in range(L):
        w_qkv, rest = _cut(_block(blocks, layer), (H + 2 * K) * D, C)
        w_o, rest = _cut(rest, C, H * D)
        w_gate, rest = _cut(rest, F, C)
        w_up, rest = _cut(rest, F, C)
        w_down, rest = _cut(rest, C, F)
        for step in range(5):
            turn = 1 + 5 * layer + step
            finished, unit = 0, _take(turns, turn)
            if unit < units[step] and (step == 0 or step == 3):
                _rmsnorm(x, norms[2 * layer + step // 3], eps, h)
            while unit < units[step]:
                if step == 0:
                    head = q[unit] if unit < H else new
                    _multiply(w_qkv, unit * D, h, head, False)
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
                    _multiply(w_o, unit * rows_c, mixed_row, x[unit * rows_c : (unit + 1) * rows_c], True)
                elif step == 3:
                    first = unit * rows_c
                    gate = hidden[first : first + rows_c]
                    up = own_up[: len(gate)]
                    _multiply(w_gate, first, h, gate, False)
                    _multiply(w_up, first, h, up, False)
                    _swiglu(gate, up)
                else:
                    _multiply(w_down, unit * rows_f, hidden, x[unit * rows_f : (unit + 1) * rows_f], True)
                finished += 1
                unit = _take(turns, turn)
            _finish(turns, turn, finished)
            _wait(turns, turn, units[step])

    turn, count, finished = 5 * L + 1, -(-V // rows_c), 0
    unit = _take(turns, turn)
    if unit < count:
        _rmsnorm(x, norms[2 * L], eps, h)
    while unit < count:
        _multiply(output, unit * rows_c, h, logits[unit * rows_c : (unit + 1) * rows_c], False)
        finished += 1
        unit = _take(turns, turn)
    _finish(turns, turn, finished)
    _wait(turns, turn, count)


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


# What follows is written for each kind of weights: float, the bits of halves (minillama.ops.narrow), and pairs of int8
# weights and scales.


def _rows_in_unit(weights, columns):
    """How many rows of that many columns have about UNIT_BYTES."""


def _block(blocks, layer):
    """All matrices of one block, as they lie one after the other."""


def _cut(rest, rows, columns):
    """The matrix (rows, columns) that `rest` begins with, and what follows it."""


def _multiply(matrix, first, x, y, add):
    """y = matrix[first : first + len(y)] x, added to what y holds if `add`."""


def _read_row(matrix, r, out):
    """out = row r of the matrix."""


@overload(_rows_in_unit)
def _rows_in_unit_of(weights, columns):
    if isinstance(weights, types.BaseTuple):
        return lambda weights, columns: max(1, UNIT_BYTES // columns)
    return lambda weights, columns: max(1, UNIT_BYTES // (columns * weights.itemsize))


@overload(_block)
def _block_of(blocks, layer):
    if isinstance(blocks, types.BaseTuple):
        return lambda blocks, layer: (blocks[0][layer], blocks[1][layer])
    return lambda blocks, layer: blocks[layer]


@overload(_cut)
def _cut_of(rest, rows, columns):
    if isinstance(rest, types.BaseTuple):

        def cut(rest, rows, columns):
            q, scales = rest
            groups = -(-columns // GROUP)
            matrix = q[: rows * columns].reshape(rows, columns), scales[: rows * groups].reshape(rows, groups)
            return matrix, (q[rows * columns :], scales[rows * groups :])

        return cut
    return lambda rest, rows, columns: (rest[: rows * columns].reshape(rows, columns), rest[rows * columns :])


@overload(_multiply)
def _multiply_of(matrix, first, x, y, add):
    if isinstance(matrix, types.BaseTuple):

        def multiply(matrix, first, x, y, add):
            (q, scales), done = matrix, len(x) // LANES * LANES
            for i in range(len(y)):
                total = (y[i] if add else x.dtype.type(0)) + _dot_int8(q, scales, first + i, x)
                if done < len(x):
                    rest = x.dtype.type(0)
                    for c in range(done, len(x)):
                        rest += x.dtype.type(q[first + i, c]) * x[c]
                    total += scales[first + i, done // GROUP] * rest
                y[i] = total

    elif matrix.dtype in HALVES:

        def multiply(matrix, first, x, y, add):
            for i in range(len(y)):
                row, total = matrix[first + i], x.dtype.type(0)
                for c in range(len(x)):
                    total += widen(row[c]) * x[c]
                y[i] = y[i] + total if add else total

    else:

        def multiply(matrix, first, x, y, add):
            for i in range(len(y)):
                row, total = matrix[first + i], x.dtype.type(0)
                for c in range(len(x)):
                    total += row[c] * x[c]
                y[i] = y[i] + total if add else total

    return multiply


@overload(_read_row)
def _read_row_of(matrix, r, out):
    if isinstance(matrix, types.BaseTuple):

        def read_row(matrix, r, out):
            for c in range(len(out)):
                out[c] = matrix[1][r, c // GROUP] * matrix[0][r, c]

    elif matrix.dtype in HALVES:

        def read_row(matrix, r, out):
            for c in range(len(out)):
                out[c] = widen(matrix[r, c])

    else:

        def read_row(matrix, r, out):
            out[:] = matrix[r]

    return read_row


@njit(**JIT)
def _take(turns, turn):
    """The number of the next unit of a turn that nobody has taken; beyond the last one, a number that is too high."""
    return _add(turns, 2 * turn * LINE, 1)


@njit(**JIT)
def _finish(turns, turn, count):
    if count > 0:
        _add(turns, (2 * turn + 1) * LINE, count)


@njit(**JIT)
def _wait(turns, turn, units):
    """Return when `units` units of a turn are finished, and what they wrote can be read."""
    looks = 0
    while _read(turns, (2 * turn + 1) * LINE) < units:
        looks += 1
        if looks > PATIENCE:
            _yield_processor()


@intrinsic
def _dot_int8(typing_context, q, scales, r, x):
    """sum over groups g of scales[r, g] * (sum over the group of q[r, c] * x[c]), in whole vectors of LANES weights

    Numbers become float32 in the registers, and lanes are summed once a row. What LLVM makes of the same loops in
    Python is half as fast, and a fifth where a row ends with a part of a group.
    """
    number, index = ir.FloatType(), ir.IntType(64)
    vector, bytes_, words = (ir.VectorType(kind, LANES) for kind in (number, ir.IntType(8), ir.IntType(32)))

    def generate(context, builder, signature, args):
        q, scales, x = (context.make_array(signature.args[i])(context, builder, args[i]) for i in (0, 1, 3))
        columns, groups_in_row = (builder.extract_value(array.shape, 1) for array in (q, scales))
        row = builder.gep(q.data, [builder.mul(args[2], columns)])
        row_scales = builder.gep(scales.data, [builder.mul(args[2], groups_in_row)])

        def at(array, place, kind):
            loaded = builder.load(builder.bitcast(builder.gep(array, [place]), kind.as_pointer()))
            loaded.align = 1 if kind is bytes_ else 4
            return loaded

        def constant(value):
            return ir.Constant(index, value)

        def multiply_add(a, b, c):
            return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))

        def products(start, vectors):
            """The sum of `vectors` vectors of products from column start on."""
            total = ir.Constant(vector, None)
            for i in range(vectors):
                place = builder.add(start, constant(i * LANES))
                weights = builder.sitofp(builder.sext(at(row, place, bytes_), words), vector)
                total = multiply_add(weights, at(x.data, place, vector), total)
            return total

        def add_scaled(group, part):
            one = builder.insert_element(
                ir.Constant(vector, ir.Undefined),
                builder.load(builder.gep(row_scales, [group])),
                ir.Constant(ir.IntType(32), 0),
            )
            scale = builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(words, [0] * LANES))
            builder.store(multiply_add(part, scale, builder.load(sums)), sums)

        sums = cgutils.alloca_once_value(builder, ir.Constant(vector, None))
        groups = builder.udiv(columns, constant(GROUP))
        with cgutils.for_range(builder, groups) as loop:
            add_scaled(loop.index, products(builder.mul(loop.index, constant(GROUP)), GROUP // LANES))
        start = builder.mul(groups, constant(GROUP))
        with cgutils.for_range(builder, builder.udiv(builder.sub(columns, start), constant(LANES))) as loop:
            add_scaled(groups, products(builder.add(start, builder.mul(loop.index, constant(LANES))), 1))
        name, kind = f"llvm.vector.reduce.fadd.v{LANES}f32", ir.FunctionType(number, [number, vector])
        reduce = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(reduce, [ir.Constant(number, 0.0), builder.load(sums)], fastmath=("reassoc",))

    return types.float32(q, scales, types.intp, x), generate


@intrinsic
def _add(typing_context, counters, index, number):
    """counters.flat[index] += number as one indivisible step; returns the value before."""

    def generate(context, builder, signature, args):
        place = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        return builder.atomic_rmw("add", place, args[2], "acq_rel")

    return types.int64(counters, types.intp, types.int64), generate


@intrinsic
def _read(typing_context, counters, index):
    """counters.flat[index], and with it all that was written before the value was."""

    def generate(context, builder, signature, args):
        place = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(counters, types.intp), generate


@intrinsic
def _yield_processor(typing_context):
    """sched_yield of POSIX: where threads are more than processors, the one that is waited for can run."""

    def generate(context, builder, signature, args):
        if sys.platform != "win32":
            kind, known = ir.FunctionType(ir.IntType(32), []), builder.module.globals.get("sched_yield")
            builder.call(known or ir.Function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate
