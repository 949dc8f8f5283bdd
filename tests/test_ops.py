"""Every operation: its gradient against finite differences, and its kernel against the NumPy specification."""

import ast
import importlib
import inspect
import pkgutil
import re
from types import SimpleNamespace

import numpy as np
import pytest

from minillama import backend
from minillama.config import Config
from minillama.gradcheck import relative_error
from minillama.layers.blocks import PLACEMENTS
from minillama.ops.feedforward import FEED_FORWARDS
from minillama.ops.loss import IGNORED
from minillama.ops.norms import NORMS, Norm
from minillama.ops.positions.rope import rope_angles

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


def _functions(op, row):
    """The forward and backward of a row of NORMS or FEED_FORWARDS, as the backend has them."""
    return getattr(op, row.forward.__name__), getattr(op, row.backward.__name__)


def _norm(op, rng, dtype, name, bias, stream, rows=4, width=6):
    """As a network calls it. With a stream the output is y above x, whose own gradient goes to the backward as dx."""
    forward, backward = NORMS[name].with_bias(op)
    a = {"x": _normal(rng, dtype, rows, width)}
    parameters = ["weight", "bias"][: (1 + bias) * NORMS[name].has_weight]
    a |= {name: _normal(rng, dtype, width) for name in parameters}

    def run():
        return forward(a["x"], a.get("weight"), a.get("bias"), 0.01)

    def output():
        return np.concatenate([run()[0], a["x"]]) if stream else run()[0]

    def gradients(dy):
        _, saved = run()
        d = {name: np.ones_like(a[name]) for name in parameters}
        dstream = dy[rows:].copy() if stream else None
        dx = backward(dy[:rows], a["x"], a.get("weight"), saved, d.get("weight"), d.get("bias"), dstream)
        assert dstream is None or dx is dstream
        return {"x": dx, **{name: value - 1 for name, value in d.items()}}

    return a, output, gradients


def _rope(op, rng, dtype, layout):
    a = {"x": _normal(rng, dtype, 2, 5, 3, 6)}
    cos, sin = rope_angles(np.arange(3, 8), 6, 100.0, dtype)
    return (
        a,
        lambda: op.rope(a["x"].copy(), cos, sin, layout),
        lambda dy: {"x": op.rope_backward(dy.copy(), cos, sin, layout)},
    )


def _activation(op, rng, dtype, name, rows=4, width=5):
    forward, backward = _functions(op, FEED_FORWARDS[name])
    a = {"inner": _normal(rng, dtype, rows, 2 * width if FEED_FORWARDS[name].gated else width) * 3}
    return a, lambda: forward(a["inner"]), lambda dhidden: {"inner": backward(dhidden, a["inner"])}


def _cross_entropy(op, rng, dtype):
    a, targets = {"logits": _normal(rng, dtype, 5, 9) * 4}, np.array([3, IGNORED, 0, 8, 3])

    def backward(dy):
        _, log_denominator = op.cross_entropy(a["logits"], targets)
        return {"logits": op.cross_entropy_backward(dy, a["logits"].copy(), targets, log_denominator)}

    return a, lambda: op.cross_entropy(a["logits"], targets)[0], backward


def _dropout(op, rng, dtype):
    a = {"x": _normal(rng, dtype, 8, 5)}
    return a, lambda: op.dropout(a["x"], 0.4, 123, 7), lambda dy: {"x": op.dropout(dy, 0.4, 123, 7)}


NORM_CHOICES = [
    (name, bias, stream)
    for name, row in NORMS.items()
    for bias in ([False, True] if row.has_weight else [False])
    for stream in (False, True)
]
CASES = {
    "linear": (_linear, False),
    "linear with bias": (_linear, True),
    "embedding": (_embedding,),
    **{f"{n}{', bias' * bias}{', stream' * stream}": (_norm, n, bias, stream) for n, bias, stream in NORM_CHOICES},
    **{name: (_activation, name) for name in FEED_FORWARDS},
    "rope rotate_half": (_rope, "rotate_half"),
    "rope interleaved": (_rope, "interleaved"),
    "cross_entropy": (_cross_entropy,),
    "dropout": (_dropout,),
}
# Widths of one element, of odd numbers, and of many vectors.
SHAPES = [(1, 1), (5, 1), (3, 17), (40, 129), (2, 1024)]
LARGER = {
    f"{case} {rows} x {width}": (*CASES[case], rows, width)
    for case in CASES
    if CASES[case][0] in (_norm, _activation)
    for rows, width in SHAPES
}


