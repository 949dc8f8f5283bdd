"""Hidden tokens: what models that read the whole text are trained to predict."""

import numpy as np

from ...generation.generate import fill
from ...ops.loss import IGNORED

MASKED_SHARE = 0.15  # of the tokens: these are predicted
HIDDEN, CHANGED = 0.8, 0.1  # of those: replaced by the mask token; replaced by any token; the rest stays as it is
_EVALUATION_SEED = 0


def examples(tokenizer, ids, targets, rng):
    """Of 15 % of the tokens, at random: 80 % become the mask token, 10 % any token, 10 % stay; these are the targets

    The tokens that stay or change keep the model from relying on the mask token, which no real text has. Special tokens
    are neither predicted nor drawn. Source: Devlin et al. 2018 (BERT, arXiv 1810.04805), section 3.1.
    """
    special = np.isin(ids, list(tokenizer.special_tokens.values()))
    predicted = (rng.random(ids.shape) < MASKED_SHARE) & ~special
    if not predicted.any():  # of a tiny batch: there must be something to learn
        row, column = np.argwhere(~special)[rng.integers(np.count_nonzero(~special))]
        predicted[row, column] = True
    fate = rng.random(ids.shape)
    ordinary = np.setdiff1d(np.arange(tokenizer.vocab_size), list(tokenizer.special_tokens.values()))
    others = ordinary[rng.integers(len(ordinary), size=ids.shape)].astype(ids.dtype)
    shown = np.where(predicted & (fate < HIDDEN), tokenizer.mask_token, ids)
    shown = np.where(predicted & (fate >= HIDDEN) & (fate < HIDDEN + CHANGED), others, shown)
    return shown, np.where(predicted, ids, IGNORED)


def evaluation(tokenizer, tokens, context, batch_size):
    """Windows side by side, the last one shorter where they do not fit, with the same gaps every time."""
    whole = len(tokens) // context * context
    windows, rest = tokens[:whole].reshape(-1, context), tokens[None, whole:]
    rng = np.random.default_rng(_EVALUATION_SEED)
    for part in [*(windows[i : i + batch_size] for i in range(0, len(windows), batch_size)), rest]:
        if not np.isin(part, list(tokenizer.special_tokens.values())).all():  # nor is it empty
            yield examples(tokenizer, part, None, rng)


def sample(model, corpus, characters, seed):
    """The beginning of the validation text with gaps, and the same with what the model put into them, in [brackets]."""
    tokenizer = corpus.tokenizer
    ids = corpus.validation[: min(model.config.context, characters)]
    gaps = np.random.default_rng(seed).random(len(ids)) < MASKED_SHARE
    shown = np.where(gaps & ~np.isin(ids, list(tokenizer.special_tokens.values())), tokenizer.mask_token, ids)
    filled, _ = fill(model, shown, tokenizer.mask_token, tokenizer.vocab_size)
    parts = [
        f"[{tokenizer.decode([token])}]" if hidden else tokenizer.decode([token])
        for token, hidden in zip(filled, shown == tokenizer.mask_token, strict=True)
    ]
    return "".join(parts)[:characters]
