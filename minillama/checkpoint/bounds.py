"""What a damaged or hostile file must not be able to ask for."""

from ..ops.positions import POSITIONS

_HARMLESS = 2**23  # bytes


def check_context(config, nbytes, source):
    """Refuse a context for which tables would be made that are larger than the weights, nbytes, and than 8 MB

    Rotations and fixed vectors of the positions are made from the config alone, so a file of any size can ask for any
    number of them. source: the place that says so, for the message.
    """
    row = POSITIONS[config.position]
    width = config.head_dim if row.rotation is not None else config.dim if row.table is not None else 0
    tables = config.context * width * 4
    if tables > max(nbytes, _HARMLESS):
        raise ValueError(
            f"{source} says {config.context:,} positions, whose tables would take {tables // 10**6:,} MB, and the "
            f"weights only {nbytes / 1e6:,.1f}; write there how long a text the model can read"
        )
