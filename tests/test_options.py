"""An option that stands for a field of a dataclass has its type, default and text from there, and from nowhere else."""

import argparse
import ast
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

import minillama
from minillama import Config
from minillama.cli.options import add_fields, flag, options_of
from minillama.config import SWITCHES, option
from minillama.experiments.families import Terms
from minillama.experiments.jobs import Protocol
from minillama.training.trainer import Settings

from .conftest import whole_parser

COMMANDS = whole_parser()._inner().choices
# What follows from the tokenizer, and what only published models have; what --context says of a run --from a model.
NO_OPTIONS = {Config: {"vocab_size", "token_types", "rope_low", "rope_high"}, Settings: {"window"}}


@pytest.mark.parametrize("described", [Config, Settings])
def test_every_field_is_an_option_with_its_text_or_is_known_to_be_none(described, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    options = options_of(described)
    assert {field.name for field in fields(described)} - options.keys() == NO_OPTIONS[described]
    shown = [" ".join(line.split()) for line in COMMANDS["train"].format_help().splitlines()]
    for name, field in options.items():
        (place,) = (i for i, line in enumerate(shown) if line.startswith((f"{flag(name)} ", f"{flag(name)},")))
        line = " ".join(shown[place : place + 2])  # a long option has its text below it
        text, default = field.metadata["text"], field.default
        said = {False: "no", (): "none"}.get(default, default) if isinstance(default, bool | tuple) else default
        assert text and text in line, line
        assert f"{text} (default: {said})" in line or "(default: " in text, line


def test_options_of_train_are_those_of_the_fields():
    """In the order of the fields, with their types, and no others in these two groups."""
    groups = {group.title: group._group_actions for group in COMMANDS["train"]._action_groups}
    assert [action.dest for action in groups["model"]] == ["family", *options_of(Config)]
    assert [action.dest for action in groups["training"]] == list(options_of(Settings))
    for action in [*groups["model"][1:], *groups["training"]]:
        field = (options_of(Config) | options_of(Settings))[action.dest]
        assert action.default == argparse.SUPPRESS
        if field.default is not None and action.type is not None:
            assert action.type is type(field.default), action.dest
    for name, table in SWITCHES.items():
        assert list(options_of(Config)[name].metadata["choices"]) == list(table)


@pytest.mark.parametrize("command, terms", [("compare", Terms), ("ablate", Protocol)])
def test_options_of_a_comparison_have_its_own_defaults(command, terms, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    shown = " ".join(COMMANDS[command].format_help().split())
    settings = options_of(Settings)
    for name in ("steps", "batch_size", "init_std"):
        text = settings[name].metadata["text"]
        assert f"{text} (default: {getattr(terms.settings, name)})" in shown
    assert (
        f"in the middle of the grid that is tried for each {'family' if command == 'compare' else 'variant'} " in shown
    )
    assert f"longest sequence, in tokens (default: {terms.context})" in shown
    assert (f"by the steps (default: {Protocol.equal})" in shown) == (command == "ablate")


def test_a_text_stands_once():
    texts = [field.metadata["text"] for made in (Config, Settings, Protocol) for field in options_of(made).values()]
    counted = dict.fromkeys(texts, 0)
    for path in Path(minillama.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in counted:
                counted[node.value] += 1
    assert len(counted) == len(texts) > 30 and set(counted.values()) == {1}, counted


@dataclass
class _Made:
    plain: int = 3
    several: int = option(2, "how many")
    share: float | None = option(None, "how much (default: all)")
    kind: str = option("a", "which of them", {"a": None, "b": None})
    name: str = option("x", "what it is called")
    places: tuple[str, ...] = option((), "where", ("here", "there"))
    loud: bool = option(True, "say it")


def test_each_kind_of_field_makes_an_option():
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    add_fields(parser, _Made)
    words = "--several 4 --share 0.5 --kind b --name y --places here there --no-loud".split()
    expected = dict(several=4, share=0.5, kind="b", name="y", places=["here", "there"], loud=False)
    assert vars(parser.parse_args(words)) == expected and vars(parser.parse_args([])) == {}
    text = " ".join(parser.format_help().split())
    for said in (
        "how many (default: 2)",
        "(default: all)",
        "(default: a)",
        "where (default: none)",
        "it (default: yes)",
    ):
        assert said in text
    with pytest.raises(SystemExit):
        parser.parse_args(["--kind", "c"])
    parser = argparse.ArgumentParser()
    add_fields(parser, _Made, ["several", "share"], _Made(several=7), several="how often")
    text = " ".join(parser.format_help().split())
    assert "how often (default: 7)" in text and "--kind" not in text
