"""minillama tokenizer train: train a byte-level BPE tokenizer."""

from pathlib import Path

from ...files import require_free
from ..inputs import say_what_is_read
from ..options import OTHER_FOLDER, add_overwrite, with_default


def add_arguments(parser):
    parser.surplus = "--out"
    text = "a UTF-8 text file, a folder of text files, or stories"
    parser.add_positional("data", also=("file", "text", "corpus"), metavar="FILE", help=text)
    text = with_default("tokens, at most", 1024)
    parser.add_argument("--vocab-size", type=int, default=1024, metavar="N", help=text)
    parser.add_argument("--out", metavar="DIR", required=True, help="folder that receives tokenizer.json")
    add_overwrite(parser, "replace the tokenizer that is there")


def run(options):
    from ...checkpoint.places import require_no_other_model
    from ...data.corpora import read_corpus
    from ...tokenizers import BPETokenizer

    files = [Path(options.out) / name for name in ("tokenizer.json", "tokenizer_config.json")]
    require_no_other_model(options.out, [path.name for path in files], OTHER_FOLDER)
    require_free(files, options.overwrite, OTHER_FOLDER)
    say_what_is_read(options.data)
    tokenizer = BPETokenizer.train(read_corpus(options.data, held_out=0).train, options.vocab_size)
    tokenizer.save(options.out)
    less = f": all that this text gives, of {options.vocab_size} asked for"
    print(f"{tokenizer.vocab_size} tokens in {options.out}{less if tokenizer.vocab_size < options.vocab_size else ''}")
