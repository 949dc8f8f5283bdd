"""minillama info: shape, parameters, memory and arithmetic of a model."""

from pathlib import Path

from ..catalogue.presets import PRESETS
from ..messages import unknown
from ..ops.positions import POSITIONS
from .idle import kind_of


def add_arguments(parser):
    parser.surplus = "One model is described at a time; minillama table shows several"
    text = f"a model as for sample, or one of: {', '.join(PRESETS)}"
    parser.add_positional("model", also=("name", "run", "path", "preset"), metavar="MODEL|NAME", help=text)


def run(options):
    from ..catalogue.sizes import cache_bytes_per_token, flops_per_token, parameter_count, training_bytes, weight_bytes
    from ..checkpoint.open import read_config
    from ..parameters import parameter_shapes
    from ..weights import WEIGHT_KINDS

    if options.model in PRESETS:
        config = PRESETS[options.model]
    elif Path(options.model).exists():
        config = read_config(options.model)
    else:
        raise ValueError(f"{options.model} is no file or folder, and {unknown('model', options.model, PRESETS)}")
    counts = parameter_count(config)
    for name, value in _described_fields(config):
        print(f"{name:<24}{value}")
    print()
    for name, shape in parameter_shapes(config).items():
        if not name.startswith("blocks.") or name.startswith("blocks.0."):  # the blocks are alike
            print(f"{name.replace('blocks.0', 'each block'):<32}{' x '.join(f'{size:,}' for size in shape)}")
    print()
    for part, count in counts.items():
        print(f"{part + ' parameters':<28}{count:>16,}{count / counts['total']:>9.1%}")
    print()
    for kind, size in weight_bytes(config).items():
        _, *further = WEIGHT_KINDS[kind].layout(config.dim)
        held = f"  (with their {' and '.join(further)})" if further else ""
        print(f"{'weights in ' + kind:<24}{size / 1e6:>20,.1f} MB{held}")
    training = f"{'training, float32':<24}{training_bytes(config) / 1e6:>20,.1f} MB"
    print(f"{training}  (weights, gradient, two moments; one gradient more for each further thread)")
    if config.causal:
        print(f"{'cache a token, float32':<24}{cache_bytes_per_token(config):>20,} bytes")
    forward = flops_per_token(config)
    print(f"{'FLOPs a token':<24}{forward:>20,}  forward, at {config.context} tokens; three times that in training")


def _described_fields(config):
    """[(name, text)] of the fields of a config that have a value and an effect."""
    rotated = POSITIONS[config.position].rotation is not None
    for name, value in config.to_dict().items():
        if value is None or (name.startswith("rope_") and not rotated):
            continue
        if isinstance(value, bool):
            value = "yes" if value else "no"
        elif isinstance(value, tuple):
            value = ", ".join(value) or "none"
        yield name, value


def unclear(options):
    if options.model in PRESETS and Path(options.model).exists():
        kind = kind_of(options.model)
        yield (
            "model",
            f"{options.model!r} is the name of a published model, and there is a {kind} of that name here. Write "
            f"./{options.model} for the {kind}; for the published one give the command in another folder",
        )
