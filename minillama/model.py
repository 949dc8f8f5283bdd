"""The network: embeddings, blocks, head, loss; its backward mirrors its forward. For a LLaMA, the default:

    x = embedding(ids)                                                        (N, C), N = B T rows
    for each block:   x = x + attention(rmsnorm(x));   x = x + feed_forward(rmsnorm(x))
    logits = rmsnorm(x) output^T                                              (N, V)

The layers and blocks stand in minillama.layers, whose docstring has the letters and the form of their functions; GPT-2
and BERT are other choices of the same parts (minillama.config.SWITCHES).
Source: Touvron et al. 2023 (arXiv 2302.13971), section 2.2.
"""

from collections.abc import Callable
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import backend
from .config import Config
from .layers.blocks import PLACEMENTS
from .layers.embedding import embed, embed_backward
from .layers.heads import HEADS
from .layers.inputs import check_inputs, check_target_weights, check_targets, require_causal
from .layers.noise import Noise
from .layers.positions import PositionTables
from .ops.interface import Operations
from .ops.loss import IGNORED
from .parameters import NetworkWeights, initialise, views
from .runtime.memory import KVCache, Store, empty, frame
from .runtime.shards import Shard, cut, even_cuts
from .runtime.workers import Workers, available_threads
from .weights import Weights
from .weights.floats import FloatWeights
from .weights.gradients import Gradients

LOGITS_AT_A_TIME = 2**24  # floats: the head works on as many rows as give this many logits (64 MB in float32)


def network_loss_and_gradients(
    op: Operations, config, p: NetworkWeights, grad: NetworkWeights, ids, types, targets, weights, shard, noise
):
    """The sum of weight_n loss_n over the shard's rows; its gradients are added to grad

    ids, types, targets, weights (N,). An auxiliary loss of the blocks is added as minillama.layers.blocks says.
    """
    placement = PLACEMENTS[config.placement]
    x, saved_embedding = embed(op, config, p.embedding, ids, types, shard)
    x = noise.drop(op, x, 0)
    saved_blocks = []
    for i, block in enumerate(p.blocks):
        x, saved = placement.block(op, config, block, x, shard, noise, 1 + 2 * i)
        saved_blocks.append(saved)
    h, saved_norm = op.norm(x, *p.final_norm, config.norm_eps) if placement.final_norm else (x, None)

    loss, dh = head_loss_and_gradients(op, config, p, grad, h, targets, weights, shard)
    dauxiliary = ()  # where blocks have a loss of their own, how often that of each row counts
    if placement.has_auxiliary:
        dauxiliary = (auxiliary_weights(weights, targets, x.dtype),)
        loss += auxiliary_loss(saved_blocks, *dauxiliary)

    dx = op.norm_backward(dh, x, p.final_norm.weight, saved_norm, *grad.final_norm) if placement.final_norm else dh
    for i, block in reversed(list(enumerate(p.blocks))):
        with frame():  # scratch of this block's backward is free again for the next one
            placement.block_backward(
                op, config, block, grad.blocks[i], dx, shard, noise, 1 + 2 * i, saved_blocks[i], *dauxiliary
            )
    dx = noise.drop(op, dx, 0)
    embed_backward(op, config, p.embedding, grad.embedding, ids, types, dx, shard, saved_embedding)
    return loss


def auxiliary_loss(saved_blocks, counts):
    """The sum over blocks and rows of counts_n auxiliary_n."""
    return sum(float(np.einsum("n,n->", counts, saved.auxiliary, dtype=np.float64)) for saved in saved_blocks)


def auxiliary_weights(weights, targets, dtype):
    """How often the auxiliary loss of each row counts: |weight_n|, 0 where the target is IGNORED. (N,)"""
    counts = empty(weights.shape, dtype)
    np.abs(weights, out=counts, casting="same_kind")
    counts[targets == IGNORED] = 0
    return counts


