"""What a model of a given shape costs: parameters, arithmetic and memory, from its Config alone."""

from dataclasses import replace
from math import prod

from ..layers.declare import SIZE_PARTS, leaves
from ..parameters import network_parameters, parameter_shapes, parameters_of
from ..weights import WEIGHT_KINDS


def parameter_count(config):
    """The number of parameters in each part of the model: {part: count}, with their sum under "total"

    embedding: of tokens, positions and types; head: the output matrix, where it is not the embedding matrix, and the
    matrix of a masked-LM head. Every vector is under "norms and biases". What belongs where its layer declares.
    """
    parts = dict.fromkeys(SIZE_PARTS, 0)
    for shape, declared in parameters_of(config).values():
        parts[declared.part] += prod(shape)
    return {**parts, "total": sum(parts.values())}


def weight_bytes(config):
    """{kind: bytes that the weights of a model take in memory, when its matrices are of this kind}

    The kinds are those of WEIGHT_KINDS that are `told`; half precision takes what bfloat16 takes. Norms and biases are
    float32 in all of them. int8 comes with a float32 scale for each group of a row (minillama.ops.weights.int8).
    """
    shapes = parameter_shapes(config).values()
    matrices, vectors = [s for s in shapes if len(s) > 1], sum(prod(s) for s in shapes if len(s) == 1)
    return {
        kind: sum(rows * row.row_bytes(columns) for rows, columns in matrices) + 4 * vectors
        for kind, row in WEIGHT_KINDS.items()
        if row.told
    }


def training_bytes(config):
    """Bytes of a training on one thread, without activations: weights, their gradient, AdamW's two moments, float32."""
    return 4 * weight_bytes(config)["float32"]


def encoder_parameters(config):
    """As `parameter_count`, of BERT the way its size is usually stated: without the pre-training's head, with a pooler

    The pooler, tanh(w x + b) on the first position, is what a classifier is put on: C^2 + C parameters.
    Source: Devlin et al. 2018 (arXiv 1810.04805), section 3; its code, modeling.py.
    """
    bias = tuple(kind for kind in config.bias if kind != "head")
    counts = parameter_count(replace(config, head="linear", tied=True, bias=bias))
    counts["head"] += config.dim**2
    counts["norms and biases"] += config.dim
    return {**counts, "total": counts["total"] + config.dim**2 + config.dim}


def flops_per_token(config, context=None):
    """Floating-point operations of one forward pass a token that reads `context` positions (default: config.context)

    2 for each weight that a token is multiplied by (and an addition; looking up an embedding is none), and 4 S H D a
    layer for the scores and the weighted sum over S positions. Training takes three times as much: the backward forms
    two products for each one of the forward. After Kaplan et al. 2020 (arXiv 2001.08361), table 1, which counts half of
    the attention term, because a causal query reads half of the positions on average.
    """
    context = config.context if context is None else context
    network = network_parameters(config)
    in_block = sum(declared.multiplications for declared in leaves(network.blocks[0]))
    outside = sum(declared.multiplications for declared in leaves((network.embedding, network.head, network.output)))
    return 2 * (config.layers * in_block + outside) + 4 * context * config.dim * config.layers


def training_flops_per_token(config, sequence=None):
    """Floating-point operations of training a token in sequences of this length (default: config.context)

    Forward and backward, three forward passes. A token reads half of its sequence on average, all of it where the mask
    lets it read both ways.
    """
    sequence = config.context if sequence is None else sequence
    return 3 * flops_per_token(config, sequence / 2 if config.causal else sequence)


def cache_bytes_per_token(config, item_size=4):
    """Bytes of keys and values that decoding keeps for each token: 2 L K D item_size; 0 where the model writes none."""
    return 2 * config.layers * config.kv_heads * config.head_dim * item_size if config.causal else 0


def match_parameters(config, count):
    """The config with the width of its feed-forward changed so that it has as nearly count parameters as can be

    The number of parameters is a + b F in the width F. ValueError if a alone is more than count.
    """

    def total(width):
        return parameter_count(replace(config, ffn=width))["total"]

    per_column = total(2) - total(1)
    width = 1 + round((count - total(1)) / per_column)
    if width < 1:
        raise ValueError(
            f"{count:,} parameters are too few for this model: it has {total(1) - per_column:,} without its "
            f"feed-forward layers. Choose a smaller vocabulary, a shorter context or fewer layers"
        )
    return replace(config, ffn=width)
