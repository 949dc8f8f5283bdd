"""The dropout of a training step."""

from typing import NamedTuple


class Noise(NamedTuple):
    """The dropout of one step: which elements fall out depends on the seed, the place in the network and the row."""

    rate: float = 0.0
    seed: int = 0
    first_row: int = 0

    def drop(self, op, x, site):
        """Dropout of x (N, C), the output of the layer at place `site` of the network -> (N, C); x itself at rate 0."""
        return op.dropout(x, self.rate, (self.seed + site * 0x9E3779B9) % 2**32, self.first_row)
