"""The ladder of matrix products: every rung against the definition, at every edge, in every layout, on every vector."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("numba")

from minillama.kernels import matmul as module  # noqa: E402
from minillama.kernels.matmul import LADDER, matmul  # noqa: E402
from minillama.kernels.simd import VECTOR_BYTES  # noqa: E402
from minillama.runtime.memory import Arena  # noqa: E402
from minillama.runtime.workers import Workers  # noqa: E402

SIZES = (1, 7, 8, 31, 33, 65, 200)
LAYOUTS = {
    "plain": lambda x: np.ascontiguousarray(x),
    "transposed": lambda x: np.asfortranarray(x),
    "strided": lambda x: np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3],
    "columns": lambda x: np.concatenate([x, x], axis=1)[:, : x.shape[1]],
    "reversed": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
}


@pytest.fixture(scope="module")
def workers():
    return Workers(2)


def operands(rng, N, K, M, dtype=np.float32):
    return rng.standard_normal((N, K)).astype(dtype), rng.standard_normal((K, M)).astype(dtype)


def check(c, a, b, start=0):
    """Each element within the rounding of start and K products: (K + 1) eps (|start| + |a| |b|)."""
    assert c.dtype == a.dtype
    exact = start + a.astype(np.longdouble) @ b.astype(np.longdouble)
    bound = (a.shape[1] + 1) * np.finfo(a.dtype).eps * (np.abs(start) + np.abs(a) @ np.abs(b))
    assert np.all(np.abs(c - exact) <= bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LADDER)
def test_every_rung_is_the_product(name, dtype, rng, workers):
    sizes = [(N, K, M) for N in SIZES for K in (1, 33, 70) for M in SIZES]
    for N, K, M in sizes[:: 9 if name == "naive" else 1]:
        a, b = operands(rng, N, K, M, dtype)
        out = np.full((N, M), np.nan, dtype)
        assert LADDER[name](a, b, out, workers) is out
        check(out, a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("b_layout", LAYOUTS)
@pytest.mark.parametrize("a_layout", LAYOUTS)
def test_operands_may_lie_in_memory_in_any_way(a_layout, b_layout, dtype, rng):
    for N, K, M in [(1, 1, 1), (37, 50, 71), (70, 33, 1), (1, 40, 64)]:
        a, b = operands(rng, N, K, M, dtype)
        check(matmul(LAYOUTS[a_layout](a), LAYOUTS[b_layout](b)), a, b)


@pytest.mark.parametrize("name", ["naive", "reordered", "blocked"])
def test_the_first_rungs_take_transposed_operands(name, rng):
    a, b = operands(rng, 9, 20, 13)
    check(LADDER[name](np.asfortranarray(a), np.asfortranarray(b)), a, b)


@pytest.mark.parametrize("name", ["blocked", "tiled", "threaded"])
def test_more_than_one_block_in_depth_and_width(name, rng, workers):
    a, b = operands(rng, 41, 2 * module.DEPTH + 9, 1100)
    check(LADDER[name](a, b, None, workers), a, b)


@pytest.mark.parametrize("transposed", [False, True])
def test_accumulate_adds_to_out(transposed, rng, workers):
    for shape in [(33, 70, 65), (64, 600, 64)]:
        a, b = operands(rng, *shape)
        a = np.asfortranarray(a) if transposed else a
        start = rng.standard_normal((a.shape[0], b.shape[1])).astype(np.float32)
        out = start.copy()
        assert matmul(a, b, out, workers, accumulate=True) is out
        check(out, a, b, start)


@pytest.mark.parametrize("shape", [(700, 65, 60), (60, 65, 700), (333, 333, 333), (1000, 20, 33), (16, 16, 16)])
def test_threads_change_no_bit(shape, rng):
    a, b = operands(rng, *shape)
    one = matmul(a, b)
    for threads in (1, 2, 3, 5):
        np.testing.assert_array_equal(matmul(a, b, workers=Workers(threads)), one)


def test_large_products_use_every_thread(rng):
    workers, parts = Workers(3), []
    run = workers.run
    workers.run = lambda function, shards: parts.extend(shards) or run(function, shards)
    a, b = operands(rng, 400, 300, 310)
    check(matmul(a, b, workers=workers), a, b)
    assert len(parts) == 3 and parts[0][0] == 0 and parts[-1][1] == 400
    assert all(first[1] == second[0] < second[1] for first, second in zip(parts, parts[1:], strict=False))


@pytest.mark.parametrize("name", LADDER)
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
def test_sizes_of_zero(name, shape, rng, workers):
    a, b = operands(rng, *shape)
    out = np.full((shape[0], shape[2]), 7, np.float32)
    np.testing.assert_array_equal(LADDER[name](a, b, out.copy(), workers), np.zeros_like(out))
    np.testing.assert_array_equal(matmul(a, b, out.copy(), accumulate=True), out)


def test_not_a_number_stays_where_it_belongs(rng):
    a, b = operands(rng, 33, 20, 40)
    a[32, 3], b[4, 39] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        expected = a @ b
    np.testing.assert_array_equal(np.isfinite(matmul(a, b)), np.isfinite(expected))


def test_scratch_comes_from_the_arena_and_goes_back(rng):
    arena = Arena()
    a, b = operands(rng, 33, 20, 40)
    for _ in range(2):
        with arena.active():
            matmul(a, b)
            assert arena._used == 0
    assert arena.nbytes > 0


def test_errors_say_what_does_not_fit(rng):
    a, b = operands(rng, 3, 4, 5)
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(3, 4\)"):
        matmul(a, a)
    with pytest.raises(ValueError, match=r"needs a \(N, K\) and b \(K, M\)"):
        matmul(a[0], b)
    with pytest.raises(TypeError, match="float32 and float64: convert with astype"):
        matmul(a, b.astype(np.float64))
    with pytest.raises(TypeError, match="float16"):
        matmul(a.astype(np.float16), b.astype(np.float16))
    with pytest.raises(ValueError, match=r"shape \(3, 5\); received float32 \(5, 3\)"):
        matmul(a, b, np.empty((5, 3), np.float32))
    with pytest.raises(ValueError, match="received float64"):
        matmul(a, b, np.empty((3, 5)))
    with pytest.raises(ValueError, match="not contiguous"):
        matmul(a, b, np.empty((5, 3), np.float32).T)
    with pytest.raises(ValueError, match="shares memory"):
        square = np.ones((4, 4), np.float32)
        matmul(square, square, square)
    with pytest.raises(ValueError, match="pass the array to add to"):
        matmul(a, b, accumulate=True)


OTHER_PROCESSOR = """
import numpy as np
from minillama.kernels import matmul as m
from minillama.kernels.simd import VECTOR_BYTES
rng = np.random.default_rng(0)
for dtype in (np.float32, np.float64):
    for N, K, M in [(1, 1, 1), (7, 40, 33), (65, 70, 31), (33, 600, 40)]:
        a, b = rng.standard_normal((N, K)).astype(dtype), rng.standard_normal((K, M)).astype(dtype)
        bound = (K + 1) * np.finfo(dtype).eps * (np.abs(a) @ np.abs(b))
        for x in (a, np.asfortranarray(a)):
            for y in (b, np.asfortranarray(b)):
                assert np.all(np.abs(m.matmul(x, y) - a.astype(np.longdouble) @ b.astype(np.longdouble)) <= bound)
print(VECTOR_BYTES)
"""


@pytest.mark.parametrize("name, vector_bytes", [("haswell", 32), ("generic", 16)])
def test_narrower_vectors(name, vector_bytes):
    """The kernels that a processor with AVX2, or with SSE or NEON, runs."""
    if name == "haswell" and VECTOR_BYTES < 32:
        pytest.skip("this processor has no AVX2")
    environment = {**os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""}
    result = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESSOR], capture_output=True, text=True, encoding="utf-8", env=environment
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == vector_bytes
