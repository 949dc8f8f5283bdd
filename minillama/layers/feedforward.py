"""The feed-forward layer, gated or not: the config's activation between two projections."""

from typing import NamedTuple

import numpy as np

from ..ops.interface import Operations
from . import declare
from .declare import Affine


class FeedForwardWeights(NamedTuple):
    """The parameters of a feed-forward layer."""

    inner: Affine  # weight (F, C): w_up; of a gated one (2 F, C): w_gate and w_up, one below the other
    down: Affine  # weight (C, F)


class FeedForwardSaved(NamedTuple):
    """What the feed-forward layer keeps for its backward."""

    x: np.ndarray  # (N, C)
    inner: np.ndarray  # (N, F) or (N, 2 F)
    hidden: np.ndarray  # (N, F)


def feed_forward_parameters(config):
    """The FeedForwardWeights of such a model, declared."""
    C, F, bias = config.dim, config.ffn, "ffn" in config.bias
    inner = {name: (F, C) for name in (("gate", "up") if config.gated else ("up",))}
    return FeedForwardWeights(
        inner=declare.linear(inner, "feed-forward", bias),
        down=declare.linear({"down": (C, F)}, "feed-forward", bias, declare.to_stream(config)),
    )


def feed_forward_layer(op: Operations, p: FeedForwardWeights, x):
    """w_down activation(w_in x): (N, C)

    w_in is w_up, or w_gate and w_up as one matrix where the activation is gated: w_down (silu(w_gate x) * (w_up x)).
    Source: Shazeer 2020 (arXiv 2002.05202), equation 6; without a gate Vaswani et al. 2017 (1706.03762), equation 2.
    """
    inner = op.linear(x, *p.inner)  # (N, 2 F) or (N, F)
    hidden = op.activation(inner)  # (N, F)
    return op.linear(hidden, *p.down), FeedForwardSaved(x, inner, hidden)


def feed_forward_layer_backward(
    op: Operations, p: FeedForwardWeights, grad: FeedForwardWeights, dy, saved: FeedForwardSaved
):
    x, inner, hidden = saved
    dhidden = op.linear_backward(dy, hidden, p.down.weight, *grad.down)
    dinner = op.activation_backward(dhidden, inner)
    return op.linear_backward(dinner, x, p.inner.weight, *grad.inner)
