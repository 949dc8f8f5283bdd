"""The training loop, and the state that lets a run go on where it stopped.

A run's folder holds the model as a Hugging Face directory, `metrics.jsonl`, and `trainer.safetensors`: weights, the two
moments of AdamW and the step, in one file, so that no interruption can mix two moments in time. Batches and dropout
are functions of (seed, step), so weights, moments and step are all the state there is.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from .config import Config
from .corpora import Batches
from .files import append_text, remove_leftovers, replacing, write_text
from .interrupts import interruptible
from .model import Model
from .objectives import OBJECTIVES
from .ops.loss import IGNORED
from .ops.masks import MASKS
from .optim import AdamW, learning_rate
from .tokenizers import MASK

STATE_FILE, METRICS_FILE = "trainer.safetensors", "metrics.jsonl"
LOG_EVERY = 10  # steps between rows of metrics.jsonl; val_loss is null in rows without an evaluation
_EVALUATION_TOKENS = 8192  # tokens in one forward pass of an evaluation
_STOPPING = "\nfinishing the step, then saving; Ctrl-C once more stops without saving"


@dataclass(frozen=True)
class Settings:
    """How a model is trained. AdamW's betas, weight decay, clipping and the cosine's floor are LLaMA's (arXiv
    2302.13971, section 2.3); learning rate, warm-up and batch suit models of about a million parameters."""

    steps: int = 600
    batch_size: int = 8  # sequences in a step
    micro_batches: int = 1  # parts that a batch is computed in, one after the other, to save memory
    lr: float = 1.5e-3  # peak learning rate
    warmup: int | None = None  # steps of linear warm-up; None: 50, or a tenth of the steps where those are 50 or fewer
    lr_floor: float = 0.1  # final learning rate as a share of the peak
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1  # of matrices
    clip: float = 1.0  # largest norm of the gradient; 0: it is never shortened
    seed: int = 0  # of the initial weights, the order of the data and dropout
    init_std: float = 0.06  # deviation of the initial weights; 0.02 suits widths from 768, a narrow model wants more
    eval_every: int = 150  # steps between evaluations, samples and checkpoints

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


class Run:
    """A training run: model, optimizer, data, and the folder that keeps them.

    Run.start begins one, Run.resume continues one from its last checkpoint; `train()` does the work, and returns
    the last validation loss in nats a token, or None if it was interrupted.
    """

    def __init__(self, folder, config, settings, corpus, threads=None):
        self.folder, self.settings, self.corpus = Path(folder), settings, corpus
        self.model = Model(config, settings.seed, threads=threads, init_std=settings.init_std)
        s = settings
        self.optimizer = AdamW(self.model.parameters, (s.beta1, s.beta2), 1e-8, s.weight_decay, s.clip)
        self.batches = Batches(corpus.train, config.context, s.batch_size, s.seed, corpus.tokenizer.end_of_text)
        self.objective = objective(config)
        if self.objective.needs_mask_token and corpus.tokenizer.mask_token is None:
            raise ValueError(
                f"the mask {config.mask!r} asks for a tokenizer with the special token {MASK}; encode the text with "
                f"mask_token=True"
            )
        if len(corpus.validation) < 2:
            raise ValueError("the validation split, a tenth of the text, has fewer than 2 tokens; use more text")
        self.seconds = 0.0  # spent in training so far, also before interruptions

    @classmethod
    def start(cls, folder, config, settings, corpus, threads=None):
        """A new run in a folder that holds none yet."""
        folder = Path(folder)
        if (folder / STATE_FILE).exists():
            raise FileExistsError(
                f"{folder} already holds a run; continue it with --resume, or choose another folder with --out"
            )
        if (folder / "model.safetensors").exists() and not (folder / METRICS_FILE).exists():
            raise FileExistsError(f"{folder} holds a model that was made elsewhere; choose another folder with --out")
        run = cls(folder, config, settings, corpus, threads)
        write_text(folder / METRICS_FILE, "")
        run.save()
        return run

    @classmethod
    def resume(cls, folder, corpus, threads=None):
        """The run of a folder at its last checkpoint. Rows of metrics.jsonl that are later are taken back.

        threads None means as many as before, which makes the run go on to the same bits.
        """
        state = read_state(folder)
        threads = state["threads"] if threads is None else threads
        run = cls(folder, Config.from_dict(state["config"]), Settings.saved(state["settings"]), corpus, threads)
        if state["corpus"] != corpus.fingerprint:
            raise ValueError(
                f"the text or its tokens differ from those that the run in {folder} was started with; a run can only "
                f"be continued on the same data"
            )
        with safe_open(run.folder / STATE_FILE, "np") as file:
            for name, array in run._state_tensors().items():
                array[:] = file.get_tensor(name)
        run.optimizer.steps, run.seconds = state["step"], state["seconds"]
        remove_leftovers(run.folder, [path.name for path in run.folder.iterdir() if not path.name.startswith(".")])
        rows = [row for row in read_metrics(folder) if row["step"] <= state["step"]]
        write_text(run.folder / METRICS_FILE, "".join(json.dumps(row) + "\n" for row in rows))
        return run

    def save(self):
        """Write the checkpoint: first the model for others to open, then the state that `resume` reads."""
        self.model.save(self.folder, self.corpus.tokenizer)
        state = {
            "step": self.optimizer.steps,
            "seconds": self.seconds,
            "config": self.model.config.to_dict(),
            "settings": asdict(self.settings),
            "threads": self.model.workers.threads,
            "corpus": self.corpus.fingerprint,
            "source": self.corpus.source,
            "floor": self.floor,
            "unit": self.unit,
            "characters_per_token": self.corpus.validation_characters / self.corpus.predicted_tokens,
        }
        with replacing(self.folder / STATE_FILE) as new:
            save_file(self._state_tensors(), new, metadata={"run": json.dumps(state)})

    def _state_tensors(self):
        optimizer = self.optimizer
        return {"weights": self.model.parameters.flat, "mean": optimizer.mean, "square": optimizer.square}

    def train(self, quiet=False):
        """Train up to settings.steps; an interrupt (Ctrl-C) saves and returns None."""
        s, optimizer = self.settings, self.optimizer
        tokens_a_step = s.batch_size * self.model.config.context
        recent, loss, mark = [], None, time.perf_counter()
        bar = tqdm(
            total=s.steps, initial=optimizer.steps, unit="step", dynamic_ncols=True, disable=quiet, mininterval=0.5
        )
        with bar, interruptible(_STOPPING) as interrupted:
            while optimizer.steps < s.steps:
                train_loss, norm, rate = self.step()
                recent.append(train_loss)
                last = optimizer.steps == s.steps
                evaluating = last or optimizer.steps % s.eval_every == 0
                speed = tokens_a_step * len(recent) / (time.perf_counter() - mark)
                bar.update()
                bar.set_postfix_str(f"loss {train_loss:.3f}, {speed:,.0f} tokens/s", refresh=False)
                if evaluating or optimizer.steps % LOG_EVERY == 0:
                    self.seconds += time.perf_counter() - mark
                    loss = self._evaluate_finite(norm, rate) if evaluating else None
                    self._log(train_loss=np.mean(recent), val_loss=loss, speed=speed, rate=rate, norm=norm)
                    if evaluating:
                        self.save()
                        if not quiet:
                            tqdm.write(self._report(loss))
                    recent, mark = [], time.perf_counter()
                if interrupted() and not last:
                    self.seconds += time.perf_counter() - mark
                    self.save()
                    return None
        return loss if loss is not None else self.evaluate()

    def _evaluate_finite(self, norm, rate):
        loss = self.evaluate()
        if not math.isfinite(loss):
            raise self._not_finite(f"after step {self.optimizer.steps}: validation loss {loss}", norm, rate)
        return loss

    def _not_finite(self, what, norm, rate):
        return NotFinite(
            f"{what}, gradient norm {norm}, learning rate {rate:.3g}. The last checkpoint in {self.folder} is kept. "
            f"Try a lower --lr or a longer --warmup"
        )

    @property
    def floor(self):
        """The true entropy in nats a token, which no loss of next tokens can beat on average; None if it is unknown."""
        return self.corpus.floor if self.objective.predicts_text else None

    @property
    def unit(self):
        """What a loss is the mean over."""
        return "token" if self.objective.predicts_text else "hidden token"

    def evaluate(self):
        """The validation loss, over all of the split, in nats a token, or a hidden token."""
        return evaluate(self.model, self.corpus.validation, self.corpus.tokenizer)

    def step(self):
        """One step of training: loss of the batch, length of its gradient, learning rate."""
        s, t = self.settings, self.optimizer.steps
        noise_seed = (s.seed * 0x85EBCA6B + t) % 2**32
        ids, targets = self.objective.examples(
            self.corpus.tokenizer, *self.batches[t], np.random.default_rng([s.seed, t, 1])
        )
        loss, gradients = self.model.loss_and_gradients(ids, targets, s.micro_batches, noise_seed)
        norm = self.optimizer.gradient_norm(gradients, self.model.workers)
        rate = learning_rate(t + 1, s.steps, s.lr, s.warmup, s.lr_floor)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._not_finite(f"step {t + 1}: loss {loss}", norm, rate)
        self.optimizer.step(gradients, norm, rate, self.model.workers)
        return loss, norm, rate

    def sample(self, characters=240, seed=0):
        """What the model as it is makes of the text: a beginning of its own, or gaps that it filled."""
        return self.objective.sample(self.model, self.corpus, characters, seed)

    def _report(self, loss):
        floor = "" if self.floor is None else f" (true entropy {self.floor:.4f})"
        return f"step {self.optimizer.steps}: validation loss {loss:.4f} nats a {self.unit}{floor}\n{self.sample()}\n"

    def _log(self, train_loss, val_loss, speed, rate, norm):
        row = {
            "step": self.optimizer.steps,
            "train_loss": float(train_loss),
            "val_loss": val_loss,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(speed, 1),
            "learning_rate": rate,
            "gradient_norm": norm,
        }
        append_text(self.folder / METRICS_FILE, json.dumps(row) + "\n")


def read_state(folder):
    """Step, settings, config, threads and data of the run in a folder, as a dictionary."""
    path = Path(folder) / STATE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no run to resume: there is no {path.name}. Start it without --resume")
    try:
        with safe_open(path, "np") as file:
            state = json.loads(file.metadata()["run"])
            missing = {"weights", "mean", "square"} - set(file.keys())
            if missing or state["settings"].keys() != {field.name for field in fields(Settings)}:
                raise ValueError("its tensors or settings are not those of this version")
            return state
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is truncated or was not written by minillama ({error!r}); it cannot be resumed"
        ) from error


def read_metrics(folder):
    """The rows of metrics.jsonl. A last line that was cut off by a kill is left out."""
    path = Path(folder) / METRICS_FILE
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    return [json.loads(line) for line in lines[:-1]]
