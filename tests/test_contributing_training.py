"""A new optimizer, schedule and objective is a file and a row each; here they are added to a copy of the package."""

import pytest

from .package_copy import PackageCopy

LION = '''"""Lion: the sign of a mean of gradients."""

import numpy as np

from .base import Optimizer


class Lion(Optimizer):
    """w <- w - rate (sign(b1 m + (1 - b1) g) + decay w),   m <- b2 m + (1 - b2) g

    Source: Chen et al. 2023 (arXiv 2302.06675), program 1.
    """

    state_names = ("mean",)
    settings = "beta1", "beta2", "weight_decay"

    def __init__(self, parameters, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(parameters, weight_decay)
        self.betas = betas

    @classmethod
    def with_settings(cls, parameters, settings):
        return cls(parameters, (settings.beta1, settings.beta2), settings.weight_decay)

    def update(self, op, weight, gradient, state, rate, decay, scale):
        (mean,), g = state, scale * gradient
        beta1, beta2 = self.betas
        weight -= rate * (np.sign(beta1 * mean + (1 - beta1) * g) + decay * weight)
        mean += (1 - beta2) * (g - mean)
'''

POWER = '''"""A parabola down."""


def power(progress, floor):
    """floor + (1 - floor) (1 - s)^2"""
    return floor + (1 - floor) * (1 - progress) ** 2
'''

PREFERENCES = '''"""Answers that are preferred to others: the loss of DPO.

Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7, with beta = 0.3. A corpus has pairs of answers, the better
one first: ids, targets (pairs, 2, T), and the sums of the losses of a reference model (pairs, 2).
"""

import numpy as np

BETA = 0.3


def batches(corpus, context, settings):
    return _Batches(corpus.train, settings)


class _Batches:
    def __init__(self, pairs, settings):
        self.pairs, self.settings = pairs, settings

    def __getitem__(self, step):
        rng = np.random.default_rng([self.settings.seed, step])
        return self.pairs.take(rng.integers(len(self.pairs), size=self.settings.batch_size))


def examples(tokenizer, ids, targets, reference, rng):
    return ids, targets, reference


def _margins(model, ids, targets, reference):
    B, _, T = ids.shape
    losses = model.losses(ids.reshape(-1, T), targets.reshape(-1, T)).reshape(B, 2, T).sum(2)
    return BETA * ((reference - losses) @ [1.0, -1.0])


def loss_and_gradients(model, ids, targets, reference, micro_batches, noise_seed):
    """The mean of -log sigmoid(margin); the gradient by a second forward, with d/dloss as the targets' weights."""
    margins, T = _margins(model, ids, targets, reference), ids.shape[-1]
    slope = BETA / (1 + np.exp(margins)) / len(margins)
    weights = np.broadcast_to((slope[:, None] * [1.0, -1.0])[..., None], ids.shape)
    ids, targets, weights = (array.reshape(-1, T) for array in (ids, targets, weights))
    _, gradients = model.loss_and_gradients(ids, targets, weights, micro_batches)
    return float(np.log1p(np.exp(-margins)).mean()), gradients


def evaluation(tokenizer, pairs, context, batch_size):
    for start in range(0, len(pairs), batch_size):
        yield pairs.take(np.arange(start, min(len(pairs), start + batch_size)))


def losses(model, examples):
    return float(np.log1p(np.exp(-_margins(model, *examples))).sum()), len(examples[0])


def sample(model, corpus, characters, seed):
    return ""
'''

