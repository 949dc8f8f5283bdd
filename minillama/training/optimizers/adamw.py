"""AdamW: every weight moves by about the learning rate, whatever the size of its gradient."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .base import Optimizer


class AdamW(Optimizer):
    """m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2,   w <- w - rate (decay w + m' / (sqrt(v') + eps))

    m' and v' are m and v without their bias towards 0 in the first steps (minillama.ops.adamw). The decay is decoupled:
    it acts on the weight, past the moments, so that all weights shrink alike.
    Source: Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2; betas and decay of Touvron et al. 2023 (arXiv
    2302.13971), section 2.3.
    """

    state_names = "mean", "square"
    settings = "beta1", "beta2", "weight_decay"

    def __init__(
        self,
        parameters: Mapping[str, np.ndarray],
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(parameters, weight_decay)
        self.betas, self.eps = betas, eps

    @classmethod
    def with_settings(cls, parameters: Mapping[str, np.ndarray], settings: Any) -> "AdamW":
        return cls(parameters, (settings.beta1, settings.beta2), weight_decay=settings.weight_decay)

    def update(
        self, op: Any, weight: np.ndarray, gradient: np.ndarray, state: Sequence[np.ndarray], rate: float,
        decay: float, scale: float,
    ) -> None:  # fmt: skip
        op.adamw(weight, gradient, *state, self.steps, rate, self.betas, self.eps, decay, scale)
