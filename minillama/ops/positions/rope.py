"""Rotary position embedding (RoPE): position t turns each pair of coordinates by an angle proportional to t.

Two layouts are in use. They differ in which coordinates form a pair, and a model trained with one gives nonsense with
the other: Meta's and llama2.c's checkpoints pair neighbours (0, 1), (2, 3), ...; Hugging Face's pair the two halves
(0, D/2), (1, D/2 + 1), ... A permutation of the rows of w_q and w_k leads from one to the other.
"""

import numpy as np

from ..rope_scaling import scale_frequencies

ROPE_LAYOUTS = {
    "rotate_half": lambda x: (x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]),
    "interleaved": lambda x: (x[..., 0::2], x[..., 1::2]),
}


def rope_frequencies(head_width, theta):
    """f_i = theta^(-2i/D), the turn of pair i from one position to the next, in radians -> (D/2,), float64

    Pair 0 is the fastest. Source: Su et al. 2021, RoFormer (arXiv 2104.09864), equation 15.
    """
    return theta ** (-np.arange(0, head_width, 2, dtype=np.float64) / head_width)


def rope_turns(positions, frequencies, dtype=np.float32, attention_factor=1.0):
    """cos(t f_i) and sin(t f_i), both times the attention factor, for every position t and pair i

    positions (T,), frequencies (D/2,) -> cos, sin, each (T, D/2). Computed in float64, then rounded to dtype.
    """
    angles = np.outer(np.asarray(positions, np.float64), frequencies)
    return (attention_factor * np.cos(angles)).astype(dtype), (attention_factor * np.sin(angles)).astype(dtype)


def rope_angles(positions, head_width, theta, dtype=np.float32):
    """cos and sin of t theta^(-2i/D), without scaling: positions (T,) -> each (T, D/2)."""
    return rope_turns(positions, rope_frequencies(head_width, theta), dtype)


def rope_tables(config, length, dtype=np.float32):
    """cos and sin of the positions 0 to length - 1 of a config's model, each (length, D/2)

    The frequencies are scaled as config.rope_scaling says. Where the scaling's row has by_length, length must be that
    of the sequence that is read; elsewhere tables of the whole context serve every sequence.
    """
    frequencies, attention_factor = rope_speeds(config, length)
    return rope_turns(np.arange(length), frequencies, dtype, attention_factor)


def rope_speeds(config, length):
    """The frequencies (D/2,) and the attention factor of a config's model for a sequence of this length."""
    return scale_frequencies(rope_frequencies(config.head_dim, config.rope_theta), config, length)


def rope(x, cos, sin, layout, heads=None):
    """(a, b) <- (a cos - b sin, a sin + b cos) for each pair of coordinates, in place

    x (B, T, H, D), cos and sin (T, D/2), layout a key of ROPE_LAYOUTS -> x. With `heads` only the first so many heads
    are turned: the queries and keys of rows that hold the values behind them. In place because neither the backward
    nor anything else needs the unrotated values; `rotated` makes a new array. Source: RoFormer (arXiv 2104.09864),
    equation 34.
    """
    a, b = ROPE_LAYOUTS[layout](x[:, :, :heads])
    cos, sin = cos[:, None], sin[:, None]  # (T, 1, D/2): the same turn for every head
    a[...], b[...] = a * cos - b * sin, a * sin + b * cos
    return x


def rope_backward(dy, cos, sin, layout, heads=None):
    """The transpose of a rotation is the rotation by the opposite angle: dx = rope(dy) with -sin, in place."""
    return rope(dy, cos, -sin, layout, heads)


def rotated(x, positions, frequencies=None, attention_factor=1.0, layout="rotate_half"):
    """(a cos - b sin, a sin + b cos) of each pair (a, b), with the angles t f_i, times the attention factor; x stays

    `rope` for arrays whose positions are the last axis but one, and for positions that differ from row to row.
    x (..., T, D), positions t that broadcast to (..., T) -> a new array (..., T, D). frequencies (D/2,): None for
    rope_frequencies(D, 10000); those of a model, with its attention factor, are `rope_speeds(config, T)`.
    ValueError for an odd D, shapes that do not fit, and a layout that is none of ROPE_LAYOUTS. Source: RoFormer (arXiv
    2104.09864), equation 34.
    """
    x = np.asarray(x)
    cos, sin = _turns_of(x, positions, frequencies, attention_factor, layout)
    return _turned(x, cos, sin, layout)


def rotated_backward(dy, positions, frequencies=None, attention_factor=1.0, layout="rotate_half"):
    """dx, a new array: as in `rope_backward` the rotation by the opposite angle, times the same factor."""
    dy = np.asarray(dy)
    cos, sin = _turns_of(dy, positions, frequencies, attention_factor, layout)
    return _turned(dy, cos, -sin, layout)


def _turned(x, cos, sin, layout):
    y = np.empty_like(x)
    (a, b), (c, d) = ROPE_LAYOUTS[layout](x), ROPE_LAYOUTS[layout](y)
    c[...], d[...] = a * cos - b * sin, a * sin + b * cos
    return y


def _turns_of(x, positions, frequencies, attention_factor, layout):
    """cos and sin for each row of x (..., T, D), both (..., T, D/2) or with fewer axes; ValueError for unfit input."""
    if layout not in ROPE_LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(ROPE_LAYOUTS)}; received {layout!r}")
    if x.ndim == 0 or x.dtype.kind != "f":
        raise ValueError(f"x must be floating-point numbers of shape (..., T, D); received {x.dtype} {x.shape}")
    D, positions = x.shape[-1], np.asarray(positions)
    if D % 2:
        raise ValueError(f"rotary embedding turns coordinates in pairs, so their number must be even; received {D}")
    frequencies = rope_frequencies(D, 10000.0) if frequencies is None else np.asarray(frequencies)
    if frequencies.shape != (D // 2,):
        raise ValueError(f"{D} coordinates need {D // 2} frequencies, one a pair; received {frequencies.shape}")
    try:
        fits = np.broadcast_shapes(positions.shape, x.shape[:-1]) == x.shape[:-1]
    except ValueError:
        fits = False
    if not fits or positions.dtype.kind not in "iuf":
        raise ValueError(
            f"positions must be numbers that broadcast to {x.shape[:-1]}, one for each row; received "
            f"{positions.dtype} {positions.shape}"
        )
    cos, sin = rope_turns(positions.ravel(), frequencies, x.dtype, attention_factor)
    shape = *positions.shape, D // 2
    return cos.reshape(shape), sin.reshape(shape)


def swap_rope_layout(weight, heads, source):
    """The rows of w_q or w_k of a model with one layout, reordered so that the other layout computes the same scores

    weight (H D, C) or a bias (H D,), heads H, source the layout that it has now -> the same shape, a copy.
    """
    rows = weight.reshape(heads, -1, *weight.shape[1:])
    pairs = ROPE_LAYOUTS[source](np.arange(rows.shape[1]))  # the two rows of each pair, as indices
    order = np.concatenate(pairs) if source == "interleaved" else np.stack(pairs, axis=1).ravel()
    return rows[:, order].reshape(weight.shape)