USED = """
from types import SimpleNamespace
import numpy as np
from minillama import Config, Model, backend
from minillama.gradcheck import directional_derivative
from minillama.training.objectives import OBJECTIVES
from minillama.training.trainer import Settings, Trainer

class Pairs:
    def __init__(self, *arrays): self.arrays = arrays
    def __len__(self): return len(self.arrays[0])
    def take(self, some): return tuple(array[some] for array in self.arrays)

with backend.use("numpy"):
    rng = np.random.default_rng(0)
    config = Config(11, dim=16, layers=1, heads=2, context=8)
    model, reference = (Model(config, seed, np.float64, threads=1, init_std=0.3) for seed in (1, 2))
    ids = rng.integers(0, 11, (20, 2, 8)); targets = rng.integers(0, 11, (20, 2, 8)); targets[:, :, :3] = -100
    sums = reference.losses(ids.reshape(-1, 8), targets.reshape(-1, 8)).reshape(20, 2, 8).sum(2)
    corpus = SimpleNamespace(train=Pairs(ids, targets, sums), validation=Pairs(ids, targets, sums), tokenizer=None)
    settings = Settings(steps=60, batch_size=5, lr=0.01, warmup=0)
    trainer = Trainer(model, corpus, settings, OBJECTIVES["preferences"])
    def both(): return trainer.objective.loss_and_gradients(model, *trainer.examples(0), micro_batches=1, noise_seed=0)
    loss, gradients = both()
    received, direction = gradients.flat.copy(), rng.standard_normal(gradients.flat.size)
    slope = directional_derivative(lambda: both()[0], model.parameters.flat, direction, 1e-4)
    assert abs(slope - received @ direction) < 1e-7 * abs(slope), (slope, received @ direction)
    before = trainer.evaluate()
    while trainer.optimizer.steps < settings.steps:
        trainer.step()
    print(trainer.unit, before > 0.3, trainer.evaluate() < 0.5 * before)
"""


@pytest.fixture
def copy(tmp_path):
    return PackageCopy(tmp_path)


def test_an_optimizer_is_one_file_and_one_row(copy):
    copy.add("training/optimizers/lion.py", LION)
    copy.add_row("training/optimizers/__init__.py", "OPTIMIZERS", '"lion": Lion', "from .lion import Lion")
    copy.passes("lion", 4, "test_optim.py")  # matrices decay, plain arrays as a store, its state is all that is kept
    copy.train("--optimizer", "lion", "--lr", "1e-3")
    state = "from safetensors.numpy import load_file; print(*load_file('run/trainer.safetensors'))"
    assert copy.python("-c", state).stdout.split() == ["mean", "weights"]
    assert "at step 3 of 3" in copy.command("train", "--out", "run", "--resume")
    idle = copy.train("--optimizer", "lion", "--momentum", "0.5", out="x", code=1)
    assert "it belongs to --optimizer sgd, and the optimizer is 'lion'" in idle
    assert copy.touched == {"training/optimizers/lion.py", "training/optimizers/__init__.py"}


def test_a_schedule_is_one_file_and_one_row(copy):
    copy.add("training/schedules/power.py", POWER)
    row = '"power": Schedule(power, ("lr_floor",))'
    copy.add_row("training/schedules/__init__.py", "SCHEDULES", row, "from .power import power")
    copy.passes("power", 1, "test_optim.py")
    copy.train("--schedule", "power", "--lr-floor", "0")
    assert '"learning_rate": 0.0,' in (copy.folder / "run/metrics.jsonl").read_text(encoding="utf-8")
    assert copy.touched == {"training/schedules/power.py", "training/schedules/__init__.py"}


def test_an_objective_is_one_file_and_one_row(copy):
    """One that the masks do not lead to, has batches of its own, and needs two forwards a step."""
    copy.add("training/objectives/preferences.py", PREFERENCES)
    row = (
        '"preferences": Objective(preferences.examples, preferences.evaluation, preferences.sample, "pair", False, '
        "batches=preferences.batches, loss_and_gradients=preferences.loss_and_gradients, losses=preferences.losses)"
    )
    copy.add_row("training/objectives/__init__.py", "OBJECTIVES", row, "from . import preferences")
    assert copy.python("-c", USED).stdout.split() == ["pair", "True", "True"]
    assert copy.touched == {"training/objectives/preferences.py", "training/objectives/__init__.py"}
