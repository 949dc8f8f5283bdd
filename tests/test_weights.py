"""Every kind of weights: its file against its row, its kernel against its file, the models that have it."""

import ast
import inspect
import warnings
from pathlib import Path

import numpy as np
import pytest

import minillama
from minillama import Config, Model, backend
from minillama.catalogue.sizes import weight_bytes
from minillama.generation.generate import generate
from minillama.weights import PACKED, TRAINABLE, WEIGHT_KINDS
from minillama.weights.floats import FloatWeights
from minillama.weights.packed import PackedWeights
from minillama.weights.quantize import quantize

from .test_decoding import random_model, sharing, token_by_token  # noqa: F401
from .test_switches import ALONE

each_packed = pytest.mark.parametrize("kind", PACKED)
each_width = pytest.mark.parametrize("columns", [1, 2, 31, 63, 64, 65, 96, 172, 256, 344])


def packed(row, weight):
    """The arrays of a matrix, and the weights that they stand for."""
    arrays = row.pack(weight)
    return arrays, row.widen(*arrays)[:, : weight.shape[1]]


@each_packed
@each_width
def test_packing_gives_what_the_layout_says(kind, columns, rng):
    row = WEIGHT_KINDS[kind]
    weight = rng.standard_normal((7, columns)).astype(np.float32)
    layout, (arrays, wide) = row.layout(columns), packed(row, weight)
    assert [(array.shape, array.dtype) for array in arrays] == [
        ((7, count), np.dtype(dtype)) for dtype, count in layout.values()
    ]
    assert row.row_bytes(columns) == sum(array.nbytes for array in arrays) / 7 <= 4 * columns + 8
    assert wide.shape == weight.shape and wide.dtype == np.float32


@each_packed
@each_width
def test_widening_is_the_inverse_of_packing_but_for_its_rounding(kind, columns, rng):
    row = WEIGHT_KINDS[kind]
    weight = (rng.standard_normal((7, columns)) * 10.0 ** rng.integers(-3, 3, (7, 1))).astype(np.float32)
    weight[3] = 0
    _, wide = packed(row, weight)
    largest = abs(weight).max(axis=1, keepdims=True)
    assert (abs(wide - weight) <= largest / 20).all() and (wide[3] == 0).all()
    again, twice = packed(row, wide)  # what a kind can hold stays as it is
    np.testing.assert_allclose(twice, wide, rtol=1e-6)
    np.testing.assert_array_equal(row.widen(*row.pack(weight.astype(np.float64)))[:, :columns], wide)


@each_packed
def test_a_matrix_is_packed_row_by_row(kind, rng):
    """So that rows of several matrices, one after the other, are a matrix, and a part of them is that part."""
    row, weight = WEIGHT_KINDS[kind], rng.standard_normal((6, 100)).astype(np.float32)
    for whole, first, second in zip(row.pack(weight), row.pack(weight[:2]), row.pack(weight[2:]), strict=True):
        np.testing.assert_array_equal(whole, np.concatenate([first, second]))


@each_packed
@pytest.mark.parametrize("damage", [np.inf, -np.inf, np.nan])
def test_weights_that_are_not_finite_are_refused(kind, damage, rng):
    model = random_model(rng)
    model.parameters["blocks.0.w_o"][1, 2] = damage
    with warnings.catch_warnings(), pytest.raises(ValueError, match="not all finite"):
        warnings.simplefilter("error")
        quantize(model, kind)


def test_half_precision_ends_at_65504(rng):
    model = random_model(rng)
    model.parameters["blocks.0.w_o"][1, 2] = 65504
    assert quantize(model, "float16").parameters["blocks.0.w_o"][1, 2] == 65504
    model.parameters["blocks.0.w_o"][1, 2] = 65520
    with pytest.raises(ValueError, match="too large for half precision"):
        quantize(model, "float16")
    assert quantize(model, "bfloat16").parameters["blocks.0.w_o"][1, 2] == 65536


def test_bfloat16_is_the_nearest_and_of_two_the_even():
    row = WEIGHT_KINDS["bfloat16"]
    step = 2.0**-7  # between the bfloat16 numbers of [1, 2)
    weight = np.array([[1, 1 + step / 2, 1 + step * 0.51, 1 + step * 1.5, -1 - step * 0.6, 2.0**-130]], np.float32)
    _, wide = packed(row, weight)
    np.testing.assert_array_equal(wide[0, :5], [1, 1, 1 + step, 1 + 2 * step, -1 - step])
    assert wide[0, 5] == 2.0**-130


