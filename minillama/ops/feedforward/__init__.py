"""The activations that a feed-forward layer can have. A new one is a file here and a row in the table.

    hidden = activation(inner);   layer(x) = w_down hidden,   inner = w_in x

A gated activation multiplies two halves of `inner`: inner (N, 2 F), gate in the first F columns and up in the last F.
Others have inner (N, F). Every activation has the same form:

    name(inner) -> hidden (N, F)
    name_backward(dhidden, inner) -> dinner, with the shape of inner
"""

from collections.abc import Callable
from typing import NamedTuple

from .geglu import geglu, geglu_backward
from .gelu import gelu, gelu_backward
from .gelu_tanh import gelu_tanh, gelu_tanh_backward
from .relu import relu, relu_backward
from .silu import silu, silu_backward
from .swiglu import swiglu, swiglu_backward


class FeedForward(NamedTuple):
    """A row of FEED_FORWARDS."""

    forward: Callable
    backward: Callable
    gated: bool = False


FEED_FORWARDS = {
    "swiglu": FeedForward(swiglu, swiglu_backward, gated=True),
    "geglu": FeedForward(geglu, geglu_backward, gated=True),
    "gelu": FeedForward(gelu, gelu_backward),
    "gelu_tanh": FeedForward(gelu_tanh, gelu_tanh_backward),
    "relu": FeedForward(relu, relu_backward),
    "silu": FeedForward(silu, silu_backward),
}
