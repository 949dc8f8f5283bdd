"""Right and wrong answers to the exercises of lesson 07."""

import math

import numpy as np

from minillama.config import ffn_width
from minillama.ops.feedforward import geglu, gelu_tanh, gelu_tanh_backward, swiglu_backward

RIGHT = {}  # exercise -> list of functions
WRONG = {}  # exercise -> list of (function, a part of the hint that it must get)


# ---- multiplying_units


def _units(gates, ups, downs):
    """gates, ups: for each of the two units the factors of x_i and x_j."""

    def answer(C, i, j):
        w_gate, w_up = np.zeros((2, C)), np.zeros((2, C))
        for row, of_gate, of_up in zip(range(2), gates, ups, strict=True):
            for n, g, u in zip((i, j), of_gate, of_up, strict=True):
                w_gate[row, n] += g
                w_up[row, n] += u
        return w_gate, w_up, np.array(downs, float)

    return answer


def units_of_integers(C, i, j):
    w_gate = np.stack([np.arange(C) == i, np.arange(C) == i]).astype(int)
    w_gate[1] *= -1
    return w_gate, np.stack([np.arange(C) == j] * 2).astype(int), np.array([1, -1])


def units_of_an_identity(C, i, j):
    signs = np.array([[1.0], [-1.0]])
    return signs * np.eye(C)[i], signs * np.eye(C)[j], np.ones(2)


RIGHT["multiplying_units"] = [
    _units([(1, 0), (-1, 0)], [(0, 1), (0, -1)], (1, 1)),
    _units([(0, 1), (0, -1)], [(1, 0), (-1, 0)], (1, 1)),  # the gate reads the other one
    _units([(3, 0), (-3, 0)], [(0, 0.5), (0, -0.5)], (2 / 3, 2 / 3)),  # scaled
    units_of_integers,
    units_of_an_identity,
]
WRONG["multiplying_units"] = [
    (_units([(1, 0), (-1, 0)], [(0, 1), (0, 0)], (1, 1)), "second unit gives 0"),
    (_units([(1, 0), (1, 0)], [(0, 1), (0, 1)], (1, 1)), "another gate"),
    (_units([(1, 0), (-1, 0)], [(0, 1), (0, 1)], (1, 1)), "must be silu(-x_i) (-x_j)"),
    (_units([(1, 0), (-1, 0)], [(0, 1), (0, -1)], (1, -1)), "must be silu(-x_i) (-x_j)"),  # minus times minus
    (_units([(1, 0), (-1, 0)], [(0, -1), (0, 1)], (1, 1)), "the sign is wrong"),
    (_units([(1, 0), (-1, 0)], [(0, 2), (0, -2)], (1, 1)), "2 x_i x_j"),
    (_units([(1, 0), (-1, 0)], [(0, 1), (0, -1)], (0.5, 0.5)), "half of x_i x_j"),
    (_units([(1, 0), (1, 0)], [(0, 1), (0, -1)], (1, 1)), "cancel"),
    (_units([(1, 0), (0, 1)], [(0, 1), (1, 0)], (1, 1)), "silu(x_i) and silu(x_j)"),
    (_units([(0, 1), (0, -1)], [(0, 1), (0, -1)], (1, 1)), "read x_j alone"),
    (_units([(1, 0), (-1, 0)], [(1, 0), (-1, 0)], (1, 1)), "read x_i alone"),
    (_units([(1, 1), (-1, -1)], [(1, 1), (-1, -1)], (1, 1)), "the units do not give"),  # (x_i + x_j)^2: not listed
    (lambda C, i, j: (np.zeros((C, 2)), np.zeros((C, 2)), np.ones(2)), "must have shape"),
]


# ---- swiglu_backward


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def swiglu_formula(dh, gate, up):
    s = _sigmoid(gate)
    return dh * up * (s + gate * s * (1 - s)), dh * gate * s


def swiglu_library(dh, gate, up):
    return tuple(np.split(swiglu_backward(dh, np.concatenate([gate, up], axis=1)), 2, axis=1))


def swiglu_steps(dh, gate, up):
    s = (0.5 * (1 + np.tanh(gate / 2))).astype(gate.dtype)
    t = gate * s
    dt, dup = dh * up, dh * t
    ds = dt * gate
    return dt * s + ds * s * (1 - s), dup


