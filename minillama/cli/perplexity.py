"""minillama perplexity: how well a model predicts text files."""

from .inputs import load_with_tokenizer
from .options import MODEL, add_threads
from .rounding import add_rounding, rounded


def add_arguments(parser):
    parser.add_positional("model", also=("run", "path"), metavar="MODEL", help=MODEL)
    text = (
        "UTF-8 text files, or - for standard input, each scored by itself; <|endoftext|> in a file stands between "
        "documents, where the tokenizer has it"
    )
    parser.add_positional("files", also=("file", "data", "text"), nargs="+", metavar="FILE", help=text)
    text = "tokens in a window (default: the model's context, at most 2048)"
    parser.add_argument("--context", type=int, metavar="N", help=text)
    text = "tokens from window to window; fewer give every token more context and take longer (default: half a window)"
    parser.add_argument("--stride", type=int, metavar="N", help=text)
    text = "of a bidirectional model: hide each token in turn, and predict it from those around it"
    parser.add_argument("--pseudo", action="store_true", help=text)
    add_rounding(parser)
    add_threads(parser)


def run(options):
    from tqdm import tqdm

    from ..analysis.perplexity import (
        check_readable,
        check_windows,
        perplexity,
        pseudo_perplexity,
        require_causal,
        table,
    )

    model, tokenizer = load_with_tokenizer(options)
    if not options.pseudo:
        require_causal(model)
    elif options.stride is not None:
        raise ValueError("pseudo-perplexity reads windows side by side; leave --stride out")
    context, stride = check_windows(model, options.context, options.stride)
    model = rounded(model, options)
    scores = []
    for path, size, text in check_readable(options.files):
        with tqdm(total=size, unit="B", unit_scale=True, desc=path, leave=False) as bar:

            def report(tokens, bar=bar):
                # Tokens can be longer than their text: an unknown one has a name, WordPiece puts blanks between words.
                read = len(tokenizer.decode_bytes(tokens))
                bar.update(read if bar.total is None else min(read, bar.total - bar.n))

            if options.pseudo:
                score = pseudo_perplexity(model, tokenizer, text, context, report)
            else:
                score = perplexity(model, tokenizer, text, context, stride, report)
        scores.append((path, score))
    print(table(scores))
    if options.pseudo:
        print(f"\npseudo-perplexity: each token is hidden in turn, and read from the others in its {context} tokens")
        return
    print(
        f"\nwindows of {context} tokens, {stride} apart: a token is scored by up to {context} tokens before it, and by "
        f"at least {context - stride + 1} after the first window"
    )
