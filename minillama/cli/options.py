"""Options that several commands have, and those that stand for the fields of a dataclass."""

import argparse
from dataclasses import fields, replace
from types import NoneType
from typing import get_args, get_origin, get_type_hints

from ..runtime.workers import available_threads

MODEL = "folder of a run, of Hugging Face or of Meta's layout, or a file of llama2.c"
OTHER_FOLDER = "choose another folder with --out"  # what is offered where a file is in the way
METAVARS = {int: "N", float: "X", str: "NAME"}


def add_threads(group):
    text = f"processors to use (default: all, here {available_threads()})"
    group.add_argument("--threads", type=int, metavar="N", help=text)


def add_overwrite(group, text="replace the files that are there", **rest):
    group.add_argument("--overwrite", action="store_true", help=text, **rest)


def options_of(described):
    """{name: Field} of the fields of a dataclass that are options: those that `minillama.config.option` made."""
    return {field.name: field for field in fields(described) if "text" in field.metadata}


def add_fields(group, described, names=None, defaults=None, **texts):
    """An option for each field of a dataclass that is one, or for those of them that are named, with type and help

    defaults: a dataclass or an instance of one that has the defaults, if they are not those of the fields; texts: what
    is said of a field in the place of its own text.
    """
    hints = get_type_hints(described)
    for name, field in options_of(described).items():
        if names is not None and name not in names:
            continue
        default = getattr(described if defaults is None else defaults, name)
        text, choices = texts.get(name, field.metadata["text"]), field.metadata["choices"]
        (kind,) = set(get_args(hints[name]) or [hints[name]]) - {NoneType, Ellipsis}
        if get_origin(hints[name]) is tuple:
            shown = with_default(text, ", ".join(default) or "none")
            group.add_argument(flag(name), nargs="*", choices=choices, help=shown)
        elif choices is not None:
            group.add_argument(flag(name), choices=list(choices), help=with_default(text, default))
        elif kind is bool:
            shown = with_default(text, "yes" if default else "no")
            group.add_argument(flag(name), action=argparse.BooleanOptionalAction, help=shown)
        else:
            shown = text if default is None or "(default:" in text else with_default(text, default)
            group.add_argument(flag(name), type=kind, metavar=METAVARS[kind], help=shown)


def changed(settings, options, names):
    """Settings with what was asked for by the options of these names; the warm-up is that of the steps unless given."""
    asked = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return replace(settings, **{"warmup": None, **asked})


def flag(name):
    return "--" + name.replace("_", "-")


def with_default(text, default):
    return f"{text} (default: {default})"
