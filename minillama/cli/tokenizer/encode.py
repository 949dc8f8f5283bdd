"""minillama tokenizer encode: turn text into token ids."""

from .. import streams
from . import TOKENIZER


def add_arguments(parser):
    parser.add_positional("tokenizer", also=("path", "model"), metavar="PATH", help=TOKENIZER)
    text = "the text; special tokens in it count (default: what comes in on standard input)"
    parser.add_positional("text", nargs="?", metavar="TEXT", help=text)


def run(options):
    from ...tokenizers import load_tokenizer

    try:
        text = streams.standard_input().buffer.read().decode("utf-8") if options.text is None else options.text
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8 at byte {error.start}; encode takes text in UTF-8") from error
    print(*load_tokenizer(options.tokenizer).encode(text))
