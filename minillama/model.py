"""The network: embeddings, blocks, head, loss; its backward mirrors its forward. For a LLaMA, the default:

    x = embedding(ids)                                                        (N, C), N = B T rows
    for each block:   x = x + attention(rmsnorm(x));   x = x + feed_forward(rmsnorm(x))
    logits = rmsnorm(x) output^T                                              (N, V)

The layers and blocks stand in minillama.layers, whose docstring has the letters and the form of their functions; GPT-2
and BERT are other choices of the same parts (minillama.config.SWITCHES).
Source: Touvron et al. 2023 (arXiv 2302.13971), section 2.2.
"""

from itertools import pairwise

import numpy as np

from . import backend
from .layers.blocks import PLACEMENTS
from .layers.embedding import embed, embed_backward
from .layers.heads import HEADS
from .layers.noise import Noise
from .ops.loss import IGNORED
from .ops.positions import POSITIONS
from .ops.rope_scaling import ROPE_SCALINGS
from .parameters import NetworkWeights, initialise, parameter_shapes, stacked_views, views
from .runtime.memory import KVCache, Store, empty, frame
from .runtime.shards import Reading, cut, even_cuts
from .runtime.workers import Workers, available_threads

LOGITS_AT_A_TIME = 2**24  # floats: the head works on as many rows as give this many logits (64 MB in float32)


