"""The ways in which a model can know where a token stands. A new one is a file here and a row in the table.

Attention reads its tokens as a set: their order changes nothing in its output. A scheme brings order in, in one of
three places, and a row fills in the one:

    rotation(config, length, dtype) -> cos, sin, each (length, D/2): queries and keys are turned by them
    vectors: what is added to the embedding of the token at position t, row t of a matrix (context, C), which is either
        learned (the parameter "position_embedding") or table(config, dtype) -> (context, C)
    slopes(config, dtype) -> (H,): attention lowers a score by the slope of its head times the distance

Row t of a table is for position t. A rotation can depend on the length of the sequence that is read: the config's row
of minillama.ops.rope_scaling says so. "none" leaves it to the causal mask: each position reads a set of another size,
and from that deeper layers can learn where they stand (Haviv et al. 2022, arXiv 2203.16634).
"""

from collections.abc import Callable
from typing import NamedTuple

from .alibi import alibi_slopes
from .rope import rope_tables
from .sinusoidal import sinusoidal_table


class Position(NamedTuple):
    """A row of POSITIONS."""

    rotation: Callable | None = None
    learned: bool = False
    table: Callable | None = None
    slopes: Callable | None = None


POSITIONS = {
    "rope": Position(rotation=rope_tables),
    "learned": Position(learned=True),
    "sinusoidal": Position(table=sinusoidal_table),
    "alibi": Position(slopes=alibi_slopes),
    "none": Position(),
}
