"""C = A B five times, from the definition to the speed of BLAS: a ladder to climb.

    naive       three loops, a sum for each element of C                           the formula
    reordered   the two inner loops exchanged                                      memory is read in the order it lies
    blocked     blocks of B stay in the second-level cache, four rows a time       memory and C are visited less often
    tiled       a tile of C stays in registers, its operands lie packed            one instruction multiplies a vector
    threaded    the same on every core                                             C is shared out, nothing is locked

All equal np.matmul(a, b, out=c) up to rounding, for float32 and float64. A and B may be transposed or strided views:
training needs x W^T forwards, dy W and dy^T x backwards. `matmul` is the top of the ladder.

Source: Goto and van de Geijn 2008, Anatomy of High-Performance Matrix Multiplication (ACM TOMS 34:3), who pack a block
of A instead of one of B; Van Zee and van de Geijn 2015, BLIS (ACM TOMS 41:3), for the loops around a small kernel.
"""

from functools import wraps

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ..runtime.memory import empty, frame
from .simd import JIT, TILE_BYTES, TILE_ROWS, VECTOR_BYTES, register_tile

ROWS, WIDTH_BYTES = TILE_ROWS, TILE_BYTES  # of a tile of C
_set_tile, _add_tile = register_tile(ROWS, 2, add=False), register_tile(ROWS, 2)
DEPTH = 512  # at most so many steps of the sum before a tile of C goes back to memory
HANDOVER = 4e6  # multiplications in the time that it takes to wake a thread, and to hear that it has ended
# A packed block of B: most of a second-level cache, of 1 MB beside AVX-512, else of 512 KB.
BLOCK_BYTES = (768 if VECTOR_BYTES == 64 else 384) * 1024


