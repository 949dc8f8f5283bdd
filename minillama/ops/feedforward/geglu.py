"""GEGLU: one half of the columns, through GELU, is the gate of the other."""

import numpy as np

from .gelu import gelu, gelu_backward


def geglu(gate_up):
    """h = gelu(gate) * up,   gelu(z) = z Phi(z), the exact one

    gate_up (N, 2 F), gate in the first F columns and up in the last F -> h (N, F).
    Source: Shazeer 2020 (arXiv 2002.05202), equation 5 (without biases; equation 6 is the layer).
    """
    gate, up = np.split(gate_up, 2, axis=-1)
    return gelu(gate) * up


def geglu_backward(dh, gate_up):
    """dgate = dh up gelu'(gate),   dup = dh gelu(gate)

    dh (N, F), gate_up (N, 2 F) -> (N, 2 F), dgate and dup side by side.
    """
    gate, up = np.split(gate_up, 2, axis=-1)
    return np.concatenate([gelu_backward(dh * up, gate), dh * gelu(gate)], axis=-1)
