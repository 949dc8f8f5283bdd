"""Training without files: a model, an optimizer, batches and an objective, one step after the other.

Batches and dropout are functions of (seed, step), so that a trainer's weights, its optimizer's state and the number of
the step are all that it takes to go on where another left off. What keeps them in a folder is minillama.training.run.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np

from ..config import option
from ..data.corpora import Batches
from ..ops.loss import IGNORED
from ..ops.masks import MASKS
from ..tokenizers import MASK
from .objectives import OBJECTIVES
from .optim import AdamW, learning_rate

_EVALUATION_TOKENS = 8192  # tokens in one forward pass of an evaluation


@dataclass(frozen=True)
class Settings:
    """How a model is trained. AdamW's betas, weight decay, clipping and the cosine's floor are LLaMA's (arXiv
    2302.13971, section 2.3); learning rate, warm-up and batch suit models of about a million parameters."""

    steps: int = option(600, "updates of the weights")
    batch_size: int = option(8, "sequences in a step")
    micro_batches: int = option(1, "compute a batch in this many parts, one after the other, to save memory")
    lr: float = option(1.5e-3, "peak learning rate")
    warmup: int | None = option(
        None, "steps of linear warm-up, fewer than steps (default: 50, or a tenth of 50 steps and fewer)"
    )
    lr_floor: float = option(0.1, "final learning rate as a share of the peak, reached along a cosine")
    beta1: float = option(0.9, "AdamW: decay of the mean of the gradient")
    beta2: float = option(0.95, "AdamW: decay of the mean of its square")
    weight_decay: float = option(0.1, "AdamW: decay of matrices")
    clip: float = option(1.0, "largest norm of the gradient, a longer one is shortened to it; 0 turns that off")
    seed: int = option(0, "of the initial weights, the order of the data and dropout")
    init_std: float = option(0.06, "standard deviation of the initial weights")  # 0.02 suits widths from 768
    eval_every: int = option(150, "steps between evaluations, samples and checkpoints")

    def __post_init__(self):
        if self.warmup is None:
            few = min(max(1, self.steps // 10), max(0, self.steps - 1))
            object.__setattr__(self, "warmup", 50 if self.steps > 50 else few)
        for name, value in asdict(self).items():
            if not math.isfinite(value):
                off = "; 0 turns clipping off" if name == "clip" else ""
                raise ValueError(f"{name} must be a finite number; received {value}{off}")
        for name in ("steps", "batch_size", "micro_batches", "eval_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; received {getattr(self, name)}")
        for name in ("lr", "init_std"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; received {getattr(self, name)}")
        for name in ("warmup", "weight_decay", "seed", "clip"):
            if not getattr(self, name) >= 0:
                off = "; 0 turns clipping off" if name == "clip" else ""
                raise ValueError(f"{name} must not be negative; received {getattr(self, name)}{off}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1); received {getattr(self, name)}")
        if not 0 <= self.lr_floor <= 1:
            raise ValueError(f"lr_floor is a share of the peak, in [0, 1]; received {self.lr_floor}")
        if self.warmup >= self.steps:
            raise ValueError(
                f"warmup must be less than steps, or the learning rate never comes down from its peak; received warmup "
                f"{self.warmup} and steps {self.steps}. Choose a smaller warmup, or leave it out, which gives "
                f"{Settings(steps=self.steps).warmup}"
            )

    @classmethod
    def saved(cls, values):
        """The Settings of a saved run; earlier ones may have a warm-up as long as the run, and go on with it."""
        settings = cls(**{**values, "warmup": 0})
        object.__setattr__(settings, "warmup", values["warmup"])
        return settings


class NotFinite(ArithmeticError):
    """The loss or the gradient is infinite or not a number; the run stops and writes no checkpoint of it."""


def evaluate(model, tokens, tokenizer):
    """The mean loss in nats over a whole stream of tokens, in the windows of the model's objective."""
    context = model.config.context
    total = count = 0
    evaluation = objective(model.config).evaluation
    for ids, targets in evaluation(tokenizer, tokens, context, max(1, _EVALUATION_TOKENS // context)):
        predicted = np.count_nonzero(targets != IGNORED)
        total += predicted * model.loss(ids, targets)
        count += predicted
    return total / count


def objective(config):
    """What a model of this config is trained for: a row of OBJECTIVES."""
    return OBJECTIVES[MASKS[config.mask].objective]


class Trainer:
    """A model, an optimizer, batches of a corpus and an objective, which follows from the model's mask; writes nothing

        trainer = Trainer(Model(config, settings.seed, init_std=settings.init_std), corpus, settings)
        while trainer.optimizer.steps < settings.steps:
            loss, norm, rate = trainer.step()

    NotFinite from `step` where the loss or its gradient is none. ValueError for a corpus that does not suit the model.
    """

    def __init__(self, model, corpus, settings):
        self.model, self.corpus, self.settings = model, corpus, settings
        config, s = model.config, settings
        self.optimizer = AdamW(model.parameters, (s.beta1, s.beta2), 1e-8, s.weight_decay, s.clip)
        self.batches = Batches(corpus.train, config.context, s.batch_size, s.seed, corpus.tokenizer.end_of_text)
        self.objective = objective(config)
        if self.objective.needs_mask_token and corpus.tokenizer.mask_token is None:
            raise ValueError(
                f"the mask {config.mask!r} asks for a tokenizer with the special token {MASK}; encode the text with "
                f"mask_token=True"
            )
        if len(corpus.validation) < 2:
            raise ValueError("the validation split, a tenth of the text, has fewer than 2 tokens; use more text")

    @property
    def floor(self):
        """The true entropy in nats a token, which no loss of next tokens can beat on average; None if it is unknown."""
        return self.corpus.floor if self.objective.predicts_text else None

    @property
    def unit(self):
        """What a loss is the mean over."""
        return "token" if self.objective.predicts_text else "hidden token"

    def step(self):
        """One step of training: loss of the batch, length of its gradient, learning rate."""
        s, t = self.settings, self.optimizer.steps
        noise_seed = (s.seed * 0x85EBCA6B + t) % 2**32
        ids, targets = self.objective.examples(
            self.corpus.tokenizer, *self.batches[t], np.random.default_rng([s.seed, t, 1])
        )
        loss, gradients = self.model.loss_and_gradients(ids, targets, None, s.micro_batches, noise_seed)
        norm = self.optimizer.gradient_norm(gradients, self.model.workers)
        rate = learning_rate(t + 1, s.steps, s.lr, s.warmup, s.lr_floor)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self.not_finite(f"step {t + 1}: loss {loss}", norm, rate)
        self.optimizer.step(gradients, norm, rate, self.model.workers)
        return loss, norm, rate

    def evaluate(self):
        """The validation loss, over all of the split, in nats a token, or a hidden token."""
        return evaluate(self.model, self.corpus.validation, self.corpus.tokenizer)

    def sample(self, characters=240, seed=0):
        """What the model as it is makes of the text: a beginning of its own, or gaps that it filled."""
        return self.objective.sample(self.model, self.corpus, characters, seed)

    def not_finite(self, what, norm, rate):
        """The error to raise where a number of the training is infinite or none."""
        return NotFinite(
            f"{what}, gradient norm {norm}, learning rate {rate:.3g}. Try a lower --lr or a longer --warmup"
        )
