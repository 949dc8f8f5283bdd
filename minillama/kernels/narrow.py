"""Narrow weights as float32: one pass that reads each once, where NumPy makes arrays in between."""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ..runtime.memory import empty
from .simd import JIT

GROUP = 64  # minillama.ops.narrow.GROUP; a constant of this file, as compiled code is kept by its own file


def widen_bfloat16(raw):
    return _widen_half(raw)


def widen_float16(raw):
    return _widen_half(raw)


def _widen_half(raw):
    y = empty(raw.shape, np.float32)
    _widen_rows(raw, y)
    return y


def widen_int8(q, scales):
    y = empty(q.shape, np.float32)
    _scale_rows(q, scales, y)
    return y


@njit(**JIT)
def _widen_rows(raw, y):
    R, C = raw.shape
    for r in range(R):
        row, out = raw[r], y[r]
        for c in range(C):
            out[c] = widen(row[c])


@njit(**JIT)
def _scale_rows(q, scales, y):
    R, C = q.shape
    for r in range(R):
        row, out = q[r], y[r]
        for start in range(0, C, GROUP):
            scale = scales[r, start // GROUP]
            for c in range(start, min(start + GROUP, C)):
                out[c] = scale * np.float32(row[c])


@intrinsic
def widen(typing_context, bits):
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
