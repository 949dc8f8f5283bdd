"""Adam with L2 regularisation, as it was before AdamW: the contrast that shows what decoupling the decay changes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .adamw import AdamW


class Adam(AdamW):
    """g <- g + decay w,   and then the step of AdamW without decay (minillama.ops.adam)

    The decay goes through the moments: a weight whose gradients are large is divided by their size, and so is its
    decay, so that just the weights that move most shrink least.
    Source: Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1; the decay as in Loshchilov and Hutter 2019 (arXiv
    1711.05101), algorithm 2, the line for L2.
    """

    def update(
        self, op: Any, weight: np.ndarray, gradient: np.ndarray, state: Sequence[np.ndarray], rate: float,
        decay: float, scale: float,
    ) -> None:  # fmt: skip
        op.adam(weight, gradient, *state, self.steps, rate, self.betas, self.eps, decay, scale)
