"""What a model of a given shape costs: parameters, arithmetic and memory, from its Config alone."""

from dataclasses import replace
from math import prod

from .parameters import parameter_shapes

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


def parameters(config):
    """The number of parameters in each part of the model: {part: count}, with their sum under "total"."""
    parts = {"embedding": 0, "attention": 0, "feed-forward": 0, "norms": 0, "output": 0}
    for name, shape in parameter_shapes(config).items():
        last = name.rsplit(".", 1)[-1]
        if last in ("embedding", "output"):
            part = last
        elif last.endswith("norm"):
            part = "norms"
        else:
            part = "attention" if last in ("w_q", "w_k", "w_v", "w_o") else "feed-forward"
        parts[part] += prod(shape)
    return {**parts, "total": sum(parts.values())}


def flops_per_token(config, context=None):
    """Floating-point operations of one forward pass a token, at the end of `context` tokens (default: config.context)

    2 for each weight of a matrix product (a multiplication and an addition; looking up an embedding is none), and
    4 S H D a layer for the scores and the weighted sum over S positions. Training takes three times as much: the
    backward forms two products for each one of the forward. After Kaplan et al. 2020 (arXiv 2001.08361), table 1, which
    counts half of the attention term, because a causal query reads half of the positions on average.
    """
    counts = parameters(config)
    weights = counts["attention"] + counts["feed-forward"] + config.vocab_size * config.dim
    return 2 * weights + 4 * (context or config.context) * config.dim * config.layers


def cache_bytes_per_token(config, item_size=4):
    """Bytes of keys and values that decoding keeps for each token: 2 L K D item_size."""
    return 2 * config.layers * config.kv_heads * config.head_dim * item_size


def match_parameters(config, count):
    """The config with the width of its feed-forward changed so that it has as nearly count parameters as can be

    The number of parameters is a + b F in the width F. ValueError if a alone is more than count.
    """

    def total(width):
        return parameters(replace(config, ffn=width))["total"]

    per_column = total(2) - total(1)
    width = 1 + round((count - total(1)) / per_column)
    if width < 1:
        raise ValueError(
            f"{count:,} parameters are too few for this model: it has {total(1) - per_column:,} without its "
            f"feed-forward layers. Choose a smaller vocabulary or fewer layers"
        )
    return replace(config, ffn=width)
