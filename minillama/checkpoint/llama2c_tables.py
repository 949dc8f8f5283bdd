"""The cosines and sines in llama2.c's files of version 0, to the last bit.

Every such file holds a table of RoPE's rotations, which llama2.c itself skips. It was computed by PyTorch in float32 on
x86, so the last bits are those of PyTorch's libraries: SLEEF for the power, and for cosine and sine Intel's MKL, whose
result is off by up to 0.6 units in the last place. A file that is read and written again comes back the same only if
the table is made as they make it. SLEEF's steps are those of its source (sleefsimdsp.c: expkf). MKL's source is not
public; its polynomial was found from its results, and gives the same bits for every float32 from 1/4 to pi/2.
"""

from math import log

import numpy as np

_THETA = 10000.0
_LOG2_E = np.float32(1.4426950408889634)
_LN2 = 0.693145751953125, 1.428606765330187e-06  # ln 2 in two parts; times a small whole number the first is exact
_EXP = np.array(  # the last coefficient first, as are those below
    [0.0013632464688271284, 0.00836596917361021, 0.04167108237743378, 0.16666552424430847, 0.49999985098838806],
    np.float32,
)
_PI = 3.1415926535846666, 5.126688303189038e-12  # pi in two parts
_SIN = [2.6057806659799673e-06, -0.00019809602912330764, 0.008333066246169597, -0.16666659550427124]


def rotation_tables(context, head_width):
    """{"cos": table, "sin": table} of position t and pair i at [t, i]: each float32 (context, D/2)"""
    exponents = np.arange(0, head_width, 2, dtype=np.float32) / np.float32(head_width)
    frequencies = np.float32(1) / _power(exponents)
    angles = np.outer(np.arange(context, dtype=np.float32), frequencies).astype(np.float64)
    half_turns = np.rint(angles / np.pi)
    odd_quarters = np.floor(angles / np.pi) + 0.5
    return {
        "cos": (_sign(odd_quarters + 0.5) * _sin(angles, odd_quarters)).astype(np.float32),
        "sin": (_sign(half_turns) * _sin(angles, half_turns)).astype(np.float32),
    }


def _power(exponents):
    """theta^e = 2^q exp(r),   e ln theta = q ln 2 + r: exp is a polynomial, with float32 coefficients"""
    logarithm = exponents.astype(np.float64) * log(_THETA)
    q = np.rint(logarithm.astype(np.float32) * _LOG2_E).astype(np.float64)
    r = (logarithm - q * _LN2[0]) - q * _LN2[1]
    short = r.astype(np.float32).astype(np.float64)
    u = np.zeros_like(short)
    for coefficient in _EXP:
        u = (u * short + coefficient).astype(np.float32).astype(np.float64)  # a fused multiply-add of float32
    return np.ldexp((1 + (r + r * r * u)).astype(np.float32), q.astype(np.int32))


def _sin(angles, n):
    """sin(a - n pi) for |a - n pi| <= pi/2, in float64, as r + r^3 P(r^2)"""
    r = (angles - n * _PI[0]) - n * _PI[1]
    square, polynomial = r * r, 0.0
    for coefficient in _SIN:
        polynomial = polynomial * square + coefficient
    return r + r * square * polynomial


def _sign(n):
    """(-1)^n"""
    return 1 - 2 * (n % 2)
