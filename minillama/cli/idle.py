"""Options that are refused where they stand: what would change nothing, and names that mean two things.

Each row says of some options of a command when no value of them has an effect, and why. An option counts only where it
was given; a default never does.
"""

from pathlib import Path

from ..catalogue.presets import FAMILIES, PRESETS
from ..config import Config
from ..messages import command_line
from ..ops.norms import NORMS
from ..ops.positions import POSITIONS
from ..ops.rope_scaling import ROPE_SCALINGS
from ..training.trainer import TRAINING_SWITCHES, Settings


def refuse(options):
    """ValueError for the first of the given options of a command that would change nothing, or is not clear."""
    for name, why in _unclear(options):
        if name in options.given:
            raise ValueError(why)
    if getattr(options, "resume", False):  # there the options are compared with those of the run
        return
    for names, reason in IDLE.get(options.line, ()):
        given = [name for name in names if name in options.given]
        why = reason(options) if given else None
        if why:
            flag = "--no-torch" if given[0] == "torch" else "--" + given[0].replace("_", "-")
            raise ValueError(f"{flag} has no effect here: {why}. Leave it out")


def _field(options, name):
    """The value that a field of Config will have in a training."""
    default = FAMILIES[getattr(options, "family", "llama")].get(name, Config.__dataclass_fields__[name].default)
    return getattr(options, name, default)


def _of_the_model(options):
    if hasattr(options, "from"):
        return f"the training goes on from {getattr(options, 'from')}, which brings its own"


def _of_others(switch, name):
    """The reason against an option that some rows of a switch of Settings do not read."""
    table = TRAINING_SWITCHES[switch]
    having = [row for row in table if name in table[row].settings]

    def reason(options):
        chosen = getattr(options, switch, getattr(Settings, switch))
        if chosen not in having:
            return f"it belongs to --{switch} {' or '.join(having)}, and the {switch} is {chosen!r}"

    return reason


def _not_of_all():
    """((option,), reason) for each setting that only some optimizers, or some schedules, read."""
    for switch, table in TRAINING_SWITCHES.items():
        names = dict.fromkeys(name for row in table.values() for name in row.settings)
        for name in names:
            if not all(name in row.settings for row in table.values()):
                yield (name,), _of_others(switch, name)


def _of_char(options):
    if getattr(options, "tokenizer", None) == "char":
        return "it is the size of bpe's vocabulary, and char has a token for each different character of the text"


def _without_rope(options):
    position = _field(options, "position")
    if POSITIONS[position].rotation is None:
        return f"it belongs to rotary positions, and the position is {position!r}"


def _unscaled(options):
    unscaled = Config.__dataclass_fields__["rope_scaling"].default
    if _field(options, "rope_scaling") == unscaled:
        others = ", ".join(name for name in ROPE_SCALINGS if name != unscaled)
        return f"it belongs to a --rope-scaling, one of {others}, and there is none"


def _scaled_by_factor(options):
    scaling = _field(options, "rope_scaling")
    if not ROPE_SCALINGS[scaling].by_length and ROPE_SCALINGS[scaling].low is None:
        return f"--rope-scaling {scaling} stretches every context by the factor alone"


def _never_stretched(options):
    context, original = _field(options, "context"), _field(options, "rope_original_context")
    if ROPE_SCALINGS[_field(options, "rope_scaling")].by_length and (original is None or original >= context):
        return (
            f"--rope-scaling {options.rope_scaling} acts on texts longer than --rope-original-context, and none can be "
            f"longer than the context, {context}; give an original context below it"
        )


def _without_norm(options):
    norm = _field(options, "norm")
    if not NORMS[norm].has_weight:
        return f"it belongs to a norm, and the norm is {norm!r}"


def _few_sequences(options):
    batch, parts = (getattr(options, name, getattr(Settings, name)) for name in ("batch_size", "micro_batches"))
    if parts > batch >= 1:
        return f"a batch of {batch} sequences cannot be computed in {parts} parts, but in {batch} at most"


def _likeliest(options):
    if options.top_k == 1:
        return "with --top-k 1 the likeliest token is taken every time"


def _all_by_characters(options):
    corpora = [str(corpus) for corpus in options.corpora]
    if options.tokenizer is None and all(corpus != "stories" and Path(corpus).is_file() for corpus in corpora):
        return "single files are read by characters unless --tokenizer bpe is given"
    return _of_char(options)


