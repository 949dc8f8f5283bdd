"""The ways in which a model can know where a token stands. A new one is a file here and a row in the table.

A scheme acts in one of three places, and a row fills in the one:

    rotation(config, length, dtype) -> tables (length, ...) by position: `rope` turns queries and keys by them
    vectors: what is added to the embedding of the token at position t, row t of a matrix (context, C), which is either
        learned (the parameter "position_embedding") or table(config, dtype)
    slopes(config, dtype) -> (H,): attention lowers a score by the slope of its head times the distance
"""

from collections.abc import Callable
from typing import NamedTuple

from .rope import rope_tables


class Position(NamedTuple):
    """A row of POSITIONS."""

    rotation: Callable | None = None
    learned: bool = False
    table: Callable | None = None
    slopes: Callable | None = None


POSITIONS = {
    "rope": Position(rotation=rope_tables),
    "learned": Position(learned=True),
    "none": Position(),
}
