"""Every operation: its gradient against finite differences, and its kernel against the NumPy specification."""

import numpy as np
import pytest

from minillama import backend
from minillama.gradcheck import numerical_gradient, relative_error
from minillama.ops.loss import IGNORED
from minillama.ops.positions.rope import rope_angles

from .conftest import BACKENDS


def _linear(op, rng, dtype, bias):
    a = {"x": _normal(rng, dtype, 5, 7), "weight": _normal(rng, dtype, 3, 7)}
    if bias:
        a["bias"] = _normal(rng, dtype, 3)

    def backward(dy):
        d = {name: np.ones_like(a[name]) for name in a if name != "x"}  # gradients are added to what is there
        dx = op.linear_backward(dy, a["x"], a["weight"], *(d[name] for name in d))
        return {"x": dx, **{name: value - 1 for name, value in d.items()}}

    return a, lambda: op.linear(**a), backward


def _embedding(op, rng, dtype):
    a, ids = {"weight": _normal(rng, dtype, 6, 4)}, np.array([1, 5, 1, 0])

    def backward(dy):
        dweight = np.ones_like(a["weight"])
        op.embedding_backward(dy, ids, dweight)
        return {"weight": dweight - 1}

    return a, lambda: op.embedding(ids, a["weight"]), backward


def _rmsnorm(op, rng, dtype):
    a, eps = {"x": _normal(rng, dtype, 4, 6), "weight": _normal(rng, dtype, 6)}, 0.01

    def backward(dy):
        dweight = np.ones_like(a["weight"])
        _, inverse_rms = op.rmsnorm(a["x"], a["weight"], eps)
        dx = op.rmsnorm_backward(dy, a["x"], a["weight"], inverse_rms, dweight)
        return {"x": dx, "weight": dweight - 1}

    return a, lambda: op.rmsnorm(a["x"], a["weight"], eps)[0], backward


def _rope(op, rng, dtype, layout):
    a = {"x": _normal(rng, dtype, 2, 5, 3, 6)}
    cos, sin = rope_angles(np.arange(3, 8), 6, 100.0, dtype)
    return (
        a,
        lambda: op.rope(a["x"].copy(), cos, sin, layout),
        lambda dy: {"x": op.rope_backward(dy.copy(), cos, sin, layout)},
    )


def _attention(op, rng, dtype, T, H, K, D):
    qkv = _normal(rng, dtype, 2, T, H + 2 * K, D)
    a = {"qkv": qkv}

    def split():
        return qkv[:, :, :H], qkv[:, :, H : H + K], qkv[:, :, H + K :]

    def backward(dy):
        o, log_denominator = op.attention(*split())
        return {"qkv": op.attention_backward(dy, *split(), o, log_denominator)}

    return a, lambda: op.attention(*split())[0], backward


def _swiglu(op, rng, dtype):
    a = {"gate_up": _normal(rng, dtype, 4, 10) * 3}
    return a, lambda: op.swiglu(a["gate_up"]), lambda dh: {"gate_up": op.swiglu_backward(dh, a["gate_up"])}


def _cross_entropy(op, rng, dtype):
    a, targets = {"logits": _normal(rng, dtype, 5, 9) * 4}, np.array([3, IGNORED, 0, 8, 3])

    def backward(dy):
        _, log_denominator = op.cross_entropy(a["logits"], targets)
        one_row = [
            op.cross_entropy_backward(scale, a["logits"][[n]], targets[[n]], log_denominator[[n]])
            for n, scale in enumerate(dy)
        ]
        return {"logits": np.concatenate(one_row)}

    return a, lambda: op.cross_entropy(a["logits"], targets)[0], backward


def _dropout(op, rng, dtype):
    a = {"x": _normal(rng, dtype, 8, 5)}
    return a, lambda: op.dropout(a["x"], 0.4, 123, 7), lambda dy: {"x": op.dropout(dy, 0.4, 123, 7)}


CASES = {
    "linear": (_linear, False),
    "linear with bias": (_linear, True),
    "embedding": (_embedding,),
    "rmsnorm": (_rmsnorm,),
    "rope rotate_half": (_rope, "rotate_half"),
    "rope interleaved": (_rope, "interleaved"),
    "attention multi-head": (_attention, 5, 2, 2, 4),
    "attention grouped": (_attention, 9, 4, 2, 6),
    "attention multi-query": (_attention, 3, 3, 1, 2),
    "attention one position": (_attention, 1, 2, 1, 4),
    "swiglu": (_swiglu,),
    "cross_entropy": (_cross_entropy,),
    "dropout": (_dropout,),
}
# Shapes at which the kernels use whole tiles, several of them, and parts of them.
LARGER_ATTENTION = {
    f"attention T {T} H {H} K {K} D {D}": (_attention, T, H, K, D)
    for T, H, K, D in [
        *((64, 4, 4, 32), (70, 4, 2, 8), (33, 6, 1, 48), (200, 2, 1, 20), (31, 1, 1, 64)),
        *((1, 2, 1, 80), (7, 2, 2, 12), (65, 2, 2, 2), (129, 4, 2, 4), (130, 1, 1, 128), (260, 3, 1, 24)),
    ]
}


