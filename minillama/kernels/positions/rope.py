"""RoPE in place: each pair is read once and written once.

    row[first], row[second] = turn(row[first], row[second])     for every position, head and pair

The two layouts differ in the indices of a pair alone; written out, so that each loop over pairs vectorises.
"""

from numba import njit

from ..simd import JIT


def rope(x, cos, sin, layout, heads=None):
    _ROTATE[layout](x, x.shape[2] if heads is None else heads, cos, sin, x.dtype.type(1))
    return x


def rope_backward(dy, cos, sin, layout, heads=None):
    _ROTATE[layout](dy, dy.shape[2] if heads is None else heads, cos, sin, dy.dtype.type(-1))
    return dy


@njit(**JIT)
def _rotate_halves(x, heads, cos, sin, direction):
    B, T, _, D = x.shape
    half = D // 2
    for b in range(B):
        for t in range(T):
            c, s = cos[t], sin[t]
            for h in range(heads):
                row = x[b, t, h]
                for i in range(half):
                    first, second, turn = row[i], row[half + i], direction * s[i]
                    row[i] = first * c[i] - second * turn
                    row[half + i] = first * turn + second * c[i]


@njit(**JIT)
def _rotate_neighbours(x, heads, cos, sin, direction):
    B, T, _, D = x.shape
    for b in range(B):
        for t in range(T):
            c, s = cos[t], sin[t]
            for h in range(heads):
                row = x[b, t, h]
                for i in range(D // 2):
                    first, second, turn = row[2 * i], row[2 * i + 1], direction * s[i]
                    row[2 * i] = first * c[i] - second * turn
                    row[2 * i + 1] = first * turn + second * c[i]


_ROTATE = {"rotate_half": _rotate_halves, "interleaved": _rotate_neighbours}