@each_packed
def test_a_kernel_widens_as_the_specification(kind, each_backend, rng):
    row, weight = WEIGHT_KINDS[kind], rng.standard_normal((5, 200)).astype(np.float32)
    arrays, wide = packed(row, weight)
    found = getattr(backend.active(), row.widen.__name__)(*arrays)
    np.testing.assert_array_equal(found[:, :200], wide)


def test_compiled_code_can_tell_the_kinds_apart():
    of_kinds = [tuple(np.dtype(d).name for d, _ in row.layout(64).values()) for row in WEIGHT_KINDS.values()]
    assert len(set(of_kinds)) == len(of_kinds), of_kinds
    for kind, dtypes in zip(WEIGHT_KINDS, of_kinds, strict=True):
        weights = (FloatWeights if kind in TRAINABLE else PackedWeights)(Config(9, dim=8, layers=1, heads=2), kind)
        assert weights.dtypes == dtypes and weights.kind == kind


@pytest.mark.skipif("numba" not in backend.BACKENDS, reason="there are no kernels")
def test_a_kind_that_is_decoded_in_registers_has_all_that_decoding_asks():
    kernels = pytest.importorskip("minillama.kernels.weights", reason="Numba is not installed: there are no kernels")
    with_kernel = [kind for kind, row in WEIGHT_KINDS.items() if kernels.rows_of(dtypes_of(row)) is not None]
    assert {"float32", "float64", "bfloat16", "float16", "int8"} <= set(with_kernel)
    for kind in with_kernel:
        rows = kernels.rows_of(dtypes_of(WEIGHT_KINDS[kind]))
        for name in ("block", "cut", "multiply", "read_row"):
            assert inspect.signature(getattr(rows, name)) == inspect.signature(getattr(kernels, name)), (kind, name)


def dtypes_of(row):
    return tuple(np.dtype(dtype).name for dtype, _ in row.layout(64).values())


