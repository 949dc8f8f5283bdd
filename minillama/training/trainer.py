"""Training without files: a model, an optimizer, batches and an objective, one step after the other.

Batches and dropout are functions of (seed, step), so that a trainer's weights, its optimizer's state and the number of
the step are all that it takes to go on where another left off. What keeps them in a folder is minillama.training.run.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..config import option
from ..data.corpora import EncodedCorpus
from ..model import Model
from ..tokenizers import MASK, Tokenizer
from .clipping import clip_scale, gradient_norm
from .objectives import Objective, objective_of
from .optimizers import OPTIMIZERS
from .schedules import SCHEDULES, learning_rate

# The choices by name: a field of Settings and the table that it chooses from.
TRAINING_SWITCHES: dict[str, Mapping[str, Any]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
_EVALUATION_TOKENS = 8192  # tokens in one forward pass of an evaluation


@dataclass(frozen=True)
class Settings:
    """How a model is trained. AdamW's betas, weight decay, clipping and the cosine's floor are LLaMA's (arXiv
    2302.13971, section 2.3); learning rate, warm-up and batch suit models of about a million parameters and AdamW.
    Which of the numbers an optimizer and a schedule read, their tables say."""

    steps: int = option(600, "updates of the weights")
    batch_size: int = option(8, "sequences in a step")
    micro_batches: int = option(1, "compute a batch in this many parts, one after the other, to save memory")
    lr: float = option(1.5e-3, "peak learning rate")
    warmup: int | None = option(
        None, "steps of linear warm-up, fewer than steps (default: 50, or a tenth of 50 steps and fewer)"
    )
    lr_floor: float = option(0.1, "final learning rate as a share of the peak")
    schedule: str = option("cosine", "how the learning rate goes on after the warm-up", SCHEDULES)
    decay_share: float = option(
        0.1, "wsd: the part of the steps after the warm-up in which the learning rate leaves its peak"
    )
    optimizer: str = option("adamw", "how the gradient changes the weights", OPTIMIZERS)
    beta1: float = option(0.9, "adamw, adam: decay of the mean of the gradient")
    beta2: float = option(0.95, "adamw, adam: decay of the mean of its square")
    momentum: float = option(0.9, "sgd: decay of the sum of past gradients")
    weight_decay: float = option(0.1, "decay of matrices")
    clip: float = option(1.0, "largest norm of the gradient, a longer one is shortened to it; 0 turns that off")
    seed: int = option(0, "of the initial weights, the order of the data and dropout")
    init_std: float = option(0.06, "standard deviation of the initial weights")  # 0.02 suits widths from 768
    eval_every: int = option(150, "steps between evaluations, samples and checkpoints")
    window: int | None = None  # tokens of a training sequence, at most the model's context; None: as many

    def __post_init__(self) -> None:
        if self.warmup is None:
            few = min(max(1, self.steps // 10), max(0, self.steps - 1))
            object.__setattr__(self, "warmup", 50 if self.steps > 50 else few)
        for name, table in TRAINING_SWITCHES.items():
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in table:
                raise ValueError(f"{name} must be one of {', '.join(table)}; received {getattr(self, name)!r}")
        if self.window is not None and self.window < 2:
            raise ValueError(f"window must be at least 2, a token to read and one to predict; received {self.window}")
        for name, value in asdict(self).items():
            if value is not None and name not in TRAINING_SWITCHES and not math.isfinite(value):
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
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1); received {getattr(self, name)}")
        if not 0 <= self.lr_floor <= 1:
            raise ValueError(f"lr_floor is a share of the peak, in [0, 1]; received {self.lr_floor}")
        if not 0 < self.decay_share <= 1:
            raise ValueError(f"decay_share is a share of the steps, in (0, 1]; received {self.decay_share}")
        assert self.warmup is not None  # it was None at most until this began
        if self.warmup >= self.steps:
            raise ValueError(
                f"warmup must be less than steps, or the learning rate never comes down from its peak; received warmup "
                f"{self.warmup} and steps {self.steps}. Choose a smaller warmup, or leave it out, which gives "
                f"{Settings(steps=self.steps).warmup}"
            )

    @classmethod
    def saved(cls, values: Mapping[str, Any]) -> "Settings":
        """The Settings of a saved run; earlier ones may have a warm-up as long as the run, and go on with it."""
        settings = cls(**{**values, "warmup": 0})
        object.__setattr__(settings, "warmup", values["warmup"])
        return settings


class NotFinite(ArithmeticError):
    """The loss or the gradient is infinite or not a number; the run stops and writes no checkpoint of it."""


def evaluate(
    model: Model, tokens: np.ndarray, tokenizer: Tokenizer, objective: Objective | None = None,
    window: int | None = None,
) -> float:  # fmt: skip
    """The mean loss in nats over a whole stream of tokens, in windows of the model's objective, or of another one

    window: tokens of a window (default: the model's context).
    """
    total, count = evaluation_sums(model, tokens, tokenizer, objective, window)
    return total / count


def evaluation_sums(
    model: Model, tokens: np.ndarray, tokenizer: Tokenizer, objective: Objective | None = None,
    window: int | None = None,
) -> tuple[float, int]:  # fmt: skip
    """What `evaluate` divides: the sum of the losses, and the number of tokens that they are of."""
    objective, window = objective or objective_of(model.config), window or model.config.context
    total = count = 0
    for examples in objective.evaluation(tokenizer, tokens, window, max(1, _EVALUATION_TOKENS // window)):
        loss, predicted = objective.losses(model, examples)
        total += loss
        count += predicted
    return total, count


class Trainer:
    """A model, an optimizer, batches of a corpus and an objective; writes nothing

        trainer = Trainer(Model(config, settings.seed, init_std=settings.init_std), corpus, settings)
        while trainer.optimizer.steps < settings.steps:
            loss, norm, rate = trainer.step()

    objective: a row of OBJECTIVES (default: what follows from the model's mask). A model with weights of its own is
    trained on from them. NotFinite from `step` where the loss or its gradient is none. ValueError for a corpus or
    settings that do not suit the model.
    """

    def __init__(
        self, model: Model, corpus: EncodedCorpus, settings: Settings, objective: Objective | None = None
    ) -> None:
        self.model, self.corpus, self.settings = model, corpus, settings
        config, s = model.config, settings
        self.window = config.context if s.window is None else s.window
        if self.window > config.context:
            raise ValueError(
                f"a window of {self.window} tokens does not fit the context of {config.context} that the model was "
                f"made for; choose a window up to that"
            )
        self.objective = objective or objective_of(config)
        if self.objective.needs_mask_token and corpus.tokenizer.mask_token is None:
            raise ValueError(
                f"the mask {config.mask!r} asks for a tokenizer with the special token {MASK}; encode the text with "
                f"mask_token=True"
            )
        self.optimizer = OPTIMIZERS[s.optimizer].with_settings(model.parameters, s)
        self.batches = self.objective.batches(corpus, self.window, s)
        if len(corpus.validation) < 2:
            raise ValueError("the validation split, a tenth of the text, has fewer than 2 tokens; use more text")

    @property
    def floor(self) -> float | None:
        """The true entropy in nats a token, which no loss of next tokens can beat on average; None if it is unknown."""
        return self.corpus.floor if self.objective.predicts_text else None

    @property
    def unit(self) -> str:
        """What a loss is the mean over."""
        return self.objective.unit

    def step(self) -> tuple[float, float, float]:
        """One step of training: loss of the batch, length of its gradient, learning rate."""
        s, t, workers = self.settings, self.optimizer.steps, self.model.workers
        options = {"micro_batches": s.micro_batches, "noise_seed": self.noise_seed(t)}
        loss, gradients = self.objective.loss_and_gradients(self.model, *self.examples(t), **options)
        norm, rate = gradient_norm(gradients, workers), self.learning_rate(t + 1)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self.not_finite(f"step {t + 1}: loss {loss}", norm, rate)
        self.optimizer.step(gradients, rate, clip_scale(norm, s.clip), workers)
        return loss, norm, rate

    def examples(self, t: int) -> tuple[np.ndarray, ...]:
        """What step t + 1 learns from: ids and targets (B, T), and weights of the targets where they are not alike."""
        rng = np.random.default_rng([self.settings.seed, t, 1])
        return self.objective.examples(self.corpus.tokenizer, *self.batches[t], rng)

    def noise_seed(self, t: int) -> int:
        """The seed of the dropout of step t + 1."""
        return (self.settings.seed * 0x85EBCA6B + t) % 2**32

    def learning_rate(self, t: int) -> float:
        """The learning rate of step t, counted from 1."""
        s = self.settings
        assert s.warmup is not None
        numbers = [getattr(s, name) for name in SCHEDULES[s.schedule].settings]
        return learning_rate(t, s.steps, s.lr, s.warmup, *numbers, schedule=s.schedule)

    def evaluate(self) -> float:
        """The validation loss, over all of the split, in nats a token, or a hidden token."""
        total, count = self.evaluation_sums()
        return total / count

    def evaluation_sums(self) -> tuple[float, int]:
        """The sum of the validation losses, and what it is divided by."""
        c = self.corpus
        return evaluation_sums(self.model, c.validation, c.tokenizer, self.objective, self.window)

    def sample(self, characters: int = 240, seed: int = 0) -> str:
        """What the model as it is makes of the text: a beginning of its own, or gaps that it filled."""
        return self.objective.sample(self.model, self.corpus, characters, seed)

    def not_finite(self, what: str, norm: float, rate: float) -> "NotFinite":
        """The error to raise where a number of the training is infinite or none."""
        return NotFinite(
            f"{what}, gradient norm {norm}, learning rate {rate:.3g}. Try a lower --lr or a longer --warmup"
        )
