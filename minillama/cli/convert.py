"""minillama convert: write a model in another format, with its tokenizer."""

from ..checkpoint.convert import convert, where_to_write, writer_options
from ..checkpoint.formats import FORMATS, WRITERS
from .options import add_overwrite


def add_arguments(parser):
    parser.surplus = "--tokenizer"
    kinds = "; ".join(row.describes for row in FORMATS.values())
    also = ("src", "model", "input", "from")
    parser.add_positional("source", also, metavar="SRC", help=f"the model: {kinds}")
    kinds = "; ".join(f"{where_to_write(row)}: {name}" for name, row in WRITERS.items())
    also = ("dst", "out", "output")
    parser.add_positional("target", also, metavar="DST", help=f"where to write it: {kinds}")
    parser.add_argument("--to", choices=WRITERS, help="the format (default: that of the name DST)")
    text = "file or folder of the tokenizer (default: what lies in the folder SRC, or beside the file)"
    parser.add_argument("--tokenizer", metavar="PATH", help=text)
    for name, option in writer_options().items():
        kind = {"action": "store_true"}
        if option.choices is not None:
            kind = {"choices": option.choices, "type": type(option.choices[0])}
        parser.add_argument(f"--{name}", **kind, help=option.help)
    add_overwrite(parser, "replace the model that is there")


def run(options):
    given = {name: getattr(options, name) for name in writer_options()}
    print(convert(options.source, options.target, options.to, options.tokenizer, options.overwrite, **given))
