"""The norms that a model can be built with. A new one is a file here and a row in the table.

Every norm has the same form, so that the model needs not know which one it computes:

    name(x, weight, bias, eps, residual=None) -> y (N, C), saved
    name_backward(dy, x, weight, saved, dweight, dbias, dx=None) -> dx (N, C)

x (N, C); weight (C,), None for a norm that has none; bias (C,), None in a model without biases. With a residual (N, C),
x += residual comes first, in place: the output of a layer becomes the residual stream, whose norm the next layer reads.
`saved` is what the backward wants besides x. The backward adds to dweight and dbias, and to dx, the gradient that
reaches the residual stream past the layer, where one is given.
"""

from collections.abc import Callable
from typing import NamedTuple

from .layernorm import layernorm, layernorm_backward
from .no_norm import no_norm, no_norm_backward
from .rmsnorm import rmsnorm, rmsnorm_backward


class Norm(NamedTuple):
    """A row of NORMS."""

    forward: Callable
    backward: Callable
    has_weight: bool = True


NORMS = {
    "rmsnorm": Norm(rmsnorm, rmsnorm_backward),
    "layernorm": Norm(layernorm, layernorm_backward),
    "none": Norm(no_norm, no_norm_backward, has_weight=False),
}
