"""minillama train: train a model on text, or go on with a run."""

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path

from ..catalogue.presets import FAMILIES
from ..config import Config
from ..interrupts import exit_code
from ..messages import MissingExtra, command_line
from ..ops.norms import NORMS
from ..ops.positions import POSITIONS
from ..ops.rope_scaling import ROPE_SCALINGS
from ..runtime.workers import check_threads
from ..training.objectives import objective_of
from ..training.trainer import TRAINING_SWITCHES, Settings
from .idle import by_characters
from .inputs import say_what_is_read
from .options import METAVARS, MODEL, add_fields, add_overwrite, add_threads, flag, options_of, with_default

_DATA = {
    "data": ("stories", "a UTF-8 text file, a folder of text files, or stories, the built-in source"),
    "tokenizer": ("bpe", "bpe (byte-level) or char"),
    "vocab_size": (1024, "tokens of the bpe tokenizer"),
}
WITHOUT_STORIES = "leave --data out"


def add_arguments(parser):
    parser.argument_default = argparse.SUPPRESS  # --resume must tell the options that are given from those that are not
    parser.surplus = "--data"
    group = parser.add_argument_group("data")
    for name, (default, text) in _DATA.items():
        kind = type(default)
        group.add_argument(flag(name), type=kind, metavar=METAVARS[kind], help=with_default(text, default))
    group = parser.add_argument_group("run")
    group.add_argument("--out", metavar="DIR", help="folder of the run (default: runs/ and the name of the data)")
    group.add_argument("--resume", action="store_true", default=False, help="go on with the run in its folder")
    text = f"go on from a model, its weights, shape and tokenizer: {MODEL}; context is then what it reads at a time"
    group.add_argument("--from", metavar="MODEL", help=with_default(text, "none, a new model"))
    add_overwrite(group, "begin anew in the place of the run that is there", default=False)
    add_threads(group)
    group = parser.add_argument_group("model")
    text = "whose choices the model has where no other option asks for something else"
    group.add_argument("--family", choices=list(FAMILIES), help=with_default(text, "llama"))
    add_fields(group, Config)
    add_fields(parser.add_argument_group("training"), Settings)


def run(options):
    from ..training.run import read_metrics

    threads = check_threads(options.threads, "--threads") if "threads" in options.given else None
    if options.resume and options.overwrite:
        raise ValueError("--resume goes on with a run and --overwrite begins anew in its place; choose one of them")
    begin = _resumed if options.resume else _going_on if "from" in options.given else _started
    training = begin(options, _folder(options), threads)
    folder, corpus = training.folder, training.corpus
    try:
        loss = training.train()
    except KeyboardInterrupt:
        print(f"\nstopped without saving; the last checkpoint is in {folder}", file=sys.stderr)
        return 130
    if loss is None:
        with suppress(OSError):  # the terminal may have gone, which is why it was stopped; all is saved
            if read_metrics(folder):
                _draw_loss(folder)
            on = command_line("train", ("--out", folder), "--resume")
            print(f"\nstopped at step {training.optimizer.steps}; continue with: {on}", flush=True)
        return exit_code(training.stopped_by)
    print(f"the model is in {folder}, {_draw_loss(folder)}")
    per_character = f", {corpus.per_character(loss):.4f} nats a character" if training.objective.predicts_text else ""
    print(f"validation loss {loss:.4f} nats a {training.unit}{per_character}")
    if training.floor is not None:
        floor = corpus.per_character(training.floor)
        print(f"the true entropy of the source is {floor:.4f} nats a character: no model does better on average")
    if training.model.config.causal:
        print(f"continue a text with: {command_line('sample', folder, ('--prompt', 'TEXT'))}")
    else:
        print(f"fill gaps with: {command_line('fill', folder, 'a text with ___ in it')}")


def _draw_loss(folder):
    """Draw the loss curve of a run; where it is, or what it needs, to be said after the place of the model."""
    try:
        from ..analysis.plots import loss_curve
    except MissingExtra as error:
        again = command_line("train", ("--out", folder), "--resume")
        return f"without a loss curve: {error}, then {again}"
    return f"its loss curve in {loss_curve(folder)}"


def _folder(options):
    data = getattr(options, "data", _DATA["data"][0])
    return Path(getattr(options, "out", None) or Path("runs") / Path(os.path.realpath(data)).stem)


def _given(options, described):
    """{name: value} of the fields of a dataclass that were asked for by options."""
    return {name: getattr(options, name) for name in options_of(described) if name in options.given}