@njit(**JIT)
def naive(a, b, c):
    """Each element of C is the sum that the definition says.
    The inner loop walks down a column of B: every step is in another cache line, and most are in no cache.
    NumPy: c[i, j] = np.sum(a[i, :] * b[:, j])
    """
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = c.dtype.type(0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            c[i, j] = total


@njit(**JIT)
def reordered(a, b, c):
    """The same products, summed in another order: row k of B, scaled, is added to row i of C.
    The inner loop walks along two rows, so each cache line is used whole and the loop runs in vectors.
    NumPy: c[i] += a[i, k] * b[k]
    """
    for i in range(a.shape[0]):
        row = c[i]
        row[:] = 0
        for k in range(a.shape[1]):
            factor, b_row = a[i, k], b[k]
            for j in range(len(row)):
                row[j] += factor * b_row[j]


@njit(**JIT)
def blocked(a, b, c):
    """The same loops inside blocks: all rows of A pass by while one block of B stays in the second-level cache.
    A large B is read from memory once, not once for each row of A; four rows of B together save three trips to C.
    NumPy: c[:, columns] += a[:, depth] @ b[depth, columns], block by block
    """
    depth, width = 128, BLOCK_BYTES // 128 // 2 // c.itemsize
    c[:, :] = 0
    for left in range(0, b.shape[1], width):
        for first in range(0, a.shape[1], depth):
            last = min(first + depth, a.shape[1])
            four = first + (last - first) // 4 * 4
            for i in range(a.shape[0]):
                row = c[i, left : left + width]
                for k in range(first, four, 4):
                    a0, a1, a2, a3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
                    b0, b1 = b[k, left : left + width], b[k + 1, left : left + width]
                    b2, b3 = b[k + 2, left : left + width], b[k + 3, left : left + width]
                    for j in range(len(row)):
                        row[j] += a0 * b0[j] + a1 * b1[j] + a2 * b2[j] + a3 * b3[j]
                for k in range(four, last):
                    factor, b_row = a[i, k], b[k, left : left + width]
                    for j in range(len(row)):
                        row[j] += factor * b_row[j]


def _square(transposed):
    """An intrinsic that copies a square of numbers as whole vectors, as it is or transposed."""

    @intrinsic
    def copy(typing_context, source, source_start, source_step, target, target_start, target_step):
        item = 4 if source.dtype == types.float32 else 8
        lanes = VECTOR_BYTES // item
        vector = ir.VectorType(ir.FloatType() if item == 4 else ir.DoubleType(), lanes)
        signature = types.void(source, types.intp, types.intp, target, types.intp, types.intp)

        def generate(context, builder, signature, args):
            source, source_start, source_step, target, target_start, target_step = args

            def vector_at(array, kind, start, step, i):
                index = builder.add(start, builder.mul(step, ir.Constant(step.type, i)))
                data = context.make_array(kind)(context, builder, array).data
                return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

            def shuffle(x, y, numbers):
                return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), lanes), numbers))

            rows = []
            for i in range(lanes):
                rows.append(builder.load(vector_at(source, signature.args[0], source_start, source_step, i)))
                rows[-1].align = item
            if transposed:
                # Interleaving row i with row i + lanes / 2, as cards are shuffled, moves every element's row number by
                # one bit into its column number. After log2(lanes) times the two have changed places.
                half = lanes // 2
                low = [i // 2 + i % 2 * lanes for i in range(lanes)]
                high = [half + number for number in low]
                for _ in range(half.bit_length()):
                    rows = [shuffle(rows[i], rows[i + half], part) for i in range(half) for part in (low, high)]
            for i in range(lanes):
                place = vector_at(target, signature.args[3], target_start, target_step, i)
                builder.store(rows[i], place).align = item
            return context.get_dummy_value()

        return signature, generate

    return copy


_copy_square = _square(transposed=False)
_transpose_square = _square(transposed=True)


@intrinsic
def _prefetch(typing_context, array, index):
    """Ask for the cache line of array[index], which will be written; the program does not wait for it."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        to_write, keep, data_cache = (ir.Constant(number, value) for value in (1, 3, 1))
        place = builder.bitcast(builder.gep(data, [args[1]]), pointer)
        builder.call(function, [place, to_write, keep, data_cache])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@njit(**JIT)
def _pack(source, start, step, across, depth, count, target, target_start, width):
    """Copy a panel into the order in which a tile reads it: one short row, `width` numbers, for each step of the depth.
    Whole squares go as vectors, transposed where the source lies the other way; what is left goes one by one.
    NumPy: target[d, :count] = source[d, :]; target[d, count:] = 0
    """
    lanes = VECTOR_BYTES // source.itemsize
    whole, whole_depth = count // lanes * lanes, depth // lanes * lanes if step == 1 or across == 1 else 0
    for d in range(0, whole_depth, lanes):
        for j in range(0, whole, lanes):
            at, to = start + d * step + j * across, target_start + d * width + j
            if across == 1:
                _copy_square(source, at, step, target, to, width)
            else:
                _transpose_square(source, at, across, target, to, width)
    for d in range(depth):
        at, to = start + d * step, target_start + d * width
        for j in range(whole if d < whole_depth else 0, count):
            target[to + j] = source[at + j * across]
        for j in range(count, width):
            target[to + j] = 0


@njit(**JIT, inline="always")  # a call for each tile would cost 2 % where the depth is 64
def _tile(a_tile, b_tile, depth, c_tile, rows, columns, border, fresh):
    """One tile of C. Where it sticks out over the edge of C it is computed beside C and its inside copied.
    NumPy: c[rows, columns] = a[rows, depth] @ b[depth, columns], or += unless fresh
    """
    (a, at, a_row, a_step), (b, panel, width), (c, start, M) = a_tile, b_tile, c_tile
    if rows == ROWS and columns == width:
        for row in range(ROWS):  # of the tile that comes next
            _prefetch(c, start + row * M + width)
            _prefetch(c, start + row * M + width + width // 2)
        if fresh:
            _set_tile(a, at, a_row, a_step, b, panel, width, depth, c, start, M)
        else:
            _add_tile(a, at, a_row, a_step, b, panel, width, depth, c, start, M)
        return
    _set_tile(a, at, a_row, a_step, b, panel, width, depth, border, 0, width)
    for row in range(rows):
        for column in range(columns):
            value = border[row * width + column]
            if not fresh:
                value += c[start + row * M + column]
            c[start + row * M + column] = value


@njit(**JIT)
def tiled(a, b, c, K, part, block, scratch, accumulate):
    """A tile of C, ROWS rows of two vectors, stays in registers while the depth runs by: no loads or stores of C.
    B is packed block by block for the second-level cache, A strip by strip for the first, so that tiles read in order.
    NumPy: c[top:bottom, left:right] = a[top:bottom] @ b[:, left:right], or += where accumulate is true
    """
    (a, a_row, a_step), (b, b_step, b_column) = a, b  # as flat arrays: element (i, k) of A is a[i a_row + k a_step]
    (top, bottom, left, right), (strip_rows, block_depth, block_width) = part, block
    (strip, panels, border), lanes, width = scratch, VECTOR_BYTES // c.itemsize, WIDTH_BYTES // c.itemsize
    M, flat = c.shape[1], c.reshape(-1)
    # A strip keeps the order of A's memory. Rows of A are set apart, or they would compete for one set of the cache.
    strip_row, strip_step = (block_depth + lanes, 1) if a_step == 1 else (1, strip_rows)
    for block_left in range(left, right, block_width):
        block_right = min(block_left + block_width, right)
        for k in range(0, K, block_depth):
            depth, fresh = min(block_depth, K - k), k == 0 and not accumulate
            for j in range(block_left, block_right, width):
                at, to = k * b_step + j * b_column, (j - block_left) * depth
                _pack(b, at, b_step, b_column, depth, min(width, block_right - j), panels, to, width)
            for i in range(top, bottom, strip_rows):
                rows = min(strip_rows, bottom - i)
                if a_step == 1:
                    for r in range(rows):
                        row, place = a[(i + r) * a_row + k :], strip[r * strip_row :]
                        for d in range(depth):
                            place[d] = row[d]
                else:
                    _pack(a, i * a_row + k * a_step, a_step, a_row, depth, rows, strip, 0, strip_rows)
                for j in range(block_left, block_right, width):
                    b_tile, columns = (panels, (j - block_left) * depth, width), min(width, block_right - j)
                    for r in range(0, rows, ROWS):
                        a_tile, c_tile = (strip, r * strip_row, strip_row, strip_step), (flat, (i + r) * M + j, M)
                        _tile(a_tile, b_tile, depth, c_tile, min(ROWS, rows - r), columns, border, fresh)


def _even(length, largest, multiple):
    """The size of blocks that cut length into nearly equal parts: at most `largest`, and a multiple of `multiple`."""
    largest = max(largest // multiple * multiple, multiple)
    parts = max(-(-length // largest), 1)
    return -(-length // (parts * multiple)) * multiple


def _flat(x):
    """A matrix as its memory: a one-dimensional view, the step to the next row and the step to the next column."""
    item, (row, column), flags = x.itemsize, x.strides, x.flags
    if flags.c_contiguous or flags.f_contiguous:
        return x.ravel("K"), row // item, column // item
    if row < 0 or column < 0 or row % item or column % item:
        return _flat(np.ascontiguousarray(x))
    span = 1 + ((x.shape[0] - 1) * row + (x.shape[1] - 1) * column) // item
    return np.lib.stride_tricks.as_strided(x, (span,), (item,)), row // item, column // item


def multiply(a, b, out, part=None, accumulate=False):
    """The tiled kernel on the calling thread, for the part (top, bottom, left, right) of out, or for all of it."""
    dtype, item, K = out.dtype, out.itemsize, a.shape[1]
    lanes, width = VECTOR_BYTES // item, WIDTH_BYTES // item
    strip_rows = -(-lanes // ROWS) * ROWS  # whole tiles, and at least as many rows as a vector has lanes
    _, _, left, right = part = part or (0, len(out), 0, out.shape[1])
    depth = _even(K, DEPTH, lanes)
    block_width = _even(right - left, BLOCK_BYTES // (depth * item), width)
    with frame():
        strip = empty((strip_rows * (depth + lanes),), dtype)
        panels, border = empty((depth * block_width,), dtype), empty((ROWS * width,), dtype)
        scratch = strip, panels, border
        tiled(_flat(a), _flat(b), out, K, part, (strip_rows, depth, block_width), scratch, accumulate)


def threaded(a, b, out, workers, accumulate=False):
    """Each thread computes some rows of C, or some columns where these are more, and packs what it needs for them.
    The calling thread has a head start, as the others must be woken; it takes more, so that all end together.
    NumPy: out[rows] = a[rows] @ b, or out[:, columns] = a @ b[:, columns], for each thread
    """
    N, M, K = *out.shape, a.shape[1]
    length, unit = (N, ROWS) if N > M else (M, WIDTH_BYTES // out.itemsize)
    units = -(-length // unit)
    late = HANDOVER / (unit * min(N, M) * K)  # in units
    count = max(1, min(workers.threads, int(units / (1 + late))))
    first = round((units + late * (count - 1)) / count)
    ends = [first + (units - first) * i // (count - 1) for i in range(1, count)]
    cuts = [0, *(unit * end for end in [first, *ends][:-1]), length]
    parts = [(*cut, 0, M) if N > M else (0, N, *cut) for cut in zip(cuts, cuts[1:], strict=False)]
    workers.run(lambda _, part: multiply(a, b, out, part, accumulate), parts)


def _checked(a, b, out, accumulate):
    """out, or a new array where it is None; an error where the arrays do not fit together."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"matmul needs a (N, K) and b (K, M); received {a.shape} and {b.shape}")
    if a.dtype != b.dtype or a.dtype not in (np.float32, np.float64):
        raise TypeError(
            f"matmul needs a and b both float32 or both float64; received {a.dtype} and {b.dtype}: convert with astype"
        )
    shape = (len(a), b.shape[1])
    if out is None:
        if accumulate:
            raise ValueError("accumulate adds to out; pass the array to add to as out")
        return np.empty(shape, a.dtype)
    if out.shape != shape or out.dtype != a.dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"out must be a C-contiguous {a.dtype} array of shape {shape}; received {out.dtype} {out.shape}"
            + ("" if out.flags.c_contiguous else ", not contiguous: pass a copy or let matmul make the array")
        )
    if np.may_share_memory(out, a) or np.may_share_memory(out, b):
        raise ValueError("out shares memory with a or b, which are read while out is written; pass another array")
    return out


