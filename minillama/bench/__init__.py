"""How fast a training step is on this machine, beside PyTorch and beside what the machine can do at all.

Times on a shared machine are noisy, so everything is measured in one run and in turn: a round is one step of each
contestant, and minimum and median over the rounds are reported.
"""

import importlib.util
import json
import time
from dataclasses import dataclass
from statistics import median

import numpy as np
from tqdm import tqdm

from ..config import Config
from ..files import write_text
from ..model import Model
from ..optim import AdamW
from ..parallel import Workers
from ..sizes import flops_per_token


@dataclass(frozen=True)
class Shape:
    """A model and a batch of sequences of the model's whole context."""

    config: Config
    batch_size: int

    @property
    def tokens(self):
        return self.batch_size * self.config.context

    @property
    def training_flops(self):
        """Of one step: three forward passes, a query reading half of the context on average (sizes.flops_per_token)."""
        return 3 * self.tokens * flops_per_token(self.config, self.config.context / 2)


SHAPES = {
    "char": Shape(Config(65, dim=128, layers=4, heads=4, ffn=344, context=64), 12),
    "stories260K": Shape(Config(512, dim=64, layers=5, heads=8, kv_heads=4, ffn=172, context=512), 4),
    "stories15M": Shape(Config(32000, dim=288, layers=6, heads=6, ffn=768, context=256, tied=True), 4),
    "long": Shape(Config(512, dim=256, layers=4, heads=8, kv_heads=2, ffn=688, context=2048), 1),
}


def matmul_rate(workers, size=1024, repeats=8):
    """The best rate of BLAS on square float32 matrices, in GFLOP/s, with all of the workers' threads."""
    a, b = np.random.default_rng(0).random((2, size, size), np.float32)
    c = np.empty_like(a)
    with workers.blas(1):
        return 2e-9 * size**3 / min(_seconds(lambda: np.matmul(a, b, out=c)) for _ in range(repeats))


def memory_read_rate(workers, megabytes=256, repeats=5):
    """The best rate of reading memory, in GB/s: the largest element of a large array, each thread a part of it."""
    array = np.ones(megabytes * 250_000, np.float32)
    parts = workers.split(len(array))
    best = min(_seconds(lambda: workers.run(lambda _, part: array[part].max(), parts)) for _ in range(repeats))
    return array.nbytes / best / 1e9


def our_step(shape, threads, seed=0):
    """A function that makes one training step: batch in, gradients, clipping, AdamW."""
    model = Model(shape.config, seed, threads=threads)
    optimizer = AdamW(model.parameters)
    ids, targets = _batch(shape, seed)

    def step():
        loss, gradients = model.loss_and_gradients(ids, targets)
        optimizer.step(gradients, optimizer.gradient_norm(gradients, model.workers), 1e-3, model.workers)
        return loss

    return step


def _batch(shape, seed):
    tokens = np.random.default_rng(seed).integers(
        0, shape.config.vocab_size, (shape.batch_size, shape.config.context + 1)
    )
    return tokens[:, :-1], tokens[:, 1:]


def measure(name, threads, rounds=20, with_torch=None):
    """One shape: {contestant: {"min": ms, "median": ms, "gflops": GFLOP/s at the minimum}} and the machine's limits

    with_torch None means where PyTorch is installed. The first two rounds warm up and are not counted.
    """
    shape = SHAPES[name]
    steps = {"minillama": our_step(shape, threads)}
    if importlib.util.find_spec("torch") if with_torch is None else with_torch:
        from .torch_llama import torch_step

        steps["PyTorch"] = torch_step(shape.config, *_batch(shape, 0), threads)
    workers = Workers(threads)
    limits = {"matmul_gflops": matmul_rate(workers), "memory_gb_per_second": memory_read_rate(workers)}
    seconds = {contestant: [] for contestant in steps}
    for round_number in tqdm(range(rounds + 2), desc=name, leave=False):
        for contestant, step in steps.items():
            elapsed = _seconds(step)
            if round_number >= 2:
                seconds[contestant].append(elapsed)
    results = {
        contestant: {
            "min": 1e3 * min(times),
            "median": 1e3 * median(times),
            "gflops": shape.training_flops / min(times) / 1e9,
        }
        for contestant, times in seconds.items()
    }
    return {"shape": name, "threads": threads, "rounds": rounds, "limits": limits, "training": results}


def report(measurements):
    """The measurements as a text table."""
    lines = [f"{'shape':<14}{'':<12}{'min ms':>9}{'median ms':>11}{'GFLOP/s':>9}{'of matmul':>11}{'tokens/s':>11}"]
    for measurement in measurements:
        shape, limit = SHAPES[measurement["shape"]], measurement["limits"]["matmul_gflops"]
        for contestant, row in measurement["training"].items():
            lines.append(
                f"{measurement['shape']:<14}{contestant:<12}{row['min']:>9.1f}{row['median']:>11.1f}{row['gflops']:>9.0f}"
                f"{row['gflops'] / limit:>11.0%}{1e3 * shape.tokens / row['median']:>11,.0f}"
            )
    rates = [measurement["limits"] for measurement in measurements]
    lines.append(
        f"this machine, {measurements[0]['threads']} threads: matrix product "
        f"{max(r['matmul_gflops'] for r in rates):.0f} GFLOP/s, memory read "
        f"{max(r['memory_gb_per_second'] for r in rates):.0f} GB/s"
    )
    return "\n".join(lines)


def save(measurements, path):
    """Write the measurements as JSON."""
    write_text(path, json.dumps(measurements, indent=2) + "\n")


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
