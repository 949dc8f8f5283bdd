"""A model whose matrices are rounded to fewer bits."""

from .packed import PackedWeights


def quantize(model, kind="int8"):
    """A copy of the model with packed matrices, which reads and writes text as the model does, and does not train

    kind: one of minillama.weights.PACKED; what it rounds, and how, stands in minillama.ops.weights. ValueError for
    weights that are not finite.
    """
    weights = PackedWeights(model.config, kind)
    weights.pack(model.weights)
    return model.with_weights(weights)
