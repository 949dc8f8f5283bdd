"""Rows of bfloat16 and half precision, widened in registers or, many at once, in one pass that reads each once."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ...runtime.memory import empty
from ..simd import JIT
from . import Rows, block_of_one, cut_of_one


def widen_bfloat16(raw):
    return _widen_half(raw)


def widen_float16(raw):
    return _widen_half(raw)


def _widen_half(raw):
    y = empty(raw.shape, np.float32)
    _widen_rows(raw, y)
    return y


@njit(**JIT)
def _widen_rows(raw, y):
    R, C = raw.shape
    for r in range(R):
        row, out = raw[r], y[r]
        for c in range(C):
            out[c] = _widen(row[c])


@intrinsic
def _widen(typing_context, bits):
    """The float32 that uint16 bits stand for as bfloat16, or int16 bits as a finite half-precision number

    Half precision has 5 bits of exponent and 10 of mantissa. Moved to their places in a float32 they are a number that
    is too small by 2^112, as the exponents count from -15 in one and from -127 in the other; so are those below the
    smallest normal half. No processor needs an instruction of its own for it, and it vectorises.
    """
    number, word = ir.FloatType(), ir.IntType(32)

    def bfloat16(context, builder, signature, args):
        return builder.bitcast(builder.shl(builder.zext(args[0], word), word(16)), number)

    def float16(context, builder, signature, args):
        wide = builder.zext(args[0], word)
        small = builder.bitcast(builder.shl(builder.and_(wide, word(0x7FFF)), word(13)), number)
        magnitude = builder.bitcast(builder.fmul(small, number(2.0**112)), word)
        return builder.bitcast(builder.or_(magnitude, builder.shl(builder.and_(wide, word(0x8000)), word(16))), number)

    return types.float32(bits), bfloat16 if bits == types.uint16 else float16


def _multiply(matrix, first, x, y, add):
    for i in range(len(y)):
        row, total = matrix[0][first + i], x.dtype.type(0)
        for c in range(len(x)):
            total += _widen(row[c]) * x[c]
        y[i] = y[i] + total if add else total


def _read_row(matrix, r, out):
    for c in range(len(out)):
        out[c] = _widen(matrix[0][r, c])


ROWS = Rows((("uint16",), ("int16",)), block_of_one, cut_of_one, _multiply, _read_row)
