"""Attention: gradients, kernel and specification in every combination of its choices, and what must hold of each."""

import itertools

import numpy as np
import pytest

from minillama import backend
from minillama.gradcheck import relative_error
from minillama.runtime.memory import Arena

from .conftest import check_gradient, check_kernel, each_precision, needs_kernels

CHOICES = {
    " ".join((["bidirectional", "causal"][causal], *(["slopes"] * sloped), *(["lengths"] * padded))): choice
    for choice in itertools.product((True, False), (False, True), (False, True))
    for causal, sloped, padded in [choice]
}
SMALL = {"multi-head": (5, 2, 2, 4), "grouped": (7, 4, 2, 6), "multi-query": (4, 3, 1, 2), "one position": (1, 2, 1, 4)}
# Shapes (T, H, K, D) at which the kernels use whole tiles, several of them, and parts of them.
LARGER = [
    *((64, 4, 4, 32), (70, 4, 2, 8), (33, 6, 1, 48), (200, 2, 1, 20), (31, 1, 1, 64), (1, 2, 1, 80), (7, 2, 2, 12)),
    *((63, 2, 1, 8), (65, 2, 2, 2), (127, 2, 2, 6), (128, 2, 1, 16), (129, 4, 2, 4), (130, 1, 1, 128), (257, 1, 1, 10)),
    (260, 3, 1, 24),
]
each_choice = pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
causal_and_bidirectional = pytest.mark.parametrize("causal", [True, False])


def _slopes(H, dtype=np.float64):
    return (0.5 ** np.arange(1, H + 1)).astype(dtype)


