"""What a position may read: the choice that makes a model one that writes or one that fills gaps.

Attention takes the choice as a flag (`minillama.ops.attention`); what follows from it for training is the objective
(`minillama.training.objectives`): a position that reads the whole text must not be asked for the token that follows it.
"""

from typing import NamedTuple


class Mask(NamedTuple):
    """A row of MASKS."""

    causal: bool  # position i reads the positions up to i; else all of its sequence, without the padding
    objective: str  # a key of minillama.training.objectives.OBJECTIVES


MASKS = {
    "causal": Mask(causal=True, objective="next_token"),
    "bidirectional": Mask(causal=False, objective="masked"),
}
