"""Writing a model in another format: the rows of FORMATS that have a writer

The name of what is written says in which format, where the user does not: a row's suffix, or a folder.
"""

from pathlib import Path

from ..files import alone, replacing_all, require_free
from ..tokenizers import load_tokenizer as read_tokenizer
from ..tokenizers.vocabulary import check_tokenizer
from .contents import Content
from .foreign import FOREIGN
from .formats import WRITERS, Option
from .open import find, load_tokenizer
from .places import require_no_other_model

_ELSEWHERE = "choose another place to write to"


def convert(source, target, to=None, tokenizer=None, overwrite=False, **options):
    """Write the model at source, and its tokenizer, to target: a text that says what was done

    to: one of WRITERS; None: that whose suffix target ends in, else the first that is a folder. tokenizer: where the
    tokenizer lies, if not with the model. options: those of the row, such as int8 for llama2c. The model's own
    tokenizer is left out where the format does not have its kind, and the text says why. A chat template goes from
    folder to folder, and so does what is said of drawing text: generation_config.json, and the tokens that end one.
    FileExistsError, before the model is read, where something lies at target; overwrite: a model that convert could
    have written there is replaced.
    """
    if not str(target):
        raise ValueError("the path to write to is empty; give the name of a file or folder")
    target = Path(target)
    _refuse_name(target)
    to = to or _by_name(target)
    if to not in WRITERS:
        raise ValueError(f"minillama writes the formats {', '.join(WRITERS)}; received {to!r}")
    row, options = WRITERS[to], _checked(to, options, target)
    found = find(source)
    if target.exists() and (target.samefile(source) or target.samefile(found.file)):
        raise ValueError(f"the model in {source} would be written over itself; give another place to write to")
    if row.files:
        require_no_other_model(target, row.files, _ELSEWHERE)
    elif target.is_file() and overwrite:
        _require_model(target, to, row)
    places = [target / name for name in row.files] or [target]
    require_free(places, overwrite, _ELSEWHERE)
    words = None if tokenizer is None else read_tokenizer(tokenizer)
    model = found.format.load(found.file, None, None)
    if words is None:
        words = load_tokenizer(source, model.config.vocab_size)
    note = "without a tokenizer, as there is none"
    if words is not None:
        check_tokenizer(words, model.config.vocab_size)
        note = "with its tokenizer"
        try:
            row.check_tokenizer(target, words, model.config, overwrite)
        except ValueError as error:
            if tokenizer is not None:
                raise
            words, note = None, f"without its tokenizer: {error}. To open it here, put tokenizer.json beside it"
        else:
            note += f"; {apart}" if (apart := row.differs(words)) else ""
    said = found.said(model.config.vocab_size) if row.says else None
    lock = target / ".convert.lock" if row.files else target.with_name(f".{target.name}.lock")
    with alone(lock, f"writing a model to {target}"):
        require_free(places, overwrite, _ELSEWHERE)  # again, as another process may have written one in the meantime
        if row.files:
            with replacing_all(target, row.files) as folder:  # the old model stays until the new one is whole
                row.save(folder, model, words, said, **options)
        else:
            row.save(target, model, words, said, **options)
    return f"{source} ({found.name}) is now in {target} ({to}), {note}"


def writer_options():
    """{name: Option} of all writers; one that several have has the values of all, and says which is whose."""
    found = {}
    for name, row in WRITERS.items():
        for key, option in row.options.items():
            before = found.get(key, Option("", option.choices))
            if (before.choices is None) != (option.choices is None):
                raise TypeError(f"the option {key} of the format {name} is a flag in one row and has values in another")
            choices = option.choices and tuple(dict.fromkeys([*before.choices, *option.choices]))
            found[key] = Option("; ".join(filter(None, [before.help, f"{option.help} ({name})"])), choices)
    return found


def _checked(to, options, target):
    """The options that were given, of which None and False are not; ValueError for what this format does not have."""
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    for name, value in given.items():
        option = WRITERS[to].options.get(name)
        if option is None:
            rows = [other for other, row in WRITERS.items() if name in row.options]
            of = f"an option of {', '.join(rows)} only" if rows else "no option of any format"
            raise ValueError(
                f"{name} is {of}; {target} would be {to}. Leave it out, or choose another format with --to"
            )
        if option.choices is not None and value not in option.choices:
            raise ValueError(
                f"{name} of the format {to} must be one of {', '.join(map(str, option.choices))}; received {value!r}"
            )
    return given


def _require_model(target, to, row):
    """FileExistsError where the file in whose place the model is to be written holds something else."""
    if target.stat().st_size and not row.recognises(Content(target)):
        raise FileExistsError(
            f"{target} is no model of the format {to}, and --overwrite replaces such a model only; nothing was "
            f"changed. {_ELSEWHERE[0].upper()}{_ELSEWHERE[1:]}, or remove the file"
        )


def _refuse_name(target):
    """ValueError where the name of what is to be written is that of a format which is not written here."""
    suffix, written = target.suffix.lower(), {row.suffix for row in WRITERS.values()}
    names = {ending: row.what for row in FOREIGN for ending in row.suffixes} | {
        ".safetensors": "a file of tensors alone"
    }
    if suffix in names.keys() - written and not target.is_dir():
        raise ValueError(
            f"the name of {target} is that of {names[suffix]}; minillama writes {_written()}; give one of these"
        )


def _by_name(target):
    """The format of a new file or folder of this name."""
    by_suffix = {row.suffix: name for name, row in WRITERS.items() if row.suffix}
    return by_suffix.get(target.suffix.lower()) or next(name for name, row in WRITERS.items() if row.files)


def _written():
    return ", ".join(f"{name} ({where_to_write(row)})" for name, row in WRITERS.items())


def where_to_write(row):
    """The names of what is written in a format."""
    return "a folder" if row.files else f"a file whose name ends in {row.suffix}"
