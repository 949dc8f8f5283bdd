"""Stochastic gradient descent with momentum."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .base import Optimizer


class SGD(Optimizer):
    """u <- momentum u + g + decay w,   w <- w - rate u

    PyTorch's form: the learning rate multiplies the sum of past gradients, so that a change of the rate acts on all of
    it at once. Sutskever et al. 2013 (ICML, equation 1) have the rate inside of the sum, u <- momentum u - rate g,
    w <- w + u: the same for a constant rate, another path while the rate changes. momentum 0 is plain gradient descent.
    A steady gradient moves a weight by rate / (1 - momentum) times it.
    """

    state_names = ("velocity",)
    settings = "momentum", "weight_decay"

    def __init__(self, parameters: Mapping[str, np.ndarray], momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, weight_decay)
        self.momentum = momentum

    @classmethod
    def with_settings(cls, parameters: Mapping[str, np.ndarray], settings: Any) -> "SGD":
        return cls(parameters, settings.momentum, settings.weight_decay)

    def update(
        self, op: Any, weight: np.ndarray, gradient: np.ndarray, state: Sequence[np.ndarray], rate: float,
        decay: float, scale: float,
    ) -> None:  # fmt: skip
        op.sgd(weight, gradient, *state, rate, self.momentum, decay, scale)
