"""What this machine can do at all: the best matrix product of its BLAS, and the fastest reading of its memory."""

import importlib.metadata
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import numpy as np
from numba import njit

from ..kernels.simd import JIT
from ..runtime.workers import Workers

SIZE = 1024  # of the square matrices of the SGEMM limit: 12 MB, well beyond the overheads of small products
MEGABYTES = 256  # of the array that is read: many times the largest cache


@njit(**JIT)
def _sum(array):
    """array.sum(), in as many running sums as fit the vector registers: no arithmetic stands in memory's way."""
    total = np.float32(0)
    for i in range(len(array)):
        total += array[i]
    return total


@njit(**JIT)
def _scale(array):
    """array *= 0.999: as much is written as is read."""
    factor = array.dtype.type(0.999)
    for i in range(len(array)):
        array[i] *= factor


def warm_up():
    array = np.ones(1, np.float32)
    _sum(array)
    _scale(array)


def limits(threads):
    """{"matmul", "matmul, one thread": square SGEMM of SIZE; "read", "update": through MEGABYTES, each thread a part}

    One sequential stream a thread reads as fast as anything that was tried (2 to 8 streams, 256 MB to 1 GB, more
    threads than processors), and up to a fifth faster than NumPy's sum and max. Reading and writing in turn moves more
    bytes than reading alone where the processor has separate paths for the two; decoding only reads.
    """
    workers, one = Workers(threads), Workers(1)
    a, b = np.random.default_rng(0).random((2, SIZE, SIZE), np.float32)
    c = np.empty_like(a)
    array = np.ones(MEGABYTES * 250_000, np.float32)

    def matmul(workers):
        with workers.blas(1):
            np.matmul(a, b, out=c)

    def through_memory(function):
        return lambda: workers.run(lambda _, part: function(array[part]), workers.split(len(array)))

    return {
        "matmul": lambda: matmul(workers),
        "matmul, one thread": lambda: matmul(one),
        "read": through_memory(_sum),
        "update": through_memory(_scale),
    }


def blas(size, threads):
    """The matrix product of NumPy's BLAS with so many threads of its own."""
    from .ours import matmul_operands

    a, b = matmul_operands(*size)
    c, workers = np.empty((len(a), b.shape[1]), np.float32), Workers(threads)

    def step():
        with workers.blas(1):
            np.matmul(a, b, out=c)

    return {"BLAS": step}


def rates(seconds):
    """{job: seconds of its steps} -> matmul_gflops and matmul_one_gflops; read_gb, and update_gb of reads and writes

    The best rate of the matrix product, and the median of the memory's: what a core computes is its own, but memory is
    shared, and on a rented machine it is at times twice as fast for some milliseconds, when a neighbour rests.
    """
    gigabytes = MEGABYTES / 1e3
    return {
        "matmul_gflops": 2e-9 * SIZE**3 / min(seconds["matmul"]),
        "matmul_one_gflops": 2e-9 * SIZE**3 / min(seconds["matmul, one thread"]),
        "read_gb": gigabytes / median(seconds["read"]),
        "update_gb": 2 * gigabytes / median(seconds["update"]),
    }


def machine(threads):
    """The processor, the system and the versions, for the record."""
    versions = {}
    for package in ("numpy", "numba", "torch"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": threads,
        "python": sys.version.split()[0],
        **versions,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _processor():
    """The name of the processor: platform.processor() leaves it empty on Linux."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
