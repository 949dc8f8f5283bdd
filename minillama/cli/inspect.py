"""minillama inspect: what happens inside of a model that reads a prompt."""

from ..files import require_free
from .inputs import load_with_tokenizer
from .options import MODEL, OTHER_FOLDER, add_overwrite, add_threads, with_default


def add_arguments(parser):
    parser.surplus = "--prompt"
    parser.add_positional("model", also=("run", "path"), metavar="MODEL", help=MODEL)
    text = "the text to read; special tokens in it count"
    parser.add_argument("--prompt", required=True, metavar="TEXT", help=text)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder that receives the figures, as PNG")
    add_overwrite(parser, "replace the figures that are there")
    text = "layer whose attention is drawn, from 0 (default: all)"
    parser.add_argument("--layer", type=int, metavar="N", help=text)
    text = with_default("tokens to print for each layer", 5)
    parser.add_argument("--top", type=int, default=5, metavar="N", help=text)
    add_threads(parser)


def run(options):
    from ..analysis import plots  # noqa: F401, what figures need is said before any work
    from ..analysis.trace import draw, drawn, lens_table, prompt_ids, trace

    model, tokenizer = load_with_tokenizer(options)
    if not 1 <= options.top <= model.config.vocab_size:
        raise ValueError(
            f"--top must lie in [1, {model.config.vocab_size}], the tokens that there are; received {options.top}"
        )
    layers = range(model.config.layers) if options.layer is None else [options.layer]
    require_free(drawn(options.out, layers), options.overwrite, OTHER_FOLDER)
    ids = prompt_ids(model, tokenizer, options.prompt)
    seen = trace(model, ids, layers=None if options.layer is None else [options.layer])
    gaps = [] if tokenizer.mask_token is None else [i for i, token in enumerate(ids) if token == tokenizer.mask_token]
    print(lens_table(model, tokenizer, seen, gaps[0] if gaps else len(ids) - 1, options.top))
    for path in draw(model, tokenizer, seen, options.out):
        print(path)
