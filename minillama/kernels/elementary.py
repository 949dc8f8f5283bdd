"""Functions that kernels take of a number or of a Vector, and that vectorise: exp, exp2, and the normal distribution.

The C library's are called for one number after the other. These are polynomials; each says its error.
As for `simd`: after a change in this file the kernels that use it must be compiled anew.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from .simd import splat


@intrinsic
def _zero_where_below(typing_context, x, limit, y):
    """y, but 0 in the lanes where x < limit (a NaN is not below anything)."""

    def generate(context, builder, signature, args):
        below = builder.fcmp_ordered("<", args[0], splat(builder, args[1], x.llvm))
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
