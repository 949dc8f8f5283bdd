"""Operations on arrays with any axes in front, as lecturers and students of a course hold them."""

import warnings

import numpy as np
import pytest

from minillama import Config, backend
from minillama.gradcheck import relative_error
from minillama.ops.feedforward import FEED_FORWARDS
from minillama.ops.loss import IGNORED
from minillama.ops.norms import NORMS
from minillama.ops.positions.rope import ROPE_LAYOUTS, rope_frequencies, rope_speeds
from minillama.ops.rope_scaling import ROPE_SCALINGS

from .conftest import check_gradient, needs_kernels

op = backend.load("numpy")
AXES = [(), (3,), (2, 3), (2, 1, 3), (0, 3)]  # in front of the last one
# Operations that treat rows one by one, and how they are tried: name -> function(rng, axes) -> results of axes, whose
# rows are compared; parameters' gradients, which are sums over the rows
ROWS = {}


def rows_case(*names):
    def keep(function):
        ROWS.update(dict.fromkeys(names, function))
        return function

    return keep


def random(rng, *shape):
    return rng.standard_normal(shape)


@rows_case("linear", "linear_backward")
def linear(x, dy, rng):
    weight, bias, dweight, dbias = random(rng, 4, 6), random(rng, 4), np.ones((4, 6)), np.ones(4)
    dy = dy[..., :4]
    y = op.linear(x, weight, bias)
    return [y, op.linear_backward(dy, x, weight, dweight, dbias)], [dweight, dbias]


@rows_case("embedding", "embedding_backward")
def embedding(x, dy, rng):
    weight, dweight = random(rng, 5, 6), np.ones((5, 6))
    ids = np.abs(x[..., 0] * 10).astype(int) % 5
    op.embedding_backward(dy, ids, dweight)
    return [op.embedding(ids, weight)], [dweight]


@rows_case("dropout")
def dropout(x, dy, rng):
    return [op.dropout(x, 0.5, 7, 2)], []


@rows_case("cross_entropy", "cross_entropy_backward")
def cross_entropy(x, dy, rng):
    targets = np.where(x[..., 0] > 1, IGNORED, np.abs(x[..., 1] * 10).astype(int) % 6)
    losses, log_denominator = op.cross_entropy(x, targets)
    logits = x.copy()
    dx = op.cross_entropy_backward(dy[..., 0], logits, targets, log_denominator)
    assert dx is logits
    return [losses[..., None], log_denominator[..., None], dx], []


@rows_case("softmax", "softmax_backward", "log_softmax", "log_softmax_backward")
def softmax(x, dy, rng):
    p, y = op.softmax(x), op.log_softmax(x)
    return [p, op.softmax_backward(dy, p), y, op.log_softmax_backward(dy, y)], []


def activation(row):
    def case(x, dy, rng):
        dh = dy[..., :3] if row.gated else dy
        return [row.forward(x), row.backward(dh, x)], []

    return case


def norm(row):
    def case(x, dy, rng):
        weight, bias, dweight, again, dbias = random(rng, 6), random(rng, 6), np.ones(6), np.ones(6), np.ones(6)
        y, saved = row.forward(x, weight, 1e-3)
        dx = row.backward(dy, x, weight, saved, dweight)
        with_bias, with_bias_backward = row.with_bias(op)
        if not row.has_weight:  # a config with such a norm has no bias of norms
            bias = dbias = None
        biased, saved = with_bias(x, weight, bias, 1e-3)
        stream = with_bias_backward(dy, x, weight, saved, again, dbias, dy * 3)
        return [y, dx, biased, stream], [total for total in (dweight, again, dbias) if total is not None]

    return case


for each in FEED_FORWARDS.values():
    rows_case(each.forward.__name__, each.backward.__name__)(activation(each))
for each in NORMS.values():
    rows_case(each.forward.__name__, each.backward.__name__)(norm(each))

# What does not treat rows one by one: it has its own axes, or none
OTHERS = {
    "attention", "attention_backward", "attention_map", "masked_attention", "masked_attention_backward", "rope",
    "rope_backward", "rotated", "rotated_backward", "decode", "hash32", "adam", "adamw", "sgd", "softmax_weights",
    "draw", "rope_frequencies", "rope_turns", "rope_angles",
    "rope_tables", "rope_speeds", "swap_rope_layout", "alibi_slopes", "sinusoidal_table", "scale_frequencies",
    "no_scaling", "position_interpolation", "ntk_scaling", "raise_base", "dynamic_ntk_scaling", "llama3_scaling",
    "yarn_scaling",
}  # fmt: skip


