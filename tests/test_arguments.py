"""The command line's parser: every mistake in an option is explained where it was made, and no option is guessed."""

import argparse
import ast
import os
import random
import re
import shlex
from pathlib import Path

import pytest

import minillama
from minillama import __main__, messages
from minillama.cli import arguments
from minillama.cli.arguments import Parser
from minillama.messages import command_line, quoted

from .conftest import whole_parser

PARSER = whole_parser()
posix = pytest.mark.skipif(os.name == "nt", reason="shlex reads what POSIX shells read")


def leaves(parser, line=""):
    """(line of the command, its parser) of every command that has no further ones."""
    inner = parser._inner()
    if inner is None:
        yield line, parser
        return
    for name, below in inner.choices.items():
        yield from leaves(below, f"{line} {name}".strip())


LEAVES = dict(leaves(PARSER))
OPTIONS = [
    (line, option) for line, leaf in LEAVES.items() for option in leaf._option_string_actions if option[:2] == "--"
]
WITH_VALUE = [
    (line, name, leaf._option_string_actions[name])
    for line, leaf in LEAVES.items()
    for name in leaf._option_string_actions
    if leaf._option_string_actions[name].nargs is None
]


@pytest.fixture
def refused(capsys):
    """refused(*words): what the parser says of words that it does not take, the last line; and the usage above it."""

    def run(*words):
        with pytest.raises(SystemExit) as stop:
            PARSER.parse_args(list(words))
        captured = capsys.readouterr()
        assert stop.value.code == 2 and not captured.out
        return captured.err.splitlines()[-1], captured.err

    return run


def names(message, option):
    return re.search(rf"(?<![\w-]){option}(?![\w-])", message) is not None


def test_every_command_is_looked_at():
    assert {"train", "sample", "tokenizer encode", "table"} <= LEAVES.keys() and len(LEAVES) >= 16
    assert len(OPTIONS) > 100 and all(isinstance(leaf, Parser) for leaf in LEAVES.values())


def test_an_option_that_is_nearly_right_is_named_under_the_usage_of_its_command(refused):
    tried = 0
    for line, option in OPTIONS:
        name, known = option[2:], LEAVES[line]._option_string_actions
        same = {"--" + name.replace("-", "_"), "-" + name, option.upper(), "--" + name.replace("-", "–")}
        same |= {dash + name for dash in ("–", "—", "−", "–-", "‐‐")}
        shorter = {f"--{name[:i]}{name[i + 1 :]}" for i in range(len(name)) if name[i] != "-"}
        for word in (same | shorter) - known.keys():
            message, whole = refused(*line.split(), word, "1")
            assert names(message.split("did you mean")[-1], option), (line, word, message)
            assert message.startswith(f"minillama {line}: error: there is no option {word}"), message
            assert whole.startswith(f"usage: minillama {line} "), whole
            assert word in shorter or message.endswith(f"; did you mean {option}?"), message  # no other is offered
            tried += 1
    assert tried > 1000


def test_no_option_can_be_shortened(refused):
    for line, option in OPTIONS:
        known = LEAVES[line]._option_string_actions
        for end in range(4, len(option)):
            short = option[:end]
            if short not in known and short[2:] not in LEAVES[line].meant:
                message, _ = refused(*line.split(), short, "1")
                if sum(other.startswith(short.rstrip("-")) for other in known) == 1:
                    assert names(message, option), (line, short, message)


def test_a_value_of_another_type_says_which_option_what_came_and_what_is_expected(refused):
    tried = 0
    for line, name, option in WITH_VALUE:
        if option.type in (int, float):
            for value in ("x1", "--lr", "", "1,5x"):
                message, whole = refused(*line.split(), *positionals(line), f"{name}={value}")
                kind = "whole number" if option.type is int else "number, such as"
                assert f"argument {name}: must be a {kind}" in message and f"received {value!r}" in message, message
                assert whole.startswith(f"usage: minillama {line} ")
                tried += 1
    assert tried > 100