def head_loss_and_gradients(
    op: Operations, config, p: NetworkWeights, grad: NetworkWeights, h, targets, weights, shard
):
    """Head and loss, forward and backward, the output matrix a chunk of rows at a time.

    The logits are the one array whose size grows with the vocabulary; chunk by chunk their gradient takes their place,
    so that N x V floats are never held, let alone twice. Overwrites h (N, C) with its gradient.
    """
    head, loss = HEADS[config.head], 0.0
    y, saved = head.transform(op, config, p.head, h)
    for rows in shard.chunks(max(1, LOGITS_AT_A_TIME // config.vocab_size)):
        with frame():
            part, part_targets, part_weights = y[rows], targets[rows], empty((rows.stop - rows.start,), y.dtype)
            part_weights[:] = weights[rows]
            logits = op.linear(part, *p.output)
            losses, log_denominator = op.cross_entropy(logits, part_targets)
            loss += float(np.einsum("n,n->", weights[rows], losses))  # in float64, as the weights are
            dlogits = op.cross_entropy_backward(part_weights, logits, part_targets, log_denominator)
            part[:] = op.linear_backward(dlogits, part, p.output.weight, *grad.output)
    return loss, head.transform_backward(op, config, p.head, grad.head, y, saved)


def network_hidden(op: Operations, config, p: NetworkWeights, ids, types, shard, cache=None, see=None):
    """The forward alone: what the output matrix multiplies (N, C). Nothing is kept but the residual stream; see, where
    given, is shown each block, as `Model.observe` says."""
    placement, still = PLACEMENTS[config.placement], Noise()
    x, _ = embed(op, config, p.embedding, ids, types, shard)
    if see is not None:
        see(op, shard, -1, x, None)
    for i, block in enumerate(p.blocks):
        with frame():
            y, saved = placement.block(op, config, block, x, shard, still, 0, cache and cache.layer(i))
            if see is not None:
                see(op, shard, i, y, saved)
            x[:] = y
    return head_input(op, config, p, x)


def head_input(op: Operations, config, p: NetworkWeights, x):
    """What the output matrix multiplies, from the residual stream x: normalised, and transformed by the head. (N, C)"""
    h = op.norm(x, *p.final_norm, config.norm_eps)[0] if PLACEMENTS[config.placement].final_norm else x
    return HEADS[config.head].transform(op, config, p.head, h)[0]


class Model:
    """A model with its parameters. Everything is a plain array: change `model.parameters[name]` in place.

        model = Model(Config(vocab_size=65), seed=0)
        loss, gradients = model.loss_and_gradients(ids, targets)

    ids and targets are integers (B, T); target (b, t) is the token that follows ids[b, :t + 1], or, where the mask is
    not causal, the token that a gap hides; IGNORED (-100) for none. types (B, T) are the kinds of the tokens
    (default 0) in a model that has token types; lengths (B,) say how many tokens of each sequence are text and not the
    padding behind it (default all). Work is split over `threads` threads (default: all processors), by rows of the
    batch. The initial weights follow from seed and init_std, their standard deviation (see `initialise`); None leaves
    all at 0, for a reader of checkpoints to fill. weights: those of another kind (minillama.weights), in place of new
    ones of dtype float32 or float64. `minillama.save` writes a model.
    """

    def __init__(
        self, config: Config, seed: int = 0, dtype: DTypeLike = np.float32, threads: int | None = None,
        init_std: float | None = 0.02, weights: Weights | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self._hold(FloatWeights(config, dtype) if weights is None else weights)
        self.workers = Workers(available_threads() if threads is None else threads)
        if weights is None and init_std is not None:
            initialise(self.parameters, config, seed, init_std)

    def _hold(self, weights: Weights) -> None:
        self.weights, self.parameters = weights, weights.parameters
        self.tables = PositionTables(self.config, weights.dtype)
        self._views = views(self.config, weights.matrices, weights.matrix, weights.vectors, self.tables.vectors)
        self._gradients = Gradients(self.config, weights)

    def with_weights(self, weights: Weights) -> "Model":
        """This model with other weights of its Config (minillama.weights), on the same threads."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._hold(weights)
        return other

    def __reduce__(self):  # copied, or sent to another process: threads cannot be, so the copy has as many of its own
        return _with_weights, (type(self), self.config, self.workers.threads, self.weights)

    @property
    def dtype(self) -> np.dtype:
        """What is computed in: float32 or float64."""
        return self.weights.dtype

    @property
    def nbytes(self) -> int:
        """The size of the weights as they are kept, in bytes."""
        return self.weights.nbytes

    def _operations(self):
        return self.weights.operations(backend.active(self.config))

    def loss_and_gradients(
        self, ids: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None, micro_batches: int = 1,
        noise_seed: int | None = None, types: ArrayLike | None = None, lengths: ArrayLike | None = None,
    ) -> tuple[float, Store]:  # fmt: skip
        """The sum of weight * loss in nats over the targets, and {name: gradient} with the parameters' shapes

        weights (B, T): None weighs all targets that are not IGNORED alike, so that the result is the mean of their
        losses; an ignored target has the weight 0, whatever is given. With weights dL/dloss any function L of the
        losses is trained: `Model.losses` gives the losses that it depends on.

        The gradients are overwritten by the next call; copy what is to be kept. micro_batches cuts the batch into
        parts that are computed one after the other, for less memory and the same result. noise_seed, a whole number,
        turns on config.dropout.
        """
        self.weights.require_trainable()
        ids, types, lengths = check_inputs(self.config, ids, types, lengths)
        targets, predicted = check_targets(self.config, ids, targets, lengths)
        weights = check_target_weights(weights, targets, predicted)
        if micro_batches < 1:
            raise ValueError(f"micro_batches must be at least 1; received {micro_batches}")
        (B, T), loss = ids.shape, 0.0
        with self.workers.blas(self.workers.threads):  # nobody else computes until the sum is complete
            self._gradients.begin()
            for first, last in pairwise(even_cuts(B, min(B, micro_batches))):
                *part, part_lengths = (
                    None if array is None else array[first:last] for array in (ids, types, targets, weights, lengths)
                )
                shards = cut(self.config, last - first, T, self.tables.reading(T, part_lengths), self.workers.threads)
                noise = Noise() if noise_seed is None else Noise(self.config.dropout, noise_seed, first * T)
                self._gradients.open(shards)
                with self._side_by_side(shards):
                    shard_loss = self._shard_loss(part, noise)
                    loss += sum(self.workers.run(shard_loss, shards, shards[0].abort, Shard.at_work))
                self._gradients.close()
            return loss, self._gradients.sum(self.workers)

    def _shard_loss(self, part, noise):
        """shard_loss(i, shard): the loss of a shard, whose gradients worker i adds to its own

        part: ids, types, targets and weights, (B, T), types None where the model has none.
        """
        op = self._operations()
        arrays = [None if array is None else array.reshape(-1) for array in part]

        def shard_loss(i, shard):
            rows, grad = shard.rows, self._gradients.of(i, shard)
            own = (None if array is None else array[rows] for array in arrays)
            own_noise = noise._replace(first_row=noise.first_row + rows.start)
            return network_loss_and_gradients(op, self.config, self._views, grad, *own, shard, own_noise)

        return shard_loss

    def loss(
        self, ids: ArrayLike, targets: ArrayLike, types: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> float:
        """The mean loss in nats over the targets that are not IGNORED, without gradients."""
        losses = self.losses(ids, targets, types, lengths)
        return float(losses.sum(dtype=np.float64)) / np.count_nonzero(np.asarray(targets) != IGNORED)

    def losses(
        self, ids: ArrayLike, targets: ArrayLike, types: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> np.ndarray:
        """The loss of each target in nats (B, T), 0 where it is IGNORED."""
        inputs = check_inputs(self.config, ids, types, lengths)
        targets, _ = check_targets(self.config, ids, targets, lengths)
        losses, targets = np.zeros(targets.shape, self.dtype), targets.reshape(-1)

        def rows_losses(op, h, rows):
            wanted = np.flatnonzero(targets[rows] != IGNORED)  # only these need the output matrix
            part, _ = op.cross_entropy(op.linear(h[wanted], *self._views.output), targets[rows][wanted])
            losses.reshape(-1)[rows.start + wanted] = part

        self._map_rows(rows_losses, *inputs)
        return losses

    def logits(
        self, ids: ArrayLike, cache: KVCache | None = None, types: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> np.ndarray:  # fmt: skip
        """ids (B, T) -> logits (B, T, V) at each position: of the next token, or without a causal mask of its own

        With a `minillama.runtime.memory.KVCache`, ids continue what the cache holds, and are added to it.
        """
        ids, types, lengths = check_inputs(self.config, ids, types, lengths, cache)
        logits = np.empty((ids.size, self.config.vocab_size), self.dtype)
        self._map_rows(self._put_logits(logits), ids, types, lengths, cache)
        return logits.reshape(*ids.shape, -1)

    def logits_of_stream(self, x: ArrayLike) -> np.ndarray:
        """A residual stream x (B, T, C) -> logits (B, T, V), read as the one that leaves the last block."""
        x = np.asarray(x, self.dtype)
        if x.ndim != 3 or x.size == 0 or x.shape[2] != self.config.dim:
            raise ValueError(f"a stream of this model has the shape (B, T, {self.config.dim}); received {x.shape}")
        (B, T, _), x = x.shape, x.reshape(-1, self.config.dim)
        logits = np.empty((B * T, self.config.vocab_size), self.dtype)

        def hidden(op, shard):
            return head_input(op, self.config, self._views, x[shard.rows])

        self._map_hidden(self._put_logits(logits), hidden, B, T)
        return logits.reshape(B, T, -1)

    def _put_logits(self, logits):
        def rows_logits(op, h, rows):
            logits[rows] = op.linear(h, *self._views.output)

        return rows_logits

    def observe(
        self, see: Callable[..., object], ids: ArrayLike, types: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> None:  # fmt: skip
        """Compute ids (B, T) as for `logits`, and show it: see(op, shard, i, x, saved), after each block i

        x (N, C) is the residual stream that leaves the block, saved what its forward saved (minillama.layers.blocks).
        Before the first block i is -1, x the embeddings, and saved None. A long text is cut among several threads:
        each calls see with its shard, which says what rows and heads it has. Copy what is to be kept.
        minillama.analysis.trace makes arrays of it.
        """
        self._map_rows(lambda op, h, rows: None, *check_inputs(self.config, ids, types, lengths), see=see)

    def next_logits(self, ids: ArrayLike, cache: KVCache | None = None) -> np.ndarray:
        """ids (B, T) -> logits (B, V) of the token that follows each row; cache as for `logits`

        What generation asks for: a single token of a single sequence goes through one call where the model is a LLaMA
        (`decode` of the backend), and of a longer text only the last position meets the output matrix.
        """
        require_causal(self.config)
        ids, types, _ = check_inputs(self.config, ids, None, None, cache)
        B, T = ids.shape
        if cache is not None and B == T == 1 and self.config.is_llama:
            op = backend.active()
            rotation = self.tables.cached_rotation
            logits = op.decode(self.config, self._views, self.weights, int(ids[0, 0]), rotation, cache, self.workers)
            cache.length += 1
            return logits[None]
        logits = empty((B, self.config.vocab_size), self.dtype)

        def last_rows(op, h, rows):
            first = (T - 1 - rows.start) % T  # of those among these rows that end a sequence
            last = h[first::T]
            start = (rows.start + first) // T
            logits[start : start + len(last)] = op.linear(last, *self._views.output)

        self._map_rows(last_rows, ids, types, None, cache)
        return logits

    def new_cache(self, batch_size: int = 1, room: int | None = None) -> KVCache:
        """An empty cache for decoding batch_size sequences of up to `room` tokens (default: config.context)

        All of its memory is asked for at once, and the context of a published model may want more than there is.
        """
        require_causal(self.config)
        if room is not None and not 1 <= room <= self.config.context:
            raise ValueError(f"room must lie in [1, {self.config.context}], the context; received {room}")
        return KVCache(self.config, batch_size, self.dtype, room)

    def _map_rows(self, function, ids, types, lengths, cache=None, see=None):
        """function(op, h, rows) for chunks of the rows that the output matrix multiplies, over a batch's shards."""
        past = 0 if cache is None else cache.length
        flat_ids, flat_types = ids.reshape(-1), None if types is None else types.reshape(-1)

        def hidden(op, shard):
            own_types = None if types is None else flat_types[shard.rows]
            return network_hidden(op, self.config, self._views, flat_ids[shard.rows], own_types, shard, cache, see)

        results = self._map_hidden(function, hidden, *ids.shape, past, lengths)
        if cache is not None:
            cache.length += ids.shape[1]
        return results

    def _map_hidden(self, function, hidden, B, T, past=0, lengths=None):
        """function(op, h, rows) for chunks of the rows h = hidden(op, shard) of each shard of B sequences."""
        op, chunk = self._operations(), max(1, LOGITS_AT_A_TIME // self.config.vocab_size)

        def shard_results(_, shard):
            h, results = hidden(op, shard), []
            for start in range(0, len(h), chunk):
                with frame():
                    part = h[start : start + chunk]
                    first = shard.rows.start + start
                    results.append(function(op, part, slice(first, first + len(part))))
            return results

        reading = self.tables.reading(past + T, lengths)
        shards = cut(self.config, B, T, reading, self.workers.threads, past)
        with self._side_by_side(shards):
            results = self.workers.run(shard_results, shards, shards[0].abort, Shard.at_work)
        return [result for part in results for result in part]

    @contextmanager
    def _side_by_side(self, shards):
        """Inside this block a worker computes each shard, and BLAS has the threads that are left."""
        with self.workers.blas(len(shards)):
            try:
                yield
            finally:
                for shard in shards:
                    shard.forget()


def _with_weights(kind, config, threads, weights):
    """A Model around a copy's weights."""
    return kind(config, threads=threads, weights=weights)
