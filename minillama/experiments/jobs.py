"""The terms of the comparison: what each variant's model, data, steps and learning rate are; and a job, one training.

- Size: the feed-forward width is changed until the number of parameters is LLaMA's, or the number of steps until the
  arithmetic of the training is (EQUAL).
- Learning rate: the best of a small grid, for each variant and corpus, by the loss on the last tenth of the training
  split with a seed that is not reported. The validation split decides nothing.
- Seeds: seed s gives all variants the same batches, and the same initial weights where the shapes agree.
"""

import math
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from statistics import median
from typing import NamedTuple
from zlib import crc32

import numpy as np
import threadpoolctl

from ..catalogue.sizes import match_parameters, parameter_count, training_flops_per_token
from ..config import Config, option
from ..data.corpora import encode_corpus
from ..model import Model
from ..parameters import initialise
from ..training.trainer import NotFinite, Settings, Trainer, evaluate
from .extrapolation import losses_by_position
from .variants import config_of, name_of, reads_on

TUNING, RUN, TIME = "tuning", "run", "time"  # the kinds of results
TUNING_SEED = 1000
TUNING_SHARE = 0.1  # of the training split, its end: held out when the learning rate is chosen
_RATE_FACTORS = (0.5, 1.0, 2.0)  # the grid, as factors of the middle
EXTENSIONS = 2  # further rates, at most, that are tried beyond an end of the grid that is the best so far
TIMED_ROUNDS, TIMED_STEPS = 20, 5
CURVE_POINTS, CURVE_TOKENS = 16, 4096  # the curve: losses on the first tokens of the validation split


def equal_parameters(config, base, steps):
    return match_parameters(config, parameter_count(base)["total"]), steps


def equal_compute(config, base, steps):
    return config, max(1, round(steps * training_flops_per_token(base) / training_flops_per_token(config)))


EQUAL = {"parameters": equal_parameters, "compute": equal_compute}


@dataclass(frozen=True)
class Protocol:
    """What all results that are compared have in common. Its LLaMA is LLaMA's choices in this shape; settings.lr is the
    middle of the grid, and settings.seed is not used."""

    dim: int = 64
    layers: int = 3
    heads: int = 4
    context: int = 64
    settings: Settings = Settings(steps=400, batch_size=16, lr=8e-3)
    equal: str = option(
        "parameters",
        "made equal between variants: parameters, by the feed-forward width, or compute, by the steps",
        EQUAL,
    )
    tune: bool = True  # choose the learning rate for each variant; else all have that of the settings

    def __post_init__(self):
        if self.equal not in EQUAL:
            raise ValueError(f"equal must be one of {', '.join(EQUAL)}; received {self.equal!r}")
        self.base(vocab_size=1)  # a wrong shape is an error here

    def base(self, vocab_size):
        """The Config of LLaMA."""
        return Config(vocab_size, dim=self.dim, layers=self.layers, heads=self.heads, context=self.context)

    def plan(self, changes, vocab_size):
        """Config and number of steps of a variant."""
        base = self.base(vocab_size)
        config, steps = EQUAL[self.equal](config_of(changes, base), base, self.settings.steps)
        replace(self.settings, steps=steps)  # a warm-up that takes all of them is an error here
        return config, steps

    def to_dict(self):
        """All of it, for JSON."""
        unused = ("seed", "eval_every", "micro_batches", "window")
        settings = {name: value for name, value in asdict(self.settings).items() if name not in unused}
        values = {**asdict(self), "settings": settings}
        if values.pop("tune"):
            return values | {"rates": list(_RATE_FACTORS), "tuning_seed": TUNING_SEED, "tuning_share": TUNING_SHARE}
        return values | {"rates": [1.0]}


class Job(NamedTuple):
    """One training, for the learning rate or for the result."""

    kind: str
    changes: dict
    corpus: str
    seed: int
    rate: float

    @property
    def key(self):
        """What no two results share."""
        tuned = self.rate if self.kind == TUNING else None
        return self.kind, name_of(self.changes), self.corpus, self.seed, tuned


def key_of(result):
    """The key of the job that had this result."""
    tuned = result["lr"] if result["kind"] == TUNING else None
    return result["kind"], result["variant"], result["corpus"], result["seed"], tuned


def due(protocol, changes, corpus, seeds, results):
    """The jobs of a variant and corpus that can be done now: first its learning rates; with the best one, its seeds

    results: {key: result} of what has been done.
    """
    best = protocol.settings.lr
    if protocol.tune:
        losses = tuning_losses(results, name_of(changes), corpus)
        rates = next_rates(best, losses)
        if rates:
            return [Job(TUNING, changes, corpus, TUNING_SEED, rate) for rate in rates]
        best = best_rate(losses)
    jobs = [Job(RUN, changes, corpus, seed, best) for seed in seeds]
    return [job for job in jobs if job.key not in results]


def tuning_losses(results, variant, corpus):
    """{learning rate: loss} of those that were tried; infinite where the training diverged."""
    tried = [r for r in results.values() if (r["kind"], r["variant"], r["corpus"]) == (TUNING, variant, corpus)]
    return {r["lr"]: math.inf if r["loss"] is None else r["loss"] for r in tried}