def swiglu_from_hidden(dh, gate, up):
    """silu' = sigmoid (1 + z - silu)."""
    s = np.exp(-np.logaddexp(0, -gate))
    return dh * up * s * (1 + gate - gate * s), dh * gate * s


def swiglu_loop(dh, gate, up):
    dgate, dup = np.empty_like(gate), np.empty_like(up)
    for i in np.ndindex(gate.shape):
        z = float(gate[i])
        s = 1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z))
        dgate[i], dup[i] = dh[i] * up[i] * (s + z * s * (1 - s)), dh[i] * z * s
    return dgate, dup


def _gate(backward, dgate=None, dup=None):
    """A right backward with one result replaced: dgate(dh, gate, up), dup(dh, gate, up)."""

    def answer(dh, gate, up):
        right = backward(dh, gate, up)
        return dgate(dh, gate, up) if dgate else right[0], dup(dh, gate, up) if dup else right[1]

    return answer


def _dgate(slope):
    """dh up slope(z, s)."""
    return _gate(swiglu_formula, lambda dh, z, up: dh * up * slope(z, _sigmoid(z)))


def _dup(factor):
    """dh factor(z, s, up)."""
    return _gate(swiglu_formula, dup=lambda dh, z, up: dh * factor(z, _sigmoid(z), up))


def swiglu_overflowing(dh, gate, up):
    e = np.exp(gate)
    s = e / (1 + e)
    return dh * up * (s + gate * s * (1 - s)), dh * gate * s


def swiglu_in_place(dh, gate, up):
    gate *= _sigmoid(gate)
    return dh * up, dh * gate


RIGHT["swiglu_backward"] = [swiglu_formula, swiglu_library, swiglu_steps, swiglu_from_hidden, swiglu_loop]
WRONG["swiglu_backward"] = [
    (lambda *given: swiglu_formula(*given)[::-1], "exchanged"),
    (
        _gate(swiglu_formula, lambda dh, z, up: dh * (_sigmoid(z) + z * _sigmoid(z) * (1 - _sigmoid(z)))),
        "up is missing",
    ),
    (_dgate(lambda z, s: s * (1 - s)), "that of the sigmoid"),
    (_dgate(lambda z, s: z * s * (1 - s)), "stands in front"),
    (_dgate(lambda z, s: s), "acts through the sigmoid"),
    (_dgate(lambda z, s: s + s * (1 - s)), "factor z is missing"),
    (_dgate(lambda z, s: s - z * s * (1 - s)), "wrong sign"),
    (_dgate(lambda z, s: z * s), "not silu itself"),
    (_dgate(lambda z, s: z * s + z * z * s * (1 - z * s)), "silu(gate) stands"),
    (_dgate(lambda z, s: z > 0), "ReLU"),
    (_dgate(lambda z, s: s + z * s), "term by term"),  # not listed
    (
        _gate(swiglu_formula, lambda dh, z, up: dh * z * (_sigmoid(z) + z * _sigmoid(z) * (1 - _sigmoid(z)))),
        "up belongs",
    ),
    (
        _gate(swiglu_formula, lambda dh, z, up: up * (_sigmoid(z) + z * _sigmoid(z) * (1 - _sigmoid(z)))),
        "dh is missing",
    ),
    (_dup(lambda z, s, up: z), "the gate before silu"),
    (_dup(lambda z, s, up: s), "dh sigmoid(gate)"),
    (_dup(lambda z, s, up: s + z * s * (1 - s)), "not times its slope"),
    (_dup(lambda z, s, up: z * s * up), "multiplied by up"),
    (_dup(lambda z, s, up: up * _sigmoid(up)), "stands around the gate"),
    (_gate(swiglu_formula, dup=lambda dh, z, up: z * _sigmoid(z)), "dh is missing in dup"),
    (swiglu_overflowing, "exponential of a large number"),
    (swiglu_in_place, "changed an array"),
    (lambda dh, gate, up: np.concatenate(swiglu_formula(dh, gate, up), axis=1), "must return 2 things"),
    (lambda dh, gate, up: swiglu_formula(*(a.astype(float) for a in (dh, gate, up))), "dtype of the input"),
]


# ---- geglu_backward

ROOT = math.sqrt(2 / math.pi)


def geglu_formula(dh, gate, up):
    t = np.tanh(ROOT * (gate + 0.044715 * gate**3))
    slope = 0.5 * (1 + t) + 0.5 * gate * (1 - t * t) * ROOT * (1 + 3 * 0.044715 * gate**2)
    return dh * up * slope, dh * 0.5 * gate * (1 + t)


