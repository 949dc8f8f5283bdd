"""What leads from the residual stream to the logits. A new head is a file here and a row in the table.

logits = transform(x) output^T + output_bias

parameters(config) -> the named tuple of what the transform has besides the output matrix, declared
                      (minillama.layers.declare): p, and grad; None for nothing
transform(op, config, p, x) -> y (N, C), saved;   transform_backward(op, config, p, grad, dy, saved) -> dx (N, C)
"""

from collections.abc import Callable
from typing import NamedTuple

from .linear import linear_head, linear_head_backward, linear_head_parameters
from .masked_lm import masked_lm_head, masked_lm_head_backward, masked_lm_head_parameters


class Head(NamedTuple):
    """A row of HEADS."""

    transform: Callable
    transform_backward: Callable
    parameters: Callable


HEADS = {
    "linear": Head(linear_head, linear_head_backward, linear_head_parameters),
    "masked_lm": Head(masked_lm_head, masked_lm_head_backward, masked_lm_head_parameters),
}
