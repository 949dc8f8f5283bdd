"""Half-precision and bfloat16 weights: their numbers exactly, the model that they make, its files, what it refuses."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import minillama
from minillama import Model, backend
from minillama.checkpoint.tensors import TensorFiles, narrowed, widened, write_tensors
from minillama.generation.generate import generate
from minillama.parameters import parameter_shapes
from minillama.weights import WEIGHT_KINDS
from minillama.weights.packed import PackedWeights
from minillama.weights.quantize import quantize

from .test_decoding import random_model, sharing, token_by_token  # noqa: F401
from .test_switches import ALONE

HALVES = ["bfloat16", "float16"]
each_kind = pytest.mark.parametrize("kind", HALVES)


def halved(model, kind, threads=2):
    """(model of halves, Model of float32) with the same weights: those of `model` in fewer bits."""
    half = Model(model.config, threads=threads, weights=PackedWeights(model.config, kind))
    wide = Model(model.config, threads=threads)
    for name, array in model.parameters.items():
        rounded = array.astype(np.float16).astype(np.float32)
        if kind == "bfloat16":
            rounded = (array.view(np.uint32) & 0xFFFF0000).view(np.float32)
        wide.parameters[name][:] = rounded
        kept = half.weights.kept([name])
        kept[:] = rounded if kept.dtype == np.float32 else narrowed(rounded, WEIGHT_KINDS[kind].tensor)
    return half, wide


@each_kind
def test_every_finite_half_is_widened_exactly(kind, each_backend):
    bits, row = np.arange(2**16, dtype=np.uint16).reshape(64, 1024), WEIGHT_KINDS[kind]
    expected = widened(bits if kind == "bfloat16" else bits.view(np.float16), row.tensor)
    ((dtype, _),) = row.layout(1024).values()
    found = getattr(backend.active(), row.widen.__name__)(bits.view(dtype))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[finite].view(np.uint32), expected[finite].view(np.uint32))
    assert finite.sum() > 63000


@each_kind
@pytest.mark.parametrize("shape", [{"dim": 64, "ffn": 172}, {"dim": 144, "heads": 3, "ffn": 344, "tied": True}, {}])
def test_a_token_of_halves_equals_the_forward_of_their_values(kind, shape, each_backend, sharing, rng):  # noqa: F811
    half, wide = halved(random_model(rng, **shape), kind)
    ids = rng.integers(0, 50, (1, 12))
    expected = wide.logits(ids)
    np.testing.assert_allclose(token_by_token(half, ids), expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(half.logits(ids), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(half.next_logits(ids), expected[:, -1], rtol=1e-5, atol=1e-5)
    assert half.loss(ids[:, :-1], ids[:, 1:]) == pytest.approx(wide.loss(ids[:, :-1], ids[:, 1:]), rel=1e-6)
    assert half.nbytes < 0.52 * wide.nbytes
    assert list(generate(half, [3], 5, top_k=1)) == list(generate(wide, [3], 5, top_k=1))


@each_kind
@pytest.mark.parametrize("name", ["GPT-2", "BERT"])
def test_other_architectures_of_halves(kind, name, each_backend, rng):
    config = minillama.Config(**{"vocab_size": 50, "dim": 24, "layers": 2, "heads": 3, "context": 16, **ALONE[name]})
    half, wide = halved(Model(config, seed=1), kind)
    ids = rng.integers(0, 50, (2, 9))
    np.testing.assert_allclose(half.logits(ids), wide.logits(ids), rtol=1e-5, atol=1e-5)


@each_kind
def test_a_checkpoint_of_halves_keeps_its_bytes(kind, tmp_path, rng):
    half, wide = halved(random_model(rng), kind)
    minillama.save(half, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        names = file.keys()
        assert {file.get_slice(name).get_dtype() for name in names} == {WEIGHT_KINDS[kind].tensor}
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == kind
    again, _ = minillama.load(tmp_path)
    assert again.weights.kind == kind
    np.testing.assert_array_equal(again.weights.stores[0].flat, half.weights.stores[0].flat)
    np.testing.assert_array_equal(again.weights.vectors.flat, half.weights.vectors.flat)
    for name, array in wide.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], array)
    trainable, _ = minillama.load(tmp_path, dtype="float32")
    np.testing.assert_array_equal(trainable.parameters.flat, wide.parameters.flat)
    ids = rng.integers(0, 50, (1, 9))
    assert np.isfinite(trainable.loss_and_gradients(ids, ids)[0])


def test_vectors_that_are_no_halves_stay_as_they_are(tmp_path, rng):
    half, _ = halved(random_model(rng), "bfloat16")
    half.weights.vectors["final_norm"][0] = np.float32(1 + 2**-20)
    minillama.save(half, tmp_path)
    assert TensorFiles([tmp_path / "model.safetensors"]).kind("model.norm.weight") == "F32"
    again, _ = minillama.load(tmp_path)
    np.testing.assert_array_equal(again.weights.vectors.flat, half.weights.vectors.flat)


@each_kind
def test_parts_of_a_vector_of_which_one_is_a_half(kind, tmp_path, rng):
    """GPT-2's files hold the biases of q, k and v as one."""
    config = minillama.Config(**{"vocab_size": 50, "dim": 24, "layers": 2, "heads": 3, "context": 16, **ALONE["GPT-2"]})
    half, _ = halved(Model(config, seed=1), kind)
    half.weights.vectors.flat[:] = rng.standard_normal(half.weights.vectors.flat.size)
    half.weights.vectors["blocks.0.b_k"][:] = 1.5
    minillama.save(half, tmp_path)
    np.testing.assert_array_equal(minillama.load(tmp_path)[0].weights.vectors.flat, half.weights.vectors.flat)