def geglu_library(dh, gate, up):
    return gelu_tanh_backward(dh * up, gate), dh * gelu_tanh(gate)


def geglu_steps(dh, gate, up):
    a = ROOT * gate + ROOT * 0.044715 * gate * gate * gate
    t = np.tanh(a)
    half = (1 + t) / 2
    dg, dup = dh * up, dh * gate * half
    da = dg * gate / 2 * (1 - t**2)
    return dg * half + da * ROOT + da * ROOT * 0.134145 * gate * gate, dup


def geglu_as_sigmoid(dh, gate, up):
    """(1 + tanh a) / 2 is sigmoid(2 a)."""
    a2 = 2 * ROOT * (gate + 0.044715 * gate**3)
    s = np.exp(-np.logaddexp(0, -a2))
    return dh * up * (s + gate * s * (1 - s) * 2 * ROOT * (1 + 0.134145 * gate**2)), dh * gate * s


def _t(z):
    return np.tanh(ROOT * (z + 0.044715 * z**3))


def _geglu_dgate(slope):
    """dh up slope(z, t)."""
    return _gate(geglu_formula, lambda dh, z, up: dh * up * slope(z, _t(z)))


def _inner(z):
    return ROOT * (1 + 3 * 0.044715 * z * z)


def geglu_exact(dh, gate, up):
    phi = geglu(np.concatenate([gate, np.ones_like(gate)], axis=1)) / gate  # gelu(z) / z
    density = np.exp(-gate * gate / 2) / math.sqrt(2 * math.pi)
    return (dh * up * (phi + gate * density)).astype(gate.dtype), (dh * gate * phi).astype(gate.dtype)


RIGHT["geglu_backward"] = [geglu_formula, geglu_library, geglu_steps, geglu_as_sigmoid]
WRONG["geglu_backward"] = [
    (lambda *given: geglu_formula(*given)[::-1], "exchanged"),
    (_gate(geglu_formula, lambda dh, z, up: geglu_formula(dh, z, np.ones_like(up))[0]), "up is missing"),
    (_geglu_dgate(lambda z, t: 0.5 * (1 + t)), "acts through tanh"),
    (_geglu_dgate(lambda z, t: 0.5 * z * (1 - t * t) * _inner(z)), "stands in front"),
    (_geglu_dgate(lambda z, t: 0.5 * (1 + t + z * _inner(z))), "1 - t^2, is missing"),
    (_geglu_dgate(lambda z, t: 0.5 * (1 + t + z * (1 - t) * _inner(z))), "here it is 1 - t"),
    (_geglu_dgate(lambda z, t: 0.5 * (1 + t + z * (1 - t * t))), "inside tanh is missing"),
    (_geglu_dgate(lambda z, t: 0.5 * (1 + t + z * (1 - t * t) * _inner(z) / ROOT)), "sqrt(2/pi) is missing"),
    (_geglu_dgate(lambda z, t: 0.5 * (1 + t + z * (1 - t * t) * ROOT * (1 + 0.044715 * z * z))), "the 3 is missing"),
    (_geglu_dgate(lambda z, t: 0.5 * (1 + t + z * (1 - t * t) * ROOT)), "cubic term"),
    (_geglu_dgate(lambda z, t: 1 + t + z * (1 - t * t) * _inner(z)), "half is missing"),
    (_geglu_dgate(lambda z, t: 0.5 * (1 + t) + z * (1 - t * t) * _inner(z)), "one of the two paths"),
    (_geglu_dgate(lambda z, t: 0.5 * (1 + t + (1 - t * t) * _inner(z))), "factor z is missing"),
    (_geglu_dgate(lambda z, t: 0.5 * z * (1 + t)), "not GELU itself"),
    (_geglu_dgate(lambda z, t: 0.5 * (1 - t)), "term by term"),  # not listed
    (geglu_exact, "exact GELU"),
    (_gate(geglu_formula, dup=lambda *given: geglu_exact(*given)[1]), "this is the exact one"),
    (swiglu_formula, "slope of SiLU"),
    (_gate(geglu_formula, dup=lambda dh, z, up: dh * z * _sigmoid(z)), "this is SiLU"),
    (_gate(geglu_formula, dup=lambda dh, z, up: dh * z), "the gate before GELU"),
    (_gate(geglu_formula, dup=lambda dh, z, up: dh * 0.5 * (1 + _t(z))), "factor gate in front"),
    (_gate(geglu_formula, dup=lambda dh, z, up: dh * z * (1 + _t(z))), "half is missing"),
    (_gate(geglu_formula, dup=lambda dh, z, up: geglu_formula(dh, z, np.ones_like(up))[0]), "not times its slope"),
]