def _normal(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("case", CASES)
def test_gradient_against_finite_differences(case, each_backend, rng):
    make, *choices = CASES[case]
    check_gradient(make, choices, rng)


@needs_kernels
@each_precision
@pytest.mark.parametrize("case", CASES | LARGER)
def test_kernel_equals_specification(case, dtype, tolerance):
    make, *choices = (CASES | LARGER)[case]
    check_kernel(make, choices, dtype, tolerance)


@needs_kernels
@each_precision
@pytest.mark.parametrize(
    "rule, arrays, numbers",
    [
        ("adamw", 2, (3, 0.01, (0.9, 0.95), 1e-8, 0.1, 0.5)),
        ("adam", 2, (3, 0.01, (0.9, 0.95), 1e-8, 0.1, 0.5)),
        ("sgd", 1, (0.01, 0.9, 0.1, 0.5)),
    ],
)
def test_update_kernel_equals_specification(rule, arrays, numbers, dtype, tolerance):
    results = []
    for name in ("numpy", "numba"):
        w, g, *state = (_normal(np.random.default_rng(i), dtype, 1000) for i in range(2 + arrays))
        np.abs(state[-1], out=state[-1])  # of Adam the mean of squares
        getattr(backend.load(name), rule)(w, g, *state, *numbers)
        results.append((w, *state))
    for expected, received in zip(*results, strict=True):
        assert received.dtype == dtype
        assert relative_error(received, expected) < tolerance


@pytest.mark.skipif("numba" not in BACKENDS, reason="Numba is not installed: there are no kernels")
def test_kernels_have_the_names_and_signatures_of_operations():
    import minillama.kernels

    specification, kernels = backend.load("numpy"), backend.load("numba")
    for path, names in backend.operations().items():
        for name in names:
            a, b = (getattr(namespace, name) for namespace in (specification, kernels))
            assert inspect.signature(a) == inspect.signature(b), name
            assert a.__module__ == f"minillama.ops.{path}", name
            assert b.__module__ in (a.__module__, f"minillama.kernels.{path}"), name
    fused = {}
    for row in NORMS.values():  # a fused kernel has the arguments of what it stands for
        roles = zip((row.forward, row.backward), row.with_bias(specification), row.with_bias(kernels), strict=True)
        for plain, a, b in roles:
            assert inspect.signature(a) == inspect.signature(b), plain.__name__
            if b.__module__ != a.__module__:
                fused[f"fused_{plain.__name__}"] = b
    assert {"fused_rmsnorm", "fused_rmsnorm_backward"} <= set(fused)
    for module in pkgutil.walk_packages(minillama.kernels.__path__, "minillama.kernels."):
        if module.name.split(".")[-1] not in ("simd", "elementary", "matmul", "weights"):  # what kernels are made of
            names = backend.operations().get(module.name.removeprefix("minillama.kernels."), [])
            for name, function in inspect.getmembers(importlib.import_module(module.name), inspect.isfunction):
                if function.__module__ == module.name and not name.startswith("_"):
                    assert name in names or function is fused.get(name), f"{module.name}.{name} serves no operation"


@pytest.mark.skipif("numba" not in BACKENDS, reason="Numba is not installed: there are no kernels")
def test_a_large_weight_has_its_gradient_slab_by_slab(rng, monkeypatch):
    monkeypatch.setattr("minillama.kernels.linear.SLAB", 30)
    dy, x, weight = (rng.standard_normal(shape) for shape in ((5, 8), (5, 10), (8, 10)))
    gradients = np.ones((2, 8, 10))
    for name, dweight in zip(BACKENDS, gradients, strict=True):
        backend.load(name).linear_backward(dy, x, weight, dweight)
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-13)


