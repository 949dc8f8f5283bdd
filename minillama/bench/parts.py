"""The parts of the benchmark: who takes part in each, and what the arithmetic and the memory traffic of a step are.

Each part is a function (Bench) -> rows. A row is a dictionary, ready for JSON, of one contestant's steps:

    part, shape, job, contestant, threads     what was measured
    min, median, steps, first                 seconds, how many steps, seconds from a process with nothing loaded or
                                              made to the end of its first step
    flops, bytes, tokens                      of one step, where they have a meaning
    memory                                    bytes by which the process grew, at the peak of its steps
    limits                                    what the machine did in the same rounds: limits.rates
    unavailable                               instead of times: why there are none
"""

import importlib.util
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np
from tqdm import tqdm

from ..checkpoint import huggingface
from ..model import Model
from ..weights.packed import PackedWeights
from .contestants import Contestant, Unavailable
from .machine import machine, rates
from .shapes import (
    CHECKPOINT,
    LENGTHS,
    SHAPES,
    Shape,
    attention_bytes,
    attention_flops,
    elementwise_costs,
    matmul_shapes,
)

_PATIENCE = 10.0  # seconds of rounds, after which a measurement ends; but not before LEAST rounds
LEAST = 3
FRESH = 1.0  # seconds after which the machine's limits are measured again: rented machines change from second to second


@dataclass
class Bench:
    """What to measure, and the process that measures the machine's limits in every round."""

    shapes: dict = field(default_factory=lambda: dict(SHAPES))
    threads: int = 1
    rounds: int = 6
    torch: bool = True  # PyTorch takes part

    def __post_init__(self):
        self.torch = self.torch and importlib.util.find_spec("torch") is not None
        self.thread_counts = sorted({1, self.threads})
        self.machine = machine(self.threads)

    def run(self, parts):
        """The rows of these parts of PARTS."""
        rows = []
        with closing(Contestant("machine", ".machine", "limits", self.threads)) as self.referee:
            self.referee.await_ready()
            for part in parts:
                rows += PARTS[part](self)
        return rows

    def contest(self, part, shape, entries, threads=None):
        """Rows of a measurement in which the entries (name, module, maker, arguments) take turns at their jobs."""
        common = {"part": part, "shape": shape, "threads": threads or self.threads}
        with ExitStack() as stack:
            contestants, absent = [], {}
            for name, *making in entries:
                contestant = stack.enter_context(closing(Contestant(name, *making)))
                try:
                    contestant.await_ready()  # one after the other, so that nobody's first step is disturbed
                    contestants.append(contestant)
                except Unavailable as error:
                    absent[name] = str(error)
            seconds, limits = self._take_turns(contestants, absent, f"{part}, {shape}")
            memory = {contestant.name: contestant.memory() for contestant in contestants}
        rows = [
            {
                **common,
                "job": job,
                "contestant": contestant.name,
                "min": min(seconds[contestant.name, job]),
                "median": median(seconds[contestant.name, job]),
                "steps": len(seconds[contestant.name, job]),
                "first": contestant.first[job],
                "memory": memory[contestant.name],
                "limits": limits,
            }
            for contestant in contestants
            for job in contestant.jobs
        ]
        for name, reason in absent.items():
            rows.append({**common, "job": "", "contestant": name, "unavailable": reason, "limits": limits})
        return rows

    def _take_turns(self, contestants, absent, label):
        """{(contestant, job): seconds of its steps}, and the limits measured in between

        Who fails is moved from contestants to absent {name: reason}, and the others go on.
        """
        seconds = {(contestant.name, job): [] for contestant in contestants for job in contestant.jobs}
        limits = {job: [] for job in self.referee.jobs}
        jobs = list(dict.fromkeys(job for contestant in contestants for job in contestant.jobs))

        def measure_limits():
            for limit in limits:
                limits[limit] += self.referee.turn(limit, 0.08)
            return time.perf_counter()

        start = measured = measure_limits()
        for number in tqdm(range(self.rounds), desc=label, leave=False):
            for job in jobs:
                begins = number % max(1, len(contestants))  # another one in each round
                for contestant in contestants[begins:] + contestants[:begins]:
                    if job not in contestant.jobs:
                        continue
                    if time.perf_counter() - measured > FRESH:
                        measured = measure_limits()
                    try:
                        seconds[contestant.name, job] += contestant.turn(job)
                    except Unavailable as error:
                        absent[contestant.name] = str(error)
                        contestants.remove(contestant)
            if number + 1 >= LEAST and time.perf_counter() - start > _PATIENCE:
                break
        return seconds, rates(limits)

    def against(self, maker, *arguments, compiled=False):
        """The entries of a contest: minillama and, where it is there, PyTorch eager and compiled."""
        entries = [("minillama", ".ours", maker, *arguments)]
        if self.torch:
            entries.append(("PyTorch", ".torch_llama", maker, *arguments))
            if compiled:
                entries.append(("torch.compile", ".torch_llama", maker, *arguments, True))
        return entries


def training(bench):
    rows = []
    for name, shape in bench.shapes.items():
        made = bench.contest("training", name, bench.against("training", shape, bench.threads, compiled=True))
        rows += with_costs(made, lambda _, s=shape: (s.training_flops, s.training_bytes, s.tokens))
    return rows


