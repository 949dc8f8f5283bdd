"""Rows of int8 weights and their scales: in registers where a token is written, or widened in one pass."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ...runtime.memory import empty
from ..simd import JIT, VECTOR_BYTES
from . import Rows

_GROUP = 64  # minillama.ops.weights.int8.GROUP; a constant of this file, as compiled code is kept by its own file
LANES = VECTOR_BYTES // 4


def widen_int8(q, scales):
    y = empty(q.shape, np.float32)
    _scale_rows(q, scales, y)
    return y


@njit(**JIT)
def _scale_rows(q, scales, y):
    R, C = q.shape
    for r in range(R):
        row, out = q[r], y[r]
        for start in range(0, C, _GROUP):
            scale = scales[r, start // _GROUP]
            for c in range(start, min(start + _GROUP, C)):
                out[c] = scale * np.float32(row[c])


def _block(blocks, layer):
    return (blocks[0][layer], blocks[1][layer])


def _cut(rest, rows, columns):
    q, scales = rest
    groups = -(-columns // _GROUP)
    matrix = q[: rows * columns].reshape(rows, columns), scales[: rows * groups].reshape(rows, groups)
    return matrix, (q[rows * columns :], scales[rows * groups :])


def _multiply(matrix, first, x, y, add):
    (q, scales), done = matrix, len(x) // LANES * LANES
    for i in range(len(y)):
        total = (y[i] if add else x.dtype.type(0)) + _dot_int8(q, scales, first + i, x)
        if done < len(x):
            rest = x.dtype.type(0)
            for c in range(done, len(x)):
                rest += x.dtype.type(q[first + i, c]) * x[c]
            total += scales[first + i, done // _GROUP] * rest
        y[i] = total


def _read_row(matrix, r, out):
    for c in range(len(out)):
        out[c] = matrix[1][r, c // _GROUP] * matrix[0][r, c]


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
        groups = builder.udiv(columns, constant(_GROUP))
        with cgutils.for_range(builder, groups) as loop:
            add_scaled(loop.index, products(builder.mul(loop.index, constant(_GROUP)), _GROUP // LANES))
        start = builder.mul(groups, constant(_GROUP))
        with cgutils.for_range(builder, builder.udiv(builder.sub(columns, start), constant(LANES))) as loop:
            add_scaled(groups, products(builder.add(start, builder.mul(loop.index, constant(LANES))), 1))
        name, kind = f"llvm.vector.reduce.fadd.v{LANES}f32", ir.FunctionType(number, [number, vector])
        reduce = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(reduce, [ir.Constant(number, 0.0), builder.load(sums)], fastmath=("reassoc",))

    return types.float32(q, scales, types.intp, x), generate


ROWS = Rows((("int8", "float32"),), _block, _cut, _multiply, _read_row)