def positionals(line):
    """A word for each that the command wants without an option, and the options that it cannot do without."""
    for action in LEAVES[line]._actions:
        if action.option_strings and action.required:
            yield from (action.option_strings[0], "x")
        elif not action.option_strings and action.nargs in (None, "+"):
            yield "x"


def test_a_missing_value_is_said_before_the_next_option_is_swallowed(refused):
    for line, name, _ in WITH_VALUE:
        assert f"{name} needs a value" in refused(*line.split(), name)[0]
        message, _ = refused(*line.split(), name, "--help")
        assert f"{name} needs a value" in message and "and --help stands behind it" in message


@pytest.mark.parametrize(
    "text, hint",
    [
        ("1,000", "; did you mean 1000?"),
        ("1e3", "; did you mean 1000?"),
        ("600.0", "; did you mean 600?"),
        ("1.5", "'1.5'"),
    ],
)
def test_whole_numbers_as_people_write_them(text, hint, refused):
    assert refused("train", "--steps", text)[0].endswith(hint)


def test_negative_numbers_are_values():
    options = PARSER.parse_args(["train", "--weight-decay", "-1e-3", "--seed", "-5", "--dropout", "-.5"])
    assert (options.weight_decay, options.seed, options.dropout) == (-1e-3, -5, -0.5)


@pytest.mark.parametrize(
    "line, words",
    [
        ("trian", ("'trian'; did you mean train?",)),
        ("Sample runs/a", ("'Sample'; did you mean sample?",)),
        ("encode t x", ("did you mean tokenizer encode?",)),
        ("tokenizer encod t x", ("minillama tokenizer: error", "did you mean encode or decode?")),
        ("frobnicate", ("there are train, sample,", "minillama --help")),
        ("--steps 5 train", ("no option --steps before the command", "as in minillama train --steps")),
        ("train my.txt", ("'my.txt' is a word too many", "minillama train --data my.txt?")),
        ("train my.txt --steps 5", ("minillama train --steps 5 --data my.txt?",)),
        ("train --data my file.txt", ("'file.txt' is a word too many behind --data my", "--data 'my file.txt'")),
        ("train '--steps 5'", ("'--steps 5' is one word",)),
        ("train “my file.txt”", ("Typographic quotes",)),
        ("train --tied yes", ("--tied takes no value, and 'yes'", "--no-tied")),
        ("train --resume=1", ("--resume takes no value, and '1'",)),
        ("train --norm rmsnrm", ("argument --norm: must be one of rmsnorm", "did you mean rmsnorm?")),
        ("train --learning-rate 1", ("did you mean --lr?",)),
        ("sample --model runs/a", ("MODEL is given without one, as in minillama sample runs/a",)),
        ("sample --model=runs/a", ("MODEL is given without one, as in minillama sample runs/a",)),
        ("sample runs/a 'Once upon'", ("minillama sample runs/a --prompt 'Once upon'?",)),
        ("sample runs/a Once upon", ("minillama sample runs/a --prompt 'Once upon'?",)),
        ("sample runs/a --prompt Once upon", ("'upon' is a word too many", "--prompt 'Once upon'")),
        ("sample runs/a --prompt -x", ("--prompt needs a value", "--prompt=-x")),
        ("sample runs/a --steps 5", ("no option --steps of sample, but of train, compare and ablate",)),
        ("chat runs/a Hello", ("'Hello' is a word too many", "A question is typed")),
        ("fill runs/a Once ___ a", ("'___' is a word too many", "needs quotes: 'Once ___ a'")),
        ("inspect runs/a text --out f", ("minillama inspect runs/a --out f --prompt text?",)),
        ("perplexity runs/a --file x", ("FILE is given without one, as in minillama perplexity MODEL x",)),
        ("convert a --out b", ("DST is given without one, as in minillama convert SRC b",)),
        ("convert --src a", ("SRC is given without one, as in minillama convert a DST",)),
        ("download --name x", ("NAME is given without one, as in minillama download x",)),
        ("download x folder", ("minillama download x --out folder?",)),
        ("info --model x", ("is given without one, as in minillama info x",)),
        ("info a b", ("'b' is a word too many", "minillama table shows several")),
        ("tokenizer train a.txt t", ("minillama tokenizer train a.txt --out t?",)),
        ("tokenizer encode t --text x", ("TEXT is given without one",)),
        ("tokenizer encode t a b", ("needs quotes: 'a b'",)),
        ("ablate --corpora a --corpora b", ("--corpora is given twice",)),
    ],
)
def test_what_was_meant_is_said(line, words, refused, monkeypatch):
    monkeypatch.setattr(messages, "_WINDOWS", False)
    message, _ = refused(*shlex.split(line))
    assert all(word in message for word in words), message