def test_every_operation_is_tried_here_or_has_axes_of_its_own():
    of_weights = "weights."  # modules whose operations take whole matrices
    places = {place: names for place, names in backend.operations().items() if not place.startswith(of_weights)}
    names = {name for names in places.values() for name in names}
    assert names == ROWS.keys() | OTHERS and not ROWS.keys() & OTHERS


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_axes_in_front_are_rows(name, axes):
    rng = np.random.default_rng(1)
    x, dy = random(rng, *axes, 6), random(rng, *axes, 6)
    kept = x.copy(), dy.copy()
    results, sums = ROWS[name](x, dy, np.random.default_rng(2))
    assert np.array_equal(x, kept[0]) and np.array_equal(dy, kept[1])
    expected, expected_sums = ROWS[name](x.reshape(-1, 6), dy.reshape(-1, 6), np.random.default_rng(2))
    for received, rows in zip(results, expected, strict=True):
        assert received.shape == (*axes, rows.shape[-1])
        np.testing.assert_allclose(received.reshape(rows.shape), rows, rtol=1e-14, atol=1e-15)
    for received, total in zip(sums, expected_sums, strict=True):
        np.testing.assert_allclose(received, total, rtol=1e-13, atol=1e-14)


@needs_kernels
@pytest.mark.parametrize("name", ["linear", "rmsnorm", "layernorm", "cross_entropy", *FEED_FORWARDS])
def test_a_kernel_computes_nothing_wrong_of_more_axes_than_it_knows(name):
    """Kernels take rows: of more axes they make what the specification makes, or an error."""
    kernels, x = backend.load("numba"), np.random.default_rng(0).standard_normal((2, 3, 6))
    others = {
        "linear": [np.ones((4, 6))],
        "cross_entropy": [np.ones((2, 3), int)],
        "rmsnorm": [np.ones(6), 1e-5],
        "layernorm": [np.ones(6), 1e-5],
    }.get(name, [])
    expected = getattr(op, name)(x, *others)
    try:
        received = getattr(kernels, name)(x, *others)
    except Exception as error:  # Numba's own, and NumPy's of a shape that does not fit
        assert not isinstance(error, AssertionError)
        return
    for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (received, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


# Gradients against finite differences


def _softmax(op, rng, dtype, name, axis):
    a = {"x": 2 * random(rng, 3, 4, 2)}
    forward, backward = getattr(op, name), getattr(op, f"{name}_backward")
    return a, lambda: forward(a["x"], axis), lambda dy: {"x": backward(dy, forward(a["x"], axis), axis)}


def _rotated(op, rng, dtype, layout, scaling):
    a = {"x": random(rng, 2, 3, 5, 6)}
    config = Config(
        vocab_size=1, dim=12, heads=2, context=40, rope_scaling=scaling, rope_factor=1.0 if scaling == "none" else 4.0,
        rope_original_context=None if scaling == "none" else 10,
    )  # fmt: skip
    how = (rng.integers(40, size=(2, 1, 5)), *rope_speeds(config, 40), layout)
    return a, lambda: op.rotated(a["x"], *how), lambda dy: {"x": op.rotated_backward(dy, *how)}


# axes of q and of k and v in front of (T, D) and (S, D); the mask's shape
HEADS = {
    "one": ((), (), (4, 5)),
    "batch": ((3,), (3,), (3, 4, 5)),
    "heads": ((2, 4), (2, 4), (4, 5)),
    "grouped": ((2, 4), (2, 2), (2, 1, 4, 5)),
    "multi-query": ((4,), (1,), (1, 5)),
    "a mask a head": ((2, 4), (2, 2), (4, 4, 5)),
    "no mask": ((2, 4), (2, 2), None),
}


def masked_arrays(rng, front, behind, mask_shape):
    a = {"q": random(rng, *front, 4, 6), "k": random(rng, *behind, 5, 6), "v": random(rng, *behind, 5, 3)}
    mask = None if mask_shape is None else rng.random(mask_shape) < 0.6
    if mask is not None and mask_shape[-2] > 1:
        mask[..., 1, :] = False  # a query that reads nothing
    return a, mask


def _masked_attention(op, rng, dtype, *shapes):
    a, mask = masked_arrays(rng, *shapes)

    def backward(do):
        o, log_denominator = op.masked_attention(**a, mask=mask)
        return dict(zip("qkv", op.masked_attention_backward(do, *a.values(), o, log_denominator, mask), strict=True))

    return a, lambda: op.masked_attention(**a, mask=mask)[0], backward


GRADIENTS = {
    **{f"{name}, axis {axis}": (_softmax, name, axis) for name in ("softmax", "log_softmax") for axis in (-1, 0, 1)},
    **{f"{layout}, {scaling}": (_rotated, layout, scaling) for layout in ROPE_LAYOUTS for scaling in ROPE_SCALINGS},
    **{f"attention, {name}": (_masked_attention, *shapes) for name, shapes in HEADS.items()},
}


@pytest.mark.parametrize("case", GRADIENTS)
def test_gradient_against_finite_differences(case, each_backend, rng):
    make, *choices = GRADIENTS[case]
    check_gradient(make, choices, rng)


# Softmax


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 2)])
def test_softmax_is_exp_over_its_sum_and_keeps_the_dtype(dtype, axis, rng):
    x = random(rng, 3, 4, 5).astype(dtype)
    expected = np.exp(x.astype(float)) / np.exp(x.astype(float)).sum(axis=axis, keepdims=True)
    p, y = op.softmax(x, axis), op.log_softmax(x, axis)
    assert (
        p.dtype
        == y.dtype
        == op.softmax_backward(x, p, axis).dtype
        == op.log_softmax_backward(x, y, axis).dtype
        == dtype
    )
    np.testing.assert_allclose(p, expected, rtol=1e-5 if dtype == np.float32 else 1e-14)
    np.testing.assert_allclose(y, np.log(expected), rtol=1e-4 if dtype == np.float32 else 1e-13)


