"""The token that follows: what models that read from left to right are trained to predict."""

from ...data.batches import document_start, evaluation_batches
from ...generation.generate import generate


def examples(tokenizer, ids, targets, rng):
    """The windows as they are: target t is token t + 1."""
    return ids, targets


def evaluation(tokenizer, tokens, context, batch_size):
    """Windows that predict every token but the first once (minillama.data.batches.evaluation_batches)."""
    return evaluation_batches(tokens, context, batch_size, document_start(tokenizer))


def sample(model, corpus, characters, seed):
    """The beginning of a text by the model as it is."""
    tokenizer = corpus.tokenizer
    start, ends = document_start(tokenizer), {tokenizer.begin_of_text, tokenizer.end_of_text}
    start = corpus.validation[0] if start is None else start
    budget = min(model.config.cached_context - 1, characters)
    tokens = generate(
        model, [start], budget, 0.8, top_p=0.95, seed=seed, stop=ends, vocab_size=tokenizer.vocab_size
    )  # fmt: skip
    tokens = [token for token in tokens if token not in ends]
    return tokenizer.decode(tokens)[:characters]