def test_a_word_too_many_and_a_name_for_what_has_none_are_explained_for_every_command(refused):
    for line, leaf in LEAVES.items():
        taken = [action for action in leaf._actions if not action.option_strings]
        if all(action.nargs in (None, "?") for action in taken):
            message, _ = refused(*line.split(), *["x"] * len(taken), "one")
            assert "'one'" in message and ("did you mean" in message or "needs quotes" in message or ". " in message), (
                line
            )
        for action in taken:
            if f"--{action.dest}" not in leaf._option_string_actions:
                message, _ = refused(*line.split(), f"--{action.dest}", "x")
                assert f"{action.metavar} is given without one, as in minillama {line} " in message, message


def test_what_the_hints_speak_of_exists():
    for leaf in LEAVES.values():
        assert not leaf.surplus.startswith("--") or leaf.surplus in leaf._option_string_actions
        dests = {action.dest for action in leaf._actions if not action.option_strings}
        assert set(leaf.meant.values()) == dests
        assert not {f"--{name}" for name in leaf.meant} & {*leaf._option_string_actions}
    assert sum(bool(leaf.surplus) for leaf in LEAVES.values()) == 9
    every = {option[2:] for _, option in OPTIONS}
    assert set(arguments._SYNONYMS.values()) <= every and not arguments._SYNONYMS.keys() & every - {"text", "file"}


@pytest.mark.parametrize("words", [[], ["tokenizer"]])
def test_no_command_at_all_prints_the_help(words, capsys):
    with pytest.raises(SystemExit) as stop:
        __main__.main(words)
    assert stop.value.code == 2 and "COMMAND" in (err := capsys.readouterr().err) and "positional arguments" in err


def test_empty_names_are_refused_and_empty_texts_are_not(refused):
    for line, name, option in WITH_VALUE:
        if option.type in (None, str) and not option.choices and option.metavar not in ("TEXT", "MARK"):
            assert f"{name} is empty" in refused(*line.split(), *positionals(line), name, "")[0]
    for line in ("sample", "perplexity", "info", "tokenizer decode"):
        assert "is empty" in refused(*line.split(), *([""] * len(list(positionals(line)))))[0]
    assert PARSER.parse_args(["sample", "x", "--prompt", ""]).prompt == ""


def test_the_parser_knows_what_was_given():
    assert PARSER.parse_args(["compare"]).given == set()
    options = PARSER.parse_args(["compare", "--seeds=2", "x", "--untuned"])
    assert options.given == {"seeds", "data", "untuned"} and options.line == "compare"
    assert PARSER.parse_args(["tokenizer", "encode", "--", "t", "-x"]).given == {"tokenizer", "text"}
    assert PARSER.parse_args(["tokenizer", "encode", "--", "t", "-x"]).text == "-x"


# Commands to paste

NASTY = [
    "my model", "it's", 'a "quote"', "$HOME", "a;b & c|d", "`date`", "-x", "--out", "café ☕", "~", "*", "a\\b", "#1",
    "!x", "{folder}", "a=b", "(1)", "“q”",
]  # fmt: skip


@posix
def test_a_command_line_is_read_back_as_what_it_was_made_of():
    rng = random.Random(0)
    letters = "ab -$'\"\\`;&|<>(){}[]*?!#~=%^é☕\n\t"
    for name in [*NASTY, *("".join(rng.choices(letters, k=rng.randint(1, 12))) for _ in range(500))]:
        words = shlex.split(command_line("train", ("--out", Path(name)), "--resume"))
        options = PARSER.parse_args(words[1:])
        assert words[0] == "minillama" and Path(options.out) == Path(name) and options.resume
        options = PARSER.parse_args(shlex.split(command_line("sample", Path(name), ("--prompt", name)))[1:])
        assert Path(options.model) == Path(name) and options.prompt == name


