"""The decoder: each layer's forward with its backward below it; the network's backward mirrors its forward.

    x = embedding(ids)                                                        (N, C), N = B T rows
    for each block:   x = x + attention(rmsnorm(x));   x = x + feed_forward(rmsnorm(x))
    logits = rmsnorm(x) output^T                                              (N, V)

Letters: B batch, T time, N = B T, C model width, H heads, K key/value heads, D head width, F feed-forward width,
V vocabulary, L layers. `op` is the backend, `p` the parameters of a block and `grad` their gradients, by the same
names; `shard` knows which rows and heads a worker has (minillama.shards): read N as its rows, and to_heads and to_rows
as reshaping. What a forward keeps for its backward is the tuple that it returns last. Activation gradients are
returned, or for the residual stream updated in place; parameter gradients are added up.
Source: Touvron et al. 2023 (arXiv 2302.13971), section 2.2.
"""

from itertools import pairwise
from math import prod
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from . import backend
from .memory import KVCache, Store, empty, frame
from .ops.loss import IGNORED
from .ops.positions.rope import rope_angles
from .parallel import Workers, available_threads
from .shards import cut, even_cuts

LOGITS_AT_A_TIME = 2**24  # floats: the head works on as many rows as give this many logits (64 MB in float32)


class Noise(NamedTuple):
    """The dropout of one step: which elements fall out depends on the seed, the place in the network and the row."""

    rate: float = 0.0
    seed: int = 0
    first_row: int = 0

    def drop(self, op, x, site):
        return op.dropout(x, self.rate, (self.seed + site * 0x9E3779B9) % 2**32, self.first_row)


def attention_layer(op, config, p, x, shard, cache=None):
    """Project to queries, keys and values; turn queries and keys by their positions; attend; project back. (N, C)"""
    H, K = config.heads, config.kv_heads
    qkv = op.linear(x, p.w_qkv)  # (N, (H + 2 K) D)
    heads = qkv.reshape(-1, len(shard.rotation[0]), H + 2 * K, config.head_dim)
    op.rope(heads, *shard.rotation, config.rope_layout, H + K)  # queries and keys, not the values behind them
    attended = []
    for job, part in zip(shard.jobs, shard.to_heads(qkv), strict=True):
        q, k, v = split_heads(part, job)
        if cache is not None:
            k, v = cache.append(k, v, job.sequences, job.kv_heads)
        attended.append((q, k, v, *op.attention(q, k, v)))
    mixed = shard.to_rows([o for _, _, _, o, _ in attended], H)  # (N, C)
    return op.linear(mixed, p.w_o), (x, attended, mixed)


def attention_layer_backward(op, config, p, grad, dy, shard, saved):
    x, attended, mixed = saved
    H, K = config.heads, config.kv_heads
    dmixed = op.linear_backward(dy, mixed, p.w_o, grad.w_o)
    dparts = [op.attention_backward(do, *part) for do, part in zip(shard.to_heads(dmixed), attended, strict=True)]
    dqkv = shard.to_rows(dparts, H + 2 * K)  # (N, (H + 2 K) D)
    dheads = dqkv.reshape(-1, len(shard.rotation[0]), H + 2 * K, config.head_dim)
    op.rope_backward(dheads, *shard.rotation, config.rope_layout, H + K)
    return op.linear_backward(dqkv, x, p.w_qkv, grad.w_qkv)


def swiglu_layer(op, p, x):
    """w_down (silu(w_gate x) * (w_up x)): (N, C). Source: Shazeer 2020 (arXiv 2002.05202), equation 6."""
    gate_up = op.linear(x, p.w_gate_up)  # (N, 2 F)
    hidden = op.swiglu(gate_up)  # (N, F)
    return op.linear(hidden, p.w_down), (x, gate_up, hidden)


def swiglu_layer_backward(op, p, grad, dy, saved):
    x, gate_up, hidden = saved
    dhidden = op.linear_backward(dy, hidden, p.w_down, grad.w_down)
    dgate_up = op.swiglu_backward(dhidden, gate_up)
    return op.linear_backward(dgate_up, x, p.w_gate_up, grad.w_gate_up)


