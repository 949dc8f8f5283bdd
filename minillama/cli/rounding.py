"""The options by which a command rounds a model's weights: one for each row of WEIGHT_KINDS that says so."""

from ..weights import OPTIONS


def add_rounding(parser):
    kinds = parser.add_mutually_exclusive_group()
    for kind, text in OPTIONS.items():
        kinds.add_argument(f"--{kind}", dest="weights", action="store_const", const=kind, help=text)


def rounded(model, options):
    """The model with the kind of weights that was asked for, or as it is."""
    if options.weights is None:
        return model
    from ..weights.quantize import quantize

    return quantize(model, options.weights)
