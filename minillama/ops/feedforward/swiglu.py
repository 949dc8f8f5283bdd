"""The gated activation of the feed-forward layer."""

import numpy as np


def swiglu(gate_up):
    """h = silu(gate) * up,   silu(z) = z sigmoid(z)

    gate_up (N, 2 F), gate in the first F columns and up in the last F -> h (N, F).
    Source: Shazeer 2020 (arXiv 2002.05202), equation 5 (Swish with beta 1, without biases).
    """
    gate, up = np.split(gate_up, 2, axis=1)
    return gate * _sigmoid(gate) * up


def swiglu_backward(dh, gate_up):
    """dgate = dh up silu'(gate),   silu'(z) = s + z s (1 - s) with s = sigmoid(z);   dup = dh silu(gate)

    dh (N, F), gate_up (N, 2 F) -> (N, 2 F), dgate and dup side by side.
    """
    gate, up = np.split(gate_up, 2, axis=1)
    s = _sigmoid(gate)
    return np.concatenate([dh * up * (s + gate * s * (1 - s)), dh * gate * s], axis=1)


def _sigmoid(z):
    """1 / (1 + exp(-z)), written with exp(-|z|) so that no z overflows."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)