def matmul(a, b, out=None, workers=None, accumulate=False):
    """C = A B, or C += A B where accumulate is true, on the calling thread or on those of a `parallel.Workers`

    a (N, K), b (K, M) -> out (N, M), made where it is None. float32 or float64, both the same. a and b may have any
    strides: pass x, weight.T for x W^T and dy.T, x for dy^T x. The result is the same for any number of threads.
    ValueError where shapes do not fit, where out is not a C-contiguous array of the result's shape and type or shares
    memory with a or b; TypeError for other types.
    """
    out = _checked(a, b, out, accumulate)
    if 0 in (*out.shape, a.shape[1]):
        if not accumulate:
            out[:] = 0
    elif workers is None or workers.threads == 1:
        multiply(a, b, out, accumulate=accumulate)
    else:
        threaded(a, b, out, workers, accumulate)
    return out


def _rung(kernel):
    """A kernel of the ladder, called as matmul is; it computes on the calling thread."""

    @wraps(kernel.py_func)
    def rung(a, b, out=None, workers=None):
        out = _checked(a, b, out, accumulate=False)
        kernel(a, b, out)
        return out

    return rung


LADDER = {
    "naive": _rung(naive),
    "reordered": _rung(reordered),
    "blocked": _rung(blocked),
    "tiled": lambda a, b, out=None, workers=None: matmul(a, b, out),
    "threaded": matmul,
}
