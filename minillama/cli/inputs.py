"""What commands read: a model with its tokenizer, and texts."""

import sys

from ..runtime.workers import check_threads
from ..tokenizers.vocabulary import check_tokenizer


def load_with_tokenizer(options):
    """The model and the tokenizer at options.model; ValueError if there is no tokenizer that fits."""
    from ..checkpoint.open import load, load_tokenizer

    if options.threads is not None:
        check_threads(options.threads, "--threads")
    model = load(options.model, options.threads)
    tokenizer = load_tokenizer(options.model, model.config.vocab_size)
    if tokenizer is None:
        raise ValueError(
            f"{options.model} comes without a tokenizer, which turns text into tokens; put its file beside it"
        )
    try:
        check_tokenizer(tokenizer, model.config.vocab_size)
    except ValueError as error:
        raise ValueError(f"{options.model}: {error}") from error
    return model, tokenizer


def say_what_is_read(data):
    """A line on standard error where a text is not just what its name says."""
    from ..data.corpora import what_is_read

    said = what_is_read(data)
    if said is not None:
        print(said, file=sys.stderr)
