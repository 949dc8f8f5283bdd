"""Both cores: shards of a batch on worker threads, one reduction on the flat gradient.

Each worker runs the whole forward and backward of its rows of the batch, with BLAS held to one thread, so the cores
meet once a step, or around attention where they share a sequence, and not at every operation; two thread pools that
wait for each other cost more than they bring. How a batch is cut: minillama.runtime.shards. The result depends on the
number of shards (sums are taken in another order) but not on timing: a run with the same number of threads on the same
machine is the same to the last bit.

A forked process has no threads but the one that forked. There all workers begin anew, with what they say of themselves.
"""

import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from functools import cache
from numbers import Integral
from threading import BrokenBarrierError
from typing import Any

import threadpoolctl

from .memory import Arena


@cache
def can_start_threads():
    """Whether this Python can; compiled to WebAssembly it cannot, and then BLAS has no threads of its own either."""
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True


def available_threads():
    """The number of processors that this process may use; 1 where it cannot start threads."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return count if count == 1 or can_start_threads() else 1


def check_threads(threads, name="threads"):
    """threads, or ValueError if it is no whole number from 1 to what can be; name: what the user calls it."""
    if not isinstance(threads, Integral) or threads < 1:
        raise ValueError(f"{name} must be a whole number of at least 1; received {threads!r}")
    if threads > 1 and not can_start_threads():
        raise ValueError(f"{name} must be 1 here, as Python cannot start threads (on WebAssembly); received {threads}")
    return int(threads)


_in_use = threading.RLock()
_limits: list[tuple[int, Any]] = []  # (thread, limit of BLAS) of the blocks that are being run
_all: weakref.WeakSet[Any] = weakref.WeakSet()  # of Workers


def _wait_for_all(futures):
    """Wait even through Ctrl-C: a shard that is left running would write into the arena of the next call."""
    interrupt = None
    while not all(future.done() for future in futures):
        try:
            wait(futures)
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


@cache
def _controller():
    return threadpoolctl.ThreadpoolController()  # inspects every loaded library: some milliseconds, so only once


class Workers:
    """`threads` arenas and the threads that use them."""

    def __init__(self, threads):
        self.threads = check_threads(threads)
        self.begin_anew()
        _all.add(self)

    def begin_anew(self):
        """Let go of all threads and arenas, and make new ones."""
        self.arenas = [Arena() for _ in range(self.threads)]
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None
        self._helpers, self._dismiss = [], None  # see lend

    def run(self, function, shards, abort=lambda: None, within=nullcontext):
        """[function(i, shard) for i, shard in enumerate(shards)], at the same time, each inside its own arena

        within(shard) is a context manager that each is computed in. What function returns must not lie in the arena. If
        one fails, or Ctrl-C comes, abort() must send home those that wait for it.
        """
        shards = list(shards)
        self._recall()

        def other(i):
            try:
                with self.arenas[i].active(), within(shards[i]):
                    return function(i, shards[i])
            except BaseException:
                abort()
                raise

        others, errors = [], []
        try:
            for i in range(1, len(shards)):
                others.append(self._pool.submit(other, i))
            with self.arenas[0].active(), within(shards[0]):  # this thread is the first worker
                first = function(0, shards[0])
        except BaseException as error:
            abort()
            errors.append(error)
        _wait_for_all(others)
        errors += [future.exception() for future in others if future.exception() is not None]
        # A worker that was sent home because another failed has nothing to say of its own.
        for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
            raise error
        return [first, *(future.result() for future in others)]

    def lend(self, help, dismiss):
        """See to it that help() runs on every other thread, and go on: where it has ended it is called again

        Inside a block that is `alone`. When the threads are wanted for something else, dismiss() is called and must end
        what runs soon; until then nobody has to be woken, which takes some 60 microseconds each time. If help fails,
        the next call raises its error. Only dismiss is kept, by which a lender is known.
        """
        if dismiss is not self._dismiss:
            self._recall()
            self._dismiss = dismiss
        ended = [helper for helper in self._helpers if helper.done()]
        self._helpers = [helper for helper in self._helpers if helper not in ended]
        for _ in range(self.threads - 1 - len(self._helpers)):
            self._helpers.append(self._pool.submit(help))
        for helper in ended:
            helper.result()

    def _recall(self):
        """Wait until nobody helps any more."""
        if self._dismiss is not None:
            with self.alone():
                if self._dismiss is not None:
                    self._dismiss()
                    wait(self._helpers)
                    self._helpers, self._dismiss = [], None

    @contextmanager
    def alone(self):
        """Blocks wait for each other: models that are used from several Python threads compute one at a time."""
        with _in_use:
            yield

    @contextmanager
    def blas(self, shards):
        """Inside this block, which is `alone`, BLAS uses the threads that are left when `shards` run side by side

        The limit holds for the whole process.
        """
        if not can_start_threads():
            with self.alone():
                yield
            return
        with self.alone(), _controller().limit(limits=max(1, self.threads // shards), user_api="blas") as limit:
            _limits.append((threading.get_ident(), limit))
            try:
                yield
            finally:
                _limits.pop()

    def split(self, length):
        """`length` rows as slices of nearly equal size, one for each thread (fewer where there are fewer rows)."""
        count = min(self.threads, length)
        cuts = [length * i // count for i in range(count + 1)]
        return [slice(start, end) for start, end in zip(cuts, cuts[1:], strict=False)]


def _begin_anew_in_child():
    """After a fork: the other threads are gone, with what they held."""
    global _in_use
    _in_use = threading.RLock()
    _held.clear()
    for thread, limit in reversed(_limits):
        if thread != threading.get_ident():
            with limit:  # its end gives BLAS the threads back
                pass
    _limits[:] = [(thread, limit) for thread, limit in _limits if thread == threading.get_ident()]
    for workers in list(_all):
        workers.begin_anew()


def _wait_for_computations():
    """Before a fork: until no thread computes, as a child that is born in the middle of BLAS could not use it."""
    _held.append(_in_use)
    _in_use.acquire()


def _go_on_in_parent():
    _held.pop().release()


_held: list[Any] = []  # the lock, between the two
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(
        before=_wait_for_computations, after_in_parent=_go_on_in_parent, after_in_child=_begin_anew_in_child
    )
