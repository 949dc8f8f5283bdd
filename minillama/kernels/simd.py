"""What Numba lacks: explicit vector registers, and an exp that vectorises.

A loop over floats is vectorised by LLVM on its own. A matrix product is not: it is fast only when a tile of the result
stays in registers while the depth runs by, and Numba has no way to say so. `register_tile` says it, once, for every
kernel that multiplies matrices. A sum that runs down the rows of a matrix is not either; `Vector` is a value of several
floats that a kernel loads, computes with and stores as if it were one.

Where no folder can be written that Numba keeps compiled functions in, they are compiled anew in each process.
Numba's cache on disk knows a compiled function by its own file. After a change in this file the kernels that use it
must be compiled anew: remove the __pycache__ folder beside it, or set NUMBA_CACHE_DIR to a new folder, as the tests do.
"""

import math
import operator
import platform
import sys
from pathlib import Path
from types import FunctionType

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

# Reassociation lets sums vectorise; NaN and infinity keep their meaning, because training looks for them.
FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}


def _can_be_kept():
    """Whether Numba finds a folder for the compiled functions of every file of kernels; else a line says what to do."""
    paths = {path.parent: path for path in Path(__file__).parent.rglob("*.py")}
    for path in paths.values():
        function = FunctionType((lambda: None).__code__.replace(co_filename=str(path)), {})
        try:
            numba.njit(cache=True)(function)
        except RuntimeError:
            print(
                "minillama: compiled kernels cannot be kept, so that each process compiles its own; NUMBA_CACHE_DIR "
                "names a folder for them",
                file=sys.stderr,
            )
            return False
    return True


JIT = {"error_model": "numpy", "fastmath": FAST, "nogil": True, "cache": _can_be_kept()}


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
REGISTERS = 32 if VECTOR_BYTES == 64 or platform.machine().lower() in ("arm64", "aarch64") else 16
TILE_ROWS = {16: 6, 32: 8}[REGISTERS]  # times two vectors of sums; of B two more, and of A one at a time
TILE_BYTES = 2 * VECTOR_BYTES


def register_tile(rows, vectors, vector_bytes=VECTOR_BYTES, add=True):
    """A function that multiplies into a tile of `rows` rows, each `vectors` vector registers of `vector_bytes` wide:

    tile(a, a_start, a_row, a_step, b, b_start, b_step, depth, c, c_start, c_row)
    c[r, :] += sum over d < depth of a[r, d] * b[d, :]      or, with add=False, c[r, :] = the sum

    a, b, c are 1-D arrays of one dtype; element (r, d) of a lies at a_start + r a_row + d a_step, row d of b at
    b_start + d b_step, row r of c at c_start + r c_row. The rows x vectors sums stay in registers from the first to
    the last d, if there are that many (REGISTERS, some of them for a and b).
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


class Vector(types.Type):
    """Several float32 or float64 numbers that are computed with as one, lane by lane: v + w, v - w, v * w, where one of
    the two may be a scalar. LLVM keeps it in one vector register, or in several narrower ones."""

    def __init__(self, dtype, lanes):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype} x {lanes})")

    @property
    def llvm(self):
        return ir.VectorType(ir.FloatType() if self.dtype == types.float32 else ir.DoubleType(), self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.llvm)


def vector_load(vector_bytes):
    """load(array, index): the Vector that begins at array[index]; the array's last axis must be contiguous."""

    @intrinsic
    def load(typing_context, array, index):
        def generate(context, builder, signature, args):
            place = _vector_at(context, builder, signature.args[0], *args, signature.return_type)
            value = builder.load(place)
            value.align = array.dtype.bitwidth // 8
            return value

        return Vector(array.dtype, vector_bytes * 8 // array.dtype.bitwidth)(array, types.intp), generate

    return load


@intrinsic
def store(typing_context, array, index, vector):
    """array[index : index + lanes] = vector"""

    def generate(context, builder, signature, args):
        place = _vector_at(context, builder, signature.args[0], *args[:2], vector)
        builder.store(args[2], place).align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


def _vector_at(context, builder, array_type, array, index, vector):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.llvm.as_pointer())


def _lane_by_lane(combine):
    """An intrinsic of two vectors, or a vector and a scalar: combine(builder, x, y)."""

    @intrinsic
    def operation(typing_context, x, y):
        vector = x if isinstance(x, Vector) else y

        def generate(context, builder, signature, args):
            pair = (
                arg if kind == vector else _splat(builder, context.cast(builder, arg, kind, vector.dtype), vector.llvm)
                for arg, kind in zip(args, signature.args, strict=True)
            )
            return combine(builder, *pair)

        return vector(x, y), generate

    return operation


