"""What the notebooks of the course share: checkers of the exercises, numbers with bands, and the look of figures."""

from . import (
    lesson_00,
    lesson_01,
    lesson_02,
    lesson_03,
    lesson_04,
    lesson_05,
    lesson_06,
    lesson_07,
    lesson_08,
    lesson_08_table,
)
from .checks import EXERCISES, check
from .claims import claim

LESSONS = (
    lesson_00,
    lesson_01,
    lesson_02,
    lesson_03,
    lesson_04,
    lesson_05,
    lesson_06,
    lesson_07,
    lesson_08,
    lesson_08_table,
)
__all__ = ["EXERCISES", "LESSONS", "check", "claim"]