def test_a_command_line_for_windows(monkeypatch):
    monkeypatch.setattr(messages, "_WINDOWS", True)
    words = ("C:\\my runs\\a", "plain", "a&b", "a&b\\", 'say "x"')
    assert [quoted(word) for word in words] == ['"C:\\my runs\\a"', "plain", '"a&b"', '"a&b\\\\"', '"say \\"x\\""']


def pasted(text):
    """What the only command in a text asks for, read as a shell and our parser read it."""
    (found,) = re.findall(r"(?:^  |: |try )minillama (.*)$", text, re.MULTILINE)
    return PARSER.parse_args(shlex.split(found.split("    ")[0]))


@posix
@pytest.mark.parametrize("name", NASTY)
def test_what_commands_print_to_go_on_with_can_be_pasted(name, tmp_path, cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my.txt").write_text("the cat sat on the mat.\n" * 60, encoding="utf-8")
    tiny = "--data my.txt --tokenizer char --context 16 --dim 16 --layers 1 --heads 2 --batch-size 2 --threads 1"
    code, out, err = cli("train", f"--out={name}", *tiny.split(), "--steps", 2)
    assert code == 0, err
    assert (pasted(out).line, Path(pasted(out).model), pasted(out).prompt) == ("sample", Path(name), "TEXT")
    for options in (["fill", f"./{name}", "a ___ b"], ["train", "--resume", "--out", f"./{name}/below"]):
        code, _, err = cli(*options)
        found = pasted(err)
        assert code == 1 and Path(found.model if found.line == "sample" else found.out) == Path(name), err
    bidirectional = ["--family", "bert", "--steps", 2, "--out", f"./{name}/bert"]
    code, out, _ = cli("train", *tiny.split(), *bidirectional)
    assert code == 0 and Path(pasted(out).model) == Path(name) / "bert" and "___" in pasted(out).text
    code, _, err = cli("sample", f"./{name}/bert")
    assert code == 1 and Path(pasted(err).model) == Path(name) / "bert" and pasted(err).line == "fill"
    monkeypatch.setattr(
        "minillama.training.run.Run.train", lambda run: setattr(run, "stopped_by", 2)
    )  # as after Ctrl-C
    code, out, _ = cli("train", "--resume", "--out", f"./{name}")
    assert code == 130 and Path(pasted(out).out) == Path(name) and pasted(out).resume


def test_no_command_is_printed_with_a_name_that_is_not_quoted():
    """In no f-string of the package stands a value behind the name of a command: command_line makes such texts."""
    verbs = "|".join(PARSER._inner().choices)
    for path in Path(minillama.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.JoinedStr):
                continue
            text = "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
            assert not re.search(rf"minillama ({verbs})\b[^.;:,]*\0", text), f"{path.name}:{node.lineno}: {text!r}"


def test_parsers_of_argparse_have_all_that_is_used_here():
    """These names of argparse are not in its documentation; a Python without one of them must be noticed here."""
    assert isinstance(PARSER._inner(), argparse._SubParsersAction) and PARSER._option_string_actions and PARSER._actions


@pytest.mark.parametrize(
    "line, words",
    [
        ("studnet x", "there is no command 'studnet'; did you mean student?"),
        ("grade x --time_out 5", "there is no option --time_out; did you mean --timeout?"),
        ("run --machine", "--machine needs a value, MACHINE, and nothing stands behind it"),
        ("student x y", "'y' is a word too many"),
    ],
)
def test_the_tools_of_the_lessons_have_the_same_parser(line, words, capsys):
    from minillama.lessons.__main__ import main

    with pytest.raises(SystemExit) as stop:
        main(line.split())
    err = capsys.readouterr().err
    assert stop.value.code == 2 and words in err and err.startswith("usage: python -m minillama.lessons"), err