def test_softmax_of_large_and_infinite_numbers():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(op.softmax(np.array([1e4, 1e4, -1e4, -np.inf])), [0.5, 0.5, 0, 0])
        assert op.log_softmax(np.array([0.0, 1000.0]))[0] == -1000  # whose share is no number of float64
    with np.errstate(invalid="ignore"):
        for x in ([-np.inf, -np.inf], [np.inf, 0.0], [np.nan, 0.0]):
            assert np.isnan(op.softmax(np.array(x))).all()


# Rotation


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("layout", ROPE_LAYOUTS)
def test_rotated_equals_rope_and_leaves_x_alone(layout, dtype, tolerance, each_backend, rng):
    x = random(rng, 2, 5, 3, 8).astype(dtype)
    frequencies, positions = rope_frequencies(8, 500.0), np.arange(3, 8)
    angles = np.outer(positions, frequencies)
    expected = backend.active().rope(x.copy(), np.cos(angles).astype(dtype), np.sin(angles).astype(dtype), layout)
    heads_first, kept = x.swapaxes(1, 2), x.copy()
    received = op.rotated(heads_first, positions, frequencies, layout=layout)
    np.testing.assert_allclose(received, expected.swapaxes(1, 2), rtol=0, atol=10 * tolerance)
    assert received.dtype == dtype and np.array_equal(x, kept) and not np.shares_memory(received, x)
    back = op.rotated_backward(received, positions, frequencies, layout=layout)
    np.testing.assert_allclose(back, heads_first, rtol=0, atol=10 * tolerance)


def test_rotated_takes_positions_of_each_row_and_theta_10000_unless_told(rng):
    x, positions = random(rng, 2, 3, 4, 6), rng.integers(100, size=(2, 1, 4))
    received = op.rotated(x, positions)
    for b in range(2):
        np.testing.assert_array_equal(received[b], op.rotated(x[b], positions[b, 0]))
        for t in range(4):
            angle = positions[b, 0, t] * 10000.0 ** (-np.arange(3) / 3)
            z = (x[b, :, t, :3] + 1j * x[b, :, t, 3:]) * np.exp(1j * angle)
            np.testing.assert_allclose(received[b, :, t], np.concatenate([z.real, z.imag], axis=-1), rtol=1e-12)


@pytest.mark.parametrize(
    "shape, positions, options, message",
    [
        ((4, 5), [0, 1, 2, 3], {}, "their number must be even; received 5"),
        ((4, 6), [0, 1, 2], {}, r"positions must be numbers that broadcast to \(4,\)"),
        ((4, 6), np.zeros((2, 4)), {}, r"broadcast to \(4,\), one for each row; received float64 \(2, 4\)"),
        ((4, 6), ["a"] * 4, {}, "positions must be numbers"),
        ((4, 6), np.arange(4), {"frequencies": np.ones(6)}, r"6 coordinates need 3 frequencies, one a pair; received"),
        ((4, 6), np.arange(4), {"layout": "neox"}, "one of rotate_half, interleaved; received 'neox'"),
    ],
)
def test_rotated_refuses_what_does_not_fit(shape, positions, options, message):
    with pytest.raises(ValueError, match=message):
        op.rotated(np.ones(shape), positions, **options)
    with pytest.raises(ValueError, match="floating-point numbers .* received int64"):
        op.rotated(np.ones((4, 6), np.int64), np.arange(4))