_add = _lane_by_lane(lambda builder, x, y: builder.fadd(x, y, flags=("contract",)))
_subtract = _lane_by_lane(lambda builder, x, y: builder.fsub(x, y, flags=("contract",)))
_multiply = _lane_by_lane(lambda builder, x, y: builder.fmul(x, y, flags=("contract",)))
maximum = _lane_by_lane(lambda builder, x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y))  # y where NaN


def _overload_operator(function, operation):
    @overload(function)
    def implementation(x, y):
        if isinstance(x, Vector) or isinstance(y, Vector):
            return lambda x, y: operation(x, y)


for _function, _operation in ((operator.add, _add), (operator.sub, _subtract), (operator.mul, _multiply)):
    _overload_operator(_function, _operation)


@intrinsic
def replace_first(typing_context, vector, count, value):
    """vector, with value in the lanes below count."""

    def generate(context, builder, signature, args):
        lane = ir.VectorType(ir.IntType(64), vector.lanes)
        lanes = ir.Constant(lane, list(range(vector.lanes)))
        replaced = builder.icmp_signed("<", lanes, _splat(builder, args[1], lane))
        return builder.select(replaced, _splat(builder, args[2], vector.llvm), args[0])

    return vector(vector, types.int64, vector.dtype), generate


@intrinsic
def sum_of_lanes(typing_context, vector):
    """The sum of a vector's numbers: halves are added until one number is left."""

    def generate(context, builder, signature, args):
        (total,), lanes = args, vector.lanes
        while lanes > 1:
            lanes //= 2
            first, second = (
                ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(start, start + lanes)))
                for start in (0, lanes)
            )
            total = builder.fadd(
                builder.shuffle_vector(total, total, first), builder.shuffle_vector(total, total, second)
            )
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return vector.dtype(vector), generate


@intrinsic
def _zero_where_below(typing_context, x, limit, y):
    """y, but 0 in the lanes where x < limit (a NaN is not below anything)."""

    def generate(context, builder, signature, args):
        below = builder.fcmp_ordered("<", args[0], _splat(builder, args[1], x.llvm))
        return builder.select(below, ir.Constant(x.llvm, [0.0] * x.lanes), args[2])

    return x(x, x.dtype, x), generate


@intrinsic
def _last_bits_as_exponent(typing_context, x):
    """The vector whose exponents are the last bits of x's mantissas: 2^(those bits - bias)."""

    def generate(context, builder, signature, args):
        bits, mantissa = (32, 23) if x.dtype == types.float32 else (64, 52)
        integers = ir.VectorType(ir.IntType(bits), x.lanes)
        shift = ir.Constant(integers, [mantissa] * x.lanes)
        return builder.bitcast(builder.shl(builder.bitcast(args[0], integers), shift), x.llvm)

    return x(x), generate


def _polynomial(coefficients):
    """An intrinsic: the polynomial of a Vector whose coefficients these are, that of the highest power first."""

    @intrinsic
    def polynomial(typing_context, x):
        def generate(context, builder, signature, args):
            first, *rest = (ir.Constant(x.llvm, [c] * x.lanes) for c in coefficients)
            total = first
            for c in rest:
                total = builder.fmul(total, args[0], flags=("contract",))
                total = builder.fadd(total, c, flags=("contract",))
            return total

        return x(x), generate

    return polynomial


def exp2(x):
    """2^x for a Vector of numbers up to 0 (or a little above): what a softmax takes in base 2.

    2^n 2^r with n = x rounded and r = x - n in [-1/2, 1/2]. n comes from the addition of a number so large that no bits
    after the point are left in the sum's mantissa: its last bits are then n + bias, the exponent of 2^n. 2^r is a
    polynomial: for float32 of degree 5 with the least relative error, for float64 the Taylor series. Relative error
    below 2e-7 (float32) and 5e-16; 0 below the smallest normal number; NaN stays NaN.
    """
    raise NotImplementedError("exp2 of a Vector exists in compiled code only")


_LEAST_ERROR = (1.3264727e-3, 9.671513e-3, 5.5507336e-2, 2.4022242e-1, 6.93147e-1, 1.0)  # for r^5, r^4, ... 1
_TAYLOR = tuple(math.log(2) ** k / math.factorial(k) for k in range(13, -1, -1))


