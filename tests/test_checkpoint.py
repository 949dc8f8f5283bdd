"""The Hugging Face directory: what is written is what is read, and nothing else is accepted silently."""

import errno
import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minillama
from minillama import Config, Model
from minillama.files import replacing, write_text
from minillama.tokenizers import CharTokenizer

SHAPE = dict(vocab_size=9, dim=16, layers=2, heads=4, kv_heads=2, ffn=24, context=8)


def saved(folder, dtype=np.float32, **changes):
    model = Model(Config(**{**SHAPE, **changes}), seed=3, dtype=dtype, threads=1)
    model.save(folder, CharTokenizer.train("abcdefghi"))
    return model


@pytest.mark.parametrize("layout", ["rotate_half", "interleaved"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loaded_model_computes_the_same(tmp_path, layout, tied, dtype, rng):
    model = saved(tmp_path, dtype, rope_layout=layout, tied=tied, rope_theta=500.0, norm_eps=1e-3)
    loaded, tokenizer = minillama.load(tmp_path)
    ids = rng.integers(0, 9, (2, 8))
    logits = loaded.logits(ids)
    assert logits.dtype == dtype and loaded.config.rope_layout == "rotate_half"
    np.testing.assert_allclose(logits, model.logits(ids), rtol=1e-4 if dtype == np.float32 else 1e-12)
    assert tokenizer.decode(tokenizer.encode("bad")) == "bad"
    if layout == "rotate_half":
        np.testing.assert_array_equal(loaded.parameters.flat, model.parameters.flat)
        assert loaded.config == model.config


def test_names_and_shapes_are_hugging_faces(tmp_path):
    saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["model.layers.1.self_attn.k_proj.weight"].shape == (8, 16)
    assert tensors["model.layers.0.mlp.down_proj.weight"].shape == (16, 24)
    assert {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"} < tensors.keys() and len(tensors) == 21


def test_a_model_without_a_tokenizer(tmp_path):
    Model(Config(**SHAPE), threads=1).save(tmp_path)
    assert minillama.load(tmp_path)[1] is None


@pytest.mark.parametrize(
    "change, words",
    [
        ({"n_heads": 4}, "unknown key 'n_heads'"),
        ({"num_hidden_layer": 4}, "did you mean 'num_hidden_layers'"),
        ({"rms_norm_eps": None}, "norm_eps must be a finite number; received None"),
        ({"rms_norm_eps": "1e-5"}, "norm_eps must be a finite number; received '1e-5'"),
        ({"rope_theta": "10000"}, "rope_theta must be a finite number"),
        ({"tie_word_embeddings": "false"}, "tied must be True or False; received 'false'"),
        ({"model_type": "gpt2"}, "model_type = 'gpt2'; minillama computes 'llama'"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "yarn"),
        ({"head_dim": 64}, "head_dim = 64"),
        ({"num_key_value_heads": 3}, "kv_heads must divide heads"),
        ({"vocab_size": "many"}, "vocab_size must be a whole number"),
        ({"hidden_size": None}, "dim must be a whole number"),
        ({"vocab_size": 10}, r"embed_tokens.weight has shape \(9, 16\), config.json asks for \(10, 16\)|lm_head"),
        ({"num_hidden_layers": 3}, "9 tensors missing"),
    ],
)
def test_a_config_that_asks_for_something_else_is_refused(tmp_path, change, words):
    saved(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=words):
        minillama.load(tmp_path)


def test_a_config_that_lacks_a_key_is_refused(tmp_path):
    saved(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="lacks hidden_size"):
        minillama.load(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_truncated_files_are_refused(tmp_path, name, share):
    saved(tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="truncated|not a complete JSON"):
        minillama.load(tmp_path)


def test_foreign_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no .*config.json; expected the folder of a run"):
        minillama.load(tmp_path)
    saved(tmp_path)
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="21 tensors missing .* 1 unexpected"):
        minillama.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no model.safetensors"):
        minillama.load(tmp_path)
    (tmp_path / "config.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="must hold an object"):
        minillama.load(tmp_path)


def test_half_precision_is_refused_by_name(tmp_path):
    saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({name: array.astype(np.float16) for name, array in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="F16"):
        minillama.load(tmp_path)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError):
        with replacing(tmp_path / "a") as new:
            new.write_text("half")
            raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_the_old_file_is_whole_until_the_new_one_takes_its_place_at_once(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")
    seen = []

    def watching_replace(new, path):
        seen.append((new.read_text(), path.read_text()))
        replace(new, path)

    replace = os.replace
    monkeypatch.setattr("minillama.files.os.replace", watching_replace)
    write_text(tmp_path / "a", "new")
    assert seen == [("new", "old")] and (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("No space left on device (os error 28)")]
)
def test_a_full_disk_is_reported_as_such(tmp_path, error):
    write_text(tmp_path / "a", "old")
    with pytest.raises(OSError, match="disk is full; .* keeps its old content. Free some space"):
        with replacing(tmp_path / "a"):
            raise error
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_write_to_a_really_full_device(tmp_path):
    with pytest.raises(OSError, match="disk is full"):
        with replacing(tmp_path / "a"), open("/dev/full", "wb") as file:
            file.write(b"x" * 100_000)


def test_an_unwritable_folder_is_reported(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write"):
        Model(Config(**SHAPE), threads=1).save(tmp_path / "file" / "folder")
