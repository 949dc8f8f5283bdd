"""A new optimizer, schedule and objective is a file and a row each; here they are added to a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minillama

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


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A folder with a copy of the package and its tests; run(*arguments) runs Python there, on the copy."""
    folder = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(minillama.__file__).parent, folder / "minillama", ignore=ignore)
    shutil.copytree(Path(__file__).parent, folder / "tests", ignore=ignore)
    (folder / "text.txt").write_text("to be or not to be " * 200, encoding="utf-8")
    return folder


def run(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(folder), "MINILLAMA_CACHE": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, encoding="utf-8"
    )


def add(folder, table, name, code, imported, row):
    """A file, and in the table beside it an import and a row."""
    place = folder / "minillama/training" / table
    (place / f"{name}.py").write_text(code, encoding="utf-8")
    init = place / "__init__.py"
    text = init.read_text(encoding="utf-8")
    head, equals, rest = re.split(rf"(\n{table.upper()}(?:: .+)? = \{{)", text, maxsplit=1)  # it may have a type
    last = head.rindex("\nfrom .") + 1  # the last of the imports from this folder
    head = f"{head[:last]}{imported}\n{head[last:]}"
    init.write_text(f"{head}{equals}{row}, {rest}", encoding="utf-8")


def run_tests(folder, name, least):
    tests = run(folder, "-m", "pytest", "-q", "-k", f"{name} and not numba", "tests/test_optim.py")
    assert tests.returncode == 0, tests.stdout[-3000:]
    assert int(tests.stdout.split(" passed")[0].split()[-1]) >= least, tests.stdout


def train(folder, *options):
    in_numpy = (  # to compile the kernels for this copy takes a while
        "import sys; from minillama import backend, __main__\n"
        "with backend.use('numpy'): sys.exit(__main__.main(sys.argv[1:]))"
    )
    shape = "--data text.txt --tokenizer char --dim 16 --layers 1 --heads 2 --context 16 --steps 3 --eval-every 2"
    return run(folder, "-c", in_numpy, "train", *shape.split(), *options)


def test_an_optimizer_is_one_file_and_one_row(copy):
    add(copy, "optimizers", "lion", LION, "from .lion import Lion", '"lion": Lion')
    run_tests(copy, "lion", least=4)  # matrices decay, plain arrays as a store, its state is all that is kept
    made = train(copy, "--out", "lion", "--optimizer", "lion", "--lr", "1e-3")
    assert made.returncode == 0, made.stderr
    state = "from safetensors.numpy import load_file; print(*load_file('lion/trainer.safetensors'))"
    assert run(copy, "-c", state).stdout.split() == ["mean", "weights"]
    resumed = run(copy, "-m", "minillama", "train", "--out", "lion", "--resume")
    assert resumed.returncode == 0 and "at step 3 of 3" in resumed.stdout, resumed.stderr
    idle = train(copy, "--out", "x", "--optimizer", "lion", "--momentum", "0.5")
    assert "it belongs to --optimizer sgd, and the optimizer is 'lion'" in idle.stderr


def test_a_schedule_is_one_file_and_one_row(copy):
    add(copy, "schedules", "power", POWER, "from .power import power", '"power": Schedule(power, ("lr_floor",))')
    run_tests(copy, "power", least=1)
    made = train(copy, "--out", "power", "--schedule", "power", "--lr-floor", "0")
    assert made.returncode == 0, made.stderr
    assert '"learning_rate": 0.0,' in (copy / "power/metrics.jsonl").read_text(encoding="utf-8")


def test_an_objective_is_one_file_and_one_row(copy):
    """One that the masks do not lead to, has batches of its own, and needs two forwards a step."""
    row = (
        '"preferences": Objective(preferences.examples, preferences.evaluation, preferences.sample, "pair", False, '
        "batches=preferences.batches, loss_and_gradients=preferences.loss_and_gradients, losses=preferences.losses)"
    )
    add(copy, "objectives", "preferences", PREFERENCES, "from . import preferences", row)
    used = run(copy, "-c", USED)
    assert used.stdout.split() == ["pair", "True", "True"], used.stderr
