"""minillama tokenizer decode: turn token ids into text."""

from .. import streams
from . import TOKENIZER


def add_arguments(parser):
    parser.add_positional("tokenizer", also=("path", "model"), metavar="PATH", help=TOKENIZER)
    parser.add_positional("ids", nargs="*", metavar="ID", help="token ids (default: from standard input)")


def run(options):
    from ...tokenizers import load_tokenizer

    words = options.ids or streams.standard_input().read().split()
    if not all(word.isdecimal() for word in words):
        raise ValueError(f"decode takes token ids, whole numbers; received {' '.join(words)[:60]!r}")
    ids = [int(word) for word in words]
    print(load_tokenizer(options.tokenizer).decode(ids))