def _normal(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("case", CASES)
def test_gradient_against_finite_differences(case, each_backend, rng):
    make, *choices = CASES[case]
    inputs, forward, backward = make(backend.active(), rng, np.float64, *choices)
    weights = rng.standard_normal(forward().shape)  # of the outputs, in the number that is differentiated
    gradients = backward(weights)
    assert gradients.keys() == inputs.keys()
    for name, x in inputs.items():
        numerical = numerical_gradient(lambda: float(np.sum(weights * forward())), x)
        assert relative_error(gradients[name], numerical) < 1e-7, name


@pytest.mark.skipif("numba" not in BACKENDS, reason="Numba is not installed: there are no kernels")
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("case", CASES | LARGER_ATTENTION)
def test_kernel_equals_specification(case, dtype, tolerance):
    make, *choices = (CASES | LARGER_ATTENTION)[case]
    results = []
    for name in ("numpy", "numba"):
        _, forward, backward = make(backend.load(name), np.random.default_rng(1), dtype, *choices)
        y = forward()
        dy = np.random.default_rng(2).standard_normal(y.shape).astype(dtype)
        results.append({"y": y, **backward(dy)})
    for name, expected in results[0].items():
        assert results[1][name].dtype == expected.dtype == dtype, name
        assert relative_error(results[1][name], expected) < tolerance, name


@pytest.mark.skipif("numba" not in BACKENDS, reason="Numba is not installed: there are no kernels")
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_adamw_kernel_equals_specification(dtype, tolerance, rng):
    results = []
    for name in ("numpy", "numba"):
        w, g, m, v = (_normal(np.random.default_rng(i), dtype, 1000) for i in range(4))
        v = np.abs(v)
        backend.load(name).adamw(w, g, m, v, 3, 0.01, (0.9, 0.95), 1e-8, 0.1, 0.5)
        results.append((w, m, v))
    for expected, received in zip(*results, strict=True):
        assert received.dtype == dtype
        assert relative_error(received, expected) < tolerance


@pytest.mark.skipif("numba" not in BACKENDS, reason="Numba is not installed: there are no kernels")
def test_every_operation_has_the_same_signature_in_both_backends():
    import inspect

    specification, kernels = backend.load("numpy"), backend.load("numba")
    for operations in backend.OPERATIONS.values():
        for name in operations:
            a, b = (getattr(namespace, name) for namespace in (specification, kernels))
            assert inspect.signature(a) == inspect.signature(b), name
            assert a.__module__.startswith("minillama.ops") and b.__module__.startswith("minillama.kernels"), name


@pytest.mark.skipif("numba" not in BACKENDS, reason="Numba is not installed: there are no kernels")
def test_a_large_weight_has_its_gradient_slab_by_slab(rng, monkeypatch):
    monkeypatch.setattr("minillama.kernels.linear.SLAB", 30)
    dy, x, weight = (rng.standard_normal(shape) for shape in ((5, 8), (5, 10), (8, 10)))
    gradients = np.ones((2, 8, 10))
    for name, dweight in zip(BACKENDS, gradients, strict=True):
        backend.load(name).linear_backward(dy, x, weight, dweight)
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-13)


def test_attention_takes_arrays_of_any_strides(each_backend, rng):
    op = backend.active()
    arrays = [rng.standard_normal((2, heads, 8, 21)).transpose(0, 3, 1, 2) for heads in (4, 2, 2, 4)]
    q, k, v, do = arrays
    o, log_denominator = op.attention(q, k, v)
    expected, _ = op.attention(*(np.ascontiguousarray(x) for x in (q, k, v)))
    np.testing.assert_allclose(o, expected, rtol=1e-12)
    expected = op.attention_backward(*(np.ascontiguousarray(x) for x in (do, q, k, v, o)), log_denominator)
    o = np.asfortranarray(o)
    np.testing.assert_allclose(op.attention_backward(do, q, k, v, o, log_denominator), expected, rtol=1e-11)


def test_rmsnorm_with_a_residual_equals_addition_and_norm(each_backend, rng):
    op = backend.active()
    x, residual, dy, dx = rng.standard_normal((4, 5, 12))
    weight, dweight = rng.standard_normal((2, 12))
    stream, expected_dweight = x + residual, dweight.copy()
    expected, inverse_rms = op.rmsnorm(stream, weight, 1e-5)
    received, received_inverse = op.rmsnorm(x, weight, 1e-5, residual=residual)
    for a, b in ((x, stream), (received, expected), (received_inverse, inverse_rms)):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    expected = dx + op.rmsnorm_backward(dy, stream, weight, inverse_rms, expected_dweight)
    received = op.rmsnorm_backward(dy, stream, weight, inverse_rms, dweight, dx)
    assert received is dx
    np.testing.assert_allclose(received, expected, rtol=1e-13)
    np.testing.assert_allclose(dweight, expected_dweight, rtol=1e-13)


