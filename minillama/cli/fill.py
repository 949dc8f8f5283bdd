"""minillama fill: fill the gaps of a text with a bidirectional model."""

import sys
from pathlib import Path

from ..messages import command_line
from .inputs import load_with_tokenizer
from .options import MODEL, add_threads, with_default


def add_arguments(parser):
    parser.add_positional("model", also=("run", "path"), metavar="MODEL", help=MODEL)
    text = "the text, with a mark for each token that is missing"
    parser.add_positional("text", also=("prompt",), metavar="TEXT", help=text)
    parser.add_argument("--gap", default="___", metavar="MARK", help=with_default("the mark", "___"))
    add_threads(parser)


def run(options):
    import numpy as np

    from ..analysis.trace import prompt_ids
    from ..generation.generate import fill
    from ..tokenizers import BPETokenizer

    model, tokenizer = load_with_tokenizer(options)
    if model.config.causal:
        instead = command_line("sample", Path(options.model), ("--prompt", "TEXT"))
        raise ValueError(f"{options.model} reads only what comes before a gap; try {instead}")
    if tokenizer.mask_token is None:
        raise ValueError(f"{options.model} has a tokenizer without a special token that marks a gap")
    if not options.gap:
        raise ValueError("--gap must not be empty: it is what marks a missing token in the text")
    mask = next(text for text, token in tokenizer.special_tokens.items() if token == tokenizer.mask_token)
    text = options.text.replace(options.gap, mask)
    if isinstance(tokenizer, BPETokenizer):  # a token of it brings the blank before it along, and so must a gap
        text = text.replace(" " + mask, mask)
    ids = prompt_ids(model, tokenizer, text)
    gaps = np.flatnonzero(ids == tokenizer.mask_token)
    if len(gaps) == 0:
        raise ValueError(f"the text has no gap; write {options.gap} where a token is missing")
    filled, probabilities = fill(model, ids, tokenizer.mask_token, tokenizer.vocab_size)
    print(tokenizer.decode(filled[~np.isin(filled, [tokenizer.begin_of_text, tokenizer.end_of_text])]))
    for place in gaps:
        print(f"{probabilities[place]:8.1%}  {tokenizer.decode(filled[place : place + 1])!r}", file=sys.stderr)
