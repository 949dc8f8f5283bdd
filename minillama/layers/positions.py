"""What a model knows of positions besides its parameters; it follows from the config alone."""

from ..ops.positions import POSITIONS
from ..ops.rope_scaling import ROPE_SCALINGS
from ..runtime.shards import Reading


class PositionTables:
    """rotation, slopes and vectors of a Config's row of POSITIONS, each None where it has none

    cached_rotation: the angles with which keys are turned that a cache holds.
    """

    def __init__(self, config, dtype):
        self._config, self._dtype = config, dtype
        row, context = POSITIONS[config.position], config.context
        self.rotation = row.rotation and row.rotation(config, context, dtype)
        # A cache holds keys as they were turned, so it reaches no further than the angles of its positions are fixed.
        reach = config.cached_context
        self.cached_rotation = row.rotation(config, reach, dtype) if row.rotation and reach < context else self.rotation
        self.slopes = row.slopes and row.slopes(config, dtype)
        self.vectors = row.table and row.table(config, dtype)

    def reading(self, length, lengths=None):
        """What attention over `length` positions needs besides the activations."""
        rotation = self.rotation
        if rotation is not None and ROPE_SCALINGS[self._config.rope_scaling].by_length:
            rotation = POSITIONS[self._config.position].rotation(self._config, length, self._dtype)
        return Reading(self._dtype, rotation, self.slopes, lengths)
