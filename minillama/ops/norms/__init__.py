"""The norms that a model can be built with. A new one is a file here and a row in the table.

Every norm has the same form, so that the model needs not know which one it computes:

    name(x, weight, eps) -> y (..., C), saved
    name_backward(dy, x, weight, saved, dweight) -> dx (..., C)

x (..., C), each row along the last axis by itself; weight (C,), None for a norm that has none. `saved` is what the
backward wants besides x. The backward adds to dweight. What a network wants besides is the same for all norms: a bias,
and the sum with the gradient that passes the norm by. `Norm.with_bias` adds both.
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

    def with_bias(self, op):
        """The norm as a network calls it, `op.norm` and `op.norm_backward`, of the backend op's operations

            norm(x, weight, bias, eps) -> norm(x) + bias (N, C), saved
            norm_backward(dy, x, weight, saved, dweight, dbias, dx=None) -> dx (N, C)

        bias and dbias (C,), None in a model without biases. Given dx (N, C), the gradient that reaches the residual
        stream past the norm, the backward adds to it in place. A kernel may do all of that in one pass over memory:
        `fused_NAME` and `fused_NAME_backward` in the module of the norm NAME, with these arguments.
        """
        forward, backward = (getattr(op, f.__name__) for f in (self.forward, self.backward))

        def norm(x, weight, bias, eps):
            y, saved = forward(x, weight, eps)
            if bias is not None:
                y += bias
            return y, saved

        def norm_backward(dy, x, weight, saved, dweight, dbias, dx=None):
            if dbias is not None:
                dbias += dy.reshape(-1, len(dbias)).sum(axis=0)
            through_norm = backward(dy, x, weight, saved, dweight)
            if dx is None:
                return through_norm
            dx += through_norm
            return dx

        return (
            getattr(op, f"fused_{self.forward.__name__}", norm),
            getattr(op, f"fused_{self.backward.__name__}", norm_backward),
        )


NORMS = {
    "rmsnorm": Norm(rmsnorm, rmsnorm_backward),
    "layernorm": Norm(layernorm, layernorm_backward),
    "none": Norm(no_norm, no_norm_backward, has_weight=False),
}
