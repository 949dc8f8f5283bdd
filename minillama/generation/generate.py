"""Text from a model: sampling with a key/value cache, one token at a time."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .. import backend
from ..runtime.memory import Arena, KVCache, empty, frame

if TYPE_CHECKING:
    from ..model import Model


def check_sampling(
    temperature: float,
    top_k: int | None,
    top_p: float,
    max_tokens: int | None = None,
    seed: int = 0,
    repetition_penalty: float = 1.0,
) -> None:
    """ValueError for settings that do not describe a distribution, or how to draw from it."""
    if not temperature > 0:
        raise ValueError(
            f"temperature must be above 0; received {temperature}. For the most likely token every time, use top-k 1"
        )
    if top_k is not None and top_k < 1:
        raise ValueError(f"top-k must be at least 1, the number of tokens to choose from; received {top_k}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top-p must lie in (0, 1], the share of probability to choose from; received {top_p}")
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1; received {max_tokens}")
    if seed < 0:
        raise ValueError(f"seed must not be negative; received {seed}")
    if not 0.001 <= repetition_penalty <= 1000:
        raise ValueError(
            f"repetition penalty must lie in [0.001, 1000]; received {repetition_penalty}. 1 is none, 1.2 a usual one"
        )


def next_token_distribution(
    logits: np.ndarray, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> np.ndarray:
    """softmax(logits / temperature), cut to the top_k likeliest tokens, then to the fewest that hold top_p of it

    logits (V,) -> probabilities (V,) in float64 that add up to 1. Source of top-p (nucleus): Holtzman et al. 2020
    (arXiv 1904.09751), section 3.1.
    """
    p = _weights(logits, temperature, top_k, top_p)
    p /= p.sum()
    return p


def _weights(logits: np.ndarray, temperature: float, top_k: int | None, top_p: float) -> np.ndarray:
    """next_token_distribution before it is divided by its sum; draw does not need that."""
    z, p = backend.active().softmax_weights(logits, temperature)
    if np.isnan(p[0]):
        raise ValueError("the logits are not finite: the weights of this model are damaged, or its training diverged")
    if top_k is not None:
        _keep_likeliest(p, z, top_k, None)
    if top_p < 1:
        _keep_likeliest(p, z, top_p * p.sum(), p)
    return p


def _keep_likeliest(p: np.ndarray, z: np.ndarray, limit: float, weights: np.ndarray | None) -> None:
    """0 for the tokens whose likelier ones weigh `limit` or more (each 1 if weights is None); of equals the first stay

    To sort a large vocabulary would take longer than the model does. So tokens are counted by bins of z, which is
    log p up to a constant and at most 0, and only the bin where the limit falls is sorted.
    """
    with frame():
        scaled, bins = empty(z.shape, z.dtype), empty(z.shape, np.intp)
        bins[:] = np.minimum(np.multiply(z, -64, out=scaled), 4095, out=scaled)
        sums = np.bincount(bins, weights)
        before = sums.cumsum() - sums  # what the bins of likelier tokens weigh
        last = np.flatnonzero(before < limit)[-1]
        tokens = np.flatnonzero(bins == last)
        tokens = tokens[np.argsort(-z[tokens], kind="stable")]
        own = np.ones(len(tokens)) if weights is None else weights[tokens]
        p *= bins <= last
        p[tokens[before[last] + own.cumsum() - own >= limit]] = 0


def penalise(logits: np.ndarray, tokens: Sequence[int], penalty: float) -> None:
    """Make tokens that occurred less likely: their logits are divided by the penalty, or multiplied where negative

    logits (V,) are changed in place; tokens: ids, each once. A penalty below 1 makes them more likely.
    Source: Keskar et al. 2019, CTRL (arXiv 1909.05858), section 4.1, which divides all of them; a negative logit would
    rise by that, so transformers multiplies it, and so does this.
    """
    chosen = logits[tokens]
    logits[tokens] = np.where(chosen < 0, chosen * penalty, chosen / penalty)


def draw(p: np.ndarray, u: float) -> int:
    """The token where the running sum of p (V,) passes the share u, in [0, 1), of its total."""
    return backend.active().draw(p, u)


def fill(
    model: "Model", ids: ArrayLike, mask_token: int, vocab_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The gaps of a text, filled one after the other, the surest first: ids (T,), probabilities (T,)

    ids (T,) of a bidirectional model, with mask_token in the place of each gap. A gap gets its most likely token, and
    the next one is chosen knowing it; its probability at that time is returned, 1 where there was no gap. vocab_size is
    that of `generate`.
    Source of the order: Ghazvininejad et al. 2019, Mask-Predict (arXiv 1904.09324), section 3, a token at a time.
    """
    if model.config.causal:
        raise ValueError("this model reads only what comes before a gap, so it cannot fill one; use generate")
    ids = np.array(ids)
    probabilities = np.ones(len(ids))
    while len(gaps := np.flatnonzero(ids == mask_token)):
        logits = model.logits(ids[None])[0, gaps, :vocab_size].astype(np.float64)
        logits[:, mask_token] = -np.inf
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        surest = int(p.max(axis=1).argmax())
        ids[gaps[surest]], probabilities[gaps[surest]] = p[surest].argmax(), p[surest].max()
    return ids, probabilities


