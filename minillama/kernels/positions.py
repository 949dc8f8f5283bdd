"""RoPE in place: each pair is read once and written once."""

from numba import njit

from ..ops.positions import ROPE_LAYOUTS
from .vectors import JIT


def rope(x, cos, sin, layout):
    first, second = ROPE_LAYOUTS[layout](x)
    _rotate(first, second, cos, sin, x.dtype.type(1))
    return x


def rope_backward(dy, cos, sin, layout):
    first, second = ROPE_LAYOUTS[layout](dy)
    _rotate(first, second, cos, sin, dy.dtype.type(-1))
    return dy


@njit(**JIT)
def _rotate(first, second, cos, sin, direction):
    B, T, H, pairs = first.shape
    for b in range(B):
        for t in range(T):
            c, s = cos[t], sin[t]
            for h in range(H):
                a, b_ = first[b, t, h], second[b, t, h]
                for i in range(pairs):
                    x, y, turn = a[i], b_[i], direction * s[i]
                    a[i] = x * c[i] - y * turn
                    b_[i] = x * turn + y * c[i]
