"""minillama compare: LLaMA, GPT-2 and BERT trained on the same text."""

from pathlib import Path

from ..config import Config
from ..experiments.families import Terms
from ..files import require_folders
from ..runtime.workers import available_threads, check_threads
from ..training.trainer import Settings
from .inputs import say_what_is_read
from .options import add_fields, changed, with_default

_SETTINGS = ("steps", "batch_size", "lr", "init_std")
WITHOUT_STORIES = "leave it out"


def add_arguments(parser):
    parser.surplus = "One text is compared on at a time; a folder of text files is one text"
    text = "as for train (default: stories)"
    also = ("file", "text", "corpus", "corpora")
    parser.add_positional("data", also, nargs="?", default="stories", metavar="DATA", help=text)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help=with_default("seeds 0 to N - 1", 3))
    add_fields(parser, Config, ["context"], Terms)
    text = with_default("tokens of bpe", 1024)
    parser.add_argument("--vocab-size", type=int, default=1024, metavar="N", help=text)
    text = "peak learning rate in the middle of the grid that is tried for each family"
    add_fields(parser, Settings, _SETTINGS, Terms.settings, lr=text)
    text = "train all families with the learning rate --lr, in a third of the time that choosing one for each takes"
    parser.add_argument("--untuned", action="store_true", help=text)
    text = "file that each result is added to as soon as it is there; what it has already is not done again"
    parser.add_argument(
        "--out", default="comparison.jsonl", metavar="FILE", help=with_default(text, "comparison.jsonl")
    )
    text = f"processors to use, one for each training (default: all, here {available_threads()})"
    parser.add_argument("--threads", type=int, metavar="N", help=text)


def run(options):
    from ..experiments.families import TITLES, compare, notes, table

    if Path(options.out).is_dir():
        raise IsADirectoryError(f"{options.out} is a folder, and the rows go to a file; give its name with --out")
    require_folders([options.out], "choose another place with --out")
    context = Terms.context if options.context is None else options.context
    terms = Terms(context=context, settings=changed(Terms.settings, options, _SETTINGS), tune=not options.untuned)
    processes = available_threads() if options.threads is None else check_threads(options.threads, "--threads")
    say_what_is_read(options.data)
    rows = compare(options.data, options.seeds, terms, Path(options.out), options.vocab_size, processes)
    print(table(rows))
    print()
    print(notes(rows))
    for family, title in TITLES.items():
        text = next((row["text"] for row in rows if row["family"] == family and row["loss"] is not None), None)
        if text is not None:
            print(f"\n{title}:\n{text}")
    print(f"\nthe rows are in {options.out}")