@each_packed
@pytest.mark.parametrize("shape", [{"dim": 64, "ffn": 172}, {"dim": 36, "heads": 3, "ffn": 37, "tied": True}, {}])
def test_a_model_computes_with_the_weights_that_its_arrays_stand_for(kind, shape, each_backend, sharing, rng):  # noqa: F811
    small = quantize(random_model(rng, **shape), kind)
    wide = Model(small.config, threads=2)
    for name in wide.parameters:
        wide.parameters[name][:] = small.parameters[name]
    ids = rng.integers(0, 50, (2, 12))
    expected = wide.logits(ids)
    np.testing.assert_allclose(small.logits(ids), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(small.next_logits(ids), expected[:, -1], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(token_by_token(small, ids[:1]), expected[0], rtol=1e-5, atol=1e-5)
    assert small.loss(ids[:, :-1], ids[:, 1:]) == pytest.approx(wide.loss(ids[:, :-1], ids[:, 1:]), rel=1e-6)
    assert list(generate(small, [3], 8, top_k=1)) == list(generate(wide, [3], 8, top_k=1))


@each_packed
@pytest.mark.parametrize("at_a_time", [1, 100, 2**20])
def test_every_matrix_is_packed_whole_and_vectors_stay(kind, at_a_time, monkeypatch, rng):
    monkeypatch.setattr("minillama.weights.packed.WIDENED_AT_A_TIME", at_a_time)
    model = random_model(rng, kv_heads=2)
    small = quantize(model, kind)
    for name, weight in model.parameters.items():
        expected = packed(WEIGHT_KINDS[kind], weight)[1] if weight.ndim > 1 else weight
        np.testing.assert_array_equal(small.parameters[name], expected, err_msg=name)


@each_packed
@pytest.mark.parametrize("name", ["GPT-2", "BERT"])
def test_other_architectures(kind, name, each_backend, rng):
    config = Config(**{"vocab_size": 50, "dim": 24, "layers": 2, "heads": 3, "context": 16, **ALONE[name]})
    small, wide = quantize(Model(config, seed=1), kind), Model(config)
    for name in wide.parameters:
        wide.parameters[name][:] = small.parameters[name]
    ids = rng.integers(0, 50, (2, 9))
    np.testing.assert_allclose(small.logits(ids), wide.logits(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", WEIGHT_KINDS)
def test_what_a_model_says_of_its_weights(kind, rng):
    config = Config(50, dim=48, layers=2, heads=4)
    model = Model(config, dtype=kind) if kind in TRAINABLE else quantize(Model(config), kind)
    assert model.weights.kind == kind
    assert model.dtype == (kind if kind in TRAINABLE else np.float32)
    shapes = Model(config).parameters.shapes
    assert {name: array.shape for name, array in model.parameters.items()} == shapes
    assert all(array.dtype == model.dtype for array in model.parameters.values())
    assert {name: matrix.shape for name, matrix in model.weights.matrices.items()} == {
        name: shape for name, shape in shapes.items() if len(shape) > 1
    }
    if WEIGHT_KINDS[kind].told:
        assert model.nbytes == weight_bytes(config)[kind]
    ids = rng.integers(0, 50, (2, 9))
    if kind in TRAINABLE:
        assert np.isfinite(model.loss_and_gradients(ids, ids)[0])
        return
    with pytest.raises(TypeError, match="cannot be trained.*dtype='float32'"):
        model.loss_and_gradients(ids, ids)
    for name in ("embedding", "final_norm"):
        with pytest.raises(ValueError, match="read-only"):
            model.parameters[name][:] = 0


@pytest.mark.parametrize("kind", WEIGHT_KINDS)
def test_a_kind_is_saved_and_opened_as_it_is_or_refused(kind, tmp_path):
    config = Config(50, dim=48, layers=2, heads=4)
    model = Model(config, dtype=kind) if kind in TRAINABLE else quantize(Model(config), kind)
    if WEIGHT_KINDS[kind].tensor is None:
        with pytest.raises(TypeError, match=f"{kind} weights follow from others and are not saved: save the model"):
            minillama.save(model, tmp_path / "model")
        assert not (tmp_path / "model").exists() or not list((tmp_path / "model").iterdir())
        return
    minillama.save(model, tmp_path / "model")
    again, _ = minillama.load(tmp_path / "model")
    assert again.weights.kind == kind
    for name, array in model.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], array)


def test_a_model_with_other_weights_is_another_model(rng):
    model = random_model(rng)
    ids, before = rng.integers(0, 50, (1, 9)), model.parameters.flat.copy()
    expected = model.logits(ids)
    small = quantize(model)
    assert small.workers is model.workers and small.config is model.config
    small.logits(ids)
    np.testing.assert_array_equal(model.logits(ids), expected)
    np.testing.assert_array_equal(model.parameters.flat, before)
    model.parameters["embedding"][:] = 0
    assert small.parameters["embedding"].any()


def test_a_text_goes_on_with_the_weights_that_are_asked_for(rng):
    """A cache is of the model that fills it; a decoder keeps the arrays of weights, and these are others."""
    model = random_model(rng)
    small, cache = quantize(model), model.new_cache()
    for writer in (model, small, model):
        expected, cache.length = writer.logits(np.array([[7]]))[0], 0
        np.testing.assert_allclose(writer.next_logits(np.array([[7]]), cache), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["int7", "float32", "BF16"])
def test_an_unknown_kind_is_refused(kind, rng):
    with pytest.raises(ValueError, match=f"packed as bfloat16, float16, int8.*; received '{kind}'"):
        quantize(random_model(rng), kind)


def test_dtypes_that_are_no_floats_are_refused():
    for dtype in (np.float16, np.int8, "int8"):
        with pytest.raises(ValueError, match="dtype must be float32 or float64; received"):
            Model(Config(9), dtype=dtype)


@pytest.mark.skipif("numba" not in backend.BACKENDS, reason="there are no kernels")
def test_a_kind_without_a_kernel_for_tokens_is_multiplied_in_numpy(monkeypatch, rng):
    decoding = pytest.importorskip("minillama.kernels.decoding", reason="Numba is not installed: there is no kernel")
    small, ids = quantize(random_model(rng)), rng.integers(0, 50, (1, 12))
    expected, before = token_by_token(small, ids), len(decoding._sessions)
    monkeypatch.setattr(decoding, "rows_of", lambda dtypes: None)
    cache = small.new_cache()
    found = np.concatenate([small.next_logits(ids[:, t : t + 1], cache) for t in range(12)])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert cache not in decoding._sessions and len(decoding._sessions) <= before + 1


def is_module(path):
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_the_model_knows_nothing_of_files():
    """Nor does what it imports, at the top of a file or inside of a function."""
    package, seen, waiting = Path(minillama.__file__).parent, set(), {("model",)}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        path = package.joinpath(*module)
        path, inside = (path / "__init__.py", module) if path.is_dir() else (path.with_suffix(".py"), module[:-1])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                parent = inside[: len(inside) - node.level + 1]
                named = (*parent, *(node.module.split(".") if node.module else ()))
                found = {named[:i] for i in range(1, len(named) + 1)} | {(*named, alias.name) for alias in node.names}
                waiting |= {m for m in found if is_module(package.joinpath(*m))} - seen
    assert {"model", "parameters", "weights", "layers", "ops", "runtime"} <= {module[0] for module in seen}
    assert not {module[0] for module in seen} & {"checkpoint", "tokenizers", "training", "generation", "cli", "data"}
