"""A model whose matrices are rounded to fewer bits."""

from typing import Any, Protocol, TypeVar

from ..config import Config
from . import Weights
from .packed import PackedWeights

_Model = TypeVar("_Model", bound="_HasWeights")


class _HasWeights(Protocol):
    """What is asked here of a Model, whose module stands above this one."""

    config: Config
    weights: Any

    def with_weights(self: _Model, weights: Weights) -> _Model: ...


def quantize(model: _Model, kind: str = "int8") -> _Model:
    """A copy of the model with packed matrices, which reads and writes text as the model does, and does not train

    kind: one of minillama.weights.PACKED; what it rounds, and how, stands in minillama.ops.weights. ValueError for
    weights that are not finite.
    """
    weights = PackedWeights(model.config, kind)
    weights.pack(model.weights)
    return model.with_weights(weights)
