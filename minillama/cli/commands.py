"""The commands: a new one is a file beside this one and a row here. Only the file of what was typed is imported.

The file of a command has

- `add_arguments(parser)`, which gives the command's Parser (minillama.cli.arguments) its options and words;
- `run(options)`, which does the work and returns the exit code, or None for 0; what it raises, `main` explains;
- `IDLE`, if some of its options change nothing beside others, and `unclear(options)`, if a name that is given to it can
  mean two things: see minillama.cli.idle.

What the options need is imported at the head of the file, so that --help is quick, and the rest inside of `run`.
"""

from functools import partial
from importlib import import_module
from typing import NamedTuple

from .. import __version__
from .arguments import Parser


class Command(NamedTuple):
    """Where a command is, and what it does, in a line."""

    module: str | None  # in this package; None for a group, whose commands are the rows that begin with its name
    text: str


COMMANDS = {
    "train": Command("train", "train a model on text"),
    "sample": Command("sample", "continue a text with a model"),
    "chat": Command("chat", "talk with a model that was taught to answer; a line is a question"),
    "fill": Command("fill", "fill the gaps of a text with a bidirectional model"),
    "inspect": Command(
        "inspect", "attention maps, lengths of the residual stream and the logit lens of a model that reads a prompt"
    ),
    "perplexity": Command("perplexity", "how well a model predicts text files, by token and by byte"),
    "compare": Command("compare", "train a tiny LLaMA, GPT-2 and BERT on the same text, and see what each can do"),
    "download": Command(
        "download", "fetch a model or a text from its public address, and check what was received"
    ),
    "tokenizer": Command(None, "train a tokenizer, encode and decode with one"),
    "tokenizer train": Command("tokenizer.train", "train a byte-level BPE tokenizer"),
    "tokenizer encode": Command("tokenizer.encode", "turn text into token ids"),
    "tokenizer decode": Command("tokenizer.decode", "turn token ids into text"),
    "convert": Command("convert", "write a model in another format, with its tokenizer"),
    "bench": Command(
        "bench", "measure speed and memory, in turn with PyTorch where it is installed, and the machine's limits"
    ),
    "ablate": Command("ablate", "compare variants of a LLaMA, trained on equal terms, over seeds"),
    "info": Command("info", "shape, parameters, memory and arithmetic of a model"),
    "table": Command("table", "what is stated of the models beside what follows from their shapes"),
}  # fmt: skip


def make_parser():
    """The parser of the command line, in which a command gets its arguments when it is typed."""
    parser = Parser("minillama", description="Train, sample and inspect tiny LLaMAs, in NumPy.")
    parser.add_argument("--version", action="version", version=__version__)
    groups = {"": parser.add_subparsers(metavar="COMMAND", required=True)}
    for line, (module, text) in COMMANDS.items():
        above, _, name = line.rpartition(" ")
        fill = None if module is None else partial(_fill, module=module)
        made = groups[above].add_parser(name, help=text, description=text, fill=fill)
        if module is None:
            groups[line] = made.add_subparsers(metavar="COMMAND", required=True)
    return parser


def _fill(parser, module):
    command = import_module(f".{module}", __package__)
    parser.set_defaults(command=command)
    command.add_arguments(parser)