# ---- llama_width


def width_as_meta(dim, multiple_of, multiplier):
    hidden = 4 * dim
    hidden = int(2 * hidden / 3)
    hidden = int(multiplier * hidden)
    return multiple_of * ((hidden + multiple_of - 1) // multiple_of)


def width_by_ceil(dim, multiple_of, multiplier):
    return math.ceil(int(8 * dim // 3 * multiplier) / multiple_of) * multiple_of


def width_by_search(dim, multiple_of, multiplier):
    least, width = int(multiplier * int(8 * dim / 3)), multiple_of
    while width < least:
        width += multiple_of
    return width


def _third(dim, multiplier=1.0):
    return int(multiplier * int(8 * dim / 3))


RIGHT["llama_width"] = [width_as_meta, width_by_ceil, width_by_search, ffn_width]
WRONG["llama_width"] = [
    (lambda C, m, f: -(-int(f * 4 * C) // m) * m, "two thirds are missing"),
    (lambda C, m, f: -(-int(f * int(2 * C / 3)) // m) * m, "two thirds of dim"),
    (lambda C, m, f: _third(C, f) // m * m, "rounded down"),
    (lambda C, m, f: (_third(C, f) + m // 2) // m * m, "rounded to the nearest"),
    (lambda C, m, f: _third(C, f) // m * m + m, "a multiple already"),
    (lambda C, m, f: _third(C, f), "not rounded to a multiple"),
    (lambda C, m, f: -(-_third(C) // m) * m, "multiplier is left out"),
    (lambda C, m, f: int(f * (-(-_third(C) // m) * m)), "before the rounding"),
    (lambda C, m, f: -(-int(f * (-(-_third(C) // m) * m)) // m) * m, "and not before and after"),
    (lambda C, m, f: -(-_third(C, f) // m), "number of multiples"),
    (lambda C, m, f: 8 * C, "before the rounding it is"),  # not listed
    (lambda C, m, f: float(width_as_meta(C, m, f)), "must be of type int"),
]


# ---- feed_forward_count


def count_by_arrays(C, F, gated, bias):
    into = 2 * F if gated else F
    arrays = [np.zeros((into, C)), np.zeros((C, F))] + ([np.zeros(into), np.zeros(C)] if bias else [])
    return sum(a.size for a in arrays)


def count_by_matrices(C, F, gated, bias):
    matrices = [(C, F), (C, F), (F, C)] if gated else [(C, F), (F, C)]
    return sum(n * m + (m if bias else 0) for n, m in matrices)


RIGHT["feed_forward_count"] = [
    count_by_arrays,
    count_by_matrices,
    lambda C, F, gated, bias: (2 + gated) * C * F + bias * ((1 + gated) * F + C),
]
WRONG["feed_forward_count"] = [
    (lambda C, F, gated, bias: 2 * C * F + bias * (F + C), "three matrices"),
    (lambda C, F, gated, bias: count_by_arrays(C, F, not gated, bias), "exchanged"),
    (lambda C, F, gated, bias: 3 * C * F + bias * (2 * F + C), "counts three"),
    (lambda C, F, gated, bias: count_by_arrays(C, F, gated, False), "biases are left out"),
    (lambda C, F, gated, bias: count_by_arrays(C, F, gated, True), "bias is False"),
    (lambda C, F, gated, bias: (2 + gated) * C * F + bias * (1 + gated) * F, "w_down has a bias too"),
    (lambda C, F, gated, bias: (2 + gated) * C * F + bias * C, "lead to the hidden units"),
    (lambda C, F, gated, bias: (2 + gated) * C * F + bias * (F + C), "a bias each"),
    (lambda C, F, gated, bias: (2 + gated) * C * F + bias * (2 + gated) * F, "leads back to C numbers"),
    (lambda C, F, gated, bias: (2 + gated) * C * F + bias * (2 + gated) * C, "one number for each output"),
    (lambda C, F, gated, bias: C * F, "Add up all matrices"),  # not listed
]
