"""What Numba lacks: explicit vector registers.

A loop over floats is vectorised by LLVM on its own. A matrix product is not: it is fast only when a tile of the result
stays in registers while the depth runs by, and Numba has no way to say so. `register_tile` says it, once, for every
kernel that multiplies matrices. A sum that runs down the rows of a matrix is not either; `Vector` is a value of several
floats that a kernel loads, computes with and stores as if it were one. Functions of numbers and vectors that kernels
take, exp and the like, stand in `elementary`.

Where no folder can be written that Numba keeps compiled functions in, they are compiled anew in each process.
Numba's cache on disk knows a compiled function by its own file. After a change in this file the kernels that use it
must be compiled anew: remove the __pycache__ folder beside it, or set NUMBA_CACHE_DIR to a new folder, as the tests do.
"""

import operator
import platform
import sys
from pathlib import Path
from types import FunctionType

import llvmlite.binding
import numba
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
                    scalar = splat(
                        builder, builder.load(builder.gep(a, [builder.add(a_column, times(r, a_row))])), vector
                    )
                    for column, total in zip(columns, sums[vectors * r :], strict=False):
                        builder.store(multiply_add(scalar, column, total), total)

            for place, total in zip(places, sums, strict=True):
                builder.store(builder.load(total), place).align = item
            return context.get_dummy_value()

        return signature, generate

    return tile


def splat(builder, scalar, vector):
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
                arg if kind == vector else splat(builder, context.cast(builder, arg, kind, vector.dtype), vector.llvm)
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
        replaced = builder.icmp_signed("<", lanes, splat(builder, args[1], lane))
        return builder.select(replaced, splat(builder, args[2], vector.llvm), args[0])

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
