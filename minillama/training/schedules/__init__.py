"""How the learning rate goes on after the warm-up. A new schedule is a file here and a row in the table.

    name(progress, *numbers) -> the rate as a share of its peak

progress s runs from 0, the end of the warm-up, to 1, the last step. The numbers are those that the row names, fields of
minillama.training.trainer.Settings in this order; a floor is the share of the peak that is left at the end.
"""

from collections.abc import Callable
from typing import NamedTuple

from .constant import constant
from .cosine import cosine
from .linear import linear
from .wsd import wsd


class Schedule(NamedTuple):
    """A row of SCHEDULES."""

    share: Callable[..., float]
    settings: tuple[str, ...] = ()  # the fields of Settings whose values are the numbers of `share`


SCHEDULES = {
    "cosine": Schedule(cosine, ("lr_floor",)),
    "linear": Schedule(linear, ("lr_floor",)),
    "constant": Schedule(constant),
    "wsd": Schedule(wsd, ("lr_floor", "decay_share")),
}


def learning_rate(step: int, steps: int, peak: float, warmup: int, *numbers: float, schedule: str = "cosine") -> float:
    """Linear warm-up to the peak, then a schedule; of the cosine the one number is its floor

    peak t / warmup                                                     for step t <= warmup, counted from 1
    peak share(s, *numbers),   s = (t - warmup) / (steps - warmup)      then; s = 1 after the last step
    """
    if step <= warmup:
        return peak * step / warmup if warmup else peak
    progress = 1.0 if step >= steps else (step - warmup) / (steps - warmup)
    return peak * SCHEDULES[schedule].share(progress, *numbers)