def block(op, config, p, x, shard, noise=None, site=0, cache=None):
    """x + attention(rmsnorm(x)), then the same with the feed-forward: (N, C). Pre-normalisation: x itself passes by."""
    h, inverse_rms_1 = op.rmsnorm(x, p.attention_norm, config.norm_eps)
    y, saved_attention = attention_layer(op, config, p, h, shard, cache)
    y = noise.drop(op, y, site) if noise else y
    h, inverse_rms_2 = op.rmsnorm(y, p.ffn_norm, config.norm_eps, residual=x)  # y is now the stream after attention
    z, saved_ffn = swiglu_layer(op, p, h)
    z = noise.drop(op, z, site + 1) if noise else z
    z += y
    return z, (x, inverse_rms_1, saved_attention, y, inverse_rms_2, saved_ffn)


def block_backward(op, config, p, grad, dx, shard, noise, site, saved):
    """dx (N, C), the gradient of the residual stream: of the block's output on entry, of its input on return."""
    x, inverse_rms_1, saved_attention, y, inverse_rms_2, saved_ffn = saved
    dz = noise.drop(op, dx, site + 1)
    dh = swiglu_layer_backward(op, p, grad, dz, saved_ffn)
    op.rmsnorm_backward(dh, y, p.ffn_norm, inverse_rms_2, grad.ffn_norm, dx)
    dy = noise.drop(op, dx, site)
    dh = attention_layer_backward(op, config, p, grad, dy, shard, saved_attention)
    op.rmsnorm_backward(dh, x, p.attention_norm, inverse_rms_1, grad.attention_norm, dx)


def network_loss_and_gradients(op, config, p, grad, ids, targets, shard, scale, noise):
    """scale * (sum of the losses of the shard's rows, ids and targets (N,)); its gradients are added to grad."""
    x = noise.drop(op, op.embedding(ids, p.embedding), 0)
    saved_blocks = []
    for i, weights in enumerate(p.blocks):
        x, saved = block(op, config, weights, x, shard, noise, 1 + 2 * i)
        saved_blocks.append(saved)
    h, inverse_rms = op.rmsnorm(x, p.final_norm, config.norm_eps)

    loss, dh = head_loss_and_gradients(op, p.output, grad.output, h, targets, shard, scale)

    dx = op.rmsnorm_backward(dh, x, p.final_norm, inverse_rms, grad.final_norm)
    for i, weights in reversed(list(enumerate(p.blocks))):
        with frame():  # scratch of this block's backward is free again for the next one
            block_backward(op, config, weights, grad.blocks[i], dx, shard, noise, 1 + 2 * i, saved_blocks[i])
    with shard.turn():
        op.embedding_backward(noise.drop(op, dx, 0), ids, grad.embedding)
    return loss


