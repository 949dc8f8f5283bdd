"""What Numba lacks: explicit vector registers, and an exp that vectorises.

A loop over floats is vectorised by LLVM on its own. A matrix product is not: it is fast only when a tile of the result
stays in registers while the depth runs by, and Numba has no way to say so. `multiply_tile` says it, once, for every
kernel that multiplies matrices.

Numba's cache on disk knows a compiled function by its own file. After a change in this file the kernels that use it
must be compiled anew: remove the __pycache__ folder beside it, or set NUMBA_CACHE_DIR to a new folder, as the tests do.
"""

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

# Reassociation lets sums vectorise; NaN and infinity keep their meaning, because training looks for them.
FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}
JIT = {"error_model": "numpy", "fastmath": FAST, "nogil": True, "cache": True}


def _vector_bytes():
    """The width of a vector register: 64 bytes with AVX-512, 32 with AVX2, else 16 (SSE, NEON)."""
    name, features = numba.config.CPU_NAME, numba.config.CPU_FEATURES
    if features:
        on = set(features.split(","))
    elif name is None or name == "host":
        on = {"+" + feature for feature, has in llvmlite.binding.get_host_cpu_features().items() if has}
    else:  # NUMBA_CPU_NAME names an older processor; assume AVX2 for what is not called generic
        on = set() if name == "generic" else {"+avx2"}
    return 64 if "+avx512f" in on else 32 if "+avx2" in on else 16


VECTOR_BYTES = _vector_bytes()
TILE_ROWS = 4 if VECTOR_BYTES == 32 else 8  # 2 ROWS accumulators fit 16 registers (AVX2), or 32 (AVX-512, NEON)
TILE_BYTES = 2 * VECTOR_BYTES  # a row of a tile is two vectors wide


def register_tile(rows, vectors, vector_bytes=VECTOR_BYTES, add=True):
    """A function that multiplies into a tile of `rows` rows, each `vectors` vector registers of `vector_bytes` wide:

    tile(a, a_start, a_row, a_step, b, b_start, b_step, depth, c, c_start, c_row)
    c[r, :] += sum over d < depth of a[r, d] * b[d, :]      or, with add=False, c[r, :] = the sum

    a, b, c are 1-D arrays of one dtype; element (r, d) of a lies at a_start + r a_row + d a_step, row d of b at
    b_start + d b_step, row r of c at c_start + r c_row. The rows x vectors sums stay in registers from the first to
    the last d, if there are that many: 32 with AVX-512 and NEON, 16 with AVX2 and SSE, some of them for a and b.
    """

    @intrinsic
    def tile(typing_context, a, a_start, a_row, a_step, b, b_start, b_step, depth, c, c_start, c_row):
        item = a.dtype.bitwidth // 8
        lanes = vector_bytes // item
        vector = ir.VectorType(ir.FloatType() if item == 4 else ir.DoubleType(), lanes)
        signature = types.void(
            a, types.intp, types.intp, types.intp, b, types.intp, types.intp, types.intp, c, types.intp, types.intp
        )

        def generate(context, builder, signature, args):
            a, a_start, a_row, a_step, b, b_start, b_step, depth, c, c_start, c_row = args
            a, b, c = (
                context.make_array(signature.args[i])(context, builder, array).data
                for i, array in ((0, a), (4, b), (8, c))
            )

            def times(number, index):
                return builder.mul(index, ir.Constant(index.type, number))

            def vector_at(base, index, column):
                index = builder.add(index, ir.Constant(index.type, column * lanes))
                return builder.bitcast(builder.gep(base, [index]), vector.as_pointer())

            def load(place):
                value = builder.load(place)
                value.align = item
                return value

            def multiply_add(scalar, column, total):
                product = builder.fmul(scalar, column, flags=("contract",))
                return builder.fadd(builder.load(total), product, flags=("contract",))

            places = [
                vector_at(c, builder.add(c_start, times(r, c_row)), column)
                for r in range(rows)
                for column in range(vectors)
            ]
            sums = [cgutils.alloca_once(builder, vector) for _ in places]  # LLVM turns them into registers
            for place, total in zip(places, sums, strict=True):
                builder.store(load(place) if add else ir.Constant(vector, [0.0] * lanes), total)

            with cgutils.for_range(builder, depth) as loop:
                b_row = builder.add(b_start, builder.mul(loop.index, b_step))
                columns = [load(vector_at(b, b_row, column)) for column in range(vectors)]
                a_column = builder.add(a_start, builder.mul(loop.index, a_step))
                for r in range(rows):
                    scalar = _splat(
                        builder, builder.load(builder.gep(a, [builder.add(a_column, times(r, a_row))])), vector
                    )
                    for column, total in zip(columns, sums[vectors * r :], strict=False):
                        builder.store(multiply_add(scalar, column, total), total)

            for place, total in zip(places, sums, strict=True):
                builder.store(builder.load(total), place).align = item
            return context.get_dummy_value()

        return signature, generate

    return tile


def _splat(builder, scalar, vector):
    """The scalar in every lane."""
    undefined, first = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(builder.insert_element(undefined, scalar, first), undefined, everywhere)


multiply_tile = register_tile(TILE_ROWS, 2)


@intrinsic
def _power_of_two(typing_context, exponent):
    """2^exponent as a float32, by writing exponent + 127 into the exponent bits; exponent int32 in [-126, 127]."""

    def generate(context, builder, signature, args):
        bits = builder.shl(builder.add(args[0], ir.Constant(ir.IntType(32), 127)), ir.Constant(ir.IntType(32), 23))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.int32), generate


def exp(x):
    """e^x. For float32: 2^n e^r with n = round(x / ln 2) and a polynomial for e^r, which vectorises (Numba's own
    exp calls the C library for each element); relative error below 3e-7, 0 below -87.3, infinity above 88.3."""
    return np.exp(x)


@overload(exp)
def _exp(x):
    if x != types.float32:
        return lambda x: np.exp(x)

    log2_e = np.float32(1.4426950408889634)
    ln2_high, ln2_low = np.float32(0.693359375), np.float32(-2.12194440e-4)  # n * ln2_high is exact
    half, one = np.float32(0.5), np.float32(1)
    c2, c3, c4, c5, c6, c7 = (np.float32(c) for c in (0.5, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040))
    lowest, highest = np.float32(-87.33654), np.float32(88.3)
    infinity, zero = np.float32(np.inf), np.float32(0)

    def float32_exp(x):
        inside = min(max(x, lowest), highest)
        n = np.floor(inside * log2_e + half)
        r = (inside - n * ln2_high) - n * ln2_low
        tail = c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * c7))))
        y = (one + r + r * r * tail) * _power_of_two(np.int32(n))
        y = zero if x < lowest else infinity if x > highest else y
        return y if x == x else x  # NaN stays NaN

    return float32_exp