@pytest.mark.parametrize("name, bias, stream", NORM_CHOICES)
def test_norm_of_a_network_is_the_plain_pair_with_a_bias_and_a_sum(name, bias, stream, each_backend, rng):
    """What `op.norm` does, fused kernels included, from the norm's own two functions."""
    row, op = NORMS[name], backend.active(_config(name))
    forward, backward = _functions(op, row)
    x, dy, dx = rng.standard_normal((3, 5, 12))
    weight, b, dweight, dbias = rng.standard_normal((4, 12))
    if not bias:
        b = dbias = None
    if not row.has_weight:
        weight = dweight = None
    y, saved = forward(x, weight, 1e-5)
    expected_dweight = None if dweight is None else dweight.copy()
    expected = [y if b is None else y + b, backward(dy, x, weight, saved, expected_dweight) + (dx if stream else 0)]
    expected += [expected_dweight, None if dbias is None else dbias + dy.sum(axis=0)]
    kept = x.copy()
    received, saved = op.norm(x, weight, b, 1e-5)
    through = op.norm_backward(dy, x, weight, saved, dweight, dbias, dx if stream else None)
    np.testing.assert_array_equal(x, kept)
    for a, e in zip((received, through, dweight, dbias), expected, strict=True):
        if e is not None:
            np.testing.assert_allclose(a, e, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", NORMS)
def test_the_page_of_a_norm_holds_its_formula_alone(name):
    """No case distinction, and no argument that is not in the formula; a bias and a stream are the wrapper's."""
    row = NORMS[name]
    for function, count in ((row.forward, 3), (row.backward, 5)):
        tree = ast.parse(inspect.getsource(function))
        assert not [node for node in ast.walk(tree) if isinstance(node, (ast.If, ast.IfExp, ast.Match))]
        parameters = inspect.signature(function).parameters
        assert len(parameters) == count and not {"bias", "dbias", "dx", "residual"} & set(parameters)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_the_two_residual_sums_of_a_block_look_alike(name):
    """Each layer's output becomes the stream in a statement of its own, y += x, which a reader can see."""
    tree = ast.parse(inspect.getsource(PLACEMENTS[name].block))
    sums = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.AugAssign)]
    assert len(sums) == 2 and all(re.fullmatch(r"[yz] \+= \w", found) for found in sums), sums


@pytest.mark.parametrize("shape", [(), (5,), (2, 5), (2, 3, 4)])
@pytest.mark.parametrize("name", NORMS)
def test_norm_takes_any_leading_axes(name, shape, each_backend, rng):
    """Rows are rows, whatever the axes before the last one are called."""
    forward, backward = _functions(backend.active(), NORMS[name])
    x, dy = rng.standard_normal((2, *shape, 12))
    weight = rng.standard_normal(12) if NORMS[name].has_weight else None
    results = []
    for reshaped in (shape, (-1,)):
        rows, drows = (a.reshape(*reshaped, 12) for a in (x, dy))
        dweight = None if weight is None else np.ones(12)
        y, saved = forward(rows, weight, 1e-5)
        dx = backward(drows, rows, weight, saved, dweight)
        assert y.shape == dx.shape == rows.shape
        results.append((y.reshape(x.shape), dx.reshape(x.shape), np.zeros(1) if dweight is None else dweight))
    for received, expected in zip(*results, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-13, atol=1e-14)


def test_a_norm_without_kernels_has_its_bias_and_its_stream_through_the_wrapper(each_backend, rng):
    """A pair of functions is all that a new norm brings."""

    def halved(x, weight, eps):
        return weight * x / 2, None

    def halved_backward(dy, x, weight, saved, dweight):
        dweight += np.sum(dy * x, axis=0) / 2
        return weight * dy / 2

    op = SimpleNamespace(**vars(backend.active()), halved=halved, halved_backward=halved_backward)
    norm, norm_backward = Norm(halved, halved_backward).with_bias(op)
    x, dy, dx = rng.standard_normal((3, 5, 12))
    weight, bias = rng.standard_normal((2, 12))
    dweight, dbias, before = np.ones(12), np.ones(12), dx.copy()
    y, saved = norm(x, weight, bias, 0.0)
    np.testing.assert_allclose(y, weight * x / 2 + bias, rtol=1e-14)
    assert norm_backward(dy, x, weight, saved, dweight, dbias, dx) is dx
    np.testing.assert_allclose(dx, before + weight * dy / 2, rtol=1e-14)
    np.testing.assert_allclose(dweight, 1 + np.sum(dy * x, axis=0) / 2, rtol=1e-13)
    np.testing.assert_allclose(dbias, 1 + dy.sum(axis=0), rtol=1e-13)


def _config(norm):
    return Config(vocab_size=11, dim=12, layers=1, heads=2, norm=norm)


