"""minillama convert: write a model in another format, with its tokenizer."""

from ..checkpoint.open import FILE_FORMATS, WRITTEN, convert
from .options import add_overwrite


def add_arguments(parser):
    parser.surplus = "--tokenizer"
    kinds = "; ".join(row.describes for row in FILE_FORMATS.values())
    also = ("src", "model", "input", "from")
    parser.add_positional("source", also, metavar="SRC", help=f"the model: {kinds}")
    text = "where to write it: a folder, or a file that ends in .bin"
    parser.add_positional("target", also=("dst", "out", "output", "to"), metavar="DST", help=text)
    text = "of what is written (default: llama2c where DST ends in .bin, else huggingface)"
    parser.add_argument("--format", choices=WRITTEN, help=text)
    text = "file or folder of the tokenizer (default: what lies in the folder SRC, or beside the file)"
    parser.add_argument("--tokenizer", metavar="PATH", help=text)
    parser.add_argument("--int8", action="store_true", help="round the weights to 8 bits, in a file of llama2.c")
    add_overwrite(parser, "replace the model that is there")


def run(options):
    print(convert(options.source, options.target, options.format, options.tokenizer, options.int8, options.overwrite))
