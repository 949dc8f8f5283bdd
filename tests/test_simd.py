"""Explicit vectors: each function that a kernel is made of against NumPy."""

import math

import numpy as np
import pytest

pytest.importorskip("numba", reason="Numba is not installed: there are no kernels")

from numba import njit

from minillama.kernels import elementary, simd
from minillama.kernels.simd import JIT, register_tile

COMPILE = {**JIT, "cache": False}  # a test's own function is not worth a file
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
load = simd.vector_load(64)


@both_dtypes
@pytest.mark.parametrize(
    "rows, count, vector_bytes, add",
    [(simd.TILE_ROWS, 2, simd.VECTOR_BYTES, True), (3, 1, 64, False), (8, 1, 32, True), (1, 3, 16, False)],
)
def test_register_tile(rows, count, vector_bytes, add, dtype, rng):
    tile = register_tile(rows, count, vector_bytes, add)

    @njit(**COMPILE)
    def multiply(a, a_start, a_row, a_step, b, b_start, b_step, depth, c, c_start, c_row):
        tile(a, a_start, a_row, a_step, b, b_start, b_step, depth, c, c_start, c_row)

    width = count * vector_bytes // np.dtype(dtype).itemsize
    for depth in (0, 1, 7):
        for a_row, a_step in ((10, 1), (1, 9)):  # the matrix as it lies, and transposed
            a, b, c = (rng.standard_normal(n).astype(dtype) for n in (200, 500, 600))
            expected = c.copy()
            for r in range(rows):
                at = 3 + r * (width + 2)
                product = sum(
                    a[2 + r * a_row + d * a_step] * b[1 + d * (width + 1) :][:width].astype(np.float64)
                    for d in range(depth)
                )
                expected[at : at + width] = product + (expected[at : at + width] if add else 0)
            multiply(a, 2, a_row, a_step, b, 1, width + 1, depth, c, 3, width + 2)
            np.testing.assert_allclose(c, expected, rtol=0, atol=20 * np.finfo(dtype).eps)


@both_dtypes
def test_exp2(dtype, rng):
    @njit(**COMPILE)
    def exp2(x, y):
        for i in range(0, len(x), 64 // x.itemsize):
            simd.store(y, i, elementary.exp2(load(x, i)))

    lowest = np.log2(np.finfo(dtype).tiny)
    x = np.concatenate([rng.uniform(lowest, 0.4, 40_000), np.arange(lowest, 1), np.zeros(16)]).astype(dtype)
    x = x[: len(x) // 16 * 16]
    y = np.empty_like(x)
    exp2(x, y)
    expected = np.exp2(x.astype(np.longdouble))
    assert np.abs(y / expected - 1).max() < (2e-7 if dtype == np.float32 else 5e-16)
    assert np.all(y[x == 0] == 1)

    bits = np.uint32(0x7F800001) if dtype == np.float32 else np.uint64(0x7FF0000000000001)  # a NaN with odd bits
    x[:6] = np.nan, bits.view(dtype), -np.inf, lowest - 1, -1e30, -0.0
    exp2(x, y)
    np.testing.assert_array_equal(y[:6], [np.nan, np.nan, 0, 0, 0, 1])


@both_dtypes
def test_normal(dtype, rng):
    @njit(**COMPILE)
    def normal(z, distribution, density):
        for i in range(len(z)):
            distribution[i], density[i] = elementary.normal(z[i])

    ends = [1e4, -1e4, np.inf, -np.inf]
    z = np.concatenate([rng.uniform(-14, 14, 40_000), np.linspace(-8, 8, 2001), ends]).astype(dtype)
    distribution, density = np.empty_like(z), np.empty_like(z)
    normal(z, distribution, density)
    z = z.astype(np.float64)
    expected = np.array([math.erfc(-value * math.sqrt(0.5)) / 2 for value in z.tolist()])
    expected_density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    single = dtype == np.float32
    assert np.abs(distribution - expected).max() < (3e-7 if single else 3e-16)
    assert np.abs(density - expected_density).max() < (3e-7 if single else 3e-16)
    seen = z > (-13 if single else -37)  # further out numbers are below the normal ones
    assert np.abs(distribution[seen] / expected[seen] - 1).max() < (1e-5 if single else 1e-14)
    assert np.all((distribution >= 0) & (distribution <= 1)) and np.all(distribution[-4:] == [1, 0, 1, 0])
    assert np.all(density >= 0) and np.all(density[-4:] == 0)

    z = np.array([0x7FC00000, 0xFFC00000], np.uint32).view(np.float32).astype(dtype)
    normal(z, distribution, density)
    assert np.isnan(distribution[:2]).all() and np.isnan(density[:2]).all()


@both_dtypes
def test_lane_by_lane(dtype, rng):
    @njit(**COMPILE)
    def compute(a, b, first, sums):
        x, y = load(a, 1), load(b, 2)
        simd.store(sums, 0, simd.sum_of_lanes(x) + (x - y) * y * 2)
        simd.store(a, 1, simd.maximum(x, y))
        simd.store(b, 2, simd.replace_first(y, first, -np.inf))

    lanes = 64 // np.dtype(dtype).itemsize
    for first in (-3, 0, 1, lanes - 1, lanes, 99):
        a, b = (rng.standard_normal(lanes + 4).astype(dtype) for _ in range(2))
        x, y, sums = a[1:-3].copy(), b[2:-2].copy(), np.empty(lanes, dtype)
        outside = a[[0, -3, -2, -1]].copy(), b[[0, 1, -2, -1]].copy()
        compute(a, b, first, sums)
        np.testing.assert_allclose(sums, x.sum(dtype=np.float64) + (x - y) * y * 2, atol=50 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(a[1:-3], np.maximum(x, y))
        np.testing.assert_array_equal(b[2:-2], np.where(np.arange(lanes) < first, -np.inf, y))
        np.testing.assert_array_equal((a[[0, -3, -2, -1]], b[[0, 1, -2, -1]]), outside)


@both_dtypes
def test_transpose(dtype):
    @njit(**COMPILE)
    def transpose(a, c):
        simd.transpose(a, 2 * a.shape[1] + 1, a.shape[1], c, c.shape[1] + 3, c.shape[1])

    rows, columns = 64 // np.dtype(dtype).itemsize, 32 // np.dtype(dtype).itemsize
    a, c = np.arange((rows + 3) * 11, dtype=dtype).reshape(-1, 11), np.zeros((columns + 2, rows + 5), dtype)
    expected = c.copy()
    expected[1:-1, 3:-2] = a[2:-1, 1 : 1 + columns].T
    transpose(a, c)
    np.testing.assert_array_equal(c, expected)
