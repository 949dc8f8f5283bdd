"""How a model reads beyond the context that it was trained with: its loss by position, up to four times as far.

Windows of 4 T tokens begin a quarter of T after one another, and positions are counted in quarters of T. So each
quarter is measured on nearly the same tokens, and a loss that changes along the window does so because of the position
and of what was read before, not because of the text.
"""

from dataclasses import replace

import numpy as np

from .. import backend
from ..config import Config
from ..model import Model
from ..ops.positions import POSITIONS
from ..ops.rope_scaling import ROPE_SCALINGS

UNSCALED = Config.rope_scaling
STRETCH = 4  # windows of so many trained contexts
BINS = 4  # of positions, in each context
WINDOWS, _WINDOWS_AT_A_TIME = 256, 16


def losses_by_position(model, tokens):
    """{RoPE scaling: mean loss in each bin of positions} of windows of 4 contexts of tokens; a bin is a quarter context

    Every RoPE scaling is applied to the model as it is: with factor 4, but one by length with factor 1, as the length
    is its factor. Then the window is read up to the end of each bin, and the bin has the frequencies of that length.
    Other position schemes have UNSCALED alone. Learned positions end where their vectors do, after one context. Too
    short a text, or context, has no losses.
    """
    trained, position = model.config.context, POSITIONS[model.config.position]
    width = trained // BINS
    length = width * BINS * (1 if position.learned else STRETCH)
    count = min(WINDOWS, (len(tokens) - 1 - STRETCH * trained) // max(1, width) + 1)  # the same for every scheme
    if width == 0 or count < 1:
        return {}
    starts, losses = np.arange(count) * width, {}
    for scaling in ROPE_SCALINGS if position.rotation is not None else (UNSCALED,):
        longer = _stretched(model, max(length, trained), scaling)
        by_position, begin = np.empty(length), 0
        for end in range(width, length + 1, width) if ROPE_SCALINGS[scaling].by_length else (length,):
            by_position[begin:end] = _losses(longer, tokens, starts, end)[begin:]
            begin = end
        losses[scaling] = by_position.reshape(-1, width).mean(axis=1).tolist()
    return losses


def stretched_by(scaling):
    """By what a RoPE scaling is stretched here, in words."""
    if scaling == UNSCALED:
        return "not stretched"
    return "stretched by the length read" if ROPE_SCALINGS[scaling].by_length else f"stretched by {STRETCH}"


def _stretched(model, context, scaling):
    """A model with the same parameters for a longer context."""
    factor = 1.0 if ROPE_SCALINGS[scaling].by_length else float(STRETCH)
    scaled = {"rope_scaling": scaling, "rope_factor": factor, "rope_original_context": model.config.context}
    config = replace(model.config, context=context, **(scaled if scaling != UNSCALED else {}))
    longer = Model(config, dtype=model.dtype, threads=model.workers.threads)
    longer.parameters.flat[:] = model.parameters.flat
    return longer


def _losses(model, tokens, starts, length):
    """The mean loss at each position (length,) of the windows that begin at starts."""
    op, total = backend.active(), np.zeros(length)
    for first in range(0, len(starts), _WINDOWS_AT_A_TIME):
        windows = tokens[starts[first : first + _WINDOWS_AT_A_TIME, None] + np.arange(length + 1)]
        ids, targets = windows[:, :-1], windows[:, 1:]
        logits = model.logits(ids).reshape(ids.size, -1)
        losses, _ = op.cross_entropy(logits, np.ascontiguousarray(targets).reshape(-1))
        total += losses.reshape(ids.shape).sum(axis=0, dtype=np.float64)
    return total / len(starts)
