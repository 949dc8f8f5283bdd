"""How a batch is cut among the workers: whole sequences, or rows of sequences with an exchange around attention.

Everything but attention treats the N = B T rows of a batch one by one. Where the sequences divide evenly among the
workers, each takes whole ones, and nobody needs anything of another's. Otherwise, and for a single long sequence, each
worker has an equal share of the rows, and in attention an equal share of the (sequence, query head) pairs:

    worker 0: rows 0 .. N/2      to_heads      heads 0 .. H/2 of all rows      to_rows      rows 0 .. N/2
    worker 1: rows N/2 .. N     --------->     heads H/2 .. H of all rows     --------->    rows N/2 .. N

Each worker shows the others what it has, all meet, and each copies what it needs. Between machines this is the
all-to-all of DeepSpeed-Ulysses: Jacobs et al. 2023 (arXiv 2309.14509), section 3.2.
"""

import threading
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .memory import empty

# Measured on two cores. Threads that meet, or that take turns at the interpreter's lock, lose some 50 microseconds each
# time; where that is more than they gain, one worker computes and BLAS alone uses the other processors.
WORK_WORTH_SHARING = 2**25  # multiplications by weights, rows x 12 L C^2
ROWS_WORTH_CUTTING = 128  # a worker


class AttentionTask(NamedTuple):
    """Attention of some query heads of some sequences, with the key/value heads that those read; three slices."""

    sequences: slice
    heads: slice
    kv_heads: slice