def _reporting(options):
    if options.studies[:1] == ["report"]:
        return "a report shows results that are there, and trains nothing"


def _reporting_on_folders(options):
    if options.studies[:1] == ["report"] and options.studies[1:]:
        return "the report is on the folders that are named"


def _in_a_shard(options):
    if options.shard[1] > 1:
        return "a part of the jobs has no figures; draw them with minillama ablate report when all parts are done"


def _parts_without(*parts, what):
    def reason(options):
        if options.parts and set(options.parts) <= set(parts):
            return f"{what} has no part in {', '.join(options.parts)}"

    return reason


def _not_measured(options):
    from ..bench.shapes import SHAPES

    sizes = {"prefill": "prompt", "decoding": "decoded"}  # a part: what a shape that it measures has
    if options.parts and set(options.parts) <= sizes.keys():
        having = [name for name, shape in SHAPES.items() if any(getattr(shape, sizes[part]) for part in options.parts)]
        if not set(having) & set(options.shapes):
            return f"{', '.join(options.parts)} is measured at {', '.join(having)} only"


_TRAINING_OF_ABLATE = (
    "corpora", "tokenizer", "vocab_size", "seeds", "equal", "jobs", "shard", "dim", "layers", "heads", "context",
    "steps", "batch_size", "lr", "warmup", "lr_floor", "weight_decay", "clip", "init_std",
)  # fmt: skip
_OF_A_MODEL = (
    "tokenizer", "vocab_size", "family", "dim", "layers", "heads", "kv_heads", "ffn", "tied", "norm", "norm_eps",
    "placement", "position", "rope_layout", "rope_theta", "rope_scaling", "rope_factor", "rope_original_context",
    "feed_forward", "mask", "head", "bias", "qk_norm", "embedding_norm", "init_std",
)  # fmt: skip
_SAMPLING = [(("temperature", "top_p", "seed"), _likeliest)]

# For each command: (options, reason(options) -> why they have no effect, or None).
IDLE = {
    "train": [
        (_OF_A_MODEL, _of_the_model),
        (("vocab_size",), _of_char),
        (("rope_layout", "rope_theta", "rope_factor", "rope_original_context"), _without_rope),
        (("rope_factor", "rope_original_context"), _unscaled),
        (("rope_original_context",), _scaled_by_factor),
        (("rope_scaling",), _never_stretched),
        (("norm_eps",), _without_norm),
        (("micro_batches",), _few_sequences),
        *_not_of_all(),
    ],
    "sample": _SAMPLING,
    "chat": _SAMPLING,
    "ablate": [
        (_TRAINING_OF_ABLATE, _reporting),
        (("out",), _reporting_on_folders),
        (("vocab_size",), _all_by_characters),
        (("figures",), _in_a_shard),
    ],
    "bench": [
        (("shapes",), _parts_without("length", "elementwise", "checkpoint", what="the shape of a model")),
        (("shapes",), _not_measured),
        (("torch",), _parts_without("matmul", "elementwise", "checkpoint", what="PyTorch")),
    ],
}


def _unclear(options):
    """(option, message) for names that are those of something built in and of a file or folder here."""
    data = getattr(options, "corpora", [getattr(options, "data", None)])
    if "stories" in data and Path("stories").exists():
        instead = {"train": "leave --data out", "compare": "leave it out", "ablate": "leave --corpora out"}
        yield (
            "corpora" if hasattr(options, "corpora") else "data",
            f"'stories' is the name of the built-in source, and there is a {_kind('stories')} of that name here. Write "
            f"./stories for the {_kind('stories')}; for the source "
            f"{instead.get(options.line, 'give the command in another folder')}",
        )
    if options.line == "info" and options.model in PRESETS and Path(options.model).exists():
        kind = _kind(options.model)
        yield (
            "model",
            f"{options.model!r} is the name of a published model, and there is a {kind} of that name here. Write "
            f"./{options.model} for the {kind}; for the published one give the command in another folder",
        )
    if options.line == "ablate" and options.studies == ["report"] and any(Path("report").glob("*.jsonl")):
        yield (
            "studies",
            "there is a folder called report with results here. Write minillama ablate report report for a report on "
            f"it, or name another folder, as in {command_line('ablate', 'report', Path(options.out))}",
        )


def _kind(path):
    return "folder" if Path(path).is_dir() else "file"
