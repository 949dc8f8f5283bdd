"""minillama sample: continue a text with a model."""

import sys

from .options import MODEL
from .writing import IDLE as IDLE
from .writing import add_writing, load_writer, published_settings


def add_arguments(parser):
    parser.surplus = "--prompt"
    parser.add_positional("model", also=("run", "path", "checkpoint", "out"), metavar="MODEL", help=MODEL)
    text = "the text to continue (default: none, the model begins)"
    parser.add_argument("--prompt", default="", metavar="TEXT", help=text)
    parser.add_argument(
        "--sliding-window",
        action="store_true",
        help="go on beyond the context, forgetting the older half of the text when it is full, until the model ends "
        "its text or --max-tokens are written",
    )
    add_writing(parser)


def run(options):
    from ..generation.generate import generate
    from ..tokenizers.vocabulary import check_ids

    model, tokenizer = load_writer(options)
    prompt, end = list(tokenizer.encode(options.prompt, special=False)), tokenizer.end_of_text
    begin = tokenizer.begin_of_text
    if begin is not None:
        prompt = [begin, *prompt]
    elif not prompt:
        if b"\n" not in tokenizer.vocab:
            raise ValueError("this model has no token that a text begins with; give the beginning with --prompt")
        prompt = list(tokenizer.encode("\n"))
    check_ids(prompt, tokenizer, model.config.vocab_size)
    settings, ends = published_settings(options, model)
    stop = {begin, end, *ends}  # where another text begins, this one has ended as well
    tokens = generate(
        model, prompt, options.max_tokens, **settings, seed=options.seed, stop=stop,
        sliding_window=options.sliding_window, vocab_size=tokenizer.vocab_size,
    )  # fmt: skip
    stream, last = tokenizer.stream(), None
    for token in prompt:
        stream.feed(token)  # a token may be spelled in another way at the start of a text
    print(options.prompt, end="", flush=True)
    try:
        for last in tokens:
            if last not in stop:
                print(stream.feed(last), end="", flush=True)
    except KeyboardInterrupt:
        print()
        return 130
    print(stream.finish())
    if options.max_tokens is None and last not in stop:
        context = model.config.cached_context
        print(f"[the context of {context} tokens is full; --sliding-window goes on beyond it]", file=sys.stderr)