class Shard:
    """One worker's share of B sequences of T positions, of which the first comes after `past` cached ones

    rows: slice of the N = B T rows. tasks: its attention. rotation, inside `at_work`: cos and sin (T', D / 2) that turn
    its rows as (-1, T', heads, D), or None; T' is T for whole sequences, else the number of rows.
    """

    def __init__(self, config, T, rows, tasks, reading, past, meeting=None, index=0):
        self.rows, self.tasks = rows, tasks
        self._config, self._T, self._meeting, self._index = config, T, meeting, index
        self._reading, self._past, self.rotation = reading, past, None

    @contextmanager
    def at_work(self):
        """Inside this block, on the thread whose arena is active, a worker computes this shard

        RuntimeError at its end if the others wait for more from it.
        """
        self.rotation = self._rotation()
        yield
        if self._meeting is not None:
            self._meeting.leave(self._index)

    def _rotation(self):
        tables = self._reading.rotation
        if tables is None:
            return None
        if self._meeting is None:
            return tuple(table[self._past : self._past + self._T] for table in tables)
        positions = self.positions()
        shape = len(positions), self._config.head_dim // 2
        return tuple(np.take(table, positions, axis=0, out=empty(shape, table.dtype), mode="clip") for table in tables)

    def positions(self):
        """The position of each row in its sequence (n,)."""
        return self._past + np.arange(self.rows.start, self.rows.stop) % self._T

    def by_position(self, x):
        """Rows x (n, W D) as heads (-1, T', W, D), as `rotation` turns them."""
        return x.reshape(-1, len(self.rotation[0]), x.shape[1] // self._config.head_dim, self._config.head_dim)

    def rules(self, task):
        """What the queries of a task may read, as arguments of attention: causal, slopes, lengths."""
        slopes, lengths = self._reading.slopes, self._reading.lengths
        return (
            self._config.causal,
            None if slopes is None else slopes[task.heads],
            None if lengths is None else lengths[task.sequences],
        )

    def to_heads(self, x):
        """Rows x (n, W D) of this worker -> for each of its tasks an array (sequences, T, heads, D)

        W = H: the heads of the task. W = H + 2 K, queries, keys and values side by side: the task's heads of each, side
        by side again.
        """
        T, D = self._T, self._config.head_dim
        x = x.reshape(len(x), -1, D)
        if self._meeting is None:
            return [x.reshape(-1, T, x.shape[1], D)]
        shown, result = self._meeting.exchange(self._index, x), []
        for task in self.tasks:
            columns = self._columns(task, x.shape[1])
            first, last = task.sequences.start * T, task.sequences.stop * T
            part = empty((last - first, sum(c.stop - c.start for c in columns), D), x.dtype)
            for shard, rows in zip(self._meeting.shards, shown, strict=True):
                start, stop = max(first, shard.rows.start), min(last, shard.rows.stop)
                if start < stop:
                    source, at = rows[start - shard.rows.start : stop - shard.rows.start], 0
                    for c in columns:
                        width = c.stop - c.start
                        part[start - first : stop - first, at : at + width] = source[:, c]
                        at += width
            result.append(part.reshape(-1, T, part.shape[1], D))
        return result

    def to_rows(self, parts, width):
        """The inverse: an array (sequences, T, heads, D) for each task -> the rows (n, width D) of this worker

        Gradients of keys and values that several tasks have contributed to are added up.
        """
        T, H, D = self._T, self._config.heads, self._config.head_dim
        if self._meeting is None:
            return parts[0].reshape(-1, width * D)
        x = empty((len(self), width, D), self._reading.dtype)
        x[:, H:] = 0
        shown = self._meeting.exchange(self._index, parts)
        for shard, shard_parts in zip(self._meeting.shards, shown, strict=True):
            for task, part in zip(shard.tasks, shard_parts, strict=True):
                first, last = task.sequences.start * T, task.sequences.stop * T
                start, stop = max(first, self.rows.start), min(last, self.rows.stop)
                if start < stop:
                    target = x[start - self.rows.start : stop - self.rows.start]
                    source, at = part.reshape(last - first, -1, D)[start - first : stop - first], 0
                    for c in self._columns(task, width):
                        columns = source[:, at : at + c.stop - c.start]
                        if c.start < H:
                            target[:, c] = columns
                        else:
                            target[:, c] += columns
                        at += c.stop - c.start
        self._meeting.wait(self._index)  # until all have read; then what was shown may be given back
        return x.reshape(len(x), -1)

    @property
    def shares_gradients(self):
        """Whether the workers of this batch add to the same gradients of matrices."""
        return self._meeting is not None

    def shared(self, gradient, names):
        """A gradient of all workers, as the target of `+=`; names: of the parameters that it belongs to."""
        return gradient if self._meeting is None else InTurn(gradient, self, names)

    def turn(self, names):
        """Inside this block nobody else changes the gradients of these names, which the workers share."""
        return nullcontext() if self._meeting is None else self._meeting.turn(self._index, names)

    def chunks(self, rows_at_a_time):
        """The rows of this worker in slices of about rows_at_a_time; every worker has the same number of them."""
        most = len(self) if self._meeting is None else max(map(len, self._meeting.shards))
        return [slice(a, b) for a, b in pairwise(even_cuts(len(self), -(-most // rows_at_a_time)))]

    def __len__(self):
        return self.rows.stop - self.rows.start

    def abort(self):
        """Send all workers of this batch home: one of them cannot go on."""
        if self._meeting is not None:
            self._meeting.abort()

    def forget(self):
        """Let go of every array, so that arenas may take their memory back."""
        self.rotation = None
        if self._meeting is not None:
            self._meeting.forget()

    def _columns(self, task, width):
        H, K = self._config.heads, self._config.kv_heads
        if width == H:
            return [task.heads]
        kv = [slice(start + task.kv_heads.start, start + task.kv_heads.stop) for start in (H, H + K)]
        return [task.heads, *kv]


class InTurn:
    """A gradient to which workers add in the order of their numbers, so that the sum is the same every time."""

    def __init__(self, gradient, shard, names):
        self._gradient, self._shard, self._names = gradient, shard, names

    def __len__(self):
        return len(self._gradient)

    def __getitem__(self, rows):
        return InTurn(self._gradient[rows], self._shard, self._names)

    def __iadd__(self, part):
        with self._shard.turn(self._names):
            self._gradient += part
        return self


class Meeting:
    """Where workers wait for each other and show what they have

    All must come to the same meetings and turns in the same order (minillama.layers says what that asks of a layer).
    Where one does not, the others would wait for ever: RuntimeError, which names the parameter.
    """

    def __init__(self, count):
        self.shards = []
        self._count, self._changed, self._aborted = count, threading.Condition(), False
        self._waits = [None] * count  # of each worker: None, or (what it waits for, function that says whether it came)
        self._came = self._meetings = 0  # how many have come to this meeting; how many were held
        self._next, self._names = 0, None  # whose turn it is, and the parameters that this round of turns adds to
        # One board is read while the next one is written: nobody is ever two meetings ahead.
        self._boards, self._turn = ([None] * count, [None] * count), [0] * count

    def exchange(self, index, value):
        """Show value and see, when all have come, what every worker shows."""
        board = self._boards[self._turn[index] % 2]
        self._turn[index] += 1
        board[index] = value
        self.wait(index)
        return list(board)

    def wait(self, index):
        """Until all have come."""
        with self._changed:
            meeting = self._meetings
            self._came += 1
            if self._came == self._count:
                self._came, self._meetings = 0, meeting + 1
                self._changed.notify_all()
            self._wait(index, "waits for the others around attention", lambda: self._meetings > meeting)

    @contextmanager
    def turn(self, index, names):
        """Workers pass here one by one, 0, 1, ..., 0, 1, ..., to add to the gradients of these names."""
        with self._changed:
            self._wait(index, names, lambda: self._next == index)
            if index == 0:
                self._names = names
            elif names != self._names:
                self._fail({0: self._names, index: names})
        yield
        with self._changed:
            self._next = (index + 1) % self._count
            self._changed.notify_all()

    def leave(self, index):
        """This worker has no more to do with the others."""
        with self._changed:
            self._waits[index] = _ENDED
            if self._aborted:
                return
            if self._waits != [_ENDED] * self._count:
                self._require_progress()
            elif self._next != 0:
                self._fail({0: self._names, self._next: _ENDED[0]})

    def abort(self):
        """Send home all who wait, and who will."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()

    def forget(self):
        self.shards = []
        self._boards[0][:] = self._boards[1][:] = [None] * self._count

    def _wait(self, index, what, has_come):
        if not has_come() and not self._aborted:
            self._waits[index] = what, has_come
            self._require_progress()
            self._changed.wait_for(lambda: has_come() or self._aborted)
            self._waits[index] = None
        if self._aborted:
            raise threading.BrokenBarrierError

    def _require_progress(self):
        """RuntimeError if every worker waits, and none for something that has come."""
        if not any(wait is None or wait[1]() for wait in self._waits):
            self._fail({index: what for index, (what, _) in enumerate(self._waits)})

    def _fail(self, steps):
        """steps: {number of a worker: what it does, or the names that it adds to}"""
        self._aborted = True
        self._changed.notify_all()
        said = [
            f"worker {index} {step if isinstance(step, str) else 'adds to the gradient of ' + ', '.join(step)}"
            for index, step in steps.items()
        ]
        raise RuntimeError(
            f"{', but '.join(said)}. The workers of a batch share these gradients, and must add to each equally often "
            f"and in the same order, or one waits for ever. In the layer, let no addition depend on what a worker's "
            f"rows hold: where nothing is to be added, add zeros (minillama.layers)"
        )


_ENDED = "has come to its end", lambda: False


class Reading(NamedTuple):
    """What attention needs besides the activations, which have this dtype; each of the others may be None

    rotation: cos and sin of all positions (context, D/2); slopes (H,) of ALiBi; lengths (B,) without the padding.
    """

    dtype: np.dtype
    rotation: tuple | None = None
    slopes: np.ndarray | None = None
    lengths: np.ndarray | None = None


def cut(config, B, T, reading, threads, past=0):
    """The shards of B sequences of T positions, one for each thread of use."""
    H, K, N = config.heads, config.kv_heads, B * T
    if N * 12 * config.layers * config.dim**2 < WORK_WORTH_SHARING:
        threads = 1
    if B % threads == 0 or N < threads * ROWS_WORTH_CUTTING:
        cuts = even_cuts(B, min(B, threads))
        everything = slice(0, H), slice(0, K)
        return [
            Shard(config, T, slice(a * T, b * T), [AttentionTask(slice(a, b), *everything)], reading, past)
            for a, b in pairwise(cuts)
        ]
    meeting = Meeting(threads)
    rows = even_cuts(N, threads)
    # Whole groups of query heads, where they divide evenly, share their keys; single query heads always nearly do.
    unit = H // K if B * K % threads == 0 else 1
    pairs = [unit * pair for pair in even_cuts(B * H // unit, threads)]
    for i in range(threads):
        tasks = attention_tasks(pairs[i], pairs[i + 1], H, K)
        meeting.shards.append(Shard(config, T, slice(rows[i], rows[i + 1]), tasks, reading, past, meeting, i))
    return meeting.shards


def even_cuts(length, count):
    """count + 1 places that cut `length` things into parts of nearly equal size."""
    return [length * i // count for i in range(count + 1)]


def attention_tasks(first, last, H, K):
    """The (sequence, query head) pairs first to last, counted sequence by sequence, as few tasks

    A task is either whole groups of query heads or part of one group, so that query head h of it reads its key/value
    head h // (heads / kv_heads), as everywhere.
    """
    group, tasks = H // K, []
    for sequence in range(first // H, -(-last // H)):
        start, stop = max(first - sequence * H, 0), min(last - sequence * H, H)
        low = min(-(-start // group) * group, stop)  # whole groups lie between low and high
        high = max(stop // group * group, low)
        for a, b in ((start, low), (low, high), (high, stop)):
            if a < b:
                kv_heads = slice(a // group, -(-b // group))
                tasks.append(AttentionTask(slice(sequence, sequence + 1), slice(a, b), kv_heads))
    return tasks
