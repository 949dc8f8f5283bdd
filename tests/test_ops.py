"""Every operation: its gradient against finite differences, and its kernel against the NumPy specification."""

import numpy as np
import pytest

from minillama import backend
from minillama.gradcheck import relative_error
from minillama.ops.loss import IGNORED
from minillama.ops.positions.rope import ROPE_LAYOUTS, rope_angles, swap_rope_layout

from .conftest import BACKENDS, check_gradient, check_kernel, each_precision, needs_kernels


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
    "swiglu": (_swiglu,),
    "cross_entropy": (_cross_entropy,),
    "dropout": (_dropout,),
}


def _normal(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("case", CASES)
def test_gradient_against_finite_differences(case, each_backend, rng):
    make, *choices = CASES[case]
    check_gradient(make, choices, rng)


@needs_kernels
@each_precision
@pytest.mark.parametrize("case", CASES)
def test_kernel_equals_specification(case, dtype, tolerance):
    make, *choices = CASES[case]
    check_kernel(make, choices, dtype, tolerance)


@needs_kernels
@each_precision
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


@needs_kernels
def test_every_operation_has_the_same_signature_in_both_backends():
    import inspect

    specification, kernels = backend.load("numpy"), backend.load("numba")
    for operations in backend.OPERATIONS.values():
        for name in operations:
            a, b = (getattr(namespace, name) for namespace in (specification, kernels))
            assert inspect.signature(a) == inspect.signature(b), name
            assert a.__module__.startswith("minillama.ops") and b.__module__.startswith("minillama.kernels"), name


@needs_kernels
def test_a_large_weight_has_its_gradient_slab_by_slab(rng, monkeypatch):
    monkeypatch.setattr("minillama.kernels.linear.SLAB", 30)
    dy, x, weight = (rng.standard_normal(shape) for shape in ((5, 8), (5, 10), (8, 10)))
    gradients = np.ones((2, 8, 10))
    for name, dweight in zip(BACKENDS, gradients, strict=True):
        backend.load(name).linear_backward(dy, x, weight, dweight)
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-13)


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


@pytest.mark.parametrize("layout", ROPE_LAYOUTS)
def test_rope_scores_depend_on_the_distance_only(layout, each_backend, rng):
    op, q, k = backend.active(), rng.standard_normal((1, 1, 1, 8)), rng.standard_normal((1, 1, 1, 8))

    def score(i, j):
        turned = [op.rope(x.copy(), *rope_angles([p], 8, 10000.0, np.float64), layout) for x, p in ((q, i), (k, j))]
        return float(np.sum(turned[0] * turned[1]))

    assert abs(score(5, 2) - score(105, 102)) < 1e-13
    assert abs(score(5, 2) - score(5, 3)) > 1e-3


@pytest.mark.parametrize("source, other", [("interleaved", "rotate_half"), ("rotate_half", "interleaved")])
def test_swapped_rows_give_the_same_scores_in_the_other_layout(source, other, rng):
    op, H, D = backend.active(), 3, 6
    x, w_q, w_k = rng.standard_normal((4, 5)), rng.standard_normal((H * D, 5)), rng.standard_normal((H * D, 5))
    angles = rope_angles(np.arange(4), D, 100.0, np.float64)

    def scores(w_q, w_k, layout):
        q, k = (op.rope((x @ w.T).reshape(1, 4, H, D).copy(), *angles, layout) for w in (w_q, w_k))
        return np.einsum("bthd,bshd->hts", q, k)

    expected = scores(w_q, w_k, source)
    assert relative_error(scores(*(swap_rope_layout(w, H, source) for w in (w_q, w_k)), other), expected) < 1e-13
    assert relative_error(scores(w_q, w_k, other), expected) > 0.1
    np.testing.assert_array_equal(swap_rope_layout(swap_rope_layout(w_q, H, source), H, other), w_q)


def test_dropout_mask_does_not_depend_on_the_cut_and_has_the_rate(each_backend):
    op, x = backend.active(), np.ones((400, 50), np.float32)
    whole = op.dropout(x, 0.3, 99)
    parts = [op.dropout(x[rows], 0.3, 99, rows.start) for rows in (slice(0, 123), slice(123, 400))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert abs(np.mean(whole == 0) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / x.size)
    assert np.mean(op.dropout(x, 0.3, 98) == whole) < 0.7
    np.testing.assert_allclose(whole[whole != 0], 1 / 0.7, rtol=1e-6)
