"""What a model is trained to predict. A new objective is a file here and a row in the table.

It follows from the mask: whoever reads the whole text must not be asked for what comes next.

    next_token    target t is token t + 1                                     causal models: LLaMA, GPT
    masked        some tokens are hidden; the targets are those tokens         bidirectional models: BERT

An objective is a row of OBJECTIVES, functions that lead from a corpus to losses:

    batches(corpus, context, settings) -> batches      batches[t], a function of (settings.seed, t) alone, is what a
                                                       step learns from: windows and the tokens that follow each of
                                                       their positions, (B, T), unless an objective has another kind
    examples(tokenizer, *batch, rng) -> examples       made of batches[t]: ids, targets, and weights where they are not
                                                       alike, (B, T)
    loss_and_gradients(model, *examples, micro_batches, noise_seed) -> loss, gradients
                                                       what the optimizer follows; one forward and backward of the
                                                       model, unless an objective needs more
    evaluation(tokenizer, tokens, context, batch_size) yields examples of the validation split, the same every time
    losses(model, examples) -> sum, count              of the losses, and of what they are counted over
    sample(model, corpus, characters, seed) -> text    what the model makes of the validation text

An evaluation leaves an objective as sums and counts, not as means, so that parts of one can be added up.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...config import Config
from ...data.batches import Batches, document_start
from ...model import Model
from ...ops.loss import IGNORED
from ...ops.masks import MASKS
from . import masked, next_token


def windows(corpus, context, settings):
    """Windows of the training split, in random order, document beginnings first (minillama.data.batches.Batches)."""
    return Batches(corpus.train, context, settings.batch_size, settings.seed, document_start(corpus.tokenizer))


def token_losses(model, examples):
    """The sum of the losses of (ids, targets) in nats, and how many targets there are."""
    ids, targets = examples
    predicted = np.count_nonzero(targets != IGNORED)
    return predicted * model.loss(ids, targets), predicted


class Objective(NamedTuple):
    """A row of OBJECTIVES."""

    examples: Callable
    evaluation: Callable
    sample: Callable
    unit: str = "token"  # what a loss is the mean over
    predicts_text: bool = True  # every token, from those before it: so its loss is bounded by the text's entropy
    needs_mask_token: bool = False
    batches: Callable = windows
    loss_and_gradients: Callable = Model.loss_and_gradients  # the weighted sum of the losses, or their mean
    losses: Callable = token_losses


OBJECTIVES = {
    "next_token": Objective(next_token.examples, next_token.evaluation, next_token.sample),
    "masked": Objective(
        masked.examples, masked.evaluation, masked.sample, "hidden token", predicts_text=False, needs_mask_token=True
    ),
}


def objective_of(config: Config) -> Objective:
    """What a model of this config is trained for, where nothing else is asked: a row of OBJECTIVES."""
    return OBJECTIVES[MASKS[config.mask].objective]