def best_rate(losses):
    """The learning rate of the least loss; the least of several, whichever was done first."""
    return min(losses, key=lambda rate: (losses[rate], rate))


def next_rates(middle, losses):
    """The learning rates to try next; none when the best is known."""
    grid = [factor * middle for factor in _RATE_FACTORS]
    missing = [rate for rate in grid if rate not in losses]
    if missing or len(losses) == len(grid) + EXTENSIONS:
        return missing
    best = best_rate(losses)
    beyond = {min(losses): best / 2, max(losses): best * 2}
    return [beyond[best]] if best in beyond else []


def compute(protocol, source, job):
    """Do a job; returns its result, for JSON. source: the arguments of encode_corpus. One thread."""
    corpus = _corpus(**source)
    config, steps = protocol.plan(job.changes, corpus.tokenizer.vocab_size)
    settings = replace(protocol.settings, steps=steps, lr=job.rate, seed=job.seed)
    began = time.perf_counter()
    # A training that diverges is a result, and no reason for a warning.
    with threadpoolctl.threadpool_limits(1, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
        measured = _train(config, settings, _held_out(corpus) if job.kind == TUNING else corpus, job)
    return {
        **_head(protocol, corpus, job),
        **measured,
        "steps": steps,
        "parameters": parameter_count(config)["total"],
        "training_flops_per_token": training_flops_per_token(config),
        "config": config.to_dict(),
        "seconds": round(time.perf_counter() - began, 2),
        "floor": corpus.floor,
    }


def _head(protocol, corpus, job):
    """What every result has: whose it is, and with which others it can be compared."""
    return {
        "kind": job.kind,
        "variant": name_of(job.changes),
        "corpus": job.corpus,
        "seed": job.seed,
        "lr": job.rate,
        "unit": "character" if corpus.source["tokenizer"] == "char" else "token",
        "data": corpus.fingerprint,
        "protocol": protocol.to_dict(),
    }


def _train(config, settings, corpus, job):
    trainer = _trainer(config, settings, corpus)
    _draw_by_name(trainer.model, settings)
    curve, seconds = [], []
    points = {round(settings.steps * (i + 1) / CURVE_POINTS) for i in range(CURVE_POINTS)} if job.kind == RUN else ()
    result = {"loss": None, "curve": curve}  # None: the training diverged
    try:
        while trainer.optimizer.steps < settings.steps:
            start = time.perf_counter()
            trainer.step()
            seconds.append(time.perf_counter() - start)
            if trainer.optimizer.steps in points:
                loss = evaluate(trainer.model, corpus.validation[:CURVE_TOKENS], corpus.tokenizer)
                curve.append([trainer.optimizer.steps, loss])
        loss = trainer.evaluate()
        result["loss"] = loss if math.isfinite(loss) else None
    except NotFinite:
        pass
    if seconds:
        result["step_seconds"] = _summary(seconds)
    if job.kind == RUN and reads_on(job.changes) and result["loss"] is not None:
        result["by_position"] = losses_by_position(trainer.model, corpus.validation)
    return result


def _trainer(config, settings, corpus):
    return Trainer(Model(config, settings.seed, threads=1, init_std=settings.init_std), corpus, settings)


def time_in_turn(protocol, source, jobs):
    """The time of a training step of each job's variant, on one thread; they take turns, so that what else the machine
    does meets all of them. The results, in the order of the jobs."""
    corpus = _corpus(**source)
    trainers = []
    for job in jobs:
        config, _ = protocol.plan(job.changes, corpus.tokenizer.vocab_size)
        trainers.append(_trainer(config, replace(protocol.settings, lr=job.rate, seed=job.seed), corpus))
    seconds = [[] for _ in trainers]
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        for turn in range(1 + TIMED_ROUNDS):
            for trainer, times in zip(trainers, seconds, strict=True):
                for _ in range(TIMED_STEPS):
                    start = time.perf_counter()
                    trainer.step()
                    if turn:  # not in the first one, which compiles
                        times.append(time.perf_counter() - start)
    return [
        {**_head(protocol, corpus, job), "step_seconds": _summary(times)}
        for job, times in zip(jobs, seconds, strict=True)
    ]


def _summary(seconds):
    return {"min": min(seconds), "median": median(seconds)}


def _draw_by_name(model, settings):
    """Initial weights that depend on the seed and the parameter's name only, not on which others the model has."""
    for name, array in model.parameters.items():
        initialise({name: array}, model.config, [settings.seed, crc32(name.encode())], settings.init_std)


@lru_cache(maxsize=4)
def _corpus(**source):
    return encode_corpus(**source)


def _held_out(corpus):
    """The corpus without its validation split: the end of the training split takes its place."""
    cut = int(len(corpus.train) * (1 - TUNING_SHARE))
    train, validation = np.split(corpus.train, [cut])
    return replace(corpus, train=train, validation=validation, entropy=None, validation_characters=None)
