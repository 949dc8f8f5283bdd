"""Post-normalisation: the sum of a layer and the stream is normalised, and what comes out is the stream."""

from typing import Any, NamedTuple

import numpy as np

from ...ops.interface import Operations
from ..attention import AttentionSaved, attention_layer, attention_layer_backward
from ..feedforward import FeedForwardSaved, feed_forward_layer, feed_forward_layer_backward
from .weights import BlockWeights


class PostSaved(NamedTuple):
    """What the block keeps for its backward; norm_1 and norm_2: what the norms saved."""

    attention: AttentionSaved
    y: np.ndarray  # (N, C), the first sum, and z, the second
    norm_1: Any
    feed_forward: FeedForwardSaved
    z: np.ndarray
    norm_2: Any

    @property
    def between(self):
        """The stream between the two layers (N, C): what the feed-forward layer reads is the stream itself."""
        return self.feed_forward.x


def post_block(op: Operations, config, p: BlockWeights, x, shard, noise, site, cache=None):
    """h = norm(x + attention(x)),   out = norm(h + feed_forward(h))

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.1; Devlin et al. 2018 (BERT, arXiv 1810.04805).
    """
    y, saved_attention = attention_layer(op, config, p.attention, x, shard, cache)
    y = noise.drop(op, y, site)
    y += x
    h, saved_norm_1 = op.norm(y, *p.attention_norm, config.norm_eps)
    z, saved_ffn = feed_forward_layer(op, p.feed_forward, h)
    z = noise.drop(op, z, site + 1)
    z += h
    out, saved_norm_2 = op.norm(z, *p.ffn_norm, config.norm_eps)
    return out, PostSaved(saved_attention, y, saved_norm_1, saved_ffn, z, saved_norm_2)


def post_block_backward(
    op: Operations, config, p: BlockWeights, grad: BlockWeights, dx, shard, noise, site, saved: PostSaved
):
    saved_attention, y, saved_norm_1, saved_ffn, z, saved_norm_2 = saved
    dsum = op.norm_backward(dx, z, p.ffn_norm.weight, saved_norm_2, *grad.ffn_norm)
    dz = noise.drop(op, dsum, site + 1)
    # now dh: past the layer and through it
    dsum += feed_forward_layer_backward(op, p.feed_forward, grad.feed_forward, dz, saved_ffn)
    dsum = op.norm_backward(dsum, y, p.attention_norm.weight, saved_norm_1, *grad.attention_norm)
    dy = noise.drop(op, dsum, site)
    dx[:] = dsum
    dx += attention_layer_backward(op, config, p.attention, grad.attention, dy, shard, saved_attention)
    return dx