def test_rmsnorm_gradient_is_orthogonal_to_x_when_eps_is_0(each_backend, rng):
    op, x, weight = backend.active(), rng.standard_normal((3, 8)), rng.standard_normal(8)
    dy = rng.standard_normal(x.shape)
    _, inverse_rms = op.rmsnorm(x, weight, 0.0)
    dx = op.rmsnorm_backward(dy, x, weight, inverse_rms, np.zeros(8))
    assert np.abs(np.sum(dx * x, axis=1)).max() < 1e-14


def test_layernorm_gradient_is_orthogonal_to_ones_and_to_the_normalised_x_when_eps_is_0(each_backend, rng):
    op, x, weight = backend.active(), rng.standard_normal((3, 8)) + 2, rng.standard_normal(8)
    dy = rng.standard_normal(x.shape)
    u, saved = op.layernorm(x, np.ones(8), 0.0)
    dx = op.layernorm_backward(dy, x, weight, saved, np.zeros(8))
    assert np.abs(np.sum(dx, axis=1)).max() < 1e-14 and np.abs(np.sum(dx * u, axis=1)).max() < 1e-14


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-2), (np.float64, 1e-10)])
def test_layernorm_of_x_far_from_0(dtype, tolerance, each_backend, rng):
    """The mean of the squares minus the square of the mean would be noise; the mean itself has an ulp of 0.06."""
    x = np.round(rng.standard_normal((4, 100)) * 8)
    u, _ = backend.active().layernorm((x + 1e6).astype(dtype), np.ones(100, dtype), 0.0)
    expected = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    assert relative_error(u, expected) < tolerance


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NORMS)
def test_norm_stands_large_inputs(name, dtype, each_backend, rng):
    forward, backward = _functions(backend.active(), NORMS[name])
    x, dy = 1e4 * _normal(rng, dtype, 3, 20), _normal(rng, dtype, 3, 20)
    weight, dweight = _normal(rng, dtype, 2, 20) if NORMS[name].has_weight else (None, None)
    y, saved = forward(x, weight, 1e-5)
    dx = backward(dy, x, weight, saved, dweight)
    for a in (y, dx) if dweight is None else (y, dx, dweight):
        assert a.dtype == dtype and np.isfinite(a).all()
    if NORMS[name].has_weight:  # as far as eps does not count, what is computed from x / 1e4
        small, saved = forward(x / dtype(1e4), weight, 1e-13)
        np.testing.assert_allclose(y, small, rtol=0, atol=2e-6)
        small_dx = backward(dy, x / dtype(1e4), weight, saved, dweight)
        np.testing.assert_allclose(1e4 * dx, small_dx, rtol=0, atol=1e-5)


NANS = [0x7FC00000, 0xFFC00000, 0x7F800001]  # NaN is not one number


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bits", NANS)
@pytest.mark.parametrize("name", NORMS)
def test_norm_shows_nan(name, bits, each_backend, rng):
    """A NaN in x or dy reaches its own row of the output and of the gradient, and no other."""
    forward, backward = _functions(backend.active(), NORMS[name])
    nan, others = np.uint32(bits).view(np.float32), [0, 2]
    weight = np.ones(20, np.float32) if NORMS[name].has_weight else None
    for broken in range(2):
        x, dy = arrays = _normal(rng, np.float32, 2, 3, 20)
        arrays[broken, 1, 7] = nan
        y, saved = forward(x, weight, 1e-5)
        dx = backward(dy, x, weight, saved, None if weight is None else np.zeros_like(weight))
        assert np.isnan(y[1, 7]) == (broken == 0)
        assert np.isnan(dx[1, 7]) or (name == "none" and broken == 0), "the gradient of x itself does not depend on x"
        assert np.isfinite(y[others]).all() and np.isfinite(dx[others]).all()


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bits", NANS)
@pytest.mark.parametrize("name", FEED_FORWARDS)
def test_activation_shows_nan(name, bits, each_backend, rng):
    """A NaN in inner or dhidden reaches what is computed from it, and nothing else."""
    row, nan, F, at = FEED_FORWARDS[name], np.uint32(bits).view(np.float32), 20, (1, 7)
    forward, backward = _functions(backend.active(), row)
    for column in (7, 27) if row.gated else (7,):
        inner = _normal(rng, np.float32, 3, 2 * F if row.gated else F)
        dhidden = _normal(rng, np.float32, 3, F)
        inner[1, column] = nan
        h, d = forward(inner), backward(dhidden, inner)
        assert np.isnan(h[at]) and np.isnan(h).sum() == 1
        assert np.isnan(d[1, 7]) and np.isnan(d).sum() <= (2 if row.gated else 1)
        inner[1, column], dhidden[at] = 1, nan
        d = backward(dhidden, inner)
        assert np.isnan(d[1, 7::F]).all() and np.isnan(d).sum() == (2 if row.gated else 1)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("name", FEED_FORWARDS)