def test_infinity_in_half_precision_is_reported(tmp_path, rng):
    half, _ = halved(random_model(rng), "float16")
    half.weights.stores[0]["blocks.0.w_o"].view(np.float16)[1, 2] = np.inf
    minillama.save(half, tmp_path)
    with pytest.raises(ValueError, match="o_proj.weight has infinity or NaN in half precision"):
        minillama.load(tmp_path)
    wide, _ = minillama.load(tmp_path, dtype="float32")
    assert np.isinf(wide.parameters["blocks.0.w_o"]).sum() == 1


def test_a_copy_of_a_tied_matrix_may_be_of_another_kind(tmp_path, rng):
    half, wide = halved(random_model(rng, tied=True), "bfloat16")
    minillama.save(half, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = TensorFiles([path])
    arrays = {name: (tensors.kind(name), np.array(tensors.raw(name))) for name in tensors}
    arrays["lm_head.weight"] = "F32", wide.parameters["embedding"].copy()
    write_tensors(path, arrays)
    assert minillama.load(tmp_path)[0].config.tied
    arrays["lm_head.weight"][1][0, 0] += 1
    write_tensors(path, arrays)
    with pytest.raises(ValueError, match="differs from"):
        minillama.load(tmp_path)


def test_narrow_weights_do_not_train_and_are_not_changed_by_mistake(rng):
    half, _ = halved(random_model(rng), "float16")
    ids = np.array([[1, 2, 3]])
    with pytest.raises(TypeError, match="cannot be trained.*dtype='float32'"):
        half.loss_and_gradients(ids, ids)
    for name in ("embedding", "final_norm"):
        with pytest.raises(ValueError, match="read-only"):
            half.parameters[name][:] = 0
    assert dict(half.parameters).keys() == parameter_shapes(half.config).keys()


@each_kind
def test_int8_of_halves_is_int8_of_their_values(kind, rng, monkeypatch):
    monkeypatch.setattr("minillama.weights.packed.WIDENED_AT_A_TIME", 1000)  # a matrix in several pieces
    half, wide = halved(random_model(rng, dim=64, ffn=172), kind)
    ids = rng.integers(0, 50, (1, 9))
    np.testing.assert_array_equal(quantize(half).logits(ids), quantize(wide).logits(ids))


def in_parts(folder, model, count):
    """Save the model in `count` files with an index, as large checkpoints are."""
    minillama.save(model, folder)
    tensors = TensorFiles([folder / "model.safetensors"])
    arrays = {name: (tensors.kind(name), np.array(tensors.raw(name))) for name in tensors}
    names, places = sorted(arrays), {}
    for i in range(count):
        file = f"model-{i + 1:05}-of-{count:05}.safetensors"
        part = names[i::count]
        write_tensors(folder / file, {name: arrays[name] for name in part})
        places |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


def test_a_checkpoint_in_several_files(tmp_path, rng):
    model = random_model(rng)
    in_parts(tmp_path, model, 3)
    again, _ = minillama.load(tmp_path)
    np.testing.assert_array_equal(again.parameters.flat, model.parameters.flat)


def test_nothing_is_saved_beside_an_index_which_would_count(tmp_path, rng):
    """Nor is the index removed: it belongs to a model that was not made here."""
    model = random_model(rng)
    in_parts(tmp_path, model, 3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match=r"model.safetensors.index.json belongs to .*; choose another folder"):
        minillama.save(model, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "damage, error, words",
    [
        (lambda map: {**map, "lm_head.weight": "../other.safetensors"}, ValueError, "names of files beside it"),
        (lambda map: {**map, "lm_head.weight": 3}, ValueError, "names of files beside it"),
        (lambda map: {**map, "lm_head.weight": "model-9.safetensors"}, FileNotFoundError, "model-9.safetensors"),
        (lambda map: {k: v for k, v in map.items() if k != "lm_head.weight"}, ValueError, r"differ in 1.*lm_head"),
        (lambda map: None, ValueError, "must have a weight_map"),
    ],
)
def test_a_damaged_index_is_refused(damage, error, words, tmp_path, rng):
    places = in_parts(tmp_path, random_model(rng), 2)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": damage(places)}))
    with pytest.raises(error, match=words):
        minillama.load(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path):
    for name in "ab":
        write_tensors(tmp_path / name, {"x": ("F32", np.ones((2, 3), np.float32))})
    with pytest.raises(ValueError, match="both hold x"):
        TensorFiles([tmp_path / "a", tmp_path / "b"])


def test_files_are_those_of_the_library(tmp_path, rng):
    tensors = {
        "z": rng.standard_normal((3, 5)).astype(np.float32),
        "é": rng.standard_normal(7).astype(np.float16),
        "a": rng.standard_normal((2, 2)),
        "b": rng.standard_normal((4, 3)).astype(np.float32).T.copy(),
    }
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    kinds = {np.float16: "F16", np.float32: "F32", np.float64: "F64"}
    write_tensors(tmp_path / "ours", {name: (kinds[x.dtype.type], x) for name, x in tensors.items()})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    read = TensorFiles([tmp_path / "theirs"])
    for name, array in tensors.items():
        np.testing.assert_array_equal(read.read(name), array.astype(np.float32) if name == "é" else array)
        target = np.empty(array.shape[::-1])
        read.read_into(target, name, transposed=array.ndim == 2)
        np.testing.assert_array_equal(target, array.T)
    np.testing.assert_array_equal(read.read("z", slice(1, 2)), tensors["z"][1:2])