def test_rmsnorm_gradient_is_orthogonal_to_x_when_eps_is_0(each_backend, rng):
    op, x, weight = backend.active(), rng.standard_normal((3, 8)), rng.standard_normal(8)
    dy = rng.standard_normal(x.shape)
    _, inverse_rms = op.rmsnorm(x, weight, 0.0)
    dx = op.rmsnorm_backward(dy, x, weight, inverse_rms, np.zeros(8))
    assert np.abs(np.sum(dx * x, axis=1)).max() < 1e-14


def test_cross_entropy_gradient_rows_add_up_to_0_and_ignored_rows_are_0(each_backend, rng):
    op, targets = backend.active(), np.array([2, IGNORED, 0])
    logits = rng.standard_normal((3, 7))
    losses, log_denominator = op.cross_entropy(logits, targets)
    dlogits = op.cross_entropy_backward(0.5, logits, targets, log_denominator)
    assert losses[1] == 0 and not dlogits[1].any()
    assert np.abs(dlogits.sum(axis=1)).max() < 1e-15 and np.abs(dlogits[0]).max() > 0.1


def test_cross_entropy_stands_large_logits_and_shows_infinite_ones(each_backend):
    op = backend.active()
    for dtype in (np.float32, np.float64):
        logits = np.array([[1e4, -1e4, 0], [np.nan, 0, 0], [np.inf, 0, 0]], dtype)
        with np.errstate(invalid="ignore"):
            losses, _ = op.cross_entropy(logits, np.array([0, 1, 1]))
        assert losses[0] == 0 and not np.isfinite(losses[1:]).any()


def test_swiglu_stands_large_gates(each_backend):
    gate_up = np.array([[-200.0, 200.0, 0.0, 1.0, 1.0, 1.0]], np.float32)
    with np.errstate(over="ignore"):
        h = backend.active().swiglu(gate_up)
        d = backend.active().swiglu_backward(np.ones_like(h), gate_up)
    np.testing.assert_allclose(h, [[0, 200, 0]], atol=1e-30)
    np.testing.assert_allclose(d, [[0, 1, 0.5, 0, 200, 0]], atol=1e-30)


def test_attention_of_the_last_positions_equals_the_end_of_the_whole(each_backend, rng):
    op = backend.active()
    q, k, v = (rng.standard_normal((2, 40, heads, 8)) for heads in (4, 2, 2))
    whole, _ = op.attention(q, k, v)
    for new in (1, 3, 35):
        assert relative_error(op.attention(q[:, -new:], k, v)[0], whole[:, -new:]) < 1e-13


@pytest.mark.skipif("numba" not in BACKENDS, reason="Numba is not installed: there are no kernels")
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_attention_kernel_with_more_keys_than_queries(dtype, tolerance, rng):
    q, k, v = (rng.standard_normal((2, 300, heads, 12)).astype(dtype) for heads in (4, 2, 2))
    for T, S in [(1, 1), (1, 17), (7, 130), (33, 34), (64, 128), (65, 257), (129, 300), (200, 263)]:
        results = [backend.load(name).attention(q[:, :T], k[:, :S], v[:, :S]) for name in ("numpy", "numba")]
        for expected, received in zip(*results, strict=True):
            assert relative_error(received, expected) < tolerance, (T, S)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_attention_stands_large_scores(dtype, tolerance, each_backend, rng):
    """Scores of some thousands, growing and falling along the keys: the running maximum moves, or never does."""
    q, k, v = (rng.standard_normal((1, 300, 2, 4)).astype(dtype) for _ in range(3))
    k[:] = np.linspace(-1, 1, 300, dtype=dtype)[:, None, None]
    q[:] = 1000
    q[:, :, 1] = -1000  # head 0 reads its last key alone, head 1 its first
    o, _ = backend.active().attention(q, k, v)
    assert relative_error(o[:, :, 0], v[:, :, 0]) < max(tolerance, 2 * np.exp(-2000 * 2 / 299))
    assert relative_error(o[:, :, 1], np.repeat(v[:, :1, 1], 300, axis=1)) < max(tolerance, 2 * np.exp(-2000 * 2 / 299))


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7F800001])  # NaN is not one number
def test_attention_shows_nan(bits, each_backend, rng):
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


def test_dropout_mask_does_not_depend_on_the_cut_and_has_the_rate(each_backend):
    op, x = backend.active(), np.ones((400, 50), np.float32)
    whole = op.dropout(x, 0.3, 99)
    parts = [op.dropout(x[rows], 0.3, 99, rows.start) for rows in (slice(0, 123), slice(123, 400))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert abs(np.mean(whole == 0) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / x.size)
    assert np.mean(op.dropout(x, 0.3, 98) == whole) < 0.7
    np.testing.assert_allclose(whole[whole != 0], 1 / 0.7, rtol=1e-6)
