"""What a block of attention and a feed-forward has, wherever its norms stand."""

from typing import NamedTuple

from .. import declare
from ..attention import AttentionWeights, attention_parameters
from ..declare import Affine
from ..feedforward import FeedForwardWeights, feed_forward_parameters


class BlockWeights(NamedTuple):
    """The parameters of a block; its two norms have weights (C,)."""

    attention_norm: Affine
    attention: AttentionWeights
    ffn_norm: Affine
    feed_forward: FeedForwardWeights


def block_parameters(config):
    """The BlockWeights of such a model, declared."""
    return BlockWeights(
        attention_norm=declare.norm(config, "attention_norm", config.dim),
        attention=attention_parameters(config),
        ffn_norm=declare.norm(config, "ffn_norm", config.dim),
        feed_forward=feed_forward_parameters(config),
    )