def network_loss_and_gradients(
    op, config, p: NetworkWeights, grad: NetworkWeights, ids, types, targets, weights, shard, noise
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
    dauxiliary = (auxiliary_weights(weights, targets, x.dtype),) if placement.has_auxiliary else ()
    for saved in saved_blocks if placement.has_auxiliary else ():
        loss += float(np.einsum("n,n->", *dauxiliary, saved.auxiliary, dtype=np.float64))

    dx = op.norm_backward(dh, x, p.final_norm.weight, saved_norm, *grad.final_norm) if placement.final_norm else dh
    for i, block in reversed(list(enumerate(p.blocks))):
        with frame():  # scratch of this block's backward is free again for the next one
            placement.block_backward(
                op, config, block, grad.blocks[i], dx, shard, noise, 1 + 2 * i, saved_blocks[i], *dauxiliary
            )
    dx = noise.drop(op, dx, 0)
    embed_backward(op, config, p.embedding, grad.embedding, ids, types, dx, shard, saved_embedding)
    return loss


def auxiliary_weights(weights, targets, dtype):
    """How often the auxiliary loss of each row counts: |weight_n|, 0 where the target is IGNORED. (N,)"""
    counts = empty(weights.shape, dtype)
    np.abs(weights, out=counts, casting="same_kind")
    counts[targets == IGNORED] = 0
    return counts


def head_loss_and_gradients(op, config, p: NetworkWeights, grad: NetworkWeights, h, targets, weights, shard):
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


def network_hidden(op, config, p: NetworkWeights, ids, types, shard, cache=None, see=None):
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


def head_input(op, config, p: NetworkWeights, x):
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
    all at 0, for a reader of checkpoints to fill.
    """

    def __init__(self, config, seed=0, dtype=np.float32, threads=None, init_std=0.02):
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64; received {np.dtype(dtype)}")
        self.config = config
        self.parameters = Store(parameter_shapes(config), dtype)
        self.workers = Workers(available_threads() if threads is None else threads)
        self._make_tables(dtype)
        self._views = views(config, self.parameters, position=self._position_table)
        if config.is_llama:
            self._views.stacked = stacked_views(self.parameters, config)
            self._views.nbytes = self.parameters.flat.nbytes
        self._gradients = []  # one Store and its views for each thread, made when first needed
        if init_std is not None:
            initialise(self.parameters, config, seed, init_std)

    def _make_tables(self, dtype):
        """What follows from the config alone: rotation, slopes, and fixed vectors of the positions."""
        position, context = POSITIONS[self.config.position], self.config.context
        self.rotation = position.rotation and position.rotation(self.config, context, dtype)
        # A cache holds keys as they were turned, so it reaches no further than the angles of its positions are fixed.
        reach = self.config.cached_context
        self._cached_rotation = (
            position.rotation(self.config, reach, dtype) if position.rotation and reach < context else self.rotation
        )
        self._slopes = position.slopes and position.slopes(self.config, dtype)
        self._position_table = position.table and position.table(self.config, dtype)

    @property
    def dtype(self):
        """What is computed in: float32 or float64."""
        return self.parameters.flat.dtype

    @property
    def matrices(self):
        """{name: matrix} of the parameters that are matrices; slices of their rows are arrays."""
        return {name: array for name, array in self.parameters.items() if array.ndim > 1}

    def kept(self, names):
        """The array of one parameter, or of several that lie side by side, as the model keeps it."""
        return self.parameters.fused(names)

    def _operations(self):
        return backend.active(self.config)

    def loss_and_gradients(
        self, ids, targets, weights=None, micro_batches=1, noise_seed=None, types=None, lengths=None
    ):  # fmt: skip
        """The sum of weight * loss in nats over the targets, and {name: gradient} with the parameters' shapes

        weights (B, T): None weighs all targets that are not IGNORED alike, so that the result is the mean of their
        losses; an ignored target has the weight 0, whatever is given. With weights dL/dloss any function L of the
        losses is trained: `Model.losses` gives the losses that it depends on.

        The gradients are overwritten by the next call; copy what is to be kept. micro_batches cuts the batch into
        parts that are computed one after the other, for less memory and the same result. noise_seed, a whole number,
        turns on config.dropout.
        """
        ids, types, lengths = self._check_inputs(ids, types, lengths)
        targets, predicted = self._check_targets(ids, targets, lengths)
        weights = self._check_weights(weights, targets, predicted)
        if micro_batches < 1:
            raise ValueError(f"micro_batches must be at least 1; received {micro_batches}")
        B, T = ids.shape
        loss, used = 0.0, 0  # used: how many gradient stores hold something of this batch
        with self.workers.blas(self.workers.threads):  # nobody else computes until the sum is complete
            for first, last in pairwise(even_cuts(B, min(B, micro_batches))):
                noise = None if noise_seed is None else Noise(self.config.dropout, noise_seed, first * T)
                parts = [
                    None if array is None else array[first:last] for array in (ids, types, targets, weights, lengths)
                ]
                part_loss, count = self._add_gradients(*parts, noise or Noise(), used)
                loss += part_loss
                used = max(used, count)
            stores = [store for store, _ in self._gradients[:used]]

            def add_up(_, part):
                for other in stores[1:]:
                    stores[0].flat[part] += other.flat[part]

            if len(stores) > 1:
                self.workers.run(add_up, self.workers.split(len(stores[0].flat)))
        return loss, stores[0]

    def _add_gradients(self, ids, types, targets, weights, lengths, noise, used):
        """The weighted sum of the losses of ids (B, T), and the number of stores that its gradients were added to

        Workers that have whole sequences add to a store each, and never wait. Workers that share sequences, and so meet
        in every layer, also share the first store: its matrices in turn, while each has vectors of its own. The first
        `used` stores hold gradients already, others are cleared.
        """
        op, config, shapes = self._operations(), self.config, self.parameters.shapes
        shards = cut(config, *ids.shape, self._reading(ids.shape[1], lengths), self.workers.threads)
        shared, ids = shards[0].shares_gradients, ids.reshape(-1)
        targets, weights = targets.reshape(-1), weights.reshape(-1)
        types = None if types is None else types.reshape(-1)
        count = 1 if shared else len(shards)
        while len(self._gradients) < count:
            store = Store(shapes, self.dtype)
            self._gradients.append((store, views(config, store)))
        vector_shapes = {name: shape for name, shape in shapes.items() if len(shape) == 1}
        own_vectors = [Store(vector_shapes, self.dtype) for _ in shards] if shared else None

        def shard_loss(i, shard):
            rows, (store, grad) = shard.rows, self._gradients[0 if shared else i]
            if used <= i < count:
                store.flat.fill(0)
            if shared:
                grad = views(config, store, lambda names: shard.shared(store.fused(names), names), own_vectors[i])
            return network_loss_and_gradients(
                op, config, self._views, grad, ids[rows], None if types is None else types[rows], targets[rows],
                weights[rows], shard, noise._replace(first_row=noise.first_row + rows.start),
            )  # fmt: skip

        loss = sum(self._run(shard_loss, shards))
        if shared:
            for store in own_vectors:
                self._gradients[0][0].vectors[:] += store.flat
        return loss, count

    def _reading(self, length, lengths=None):
        """What attention over `length` positions needs besides the activations."""
        rotation = self.rotation
        if rotation is not None and ROPE_SCALINGS[self.config.rope_scaling].by_length:
            rotation = POSITIONS[self.config.position].rotation(self.config, length, self.dtype)
        return Reading(self.dtype, rotation, self._slopes, lengths)

    def loss(self, ids, targets, types=None, lengths=None):
        """The mean loss in nats over the targets that are not IGNORED, without gradients."""
        losses = self.losses(ids, targets, types, lengths)
        return float(losses.sum(dtype=np.float64)) / np.count_nonzero(np.asarray(targets) != IGNORED)

    def losses(self, ids, targets, types=None, lengths=None):
        """The loss of each target in nats (B, T), 0 where it is IGNORED."""
        inputs = self._check_inputs(ids, types, lengths)
        targets, _ = self._check_targets(ids, targets, lengths)
        losses, targets = np.zeros(targets.shape, self.dtype), targets.reshape(-1)

        def rows_losses(op, h, rows):
            wanted = np.flatnonzero(targets[rows] != IGNORED)  # only these need the output matrix
            part, _ = op.cross_entropy(op.linear(h[wanted], *self._views.output), targets[rows][wanted])
            losses.reshape(-1)[rows.start + wanted] = part

        self._map_rows(rows_losses, *inputs)
        return losses

    def logits(self, ids, cache=None, types=None, lengths=None):
        """ids (B, T) -> logits (B, T, V) at each position: of the next token, or without a causal mask of its own

        With a `minillama.runtime.memory.KVCache`, ids continue what the cache holds, and are added to it.
        """
        ids, types, lengths = self._check_inputs(ids, types, lengths, cache)
        logits = np.empty((ids.size, self.config.vocab_size), self.dtype)
        self._map_rows(self._put_logits(logits), ids, types, lengths, cache)
        return logits.reshape(*ids.shape, -1)

    def logits_of_stream(self, x):
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

    def observe(self, see, ids, types=None, lengths=None):
        """Compute ids (B, T) as for `logits`, and show it: see(op, shard, i, x, saved), after each block i

        x (N, C) is the residual stream that leaves the block, saved what its forward saved (minillama.layers.blocks).
        Before the first block i is -1, x the embeddings, and saved None. A long text is cut among several threads:
        each calls see with its shard, which says what rows and heads it has. Copy what is to be kept.
        minillama.analysis.trace makes arrays of it.
        """
        self._map_rows(lambda op, h, rows: None, *self._check_inputs(ids, types, lengths), see=see)

    def next_logits(self, ids, cache=None):
        """ids (B, T) -> logits (B, V) of the token that follows each row; cache as for `logits`

        What generation asks for: a single token of a single sequence goes through one call where the model is a LLaMA
        (`decode` of the backend), and of a longer text only the last position meets the output matrix.
        """
        self._require_causal()
        ids, types, _ = self._check_inputs(ids, None, None, cache)
        B, T = ids.shape
        if cache is not None and B == T == 1 and self.config.is_llama:
            op = backend.active()
            logits = op.decode(self.config, self._views, int(ids[0, 0]), self._cached_rotation, cache, self.workers)
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

    def new_cache(self, batch_size=1, room=None):
        """An empty cache for decoding batch_size sequences of up to `room` tokens (default: config.context)

        All of its memory is asked for at once, and the context of a published model may want more than there is.
        """
        self._require_causal()
        if room is not None and not 1 <= room <= self.config.context:
            raise ValueError(f"room must lie in [1, {self.config.context}], the context; received {room}")
        return KVCache(self.config, batch_size, self.dtype, room)

    def save(self, path, tokenizer=None):
        """Write a Hugging Face directory: config.json, model.safetensors and, with a tokenizer, tokenizer.json

        transformers opens it where it has the architecture (minillama.checkpoint); minillama.load opens every one.
        """
        from .checkpoint.huggingface import save

        save(path, self, tokenizer)

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

        reading = self._reading(past + T, lengths)
        results = self._run(shard_results, cut(self.config, B, T, reading, self.workers.threads, past))
        return [result for part in results for result in part]

    def _run(self, function, shards):
        """[function(i, shard)] on the workers; if one of them fails, none waits for it."""

        def task(i, shard):
            shard.begin()
            result = function(i, shard)
            shard.end()
            return result

        with self.workers.blas(len(shards)):
            try:
                return self.workers.run(task, shards, shards[0].abort)
            finally:
                for shard in shards:
                    shard.forget()

    def _require_causal(self):
        if not self.config.causal:
            raise ValueError(
                f"a model with the mask {self.config.mask!r} reads what comes after a position too, so nothing of it "
                f"can be kept while a text grows, and it writes none. It fills gaps: minillama.generation.generate.fill"
            )

    def _check_inputs(self, ids, types, lengths, cache=None):
        """ids, types and lengths as arrays, or ValueError."""
        if cache is not None and lengths is not None:
            raise ValueError("lengths count tokens from the beginning, of which a cache holds some; leave lengths out")
        ids = self._check_ids(ids, cache)
        return ids, self._check_types(ids, types), self._check_lengths(ids, lengths)

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
        if cache is not None and past + ids.shape[1] > cache.room:
            raise ValueError(
                f"{past + ids.shape[1]} positions do not fit the cache, which has room for {cache.room}; ask new_cache "
                f"for more"
            )
        if cache is not None and past + ids.shape[1] > self.config.cached_context:
            raise ValueError(
                f"with rope_scaling {self.config.rope_scaling!r} every further token beyond "
                f"{self.config.cached_context} turns all earlier keys anew, so a cache of keys cannot be used there; "
                f"read the text without a cache, or choose 'ntk', which has fixed angles"
            )
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise ValueError(
                f"token ids must lie in [0, {self.config.vocab_size}); received {ids.min()} to {ids.max()}. Was the "
                f"text encoded with another tokenizer?"
            )
        return ids

    def _check_targets(self, ids, targets, lengths=None):
        """targets as an array, and how many are not IGNORED."""
        targets = np.asarray(targets)
        if targets.shape != np.shape(ids) or targets.dtype.kind not in "iu":
            raise ValueError(
                f"targets must be whole numbers of the shape of ids, {np.shape(ids)}; received {targets.dtype} "
                f"{targets.shape}"
            )
        predicted = np.count_nonzero(targets != IGNORED)
        if lengths is not None and (targets != IGNORED)[np.arange(targets.shape[1]) >= lengths[:, None]].any():
            raise ValueError(f"what stands at lengths[b] and after it is padding: its targets must be {IGNORED}")
        if predicted == 0:
            raise ValueError(f"every target is {IGNORED}, which means ignored: there is nothing to predict")
        if np.count_nonzero(targets >= 0) < predicted or targets.max() >= self.config.vocab_size:
            raise ValueError(
                f"targets must lie in [0, {self.config.vocab_size}) or be {IGNORED}; received {targets.min()} to "
                f"{targets.max()}"
            )
        return targets, predicted

    def _check_weights(self, weights, targets, predicted):
        """weights as an array of float64; what it has where a target is IGNORED does not count."""
        if weights is None:
            return np.broadcast_to(1 / predicted, targets.shape)  # a view of one number
        weights = np.asarray(weights)
        if weights.shape != targets.shape or weights.dtype.kind not in "fiu":
            raise ValueError(
                f"weights must be numbers of the shape of targets, {targets.shape}; received {weights.dtype} "
                f"{weights.shape}"
            )
        weights = np.where(targets != IGNORED, weights, 0).astype(np.float64)
        if not np.isfinite(weights).all():
            raise ValueError("weights must be finite where a target is not ignored; received infinity or NaN")
        return weights

    def _check_types(self, ids, types):
        """types as an array; zeros where none are given to a model that has them; None for one that has none."""
        if not self.config.token_types:
            if types is not None:
                raise ValueError("this model has no token types; leave types out")
            return None
        types = np.zeros(ids.shape, np.intp) if types is None else np.asarray(types)
        if types.shape != ids.shape or types.dtype.kind not in "iu":
            raise ValueError(
                f"types must be whole numbers of the shape of ids, {ids.shape}; received {types.dtype} {types.shape}"
            )
        if types.min() < 0 or types.max() >= self.config.token_types:
            raise ValueError(
                f"types must lie in [0, {self.config.token_types}); received {types.min()} to {types.max()}"
            )
        return types

    def _check_lengths(self, ids, lengths):
        if lengths is None:
            return None
        lengths, (B, T) = np.asarray(lengths), ids.shape
        if lengths.shape != (B,) or lengths.dtype.kind not in "iu":
            raise ValueError(
                f"lengths must be a whole number for each of the {B} sequences; received {lengths.dtype} "
                f"{lengths.shape}"
            )
        if lengths.min() < 1 or lengths.max() > T:
            raise ValueError(
                f"lengths must lie in [1, {T}], the tokens given; received {lengths.min()} to {lengths.max()}"
            )
        return lengths