@overload(exp2)
def _exp2(x):
    dtype = np.float32 if x.dtype == types.float32 else np.float64
    bias, mantissa = (127, 23) if dtype == np.float32 else (1023, 52)
    shifter = dtype(1.5 * 2**mantissa + bias)
    lowest = dtype(1 - bias)
    power_of_two = _polynomial(_LEAST_ERROR if dtype == np.float32 else _TAYLOR)

    def vector_exp2(x):
        shifted = x + shifter
        r = x - (shifted - shifter)
        return _zero_where_below(x, lowest, power_of_two(r) * _last_bits_as_exponent(shifted))

    return vector_exp2


@intrinsic
def transpose(typing_context, a, a_start, a_row, c, c_start, c_row):
    """c[j, i] = a[i, j] for the 64 bytes of rows i that fill a vector, and 32 bytes of columns j

    Element (i, j) of a lies at a_start + i a_row + j, (j, i) of c at c_start + j c_row + i. Two rows of a make one
    vector, and a vector's number and lane are the digits of one binary number: i3 i2 i1, i0 j2 j1 j0 for 16 rows of 8.
    Interleaving the first half of the vectors with the second moves the first digit to the end; four times makes it
    j2 j1 j0, i3 i2 i1 i0.
    """
    item = a.dtype.bitwidth // 8
    lanes, columns = 64 // item, 32 // item

    def generate(context, builder, signature, args):
        a, a_start, a_row, c, c_start, c_row = args
        half, whole = Vector(signature.args[0].dtype, columns), Vector(signature.args[0].dtype, lanes)

        def at(start, row, number):
            return builder.add(start, builder.mul(row, ir.Constant(row.type, number)))

        def load(i):
            value = builder.load(_vector_at(context, builder, signature.args[0], a, at(a_start, a_row, i), half))
            value.align = item
            return value

        def shuffle(x, y, order):
            return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), lanes), order))

        low, high = ([n for i in range(first, first + columns) for n in (i, lanes + i)] for first in (0, columns))
        vectors = [shuffle(load(i), load(i + 1), list(range(lanes))) for i in range(0, lanes, 2)]
        for _ in range(lanes.bit_length() - 1):
            pairs = zip(vectors[: columns // 2], vectors[columns // 2 :], strict=True)
            vectors = [shuffle(x, y, order) for x, y in pairs for order in (low, high)]
        for j, vector in enumerate(vectors):
            place = _vector_at(context, builder, signature.args[3], c, at(c_start, c_row, j), whole)
            builder.store(vector, place).align = item
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, c, types.intp, types.intp), generate


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


def normal(z):
    """Phi(z) and phi(z): the distribution and the density of a standard normal variable

    Phi(z) = erfc(-z / sqrt(2)) / 2,   phi(z) = exp(-z^2 / 2) / sqrt(2 pi)

    For float32, Phi(-|z|) is exp(-z^2 / 2), which the density shares, times t P(t) with t = 1 / (1 + 0.3 |z|) and a
    polynomial P, and Phi(|z|) is 1 minus that. It vectorises, as math.erfc does not; the absolute error is below 3e-7,
    the relative one below 1e-5; 0 below -13.2.
    """
    return _float64_normal(z)


def _float64_normal(z):
    return math.erfc(-z * math.sqrt(0.5)) / 2, math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


# P for t^7, t^6, ... 1, with the least relative error (1.2e-7) for |z| up to 13.25. The form is that of Abramowitz and
# Stegun's Handbook of Mathematical Functions, formula 7.1.26.
_NORMAL_TAIL = (
    *(0.036062722, -0.158824225, 0.209156306, -0.0562736031),
    *(0.129938266, 0.0994940137, 0.120821607, 0.119624853),
)


@overload(normal)
def _normal(z):
    if z != types.float32:
        return _float64_normal

    slope, density_at_0, minus_half = (np.float32(c) for c in (0.3, 1 / math.sqrt(2 * math.pi), -0.5))
    zero, one = np.float32(0), np.float32(1)
    first, *rest = (np.float32(c) for c in _NORMAL_TAIL)
    rest = tuple(rest)

    def float32_normal(z):
        t = one / (one + slope * abs(z))
        y = first
        for c in rest:
            y = y * t + c
        e = exp(minus_half * z * z)
        tail = y * t * e
        return one - tail if z > zero else tail, density_at_0 * e

    return float32_normal