def test_activation_stands_large_inputs(name, dtype, tolerance, each_backend):
    """Finite, and what the specification computes in float64, each number of a result compared by itself."""
    row = FEED_FORWARDS[name]
    z = np.concatenate([s * np.geomspace(1, 1e4, 41) for s in (1, -1)])
    inner = np.stack([np.concatenate([z, up * z]) for up in (1, -1)]) if row.gated else z[None]
    dhidden = np.full((len(inner), len(z)), 3.0)
    forward, backward = _functions(backend.active(), row)
    inner = inner.astype(dtype)
    results = forward(inner), backward(dhidden.astype(dtype), inner)
    expected = row.forward(inner.astype(np.float64)), row.backward(dhidden, inner.astype(np.float64))
    for a, b in zip(results, expected, strict=True):
        assert a.dtype == dtype and np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "name, at_1, at_minus_1, slope_at_0",
    [
        ("relu", 1, 0, 0),
        ("silu", 0.7310585786300049, -0.2689414213699951, 0.5),
        ("gelu", 0.8413447460685429, -0.15865525393145707, 0.5),
        ("gelu_tanh", 0.8411919906082768, -0.15880800939172324, 0.5),
    ],
)
def test_known_values_of_activations(name, at_1, at_minus_1, slope_at_0, each_backend):
    op = backend.active()
    forward, backward = _functions(op, FEED_FORWARDS[name])
    z = np.array([[1.0, -1.0, 0.0, 1e4, -1e4]])
    expected = np.array([[at_1, at_minus_1, 0, 1e4, 0]])
    np.testing.assert_allclose(forward(z), expected, rtol=1e-14)
    np.testing.assert_array_equal(backward(np.full_like(z, 2), z)[0, 2:], [2 * slope_at_0, 2, 0])
    gated = {"silu": op.swiglu, "gelu": op.geglu}.get(name)
    if gated:
        np.testing.assert_allclose(gated(np.concatenate([z, z + 2], axis=1)), expected * (z + 2), rtol=1e-14)


def test_gelu_by_tanh_is_near_gelu(each_backend):
    op, z = backend.active(), np.linspace(-8, 8, 2001)[None]
    assert 4e-4 < np.abs(op.gelu_tanh(z) - op.gelu(z)).max() < 5e-4


def test_cross_entropy_gradient_rows_add_up_to_0_and_ignored_rows_are_0(each_backend, rng):
    op, targets = backend.active(), np.array([2, IGNORED, 0])
    logits = rng.standard_normal((3, 7))
    losses, log_denominator = op.cross_entropy(logits, targets)
    dlogits = op.cross_entropy_backward(np.full(3, 0.5), logits, targets, log_denominator)
    assert losses[1] == 0 and not dlogits[1].any()
    assert np.abs(dlogits.sum(axis=1)).max() < 1e-15 and np.abs(dlogits[0]).max() > 0.1


def test_cross_entropy_stands_large_logits_and_shows_infinite_ones(each_backend):
    op = backend.active()
    for dtype in (np.float32, np.float64):
        logits = np.array([[1e4, -1e4, 0], [np.nan, 0, 0], [np.inf, 0, 0]], dtype)
        with np.errstate(invalid="ignore"):
            losses, _ = op.cross_entropy(logits, np.array([0, 1, 1]))
        assert losses[0] == 0 and not np.isfinite(losses[1:]).any()


def test_dropout_mask_does_not_depend_on_the_cut_and_has_the_rate(each_backend):
    op, x = backend.active(), np.ones((400, 50), np.float32)
    whole = op.dropout(x, 0.3, 99)
    parts = [op.dropout(x[rows], 0.3, 99, rows.start) for rows in (slice(0, 123), slice(123, 400))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert abs(np.mean(whole == 0) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / x.size)
    assert np.mean(op.dropout(x, 0.3, 98) == whole) < 0.7
    np.testing.assert_allclose(whole[whole != 0], 1 / 0.7, rtol=1e-6)