def _attention(op, rng, dtype, T, H, K, D, causal, sloped, padded):
    """Two sequences; q, k and v are views of one array, as in the model."""
    qkv = rng.standard_normal((2, T, H + 2 * K, D)).astype(dtype)
    parts = qkv[:, :, :H], qkv[:, :, H : H + K], qkv[:, :, H + K :]
    rules = causal, _slopes(H, dtype) if sloped else None, np.array([T, -(-2 * T // 3)]) if padded else None

    def backward(dy):
        return {"qkv": op.attention_backward(dy, *parts, *op.attention(*parts, *rules), *rules)}

    return {"qkv": qkv}, lambda: op.attention(*parts, *rules)[0], backward


def _random(rng, *shape, count=4):
    """q, k, v and do of one head width, as many heads of each."""
    return [rng.standard_normal(shape) for _ in range(count)]


@each_choice
@pytest.mark.parametrize("shape", SMALL.values(), ids=SMALL)
def test_gradient_against_finite_differences(shape, choice, each_backend, rng):
    check_gradient(_attention, (*shape, *choice), rng)


@needs_kernels
@each_precision
@each_choice
@pytest.mark.parametrize("shape", [*SMALL.values(), *LARGER], ids=str)
def test_kernel_equals_specification(shape, choice, dtype, tolerance):
    check_kernel(_attention, (*shape, *choice), dtype, tolerance)


@needs_kernels
@each_precision
@causal_and_bidirectional
def test_kernel_equals_specification_with_lengths_around_the_edges_of_tiles(causal, dtype, tolerance, rng):
    lengths = np.array([1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 130, 256, 257])
    q, k, v, do = (rng.standard_normal((len(lengths), 257, heads, 6)).astype(dtype) for heads in (2, 1, 1, 2))
    results = []
    for name in ("numpy", "numba"):
        op = backend.load(name)
        for rules in ((causal, None, lengths), (causal, _slopes(2, dtype), lengths)):
            o, log_denominator = op.attention(q, k, v, *rules)
            dqkv = op.attention_backward(do, q, k, v, o, log_denominator, *rules)
            results.append((o, log_denominator, dqkv))
    for of_specification, of_kernel in zip(results[:2], results[2:], strict=True):
        for expected, received in zip(of_specification, of_kernel, strict=True):
            for b, length in enumerate(lengths):
                assert relative_error(received[b], expected[b]) < tolerance, length


@needs_kernels
@causal_and_bidirectional
def test_float32_kernel_is_exact_far_from_the_diagonal(causal, rng):
    """The largest slope of ALiBi lowers the scores of 2048 positions by up to a thousand: against float64."""
    q, k, v, do = (rng.standard_normal((1, 2048, heads, 8)).astype(np.float32) for heads in (2, 1, 1, 2))
    slopes, results = np.array([0.5, 2**-8]), []
    for name, dtype in (("numpy", np.float64), ("numba", np.float32)):
        op, arrays = backend.load(name), [x.astype(dtype) for x in (do, q, k, v)]
        o, log_denominator = op.attention(*arrays[1:], causal, slopes.astype(dtype))
        dqkv = op.attention_backward(*arrays, o, log_denominator, causal, slopes.astype(dtype))
        results.append((o, log_denominator.swapaxes(1, 2), dqkv))
    for expected, received in zip(*results, strict=True):
        for head in range(expected.shape[2]):
            assert relative_error(received[:, :, head], expected[:, :, head]) < 1e-5, head


@needs_kernels
@each_precision
@each_choice
def test_kernel_with_more_keys_than_queries(choice, dtype, tolerance, rng):
    causal, sloped, padded = choice
    q, k, v = (rng.standard_normal((2, 300, heads, 12)).astype(dtype) for heads in (4, 2, 2))
    for T, S in [(1, 1), (1, 17), (7, 130), (33, 34), (64, 128), (65, 257), (129, 300), (200, 263)]:
        T = T if causal else S
        rules = causal, _slopes(4, dtype) if sloped else None, np.array([S, -(-S // 3)]) if padded else None
        results = [backend.load(name).attention(q[:, :T], k[:, :S], v[:, :S], *rules) for name in ("numpy", "numba")]
        for expected, received in zip(*results, strict=True):
            assert relative_error(received, expected) < tolerance, (T, S)


@each_choice
def test_the_last_positions_equal_the_end_of_the_whole(choice, each_backend, rng):
    """As in decoding, where the keys of earlier positions come from a cache."""
    causal, sloped, padded = choice
    q, k, v = (rng.standard_normal((2, 40, heads, 8)) for heads in (4, 2, 2))
    rules = causal, _slopes(4) if sloped else None, np.array([40, 25]) if padded else None
    op = backend.active()
    whole, _ = op.attention(q, k, v, *rules)
    for new in (1, 3, 35):
        assert relative_error(op.attention(q[:, -new:], k, v, *rules)[0], whole[:, -new:]) < 1e-13


def test_the_defaults_are_causal_without_slopes_and_lengths(each_backend, rng):
    op, (q, k, v, do) = backend.active(), _random(rng, 2, 20, 2, 4)
    o, log_denominator = op.attention(q, k, v)
    rules = True, None, None
    np.testing.assert_array_equal(o, op.attention(q, k, v, *rules)[0])
    np.testing.assert_array_equal(
        op.attention_backward(do, q, k, v, o, log_denominator),
        op.attention_backward(do, q, k, v, o, log_denominator, *rules),
    )


@causal_and_bidirectional
def test_padded_keys_change_nothing_and_get_no_gradient(causal, each_backend, rng):
    """Every key and value of the padding is replaced by another, and all outputs and gradients stay as they were."""
    op, (q, k, v, do) = backend.active(), _random(rng, 5, 150, 2, 4)
    rules = causal, _slopes(2), np.array([1, 17, 128, 133, 150])
    results = []
    for _ in range(2):
        o, log_denominator = op.attention(q, k, v, *rules)
        results.append((o, log_denominator, op.attention_backward(do, q, k, v, o, log_denominator, *rules)))
        for b, length in enumerate(rules[-1]):
            k[b, length:], v[b, length:] = 1e3 * rng.standard_normal((2, 150 - length, 2, 4))
    for before, after in zip(*results, strict=True):
        np.testing.assert_array_equal(after, before)
    o, _, dqkv = results[0]
    assert np.isfinite(o).all() and np.isfinite(dqkv).all()
    for b, length in enumerate(rules[-1]):
        assert not dqkv[b, length:, 2:].any()
        assert dqkv[b, :length, 4:].all()  # dv


@causal_and_bidirectional
def test_a_padded_sequence_equals_the_sequence_alone(causal, each_backend, rng):
    op, (q, k, v, do) = backend.active(), _random(rng, 4, 140, 2, 4)
    slopes, lengths = _slopes(2), np.array([5, 64, 130, 140])
    for b, length in enumerate(lengths):
        do[b, length:] = 0  # no loss is taken of the padding
    o, log_denominator = op.attention(q, k, v, causal, slopes, lengths)
    dqkv = op.attention_backward(do, q, k, v, o, log_denominator, causal, slopes, lengths)
    for b, n in enumerate(lengths):
        alone = [x[b : b + 1, :n] for x in (do, q, k, v)]
        expected, log_denominator = op.attention(*alone[1:], causal, slopes)
        assert relative_error(o[b, :n], expected[0]) < 1e-13
        expected = op.attention_backward(*alone, expected, log_denominator, causal, slopes)
        assert relative_error(dqkv[b, :n], expected[0]) < 1e-13
        assert not dqkv[b, n:].any()


def test_bidirectional_output_follows_a_permutation_of_the_positions(each_backend, rng):
    op, (q, k, v) = backend.active(), _random(rng, 2, 150, 2, 4, count=3)
    order = rng.permutation(150)
    o, _ = op.attention(q, k, v, causal=False)
    permuted, _ = op.attention(*(x[:, order] for x in (q, k, v)), causal=False)
    assert relative_error(permuted, o[:, order]) < 1e-13
    causal, _ = op.attention(q, k, v)
    assert relative_error(op.attention(*(x[:, order] for x in (q, k, v)))[0], causal[:, order]) > 0.1


@pytest.mark.parametrize("sloped", [False, True])
def test_causal_attention_leaks_nothing(sloped, each_backend, rng):
    """Later keys and values change no earlier output, and an earlier output's loss gives them no gradient."""
    op, (q, k, v, do) = backend.active(), _random(rng, 1, 150, 2, 4)
    slopes = _slopes(2) if sloped else None
    for at in (1, 63, 64, 70, 128, 149):
        earlier = do.copy()
        earlier[:, at:] = 0
        o, log_denominator = op.attention(q, k, v, slopes=slopes)
        dqkv = op.attention_backward(earlier, q, k, v, o, log_denominator, slopes=slopes)
        assert dqkv[:, :at].any() and not dqkv[:, at:].any()
        changed_k, changed_v = k.copy(), v.copy()
        changed_k[:, at:], changed_v[:, at:] = 1e3 * rng.standard_normal((2, 1, 150 - at, 2, 4))
        changed, _ = op.attention(q, changed_k, changed_v, slopes=slopes)
        np.testing.assert_array_equal(changed[:, :at], o[:, :at])
        assert relative_error(changed[:, at:], o[:, at:]) > 0.1


@causal_and_bidirectional
def test_slopes_of_0_equal_none(causal, each_backend, rng):
    op, (q, k, v, do) = backend.active(), _random(rng, 2, 70, 2, 4)
    results = []
    for slopes in (None, np.zeros(2), _slopes(2)):
        o, log_denominator = op.attention(q, k, v, causal, slopes)
        results.append((o, op.attention_backward(do, q, k, v, o, log_denominator, causal, slopes)))
    for none, zeros, others in zip(*results, strict=True):
        np.testing.assert_array_equal(zeros, none)
        assert relative_error(others, none) > 0.1


@causal_and_bidirectional
@pytest.mark.parametrize("shift", [1, 13, 64, 100])
def test_slopes_see_distances_and_not_positions(causal, shift, each_backend, rng):
    """A sequence further back in a longer one whose other keys no query reads, because they lie opposite to all."""
    op, (q, k, v) = backend.active(), _random(rng, 1, 80 + shift, 2, 4, count=3)
    q[..., 0], k[..., 0], k[:, :shift, :, 0] = 1, 0, -1e6
    o, log_denominator = op.attention(q, k, v, causal, _slopes(2))
    expected, expected_log_denominator = op.attention(*(x[:, shift:] for x in (q, k, v)), causal, _slopes(2))
    assert relative_error(o[:, shift:], expected) < 1e-13
    assert relative_error(log_denominator[:, :, shift:], expected_log_denominator) < 1e-13


@each_choice
def test_arrays_of_any_strides(choice, each_backend, rng):
    causal, sloped, padded = choice
    rules = causal, _slopes(8)[::2] if sloped else None, np.array([[21], [0], [12]])[::2, 0] if padded else None
    op = backend.active()
    arrays = [rng.standard_normal((2, heads, 8, 21)).transpose(0, 3, 1, 2) for heads in (4, 2, 2, 4)]
    q, k, v, do = arrays
    o, log_denominator = op.attention(q, k, v, *rules)
    expected, _ = op.attention(*(np.ascontiguousarray(x) for x in (q, k, v)), *rules)
    np.testing.assert_allclose(o, expected, rtol=1e-12)
    expected = op.attention_backward(*(np.ascontiguousarray(x) for x in (do, q, k, v, o)), log_denominator, *rules)
    o = np.asfortranarray(o)
    np.testing.assert_allclose(op.attention_backward(do, q, k, v, o, log_denominator, *rules), expected, rtol=1e-11)


@needs_kernels
@each_choice
def test_an_arena_holds_all_that_the_kernel_needs_and_nothing_of_size_t_x_t(choice):
    op, arena, T = backend.load("numba"), Arena(), 1000
    _, forward, backward = _attention(op, np.random.default_rng(1), np.float32, T, 2, 1, 12, *choice)
    y = forward()
    dy = np.ones_like(y)
    expected = backward(dy)["qkv"]
    with arena.active():
        np.testing.assert_array_equal(forward(), y)
        assert arena.mark()[0] < y.nbytes + 2 * 2 * T * 4 + 200, "o and the logarithms stay; scratch is given back"
        np.testing.assert_array_equal(backward(dy)["qkv"], expected)
    with arena.active():  # it has its final size now
        assert arena.nbytes < T * T * 4


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_large_scores(dtype, tolerance, each_backend, rng):
    """Scores of some thousands, growing and falling along the keys: the running maximum moves, or never does."""
    q, k, v = (rng.standard_normal((1, 300, 2, 4)).astype(dtype) for _ in range(3))
    k[:] = np.linspace(-1, 1, 300, dtype=dtype)[:, None, None]
    q[:] = 1000
    q[:, :, 1] = -1000  # head 0 reads its last key alone, head 1 its first
    o, _ = backend.active().attention(q, k, v)
    assert relative_error(o[:, :, 0], v[:, :, 0]) < max(tolerance, 2 * np.exp(-2000 * 2 / 299))
    assert relative_error(o[:, :, 1], np.repeat(v[:, :1, 1], 300, axis=1)) < max(tolerance, 2 * np.exp(-2000 * 2 / 299))


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7F800001])  # NaN is not one number
def test_nan_is_seen(bits, each_backend, rng):
    """A NaN in q reaches its own output, a NaN in k or v every output that reads it; gradients hide none either."""
    op, at, nan = backend.active(), 70, np.uint32(bits).view(np.float32)
    for broken in range(4):
        q, k, v, do = arrays = [rng.standard_normal((1, 150, 2, 8)).astype(np.float32) for _ in range(4)]
        arrays[broken][0, at, 1, 3] = nan
        with np.errstate(invalid="ignore"):
            o, log_denominator = op.attention(q, k, v)
            dqkv = op.attention_backward(do, q, k, v, o, log_denominator)
        if broken < 3:
            assert np.isnan(o[0, at:, 1, 3]).all() if broken else np.isnan(o[0, at, 1]).all()
        assert np.isnan(dqkv[0, at, 1]).all()
        assert np.isfinite(dqkv[:, :, [0, 2, 4]]).all(), "a NaN in one head is not seen in another"