def _started(options, folder, threads):
    """A new run, as the options describe it."""
    from ..data.corpora import encode_corpus
    from ..training.run import Run, check_folder

    source = {name: getattr(options, name, default) for name, (default, _) in _DATA.items()}
    settings = Settings(**_given(options, Settings))
    shape = {**FAMILIES[getattr(options, "family", "llama")], **_given(options, Config)}
    config = Config(vocab_size=1, **shape)  # a wrong shape is reported before the text is read
    check_folder(folder, options.overwrite)  # and so is a folder that something else lies in
    say_what_is_read(source["data"])
    corpus = encode_corpus(**source, mask_token=objective_of(config).needs_mask_token)
    config = Config(corpus.tokenizer.vocab_size, **shape)
    training = Run.start(folder, config, settings, corpus, threads, options.overwrite)
    _describe(training)
    return training


def _going_on(options, folder, threads):
    """A new run that begins with the model of --from."""
    from .continuing import Begun

    begun = Begun(vars(options), folder, Settings(**_given(options, Settings)), options.overwrite)
    data = getattr(options, "data", _DATA["data"][0])
    say_what_is_read(data)
    training = begun.start(data, threads)
    print(f"going on from {begun.path}, with its tokenizer")
    _describe(training)
    print(f"validation loss before the first step {training.evaluate():.4f} nats a {training.unit}")
    return training


def _describe(training):
    corpus, model = training.corpus, training.model
    print(
        f"{len(corpus.train):,} training and {len(corpus.validation):,} validation tokens "
        f"({corpus.tokenizer.vocab_size} different), {model.parameters.flat.size:,} parameters, "
        f"{model.workers.threads} threads"
    )


def _resumed(options, folder, threads):
    """The run in the folder at its last checkpoint; ValueError for an option that asks for another one."""
    from ..training.run import STATE_FILE, Run, read_state
    from .continuing import corpus_of_run, options_of_run, origin_of
    from .runs import no_run

    if not (folder / STATE_FILE).is_file():
        raise FileNotFoundError(no_run(folder, named="out" in options.given))
    state, given = read_state(folder), vars(options)
    saved = options_of_run(state)
    asked = {**FAMILIES[given["family"]], **given} if "family" in given else dict(given)
    if "from" in asked:
        asked["from"] = origin_of(asked["from"])
    for name, value in asked.items():
        value = sorted(value) if name == "bias" else value
        if name in saved and name != "data" and value != (sorted(saved[name]) if name == "bias" else saved[name]):
            raise ValueError(
                f"the run in {folder} was started with {flag(name)} {saved[name]}, not {value}; it can only go on as "
                f"it began. Leave {flag(name)} out, or start a new run in another folder"
            )
    data = given.get("data", state["source"]["data"])
    say_what_is_read(data)
    training = Run.resume(folder, corpus_of_run(folder, state, data), threads)
    print(f"resuming {folder} at step {training.optimizer.steps} of {training.settings.steps}")
    if training.model.workers.threads != state["threads"]:
        print(f"with {threads} threads, not {state['threads']} as before: the last bits of the weights will differ")
    return training


# Options that change nothing


def _field(options, name):
    """The value that a field of Config will have in the training."""
    default = FAMILIES[getattr(options, "family", "llama")].get(name, Config.__dataclass_fields__[name].default)
    return getattr(options, name, default)


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
    batch = getattr(options, "batch_size", Settings.batch_size)
    parts = getattr(options, "micro_batches", Settings.micro_batches)
    if parts > batch >= 1:
        return f"a batch of {batch} sequences cannot be computed in {parts} parts, but in {batch} at most"


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


# What a model that is gone on from brings: its Config, but for the dropout, and --context, which is the window then.
_OWN = ("context", "dropout")
OF_A_MODEL = ("tokenizer", "vocab_size", "family", *(n for n in options_of(Config) if n not in _OWN), "init_std")
IDLE = [
    (OF_A_MODEL, _of_the_model),
    (("vocab_size",), by_characters),
    (("rope_layout", "rope_theta", "rope_factor", "rope_original_context"), _without_rope),
    (("rope_factor", "rope_original_context"), _unscaled),
    (("rope_original_context",), _scaled_by_factor),
    (("rope_scaling",), _never_stretched),
    (("norm_eps",), _without_norm),
    (("micro_batches",), _few_sequences),
    *_not_of_all(),
]
