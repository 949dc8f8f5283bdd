"""How a layer says which parameters it has: once, and names, sizes, views and initial values follow from it.

A layer's weights are a named tuple that stands in its file, `AttentionWeights` for example; each of its fields is an
`Affine`, an array, None for what a model does not have, the named tuple of a layer inside, or a plain tuple of such. A
function beside it, `attention_parameters(config)`, fills it with what is declared in the place of the arrays:

    AttentionWeights(
        qkv=declare.linear({"q": (H * D, C), "k": (K * D, C), "v": (K * D, C)}, "attention", "qkv" in config.bias),
        q_norm=declare.norm(config, "q_norm", D), ...
    )

minillama.parameters puts arrays into the same places. Their order is that of the fields, and of the names in each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod, sqrt
from typing import NamedTuple

import numpy as np

from ..ops.norms import NORMS

# What a size is counted under, when the parameters of a model are (minillama.catalogue.sizes).
SIZE_PARTS = ("embedding", "attention", "feed-forward", "norms and biases", "head")


class Affine(NamedTuple):
    """A matrix and its bias, or a norm's weight and bias; what the model does not have is None."""

    weight: np.ndarray | None
    bias: np.ndarray | None


ABSENT = Affine(None, None)  # a norm that the model does not have at all


@dataclass(frozen=True)
class Declared:
    """Matrices of one width that lie one below the other, or vectors, and are read as one array

    shapes: {name: shape}, the names without that of the block. A matrix starts with normal numbers, whose standard
    deviation is the model's (`Model`'s init_std) / divisor; a vector starts as `start` everywhere.
    """

    shapes: dict[str, tuple[int, ...]]
    part: str  # one of SIZE_PARTS
    divisor: float = 1.0
    start: float = 0.0
    looked_up: bool = False  # a table: rows of it are taken, and added to its gradient, by their numbers
    active: int | None = None  # how many of its weights a token is multiplied by; None: all, of a table none

    def __post_init__(self):
        if self.part not in SIZE_PARTS:
            raise ValueError(f"part must be one of {', '.join(SIZE_PARTS)}; received {self.part!r}")
        if {len(shape) for shape in self.shapes.values()} not in ({1}, {2}):
            raise ValueError(f"parameters are matrices or vectors, and no mixture of them; received {self.shapes}")

    @cached_property
    def is_vector(self):
        return all(len(shape) == 1 for shape in self.shapes.values())

    @property
    def multiplications(self):
        """By weights of its matrices, a token."""
        if self.active is not None:
            return self.active
        return 0 if self.looked_up or self.is_vector else sum(map(prod, self.shapes.values()))

    def initialise(self, array, rng, deviation=0.02):
        """Write the initial values of one of its matrices or vectors into the array; deviation: the model's."""
        if self.is_vector:
            array[:] = self.start
        else:
            array[:] = rng.standard_normal(array.shape, np.float32) * np.float32(deviation / self.divisor)


def linear(matrices, part, bias=False, divisor=1.0, active=None):
    """An Affine: the matrices {name: (rows, columns)} as w_name, one below the other, and if asked for their biases

    divisor and active as in Declared.
    """
    weight = Declared({f"w_{name}": shape for name, shape in matrices.items()}, part, divisor, active=active)
    biases = {f"b_{name}": shape[:1] for name, shape in matrices.items()}
    return Affine(weight, Declared(biases, "norms and biases") if bias else None)


def norm(config, name, width):
    """An Affine: weight (width,), which is 1 at first, and bias of the config's norm, so far as it has them."""
    weight = Declared({name: (width,)}, "norms and biases", start=1.0) if NORMS[config.norm].has_weight else None
    bias = Declared({f"{name}_bias": (width,)}, "norms and biases") if "norm" in config.bias else None
    return Affine(weight, bias)


def table(name, rows, width, part="embedding"):
    """An array (rows, width) whose rows are looked up by their numbers."""
    return Declared({name: (rows, width)}, part, looked_up=True)


def to_stream(config):
    """The divisor of a matrix that writes to the residual stream: sqrt(2 L)

    The 2 L layers each add to the stream; the smaller deviation keeps its variance from growing with depth.
    Source: Radford et al. 2019 (GPT-2), section 2.3.
    """
    return sqrt(2 * config.layers)


def leaves(weights) -> Iterator[Declared]:
    """Everything that is declared in a (nested, named) tuple, in the order of the fields."""
    if isinstance(weights, Declared):
        yield weights
    elif weights is not None:
        for part in weights:
            yield from leaves(part)


def filled(weights, make):
    """The same (named) tuple with make(declared) in the place of everything that is declared."""
    if weights is None:
        return None
    if isinstance(weights, Declared):
        return make(weights)
    parts = [filled(part, make) for part in weights]
    return tuple(parts) if type(weights) is tuple else type(weights)(*parts)
