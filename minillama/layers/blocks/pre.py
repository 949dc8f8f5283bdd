"""Pre-normalisation: each layer reads the normalised stream, and the stream itself passes by."""

from typing import Any, NamedTuple

import numpy as np

from ...ops.interface import Operations
from ..attention import AttentionSaved, attention_layer, attention_layer_backward
from ..feedforward import FeedForwardSaved, feed_forward_layer, feed_forward_layer_backward
from .weights import BlockWeights


class PreSaved(NamedTuple):
    """What the block keeps for its backward; norm_1 and norm_2: what the norms saved."""

    x: np.ndarray  # (N, C), as between, the stream after attention
    norm_1: Any
    attention: AttentionSaved
    between: np.ndarray
    norm_2: Any
    feed_forward: FeedForwardSaved


def pre_block(op: Operations, config, p: BlockWeights, x, shard, noise, site, cache=None):
    """y = x + attention(norm(x)),   z = y + feed_forward(norm(y))

    Source: Radford et al. 2019 (GPT-2), section 2.3; Touvron et al. 2023 (arXiv 2302.13971), section 2.2.
    """
    h, saved_norm_1 = op.norm(x, *p.attention_norm, config.norm_eps)
    y, saved_attention = attention_layer(op, config, p.attention, h, shard, cache)
    y = noise.drop(op, y, site)
    y += x
    h, saved_norm_2 = op.norm(y, *p.ffn_norm, config.norm_eps)
    z, saved_ffn = feed_forward_layer(op, p.feed_forward, h)
    z = noise.drop(op, z, site + 1)
    z += y
    return z, PreSaved(x, saved_norm_1, saved_attention, y, saved_norm_2, saved_ffn)


def pre_block_backward(
    op: Operations, config, p: BlockWeights, grad: BlockWeights, dx, shard, noise, site, saved: PreSaved
):
    x, saved_norm_1, saved_attention, y, saved_norm_2, saved_ffn = saved
    dz = noise.drop(op, dx, site + 1)
    dh = feed_forward_layer_backward(op, p.feed_forward, grad.feed_forward, dz, saved_ffn)
    dx = op.norm_backward(dh, y, p.ffn_norm.weight, saved_norm_2, *grad.ffn_norm, dx)
    dy = noise.drop(op, dx, site)
    dh = attention_layer_backward(op, config, p.attention, grad.attention, dy, shard, saved_attention)
    return op.norm_backward(dh, x, p.attention_norm.weight, saved_norm_1, *grad.attention_norm, dx)
