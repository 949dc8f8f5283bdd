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


class Job(NamedTuple):
    """Attention of some query heads of some sequences, with the key/value heads that those read; three slices."""

    sequences: slice
    heads: slice
    kv_heads: slice


class Shard:
    """One worker's share of B sequences of T positions, of which the first comes after `past` cached ones

    rows: slice of the N = B T rows. jobs: its attention. rotation, after `begin`: cos and sin (T', D / 2) that turn
    its rows as (-1, T', heads, D), or None; T' is T for whole sequences, else the number of rows.
    """

    def __init__(self, config, T, rows, jobs, reading, past, meeting=None, index=0):
        self.rows, self.jobs = rows, jobs
        self._config, self._T, self._meeting, self._index = config, T, meeting, index
        self._reading, self._past, self.rotation = reading, past, None

    def begin(self):
        """Look up the rotation, on the thread whose arena is to hold it."""
        tables = self._reading.rotation
        if tables is None:
            return
        if self._meeting is None:
            self.rotation = tuple(table[self._past : self._past + self._T] for table in tables)
            return
        positions = self.positions()
        shape = len(positions), self._config.head_dim // 2
        self.rotation = tuple(
            np.take(table, positions, axis=0, out=empty(shape, table.dtype), mode="clip") for table in tables
        )

    def positions(self):
        """The position of each row in its sequence (n,)."""
        return self._past + np.arange(self.rows.start, self.rows.stop) % self._T

    def by_position(self, x):
        """Rows x (n, W D) as heads (-1, T', W, D), as `rotation` turns them."""
        return x.reshape(-1, len(self.rotation[0]), x.shape[1] // self._config.head_dim, self._config.head_dim)

    def rules(self, job):
        """What the queries of a job may read, as arguments of attention: causal, slopes, lengths."""
        slopes, lengths = self._reading.slopes, self._reading.lengths
        return (
            self._config.causal,
            None if slopes is None else slopes[job.heads],
            None if lengths is None else lengths[job.sequences],
        )

    def to_heads(self, x):
        """Rows x (n, W D) of this worker -> for each of its jobs an array (sequences, T, heads, D)

        W = H: the heads of the job. W = H + 2 K, queries, keys and values side by side: the job's heads of each, side
        by side again.
        """
        T, D = self._T, self._config.head_dim
        x = x.reshape(len(x), -1, D)
        if self._meeting is None:
            return [x.reshape(-1, T, x.shape[1], D)]
        shown, result = self._meeting.exchange(self._index, x), []
        for job in self.jobs:
            columns = self._columns(job, x.shape[1])
            first, last = job.sequences.start * T, job.sequences.stop * T
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
        """The inverse: an array (sequences, T, heads, D) for each job -> the rows (n, width D) of this worker

        Gradients of keys and values that several jobs have contributed to are added up.
        """
        T, H, D = self._T, self._config.heads, self._config.head_dim
        if self._meeting is None:
            return parts[0].reshape(-1, width * D)
        x = empty((len(self), width, D), self._reading.dtype)
        x[:, H:] = 0
        shown = self._meeting.exchange(self._index, parts)
        for shard, shard_parts in zip(self._meeting.shards, shown, strict=True):
            for job, part in zip(shard.jobs, shard_parts, strict=True):
                first, last = job.sequences.start * T, job.sequences.stop * T
                start, stop = max(first, self.rows.start), min(last, self.rows.stop)
                if start < stop:
                    target = x[start - self.rows.start : stop - self.rows.start]
                    source, at = part.reshape(last - first, -1, D)[start - first : stop - first], 0
                    for c in self._columns(job, width):
                        columns = source[:, at : at + c.stop - c.start]
                        if c.start < H:
                            target[:, c] = columns
                        else:
                            target[:, c] += columns
                        at += c.stop - c.start
        self._meeting.wait()  # until all have read; then what was shown may be given back
        return x.reshape(len(x), -1)

    @property
    def shares_gradients(self):
        """Whether the workers of this batch add to the same gradients of matrices."""
        return self._meeting is not None

    def shared(self, gradient):
        """A gradient of all workers, as the target of `+=`."""
        return gradient if self._meeting is None else InTurn(gradient, self)

    def turn(self):
        """Inside this block nobody else changes a shared gradient."""
        return nullcontext() if self._meeting is None else self._meeting.turn(self._index)

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

    def _columns(self, job, width):
        H, K = self._config.heads, self._config.kv_heads
        if width == H:
            return [job.heads]
        kv = [slice(start + job.kv_heads.start, start + job.kv_heads.stop) for start in (H, H + K)]
        return [job.heads, *kv]


class InTurn:
    """A gradient to which workers add in the order of their numbers, so that the sum is the same every time."""

    def __init__(self, gradient, shard):
        self._gradient, self._shard = gradient, shard

    def __len__(self):
        return len(self._gradient)

    def __getitem__(self, rows):
        return InTurn(self._gradient[rows], self._shard)

    def __iadd__(self, part):
        with self._shard.turn():
            self._gradient += part
        return self


class Meeting:
    """Where workers wait for each other and show what they have."""

    def __init__(self, count):
        self.shards = []
        self._barrier, self._turns, self._next = threading.Barrier(count), threading.Condition(), 0
        # One board is read while the next one is written: nobody is ever two meetings ahead.
        self._boards, self._turn = ([None] * count, [None] * count), [0] * count

    def exchange(self, index, value):
        """Show value and see, when all have come, what every worker shows."""
        board = self._boards[self._turn[index] % 2]
        self._turn[index] += 1
        board[index] = value
        self._barrier.wait()
        return list(board)

    def wait(self):
        self._barrier.wait()

    def forget(self):
        self.shards = []
        self._boards[0][:] = self._boards[1][:] = [None] * len(self._boards[0])

    @contextmanager
    def turn(self, index):
        """Workers pass here one by one: 0, 1, ..., 0, 1, ... All must come equally often."""
        with self._turns:
            self._turns.wait_for(lambda: self._next == index or self._barrier.broken)
        if self._barrier.broken:
            raise threading.BrokenBarrierError
        yield
        with self._turns:
            self._next = (index + 1) % len(self.shards)
            self._turns.notify_all()

    def abort(self):
        self._barrier.abort()
        with self._turns:
            self._turns.notify_all()


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
            Shard(config, T, slice(a * T, b * T), [Job(slice(a, b), *everything)], reading, past)
            for a, b in pairwise(cuts)
        ]
    meeting = Meeting(threads)
    rows = even_cuts(N, threads)
    # Whole groups of query heads, where they divide evenly, share their keys; single query heads always nearly do.
    unit = H // K if B * K % threads == 0 else 1
    pairs = [unit * pair for pair in even_cuts(B * H // unit, threads)]
    for i in range(threads):
        jobs = attention_jobs(pairs[i], pairs[i + 1], H, K)
        meeting.shards.append(Shard(config, T, slice(rows[i], rows[i + 1]), jobs, reading, past, meeting, i))
    return meeting.shards


def even_cuts(length, count):
    """count + 1 places that cut `length` things into parts of nearly equal size."""
    return [length * i // count for i in range(count + 1)]


def attention_jobs(first, last, H, K):
    """The (sequence, query head) pairs first to last, counted sequence by sequence, as few jobs

    A job is either whole groups of query heads or part of one group, so that query head h of it reads its key/value
    head h // (heads / kv_heads), as everywhere.
    """
    group, jobs = H // K, []
    for sequence in range(first // H, -(-last // H)):
        start, stop = max(first - sequence * H, 0), min(last - sequence * H, H)
        low = min(-(-start // group) * group, stop)  # whole groups lie between low and high
        high = max(stop // group * group, low)
        for a, b in ((start, low), (low, high), (high, stop)):
            if a < b:
                jobs.append(Job(slice(sequence, sequence + 1), slice(a, b), slice(a // group, -(-b // group))))
    return jobs
