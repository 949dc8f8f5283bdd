"""SwiGLU: one half of the columns, through SiLU, is the gate of the other."""

import numpy as np

from .silu import silu, silu_backward


def swiglu(gate_up):
    """h = silu(gate) * up,   silu(z) = z sigmoid(z)

    gate_up (N, 2 F), gate in the first F columns and up in the last F -> h (N, F).
    Source: Shazeer 2020 (arXiv 2002.05202), equation 5 (Swish with beta 1, without biases).
    """
    gate, up = np.split(gate_up, 2, axis=-1)
    return silu(gate) * up


def swiglu_backward(dh, gate_up):
    """dgate = dh up silu'(gate),   dup = dh silu(gate)

    dh (N, F), gate_up (N, 2 F) -> (N, 2 F), dgate and dup side by side.
    """
    gate, up = np.split(gate_up, 2, axis=-1)
    return np.concatenate([silu_backward(dh * up, gate), dh * silu(gate)], axis=-1)