def generate(
    model: "Model", prompt: Iterable[int], max_tokens: int | None = None, temperature: float = 1.0,
    top_k: int | None = None, top_p: float = 1.0, seed: int = 0, stop: Iterable[int | None] = (),
    sliding_window: bool = False, cache: KVCache | None = None, vocab_size: int | None = None,
    repetition_penalty: float = 1.0,
) -> Iterator[int]:  # fmt: skip
    """Yield up to max_tokens token ids that continue the prompt, a list of ids; ends after one of the tokens in `stop`

    Prompt and answer together must fit model.config.cached_context, which is the context of most models, or a
    ValueError says so before anything is computed; max_tokens None means as many as fit. With sliding_window the answer
    may be longer: whenever the context is full, the older half of it is forgotten, and of a prompt that is longer than
    the context the end is read; max_tokens None then means until a token of `stop` comes.

    vocab_size: of the tokenizer, where the model has rows for more ids, which fill its matrices up to a round number
    and stand for no text. They are not drawn: temperature, top_k and top_p act on the ids below vocab_size alone.

    A KVCache that is given holds the first cache.length tokens of the prompt, which are not read again, and afterwards
    all of the text that was read: prompt and answer without the last token. To forget the end of a text, let its length
    be less. The repetition penalty is for all tokens of prompt and answer, also those that a sliding window forgot.
    """
    check_sampling(temperature, top_k, top_p, max_tokens, seed, repetition_penalty)
    context, text = model.config.cached_context, [int(token) for token in prompt]
    if not text:
        raise ValueError("the prompt is empty; begin with the end-of-text token, or with a character")
    if vocab_size is not None and vocab_size < 1:
        raise ValueError(f"vocab_size must be at least 1, the number of tokens to choose from; received {vocab_size}")
    ends = {int(token) for token in stop if token is not None}
    if max_tokens is None and sliding_window:
        if not any(token < min(model.config.vocab_size, vocab_size or model.config.vocab_size) for token in ends):
            raise ValueError(
                "with the sliding window a text goes on until the model ends it, and here no token ends a text; say "
                "how many tokens to write with max_tokens (--max-tokens)"
            )
    elif max_tokens is None:
        max_tokens = max(1, context - len(text))
    if not sliding_window and max_tokens is not None and len(text) + max_tokens > context:
        raise ValueError(
            f"a prompt of {len(text)} tokens and an answer of {max_tokens} do not fit this model's context of "
            f"{context} tokens; shorten them, or ask for the sliding window, which forgets the older half of the text"
        )
    if cache is None:
        room = context if max_tokens is None else min(len(text) + max_tokens, context)
        cache = model.new_cache(room=room)
    elif sliding_window:
        raise ValueError("a cache holds the beginning of a text, which the sliding window forgets; choose one of them")
    elif cache.length >= len(text):
        raise ValueError(
            f"the cache holds {cache.length} tokens and the prompt has {len(text)}: at least its last token must be "
            f"read; lower cache.length"
        )
    rng = np.random.default_rng(seed)
    return _generate(
        model, text, max_tokens, temperature, top_k, top_p, rng, ends, cache, vocab_size, repetition_penalty
    )


def _generate(
    model: "Model", text: list[int], max_tokens: int | None, temperature: float, top_k: int | None, top_p: float,
    rng: np.random.Generator, stop: set[int], cache: KVCache, vocab_size: int | None, repetition_penalty: float,
) -> Iterator[int]:  # fmt: skip
    context = model.config.cached_context
    new = text[cache.length :][-(context - 1) :]
    occurred = set(text)
    arena = Arena()  # memory given back and asked for again at every token is cleared by the system each time
    for _ in count() if max_tokens is None else range(max_tokens):
        if cache.length + len(new) > context:
            cache.length, new = 0, text[-(context // 2) :]
        with arena.active():
            logits = model.next_logits(np.array([new]), cache)[0]
            if repetition_penalty != 1:
                penalise(logits, list(occurred), repetition_penalty)
            logits = logits[:vocab_size]
            token = draw(_weights(logits, temperature, top_k, top_p), rng.random())
        yield token
        if token in stop:
            return
        text.append(token)
        occurred.add(token)
        new = [token]
