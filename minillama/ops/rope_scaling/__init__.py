"""How rotary frequencies are changed for contexts longer than the training's. A new one is a file and a row.

Pair i of a head turns by f_i = theta^(-2i/D) a token: fast pairs, with a small i, tell neighbours apart; slow ones tell
far from near, and over the training's context may not complete a single turn. Positions beyond it bring angles of the
slow pairs that the model never saw. Every scaling has the same form:

    name(frequencies, config, length, low, high) -> frequencies, attention_factor

frequencies (D/2,), float64, from fast to slow, before and after; cos and sin are multiplied by attention_factor.
`config` has rope_factor, by which the context is stretched, rope_original_context, the context of the training (None:
config.context), and rope_theta. `length` is that of the sequence that is read, for a row with by_length; others ignore
it. `low` and `high`, for a row that has them, are the turns over the original context below which a pair is slowed by
the whole factor, and above which it is left alone: config.rope_low and rope_high, or the row's where those are None.
"""

from collections.abc import Callable
from typing import NamedTuple

from .dynamic import dynamic_ntk_scaling
from .linear import position_interpolation
from .llama3 import llama3_scaling
from .none import no_scaling
from .ntk import ntk_scaling
from .yarn import yarn_scaling


class RopeScaling(NamedTuple):
    """A row of ROPE_SCALINGS."""

    scale: Callable
    by_length: bool = False
    low: float | None = None
    high: float | None = None


ROPE_SCALINGS = {
    "none": RopeScaling(no_scaling),
    "linear": RopeScaling(position_interpolation),
    "ntk": RopeScaling(ntk_scaling),
    "dynamic": RopeScaling(dynamic_ntk_scaling, by_length=True),
    "llama3": RopeScaling(llama3_scaling, low=1.0, high=4.0),
    "yarn": RopeScaling(yarn_scaling, low=1.0, high=32.0),  # the paper's alpha and beta, beta_slow and beta_fast
}


def scale_frequencies(frequencies, config, length):
    """The frequencies (D/2,) and the attention factor that config.rope_scaling makes of `frequencies`."""
    row = ROPE_SCALINGS[config.rope_scaling]
    low = row.low if config.rope_low is None else config.rope_low
    high = row.high if config.rope_high is None else config.rope_high
    return row.scale(frequencies, config, length, low, high)