def head_loss_and_gradients(op, weight, dweight, h, targets, shard, scale):
    """Output matrix and loss, forward and backward, a chunk of rows at a time.

    The logits are the one array whose size grows with the vocabulary; chunk by chunk their gradient takes their place,
    so that N x V floats are never held, let alone twice. Overwrites h (N, C) with its gradient.
    """
    loss = 0.0
    for rows in shard.chunks(max(1, LOGITS_AT_A_TIME // len(weight))):
        with frame():
            part, part_targets = h[rows], targets[rows]
            logits = op.linear(part, weight)
            losses, log_denominator = op.cross_entropy(logits, part_targets)
            loss += scale * float(losses.sum(dtype=np.float64))
            dlogits = op.cross_entropy_backward(scale, logits, part_targets, log_denominator)
            part[:] = op.linear_backward(dlogits, part, weight, dweight)
    return loss, h


def network_hidden(op, config, p, ids, shard, cache=None):
    """The forward alone: the shard's rows (N, C) after the last norm. Nothing is kept but the residual stream."""
    x = op.embedding(ids, p.embedding)
    for i, weights in enumerate(p.blocks):
        with frame():
            x[:] = block(op, config, weights, x, shard, cache=cache and cache.layer(i))[0]
    return op.rmsnorm(x, p.final_norm, config.norm_eps)[0]


def split_heads(qkv, job):
    """Views of q (B, T, H, D), k and v (B, T, K, D) of a job, whose heads lie side by side: (B, T, H + 2 K, D)."""
    H, K = (heads.stop - heads.start for heads in (job.heads, job.kv_heads))
    return qkv[:, :, :H], qkv[:, :, H : H + K], qkv[:, :, H + K :]


def parameter_shapes(config):
    """{name: shape} of every parameter: the one description that sizes, views and file names derive from."""
    C, F, D = config.dim, config.ffn, config.head_dim
    shapes = {"embedding": (config.vocab_size, C)}
    for i in range(config.layers):
        shapes[f"blocks.{i}.attention_norm"] = (C,)
        shapes[f"blocks.{i}.w_q"] = (config.heads * D, C)
        shapes[f"blocks.{i}.w_k"] = (config.kv_heads * D, C)
        shapes[f"blocks.{i}.w_v"] = (config.kv_heads * D, C)
        shapes[f"blocks.{i}.w_o"] = (C, config.heads * D)
        shapes[f"blocks.{i}.ffn_norm"] = (C,)
        shapes[f"blocks.{i}.w_gate"] = (F, C)
        shapes[f"blocks.{i}.w_up"] = (F, C)
        shapes[f"blocks.{i}.w_down"] = (C, F)
    shapes["final_norm"] = (C,)
    if not config.tied:
        shapes["output"] = (config.vocab_size, C)
    return shapes


def named_views(store, config):
    """The arrays of a Store as attributes, block by block; w_qkv and w_gate_up are views over their parts."""
    blocks = []
    for i in range(config.layers):
        prefix = f"blocks.{i}."
        views = {name.removeprefix(prefix): store[name] for name in store if name.startswith(prefix)}
        views["w_qkv"] = store.fused([prefix + name for name in ("w_q", "w_k", "w_v")])
        views["w_gate_up"] = store.fused([prefix + name for name in ("w_gate", "w_up")])
        blocks.append(SimpleNamespace(**views))
    output = store["embedding" if config.tied else "output"]
    return SimpleNamespace(embedding=store["embedding"], blocks=blocks, final_norm=store["final_norm"], output=output)


def shared_views(grad, shard, norms):
    """Gradients by name for one of several workers that share them: matrices in turn, norms (2 L + 1, C) of its own."""
    blocks = []
    for i, block in enumerate(grad.blocks):
        matrices = {name: shard.shared(getattr(block, name)) for name in ("w_qkv", "w_o", "w_gate_up", "w_down")}
        blocks.append(SimpleNamespace(attention_norm=norms[2 * i], ffn_norm=norms[2 * i + 1], **matrices))
    output = shard.shared(grad.output)
    return SimpleNamespace(embedding=grad.embedding, blocks=blocks, final_norm=norms[-1], output=output)


def stacked_views(store, config):
    """The same arrays for a kernel that runs through all layers: embedding, blocks, norms, output

    Blocks are alike and lie one after the other, so theirs are two arrays: the matrices of each block in a row
    (L, size), and all norms (2 L + 1, C).
    """
    size = sum(prod(shape) for name, shape in store.shapes.items() if name.startswith("blocks.0.") and len(shape) > 1)
    first = store["embedding"].size
    blocks = store.matrices[first : first + config.layers * size].reshape(config.layers, size)
    norms = store.vectors.reshape(-1, config.dim)
    return store["embedding"], blocks, norms, store["embedding" if config.tied else "output"]


def initialise(store, config, seed, deviation=0.02):
    """Norms 1; matrices normal with the given deviation, divided by sqrt(2 L) where they write to the residual stream

    The 2 L layers each add to the stream; the smaller deviation keeps its variance from growing with depth.
    Source: Radford et al. 2019 (GPT-2), section 2.3, with 0.02 for widths from 768.
    """
    rng = np.random.default_rng(seed)
    for name, array in store.items():
        if array.ndim == 1:
            array[:] = 1
        else:
            residual = name.endswith(("w_o", "w_down"))
            scale = deviation / np.sqrt(2 * config.layers) if residual else deviation
            array[:] = rng.standard_normal(array.shape, np.float32) * np.float32(scale)


class Model:
    """A LLaMA with its parameters. Everything is a plain array: change `model.parameters[name]` in place.

        model = Model(Config(vocab_size=65), seed=0)
        loss, gradients = model.loss_and_gradients(ids, targets)

    ids and targets are integers (B, T); target (b, t) is the token that follows ids[b, :t + 1], or IGNORED (-100).
    Work is split over `threads` threads (default: all processors), by rows of the batch. The initial weights follow
    from seed and init_std, their standard deviation (see `initialise`).
    """

    def __init__(self, config, seed=0, dtype=np.float32, threads=None, init_std=0.02):
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64; received {np.dtype(dtype)}")
        self.config = config
        self.parameters = Store(parameter_shapes(config), dtype)
        self.workers = Workers(available_threads() if threads is None else threads)
        self.rotation = rope_angles(np.arange(config.context), config.head_dim, config.rope_theta, dtype)
        self._views = named_views(self.parameters, config)
        self._views.stacked, self._views.nbytes = stacked_views(self.parameters, config), self.parameters.flat.nbytes
        self._gradients = []  # one Store and its views for each thread, made when first needed
        initialise(self.parameters, config, seed, init_std)

    @property
    def dtype(self):
        return self.parameters.flat.dtype

    def loss_and_gradients(self, ids, targets, micro_batches=1, noise_seed=None):
        """The mean loss in nats over the targets that are not IGNORED, and {name: gradient} with parameter's shapes

        The gradients are overwritten by the next call; copy what is to be kept. micro_batches cuts the batch into
        parts that are computed one after the other, for less memory and the same result. noise_seed, a whole number,
        turns on config.dropout.
        """
        ids, (targets, predicted) = self._check_ids(ids), self._check_targets(ids, targets)
        if micro_batches < 1:
            raise ValueError(f"micro_batches must be at least 1; received {micro_batches}")
        (B, T), scale = ids.shape, 1 / predicted
        loss, used = 0.0, 0  # used: how many gradient stores hold something of this batch
        with self.workers.blas(self.workers.threads):  # nobody else computes until the sum is complete
            for first, last in pairwise(even_cuts(B, min(B, micro_batches))):
                noise = None if noise_seed is None else Noise(self.config.dropout, noise_seed, first * T)
                part_loss, count = self._add_gradients(ids[first:last], targets[first:last], scale, noise, used)
                loss += part_loss
                used = max(used, count)
            stores = [store for store, _ in self._gradients[:used]]

            def add_up(_, part):
                for other in stores[1:]:
                    stores[0].flat[part] += other.flat[part]

            if len(stores) > 1:
                self.workers.run(add_up, self.workers.split(len(stores[0].flat)))
        return loss, stores[0]

    def _add_gradients(self, ids, targets, scale, noise, used):
        """scale * (sum of the losses of ids (B, T)), and the number of stores that its gradients were added to

        Workers that have whole sequences add to a store each, and never wait. Workers that share sequences, and so meet
        in every layer, also share the first store. The first `used` stores hold gradients already, others are cleared.
        """
        op, config = backend.active(), self.config
        shards = cut(config, *ids.shape, self.rotation, self.workers.threads)
        shared, ids, targets = shards[0].shares_gradients, ids.reshape(-1), targets.reshape(-1)
        count = 1 if shared else len(shards)
        while len(self._gradients) < count:
            store = Store(self.parameters.shapes, self.dtype)
            self._gradients.append((store, named_views(store, config)))
        norms = np.zeros((len(shards), 2 * config.layers + 1, config.dim), self.dtype) if shared else None

        def shard_loss(i, shard):
            rows, (store, grad) = shard.rows, self._gradients[0 if shared else i]
            own_noise = noise._replace(first_row=noise.first_row + rows.start) if noise else Noise()
            if used <= i < count:
                store.flat.fill(0)
            if shared:
                grad = shared_views(grad, shard, norms[i])
            return network_loss_and_gradients(
                op, config, self._views, grad, ids[rows], targets[rows], shard, scale, own_noise
            )

        loss = sum(self._run(shard_loss, shards))
        if shared:
            self._gradients[0][0].vectors[:] += norms.sum(axis=0).ravel()
        return loss, count

    def loss(self, ids, targets):
        """The mean loss in nats over the targets that are not IGNORED, without gradients."""
        ids, (targets, predicted) = self._check_ids(ids), self._check_targets(ids, targets)
        scale = 1 / predicted

        def rows_loss(op, h, rows):
            losses, _ = op.cross_entropy(op.linear(h, self._views.output), targets.reshape(-1)[rows])
            return scale * float(losses.sum(dtype=np.float64))

        return sum(self._map_rows(ids, rows_loss))

    def logits(self, ids, cache=None):
        """ids (B, T) -> logits (B, T, V) of the next token at each position

        With a `minillama.memory.KVCache`, ids continue what the cache holds, and are added to it.
        """
        ids = self._check_ids(ids, cache)
        logits = np.empty((ids.size, self.config.vocab_size), self.dtype)

        def rows_logits(op, h, rows):
            logits[rows] = op.linear(h, self._views.output)

        self._map_rows(ids, rows_logits, cache)
        return logits.reshape(*ids.shape, -1)

    def next_logits(self, ids, cache=None):
        """ids (B, T) -> logits (B, V) of the token that follows each row; cache as for `logits`

        What generation asks for: a single token of a single sequence goes through one call (`decode` of the backend),
        and of a longer text only the last position meets the output matrix.
        """
        ids = self._check_ids(ids, cache)
        B, T = ids.shape
        if cache is not None and B == T == 1:
            op = backend.active()
            logits = op.decode(self.config, self._views, int(ids[0, 0]), self.rotation, cache, self.workers)
            cache.length += 1
            return logits[None]
        logits = empty((B, self.config.vocab_size), self.dtype)

        def last_rows(op, h, rows):
            first = (T - 1 - rows.start) % T  # of those among these rows that end a sequence
            last = h[first::T]
            start = (rows.start + first) // T
            logits[start : start + len(last)] = op.linear(last, self._views.output)

        self._map_rows(ids, last_rows, cache)
        return logits

    def new_cache(self, batch_size=1):
        """An empty cache for decoding batch_size sequences of up to config.context tokens."""
        return KVCache(self.config, batch_size, self.dtype)

    def save(self, path, tokenizer=None):
        """Write a Hugging Face directory: config.json, model.safetensors and, with a tokenizer, tokenizer.json."""
        from .checkpoint.huggingface import save

        save(path, self, tokenizer)

    def _map_rows(self, ids, function, cache=None):
        """function(op, h, rows) for chunks of rows of the last norm's output h, over the shards of the batch."""
        op, (B, T) = backend.active(), ids.shape
        past = 0 if cache is None else cache.length
        chunk = max(1, LOGITS_AT_A_TIME // self.config.vocab_size)
        flat_ids = ids.reshape(-1)

        def shard_results(_, shard):
            h = network_hidden(op, self.config, self._views, flat_ids[shard.rows], shard, cache)
            results = []
            for start in range(0, len(h), chunk):
                with frame():
                    part = h[start : start + chunk]
                    first = shard.rows.start + start
                    results.append(function(op, part, slice(first, first + len(part))))
            return results

        results = self._run(shard_results, cut(self.config, B, T, self.rotation, self.workers.threads, past))
        if cache is not None:
            cache.length += T
        return [result for part in results for result in part]

    def _run(self, function, shards):
        """[function(i, shard)] on the workers; if one of them fails, none waits for it."""

        def task(i, shard):
            shard.rotate()
            return function(i, shard)

        with self.workers.blas(len(shards)):
            try:
                return self.workers.run(task, shards, shards[0].abort)
            finally:
                for shard in shards:
                    shard.forget()

    def _check_ids(self, ids, cache=None):
        ids = np.asarray(ids)
        if ids.ndim != 2 or ids.size == 0 or ids.dtype.kind not in "iu":
            raise ValueError(f"ids must be whole numbers of shape (B, T); received {ids.dtype} {ids.shape}")
        if cache is not None and cache.keys.shape[1] != len(ids):
            raise ValueError(f"the cache is for {cache.keys.shape[1]} sequences; received ids for {len(ids)}")
        past = 0 if cache is None else cache.length
        if past + ids.shape[1] > self.config.context:
            raise ValueError(
                f"{past + ids.shape[1]} positions do not fit the context of {self.config.context} that this model was "
                f"made for; shorten the sequence, or make the model with a larger context"
            )
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise ValueError(
                f"token ids must lie in [0, {self.config.vocab_size}); received {ids.min()} to {ids.max()}. Was the "
                f"text encoded with another tokenizer?"
            )
        return ids

    def _check_targets(self, ids, targets):
        """targets as an array, and how many are not IGNORED."""
        targets = np.asarray(targets)
        if targets.shape != np.shape(ids) or targets.dtype.kind not in "iu":
            raise ValueError(
                f"targets must be whole numbers of the shape of ids, {np.shape(ids)}; received {targets.dtype} "
                f"{targets.shape}"
            )
        predicted = np.count_nonzero(targets != IGNORED)
        if predicted == 0:
            raise ValueError(f"every target is {IGNORED}, which means ignored: there is nothing to predict")
        if np.count_nonzero(targets >= 0) < predicted or targets.max() >= self.config.vocab_size:
            raise ValueError(
                f"targets must lie in [0, {self.config.vocab_size}) or be {IGNORED}; received {targets.min()} to "
                f"{targets.max()}"
            )
        return targets, predicted
