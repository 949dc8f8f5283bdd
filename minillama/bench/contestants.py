"""Contestants in processes of their own, which take turns.

In one process they disturb each other: after a parallel region the threads of OpenMP and of OpenBLAS keep spinning for
a while, in case more work comes, and take a core from whoever is measured next. Training steps of the shape `char` on
two cores, milliseconds, minimum and median:

    minillama   PyTorch
    28 / 30     39 / 45     each alone
    35 / 39     50 / 54     in one process, step by step
    29 / 33     41 / 45     in one process, the first of five steps not counted
    28 / 29     38 / 43     in processes of their own, turns as below

A process that waits on its pipe sleeps, with all its threads, once its own spinning is over. Steps that open a turn are
not counted, which gives the others time for that and brings the weights back into the caches. Processes of their own
also show how much memory each one takes.
"""

import importlib
import multiprocessing
import signal
import time
from pathlib import Path

from ..messages import MissingExtra

SETTLE = 0.05  # seconds of uncounted steps that open a turn: longer than any thread spins
TURN = 0.15  # seconds of counted steps, at least one


class Unavailable(Exception):
    """A contestant that cannot take part on this machine; the message says why."""


class Contestant:
    """A process that makes its steps once, as the functions {name: function} that `module.maker(*arguments)` returns

    module is one of minillama.bench with `warm_up()` and the maker; it is imported in the new process only.
    `await_ready()` before the first turn, `close()` after the last one.
    """

    def __init__(self, name, module, maker, *arguments):
        self.name, self.first, self.jobs = name, {}, ()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, module, maker, arguments))
        self._process.start()
        theirs.close()

    def await_ready(self):
        """Wait until every function has run once; `self.first` then holds the seconds from the start to that"""
        self.first = self._receive()
        self.jobs = tuple(self.first)

    def turn(self, job, seconds=TURN):
        """The seconds of each counted step of one turn."""
        self._pipe.send((job, seconds))
        return self._receive()

    def memory(self):
        """Bytes by which the process grew at its peak, from before it made its model to now; None: not measured"""
        self._pipe.send(("memory", None))
        return self._receive()

    def close(self):
        self._pipe.close()  # the process ends when it reads that
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self):
        try:
            kind, content = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise Unavailable(f"its process ended with exit code {self._process.exitcode}") from None
        if kind == "error":
            raise Unavailable(content)
        return content


def _serve(pipe, module, maker, arguments):
    """What the contestant's process does, until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the parent ends us
    try:
        start = time.perf_counter()
        module = importlib.import_module(module, __package__)
        module.warm_up()
        before = _memory("VmRSS")
        jobs, first = getattr(module, maker)(*arguments), {}
        for name, job in jobs.items():
            job()
            first[name] = time.perf_counter() - start
        _forget_peak()
        pipe.send(("first", first))
        while True:
            job, seconds = pipe.recv()
            if job == "memory":
                pipe.send(("memory", None if before is None else _memory("VmHWM") - before))
            else:
                pipe.send(("seconds", _turn(jobs[job], seconds)))
    except (EOFError, BrokenPipeError):
        return
    except MissingExtra as error:
        pipe.send(("error", str(error)))
    except Exception as error:  # whatever it is, the table says it
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        pipe.send(("error", " ".join([f"{type(error).__name__}:", *lines[:2]])[:200]))


def _turn(job, seconds):
    settling = _seconds(job)
    if settling > 10 * SETTLE:  # its own beginning is too small a part of so long a step to matter
        return [settling]
    while settling < SETTLE:
        settling += _seconds(job)
    times = []
    while sum(times) < seconds or not times:
        times.append(_seconds(job))
    return times


def _seconds(job):
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def _memory(field):
    """A field of /proc/self/status in bytes: VmRSS, the memory in use, or VmHWM, its peak. None but on Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return int(fields[field].split()[0]) * 1024


def _forget_peak():
    """Let VmHWM begin anew at VmRSS: what compilation took before the first step is not the step's own memory."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