# Attention with a mask


@pytest.mark.parametrize("choice", HEADS)
def test_masked_attention_equals_its_formula(choice, rng):
    a, mask = masked_arrays(rng, *HEADS[choice])
    front, (o, _) = a["q"].shape[:-2], op.masked_attention(**a, mask=mask)
    mask = np.broadcast_to(True if mask is None else mask, (*front, 4, 5))
    for at in np.ndindex(front):
        group = a["q"].shape[-3] // a["k"].shape[-3] if front else 1
        source = (*at[:-1], at[-1] // group) if at else ()
        q, k, v = a["q"][at], a["k"][source], a["v"][source]
        for i in range(4):
            read = np.flatnonzero(mask[at][i])
            weights = np.exp(k[read] @ q[i] / 6**0.5)
            expected = weights @ v[read] / weights.sum() if len(read) else np.zeros(3)
            np.testing.assert_allclose(o[at][i], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_masked_attention_with_a_causal_mask_equals_attention(dtype, each_backend, rng):
    q, k, v, do = (random(rng, 2, 6, heads, 4).astype(dtype) for heads in (4, 2, 2, 4))
    expected, log_denominator = backend.active().attention(q, k, v)
    gradients = backend.active().attention_backward(do, q, k, v, expected, log_denominator)
    first = [x.swapaxes(1, 2) for x in (do, q, k, v)]
    mask = np.tril(np.ones((6, 6), bool))
    o, denominators = op.masked_attention(*first[1:], mask)
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    assert relative_error(o.swapaxes(1, 2), expected) < tolerance
    assert relative_error(denominators, log_denominator) < tolerance
    received = op.masked_attention_backward(*first, o, denominators, mask)
    assert all(x.dtype == dtype for x in (o, denominators, *received))
    received = np.concatenate([x.swapaxes(1, 2) for x in received], axis=2)
    assert relative_error(received, gradients) < tolerance


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_query_that_reads_nothing_gives_0_and_no_gradient(dtype, rng):
    q, k, v, do = (random(rng, 2, 4, 3).astype(dtype) for _ in range(4))
    mask = np.ones((4, 4), bool)
    mask[2] = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        o, log_denominator = op.masked_attention(q, k, v, mask)
        gradients = op.masked_attention_backward(do, q, k, v, o, log_denominator, mask)
    assert np.all(o[:, 2] == 0) and np.all(log_denominator[:, 2] == -np.inf) and np.all(gradients[0][:, 2] == 0)
    others = [0, 1, 3]
    o, log_denominator = op.masked_attention(q[:, others], k, v)
    expected = op.masked_attention_backward(do[:, others], q[:, others], k, v, o, log_denominator)
    for received, alone in zip(gradients[1:], expected[1:], strict=True):
        np.testing.assert_allclose(received, alone, rtol=1e-5 if dtype == np.float32 else 1e-13, atol=1e-6)


@pytest.mark.parametrize(
    "q, k, v, mask, message",
    [
        ((4, 6), (5, 7), (5, 6), None, r"received \(4, 6\), \(5, 7\) and \(5, 6\)"),
        ((4, 6), (5, 6), (4, 6), None, "the same axes in front"),
        ((2, 4, 6), (3, 5, 6), (3, 5, 6), None, "a K that divides H"),
        ((2, 4, 6), (4, 5, 6), (4, 5, 6), None, "a K that divides H"),
        ((2, 4, 6), (0, 5, 6), (0, 5, 6), None, "a K that divides H"),
        ((2, 4, 6), (5, 6), (5, 6), None, "the same axes in front"),
        ((6,), (6,), (6,), None, "attention needs q"),
        ((4, 6), (5, 6), (5, 6), np.zeros((4, 5)), "a mask is of truth values.* received float64.* pass mask == 0"),
        ((4, 6), (5, 6), (5, 6), np.ones((5, 4), bool), r"must broadcast to \(..., T, S\) = \(4, 5\); received \(5, 4"),
        ((4, 6), (5, 6), (5, 6), np.ones((2, 4, 5), bool), "must broadcast to"),
    ],
)
def test_masked_attention_refuses_what_does_not_fit(q, k, v, mask, message):
    with pytest.raises(ValueError, match=message):
        op.masked_attention(np.ones(q), np.ones(k), np.ones(v), mask)
