"""What commands that write text with a model have in common: their options, the model, how a token is drawn."""

import sys
from pathlib import Path

from ..checkpoint import generation_config
from ..messages import command_line
from .inputs import load_with_tokenizer
from .options import add_threads, with_default
from .rounding import add_rounding, rounded


def add_writing(parser, writes="tokens to write"):
    """The options of a command that writes text with a model."""
    said = "what the model's files say, else "
    text = with_default("above 0; lower is more predictable", f"{said}{generation_config.TEMPERATURE}")
    parser.add_argument("--temperature", type=float, metavar="X", help=text)
    text = with_default("choose among the K likeliest tokens; 1 takes the likeliest each time", f"{said}all")
    parser.add_argument("--top-k", type=int, metavar="K", help=text)
    text = "choose among the likeliest tokens that hold P of the probability"
    parser.add_argument("--top-p", type=float, metavar="P", help=with_default(text, f"{said}{generation_config.TOP_P}"))
    text = "make tokens that occurred less likely, by dividing their logits; about 1.2 helps against loops"
    parser.add_argument("--repetition-penalty", type=float, metavar="X", help=with_default(text, f"{said}1, none"))
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=with_default("of the random choices", 0))
    parser.add_argument("--max-tokens", type=int, metavar="N", help=with_default(writes, "what fits the context"))
    add_rounding(parser)
    add_threads(parser)


def _likeliest(options):
    if options.top_k == 1:
        return "with --top-k 1 the likeliest token is taken every time"


IDLE = [(("temperature", "top_p", "seed"), _likeliest)]


def load_writer(options):
    """The model and the tokenizer of a command that writes text; ValueError for a model that cannot."""
    if options.max_tokens is not None and options.max_tokens < 1:
        raise ValueError(f"--max-tokens must be at least 1; received {options.max_tokens}")
    model, tokenizer = load_with_tokenizer(options)
    if not model.config.causal:
        instead = command_line("fill", Path(options.model), "TEXT")
        raise ValueError(f"{options.model} fills gaps and writes no text; try {instead}")
    model = rounded(model, options)
    return model, tokenizer


def published_settings(options, model):
    """How to draw: what was asked for, else what the model's files say; and the tokens that they say end a text."""
    from ..checkpoint.open import read_generation

    said = read_generation(options.model, model.config.vocab_size)
    for note in said.notes:
        print(f"minillama: note: {note}", file=sys.stderr)
    asked = options.temperature, options.top_k, options.top_p, options.repetition_penalty
    return said.sampling(*asked), said.end
