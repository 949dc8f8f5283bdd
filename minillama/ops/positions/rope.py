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
    frequencies = rope_frequencies(config.head_dim, config.rope_theta)
    frequencies, attention_factor = scale_frequencies(frequencies, config, length)
    return rope_turns(np.arange(length), frequencies, dtype, attention_factor)


def rope(x, cos, sin, layout, heads=None):
    """(a, b) <- (a cos - b sin, a sin + b cos) for each pair of coordinates, in place

    x (B, T, H, D), cos and sin (T, D/2), layout a key of ROPE_LAYOUTS -> x. With `heads` only the first so many heads
    are turned: the queries and keys of rows that hold the values behind them. In place because neither the backward
    nor anything else needs the unrotated values. Source: RoFormer (arXiv 2104.09864), equation 34.
    """
    a, b = ROPE_LAYOUTS[layout](x[:, :, :heads])
    cos, sin = cos[:, None], sin[:, None]  # (T, 1, D/2): the same turn for every head
    a[...], b[...] = a * cos - b * sin, a * sin + b * cos
    return x


def rope_backward(dy, cos, sin, layout, heads=None):
    """The transpose of a rotation is the rotation by the opposite angle: dx = rope(dy) with -sin, in place."""
    return rope(dy, cos, -sin, layout, heads)


def swap_rope_layout(weight, heads, source):
    """The rows of w_q or w_k of a model with one layout, reordered so that the other layout computes the same scores

    weight (H D, C) or a bias (H D,), heads H, source the layout that it has now -> the same shape, a copy.
    """
    rows = weight.reshape(heads, -1, *weight.shape[1:])
    pairs = ROPE_LAYOUTS[source](np.arange(rows.shape[1]))  # the two rows of each pair, as indices
    order = np.concatenate(pairs) if source == "interleaved" else np.stack(pairs, axis=1).ravel()
    return rows[:, order].reshape(weight.shape)
