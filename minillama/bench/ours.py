"""What minillama does in each part of the benchmark: functions that make {name: function of one step}."""

from math import prod

import numpy as np

from .. import backend
from ..checkpoint.open import load
from ..config import Config
from ..generation.generate import generate
from ..model import Model
from ..ops.positions.rope import rope_angles
from ..runtime.shards import Reading, cut
from ..runtime.workers import Workers
from ..training.clipping import clip_scale, gradient_norm
from ..training.optimizers import AdamW
from ..weights.quantize import quantize
from .shapes import ELEMENTS, WIDTH, Shape

SLOW_FLOPS = 3e8  # of a matrix product: beyond these the naive loops take more than a second


def batch(shape, seed=0):
    """Random ids and the targets that follow them: both (B, T)."""
    B, T = shape.batch_size, shape.config.context
    tokens = np.random.default_rng(seed).integers(0, shape.config.vocab_size, (B, T + 1))
    return tokens[:, :-1], tokens[:, 1:]


def warm_up():
    """One step of a tiny model: every kernel is compiled, or read from Numba's cache."""
    training(Shape(Config(16, dim=16, layers=1, heads=2, ffn=16, context=8), 2), 1)["step"]()


def training(shape, threads):
    """One step: gradients of a batch, clipping, AdamW. Returns the loss."""
    model = Model(shape.config, threads=threads)
    optimizer = AdamW(model.parameters)
    ids, targets = batch(shape)

    def step():
        loss, gradients = model.loss_and_gradients(ids, targets)
        scale = clip_scale(gradient_norm(gradients, model.workers), 1.0)
        optimizer.step(gradients, 1e-3, scale, model.workers)
        return loss

    return {"step": step}


def prefill(shape, threads):
    """Read a prompt into an empty cache; the logits of its last position."""
    model = Model(shape.config, threads=threads)
    ids, cache = batch(shape)[0][:1, : shape.prompt], model.new_cache()

    def step():
        cache.length = 0
        return model.next_logits(ids, cache)

    return {"step": step}


def decoding(shape, threads, weights="float32"):
    """Sample from a prompt of one token, a token at a time, as `minillama sample` does."""
    model = Model(shape.config, threads=threads)
    if weights != model.weights.kind:
        model = quantize(model, weights)
    return {"step": lambda: list(generate(model, [1], shape.decoded))}


def checkpoint(folder, shape, threads, weights):
    """Open a checkpoint; read a prompt into an empty cache; sample from a prompt of one token."""
    model = None

    def opened():
        nonlocal model
        model = None  # so that there is never memory for two
        model = load(folder, threads)
        if weights != model.weights.kind:
            model = quantize(model, weights)

    prompt = batch(shape)[0][:1, : shape.prompt]
    return {
        "open": opened,
        "first token": lambda: model.next_logits(prompt, model.new_cache()),
        "decode": lambda: list(generate(model, [1], shape.decoded)),
    }


def attention(config, batch_size, T, threads):
    """Forward and backward of attention alone; each thread has the sequences and heads that it has in the model."""
    rng, op, workers = np.random.default_rng(0), backend.active(), Workers(threads)
    tables = rope_angles(np.arange(T), config.head_dim, config.rope_theta)
    shares = []
    for shard in cut(config, batch_size, T, Reading(np.dtype(np.float32), tables), threads):
        shares.append([])
        for task in shard.tasks:
            B, H, K = (part.stop - part.start for part in task)
            qkv = rng.standard_normal((B, T, H + 2 * K, config.head_dim), np.float32)
            q, k, v = qkv[:, :, :H], qkv[:, :, H : H + K], qkv[:, :, H + K :]
            shares[-1].append((rng.standard_normal(q.shape, np.float32), q, k, v, *op.attention(q, k, v)))

    def forward():
        def work(_, share):
            for _, q, k, v, _, _ in share:
                op.attention(q, k, v)

        workers.run(work, shares)

    def backward():
        def work(_, share):
            for arrays in share:
                op.attention_backward(*arrays)

        workers.run(work, shares)

    return {"forward": forward, "backward": backward}


def elementwise(threads):
    """The operations that shapes.elementwise_costs lists, rows or elements shared out over the threads."""
    op, workers = backend.active(), Workers(threads)
    x = np.random.default_rng(0).standard_normal((ELEMENTS // WIDTH, WIDTH), np.float32)
    norm, weight = np.ones(WIDTH, np.float32), x.reshape(-1).copy()
    mean, square = np.zeros((2, ELEMENTS), np.float32)

    def update(_, part):
        arrays = (array[part] for array in (weight, x.reshape(-1), mean, square))
        op.adamw(*arrays, 100, 1e-3, (0.9, 0.95), 1e-8, 0.1, 1.0)

    def over_rows(function):
        def work(_, part):
            function(x[part])  # the result lies in the worker's arena

        return lambda: workers.run(work, workers.split(len(x)))

    return {
        "rmsnorm": over_rows(lambda rows: op.rmsnorm(rows, norm, 1e-5)),
        "swiglu": over_rows(op.swiglu),
        "adamw": lambda: workers.run(update, workers.split(ELEMENTS)),
    }


def matmul(size, threads):
    """The rungs of minillama.kernels.matmul that run on so many threads; the slow ones at small sizes only."""
    from ..kernels.matmul import LADDER

    a, b = matmul_operands(*size)
    c, workers = np.empty((len(a), b.shape[1]), np.float32), Workers(threads)
    names = ["threaded"] if threads > 1 else [name for name in LADDER if name != "threaded"]
    if 2 * prod(size) > SLOW_FLOPS:
        names = [name for name in names if name not in ("naive", "reordered")]
    return {name: lambda rung=LADDER[name]: rung(a, b, c, workers) for name in names}


def matmul_operands(rows, depth, columns):
    rng = np.random.default_rng(0)
    return rng.random((rows, depth), np.float32), rng.random((depth, columns), np.float32)
