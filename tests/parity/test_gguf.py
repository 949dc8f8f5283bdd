"""GGUF against gguf, the library of llama.cpp: files of either are the other's, and blocks agree to the bit."""

import numpy as np
import pytest

from minillama.checkpoint import gguf as ours
from minillama.checkpoint.gguf.container import GGUFFile
from minillama.ops.weights.blocks import BLOCKS
from tests.test_gguf import VALUES, model_of, tensors, tokenizers

gguf = pytest.importorskip("gguf", reason='the extra "parity" is not installed')
quants = pytest.importorskip("gguf.quants")


def kind(name):
    return gguf.GGMLQuantizationType[name]


def bits(array):
    return np.ascontiguousarray(array, np.float32).view(np.uint32)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_widened_to_the_same_bits(name, rng):
    row = BLOCKS[name]
    raw = rng.integers(0, 256, (50, 4, row.nbytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        wide = row.widen(raw).reshape(50, -1)
        flat = raw.reshape(50, -1)
        flat = flat.view({"F32": np.float32, "F16": np.float16}.get(name, np.uint8))
        expected = quants.dequantize(flat, kind(name))
    finite = np.isfinite(wide)
    assert finite.mean() > 0.5 and np.array_equal(finite, np.isfinite(expected))
    np.testing.assert_array_equal(bits(wide[finite]), bits(expected[finite]))


@pytest.mark.parametrize("name", [name for name, row in BLOCKS.items() if row.pack])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
def test_blocks_are_packed_to_the_same_bytes(name, scale, rng):
    row = BLOCKS[name]
    weights = (scale * rng.standard_normal((30, 8, row.weights))).astype(np.float32)
    weights[3, 2] = 0
    expected = np.asarray(quants.quantize(weights.reshape(30, -1), kind(name))).view(np.uint8)
    np.testing.assert_array_equal(row.pack(weights).reshape(30, -1), expected.reshape(30, -1))


def test_a_file_written_here_is_read_there(tmp_path, rng):
    tokenizer = tokenizers()["gpt-2"]
    model = model_of(vocab_size=tokenizer.vocab_size, rope_layout="interleaved")
    ours.save(tmp_path / "x.gguf", model, tokenizer, type="Q8_0")
    reader = gguf.GGUFReader(tmp_path / "x.gguf")
    found, names = GGUFFile(tmp_path / "x.gguf"), gguf.Keys
    assert reader.fields[names.General.ARCHITECTURE].contents() == "llama"
    for name, field in reader.fields.items():
        if name in found.values:
            value = found.values[name]
            expected = [text.decode() for text in value] if isinstance(value, list) else value
            assert np.array_equal(field.contents(), expected), name
    assert [tensor.name for tensor in reader.tensors] == list(found)
    for tensor in reader.tensors:
        assert tensor.tensor_type.name == found.type(tensor.name)
        assert tuple(tensor.shape.tolist()[::-1]) == found[tensor.name]
        np.testing.assert_array_equal(
            np.ascontiguousarray(tensor.data).view(np.uint8).reshape(-1), np.array(found.raw(tensor.name)).reshape(-1)
        )


def test_a_file_written_there_is_read_here(tmp_path, rng):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    for name, (value_kind, value) in VALUES.items():
        if isinstance(value, list):
            if value:
                writer.add_array(name, value)
        else:
            getattr(writer, f"add_{value_kind}")(name, value)
    made = tensors(rng, a=("Q4_K", (6, 512)), b=("Q8_0", (4, 64)), c=("F32", (5, 3)))
    for name, (type_name, _, pieces) in made.items():
        raw = np.concatenate(pieces).reshape(len(pieces[0]) + len(pieces[1]), -1)
        data = raw.view(np.float32) if type_name == "F32" else raw
        writer.add_tensor(name, data, raw_dtype=None if type_name == "F32" else kind(type_name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile(tmp_path / "x.gguf")
    assert dict(file) == {name: shape for name, (_, shape, _) in made.items()}
    for name, (type_name, _, pieces) in made.items():
        assert file.type(name) == type_name
        np.testing.assert_array_equal(file.raw(name), np.concatenate(pieces))
    for name, (_, value) in VALUES.items():
        if not isinstance(value, list):
            assert file.values[name] == value