def prefill(bench):
    rows = []
    for name, shape in bench.shapes.items():
        if shape.prompt:
            made = bench.contest("prefill", name, bench.against("prefill", shape, bench.threads, compiled=True))
            rows += with_costs(made, lambda _, s=shape: (s.prefill_flops, s.prefill_bytes, s.prompt))
    return rows


def decoding(bench):
    rows = []
    for name, shape in bench.shapes.items():
        if not shape.decoded:
            continue
        entries = bench.against("decoding", shape, bench.threads)
        entries.insert(1, ("minillama int8", ".ours", "decoding", shape, bench.threads, "int8"))
        made = bench.contest("decoding", name, entries)
        rows += with_costs(made, lambda row, s=shape: decoding_costs(s, row["contestant"]))
    return rows


def decoding_costs(shape, contestant):
    bytes_a_weight = 1 if contestant.endswith("int8") else 4
    return (
        2 * shape.weights_a_token * shape.decoded,
        bytes_a_weight * shape.weights_a_token * shape.decoded,
        shape.decoded,
    )


def attention(bench):
    rows = []
    for name, shape in bench.shapes.items():
        size = shape.config, shape.batch_size, shape.config.context
        for threads in bench.thread_counts:
            made = bench.contest("attention", name, bench.against("attention", *size, threads), threads)
            rows += with_costs(made, lambda row, size=size: attention_costs(row["job"], *size))
    return rows


def attention_costs(job, config, batch_size, T):
    which = ("forward", "backward").index(job)
    return attention_flops(config, batch_size, T)[which], attention_bytes(config, batch_size, T)[which], batch_size * T


def length(bench):
    """Attention alone and the training step of `long`, for sequences of LENGTHS."""
    rows = []
    for T in LENGTHS:
        config = replace(SHAPES["long"].config, context=T)
        shape = Shape(config, 1)
        made = bench.contest("length", f"T {T}", bench.against("attention", config, 1, T, bench.threads))
        rows += with_costs(made, lambda row, size=(config, 1, T): attention_costs(row["job"], *size))
        made = bench.contest("length", f"T {T}", bench.against("training", shape, bench.threads))
        rows += with_costs(made, lambda _, s=shape: (s.training_flops, s.training_bytes, s.tokens))
    return rows


def matmul(bench):
    """The ladder of minillama.kernels.matmul, a rung at a time, against BLAS."""
    rows = []
    for name, size in matmul_shapes(bench.shapes).items():
        for threads in bench.thread_counts:
            entries = [("BLAS", ".machine", "blas", size, threads), ("minillama", ".ours", "matmul", size, threads)]
            made = bench.contest("matmul", name, entries, threads)
            n, depth, columns = size
            traffic = 4 * (n * depth + depth * columns + n * columns)
            rows += with_costs(made, lambda _, s=size, b=traffic: (2 * s[0] * s[1] * s[2], b, None))
    return rows


def elementwise(bench):
    """Operations that memory limits: norm, SwiGLU, AdamW on arrays larger than the caches."""
    made = bench.contest("elementwise", "16 M elements", bench.against("elementwise", bench.threads)[:1])
    return with_costs(made, lambda row: (*elementwise_costs()[row["job"]], None))


def checkpoint(bench):
    """Open a checkpoint of CHECKPOINT's shape with random bfloat16 weights, read a prompt, write."""
    shape, rows = CHECKPOINT, []
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(folder, shape.config)
        for weights, bytes_a_weight in (("bfloat16", 2), ("int8", 1)):
            entries = [(f"minillama {weights}", ".ours", "checkpoint", folder, shape, bench.threads, weights)]
            made = bench.contest("checkpoint", "1.2 B", entries)
            traffic = bytes_a_weight * shape.weights_a_token
            rows += with_costs(made, lambda row, b=traffic: (None, *checkpoint_costs(row["job"], shape, b)))
    return rows


def checkpoint_costs(job, shape, bytes_a_token):
    """bytes and tokens of a step; opening and the first token are told in seconds alone."""
    return (bytes_a_token * shape.decoded, shape.decoded) if job == "decode" else (None, None)


def write_checkpoint(folder, config):
    """A Hugging Face directory of bfloat16 weights, normal with the deviation 0.02."""
    weights = PackedWeights(config, "bfloat16")
    rng, bits = np.random.default_rng(0), weights.stores[0].flat
    for start in range(0, len(bits), 2**24):
        part = bits[start : start + 2**24]
        part[:] = (rng.standard_normal(len(part), np.float32) * np.float32(0.02)).view(np.uint32) >> 16
    weights.vectors.flat[:] = 1
    huggingface.save(folder, Model(config, threads=1, weights=weights))


def with_costs(rows, costs):
    """rows with the flops, bytes and tokens of a step that costs(row) gives"""
    for row in rows:
        if "unavailable" not in row:
            row["flops"], row["bytes"], row["tokens"] = costs(row)
    return rows


PARTS = {
    "training": training,
    "prefill": prefill,
    "decoding": decoding,
    "attention": attention,
    "length": length,
    "matmul": matmul,
    "elementwise": elementwise,
    "checkpoint": checkpoint,
}
ON_REQUEST = {"checkpoint"}  # parts that are measured only where they are named: it writes 2.5 GB
