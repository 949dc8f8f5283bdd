"""Formats besides Hugging Face's: files of llama2.c, Meta's layout, and what opens and converts them all."""

import copy
import io
import json
import os
import shutil
import struct
import tarfile
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minillama
from minillama import PRESETS, Config, Model, __main__
from minillama.checkpoint import foreign, llama2c
from minillama.checkpoint.contents import Content
from minillama.checkpoint.convert import convert
from minillama.checkpoint.formats import WRITERS
from minillama.checkpoint.meta import config_from_params
from minillama.checkpoint.open import find, read_config
from minillama.checkpoint.tensors import write_tensors
from minillama.config import ffn_width
from minillama.generation.chat_templates import published_template
from minillama.generation.generate import generate
from minillama.gradcheck import relative_error
from minillama.ops.positions.rope import swap_rope_layout
from minillama.tokenizers import CharTokenizer, load_tokenizer
from minillama.tokenizers.llama2c import write_llama2c
from minillama.weights.quantize import quantize

SHAPE = dict(vocab_size=50, dim=32, layers=3, heads=4, ffn=24, context=12)
HEADS = {"multi-head": {}, "grouped": {"kv_heads": 2}, "multi-query": {"kv_heads": 1}}
each_heads = pytest.mark.parametrize("heads", HEADS.values(), ids=list(HEADS))
each_tied = pytest.mark.parametrize("tied", [False, True])
each_layout = pytest.mark.parametrize("layout", ["rotate_half", "interleaved"])


def random_model(**changes):
    """Weights large enough that every path matters, and norms that are not all 1."""
    model = Model(Config(**{**SHAPE, **changes}), seed=3, threads=1)
    model.parameters.matrices[:] *= 8
    rng = np.random.default_rng(4)
    model.parameters.vectors[:] = rng.uniform(0.5, 1.5, model.parameters.vectors.shape)
    return model


def logits(model):
    ids = np.random.default_rng(5).integers(0, model.config.vocab_size, (2, min(12, model.config.context)))
    return model.logits(ids)


def same(a, b, tolerance=1e-5):
    return relative_error(logits(a), logits(b)) < tolerance


@pytest.fixture
def stories(assets):
    return assets / "models" / "stories260K" / "stories260K.bin"


# llama2.c


# What llama2.c prints in 200 steps at temperature 0, as its test_all.py has it.
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high.\nLily's mom said, \"Lily, let's go to the park.\" "
    "Lily was sad and didn't know what to do. She said, \"I want to play with your ball, but I can't find it.\"\n"
    "Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to do.\"\n"
    "Lily didn't want to help her mom, so she"
)


def test_stories260K_tells_its_story(stories):
    model, tokenizer = minillama.load(stories)
    assert model.config == Config(512, 64, 5, 8, 4, 172, 512, rope_layout="interleaved", tied=True)
    ids = list(generate(model, [tokenizer.begin_of_text], 200, temperature=1.0, top_k=1))
    assert tokenizer.decode(ids) == STORY


@pytest.mark.parametrize("through", ["file", "folder"])
def test_stories260K_comes_back_byte_for_byte(stories, tmp_path, through):
    source = stories
    if through == "folder":
        source = tmp_path / "folder"
        convert(stories, source)
        values = json.loads((source / "config.json").read_text())
        assert (values["bos_token_id"], values["eos_token_id"]) == (1, 2)
    convert(source, tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == stories.read_bytes()
    assert (tmp_path / "tok512.bin").read_bytes() == stories.with_name("tok512.bin").read_bytes()


@each_heads
@each_tied
@each_layout
def test_a_float_file_holds_the_model(tmp_path, heads, tied, layout):
    model = random_model(**heads, tied=tied, rope_layout=layout)
    llama2c.save(tmp_path / "a.bin", model)
    loaded = minillama.load(tmp_path / "a.bin")[0]
    assert loaded.config == replace(model.config, rope_layout="interleaved")
    assert same(model, loaded)
    llama2c.save(tmp_path / "b.bin", loaded)
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


def file_of_version(version, model, group=8):
    """The bytes of a file of version 1 or 2, by export.py of llama2.c; and the weights that it holds, by name."""
    c, p = model.config, {name: array.astype(np.float32) for name, array in model.parameters.items()}
    head = struct.pack("I", 0x616B3432) + struct.pack("i", version)
    head += struct.pack("iiiiiii", c.dim, c.ffn, c.layers, c.heads, c.kv_heads, c.vocab_size, c.context)
    head += struct.pack("B", c.tied) + (struct.pack("i", group) if version == 2 else b"")
    data = head + bytes(256 - len(head))
    blocks = range(c.layers)
    norms = [f"blocks.{i}.attention_norm" for i in blocks] + [f"blocks.{i}.ffn_norm" for i in blocks] + ["final_norm"]
    kinds = ("w_q", "w_k", "w_v", "w_o", "w_gate", "w_down", "w_up")
    names = ["embedding", *[f"blocks.{i}.{kind}" for kind in kinds for i in blocks], *([] if c.tied else ["output"])]
    data += b"".join(p[name].tobytes() for name in norms)
    for name in names:
        if version == 1:
            data += p[name].tobytes()
            continue
        groups = p[name].reshape(-1, group)
        scales = np.abs(groups).max(axis=1) / np.float32(127)
        q = np.round(groups / scales[:, None]).astype(np.int8)
        data += q.tobytes() + scales.tobytes()
        p[name] = (q * scales[:, None]).reshape(p[name].shape)
    return data, p


@each_heads
@each_tied
@pytest.mark.parametrize("version, group", [(1, None), (2, 8), (2, 32)])
def test_later_versions_are_read(tmp_path, heads, tied, version, group):
    if group == 32:  # groups that go beyond the rows of w_down, which are 24 wide
        heads = {**heads, "layers": 1}
    model = random_model(**heads, tied=tied, rope_layout="interleaved")
    data, weights = file_of_version(version, model, group)
    (tmp_path / "a.bin").write_bytes(data)
    loaded = minillama.load(tmp_path / "a.bin")[0]
    assert loaded.config == model.config
    before = logits(model)
    for name, array in model.parameters.items():
        array[:] = weights[name]
    assert same(model, loaded, 1e-6)
    assert relative_error(before, logits(loaded)) < (1e-6 if version == 1 else 0.1)


@each_tied
def test_an_int8_file_is_what_export_py_writes(tmp_path, tied):
    model = random_model(tied=tied, kv_heads=2, rope_layout="interleaved")
    llama2c.save(tmp_path / "a.bin", model, int8=True)
    assert (tmp_path / "a.bin").read_bytes() == file_of_version(2, model, 8)[0]  # 8 divides both 32 and 24
    half = random_model(tied=tied, kv_heads=2)
    llama2c.save(tmp_path / "b.bin", half, int8=True)
    assert relative_error(logits(half), logits(llama2c.load(tmp_path / "b.bin"))) < 0.1


def test_int8_weights_are_found_again(tmp_path):
    model = random_model(dim=128, ffn=192, rope_layout="interleaved")
    llama2c.save(tmp_path / "a.bin", model, int8=True)
    loaded, direct = llama2c.load(tmp_path / "a.bin"), quantize(model)
    for name in model.weights.matrices:
        np.testing.assert_allclose(quantize(loaded).parameters[name], direct.parameters[name], rtol=1e-6)


def test_float64_weights_are_read_and_rounded(tmp_path):
    model = Model(Config(**SHAPE), dtype=np.float64, threads=1)
    llama2c.save(tmp_path / "a.bin", model)
    loaded = llama2c.load(tmp_path / "a.bin", dtype="float64")
    assert loaded.dtype == np.float64
    np.testing.assert_array_equal(loaded.parameters["embedding"], model.parameters["embedding"].astype(np.float32))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"rope_theta": 5e5}, "fixed rope_theta, 10000.0, and this model has 500000.0"),
        ({"norm_eps": 1e-6}, "fixed norm_eps, 1e-05, and this model has 1e-06"),
        ({"bias": ("qkv",)}, r"fixed bias, \(\), and this model has \('qkv',\)"),
        ({"feed_forward": "geglu"}, "fixed feed_forward, 'swiglu'"),
        ({"norm": "layernorm"}, "fixed norm"),
        ({"position": "alibi"}, "fixed position"),
        ({"mask": "bidirectional"}, "fixed mask"),
        ({"qk_norm": True}, "fixed qk_norm"),
        ({"rope_scaling": "linear", "rope_factor": 2.0}, "fixed rope_scaling"),
    ],
)
def test_what_llama2c_does_not_compute_is_not_written(tmp_path, change, words):
    with pytest.raises(ValueError, match=words + ".*Hugging Face"):
        llama2c.save(tmp_path / "a.bin", Model(Config(**SHAPE, **change), threads=1))
    assert not (tmp_path / "a.bin").exists()


PICKLE = b"PK\x03\x04" + bytes(22) + b"\x10\0\0\0archive/data.pkl"


def header(**changes):
    values = dict(dim=32, ffn=24, layers=3, heads=4, kv_heads=4, vocab_size=50, context=12)
    return struct.pack("<7i", *{**values, **changes}.values())


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda data: b"", "no model that minillama opens: it is empty"),
        (lambda data: data[:27], "its 27 bytes begin with 20 00 00 00 18 00 00 00 03 .*copy it again"),
        (lambda data: data[:-1], "has .* bytes, but its header, .*'dim': 32.*, asks for"),
        (lambda data: data + b"\0", "bytes, but its header"),
        (lambda data: header(layers=2**31 - 1) + data[28:], "'layers': 2147483647.*layers must be at most 10,000"),
        (lambda data: header(vocab_size=-(2**31)) + data[28:], "'vocab_size': 2147483648.*, asks for"),
        (lambda data: header(vocab_size=-50) + data[28:], "asks for"),
        (lambda data: header(heads=5) + data[28:], "its header says .*heads must divide dim"),
        (lambda data: header(layers=0) + data[28:], "layers must be a whole number of at least 1"),
        (lambda data: header(kv_heads=-4) + data[28:], "kv_heads must be a whole number"),
        (lambda data: header(context=-12) + data[28:], "context must be a whole number"),
        (lambda data: PICKLE + data[len(PICKLE) :], "a pickle of PyTorch, which can run any code.*model.safetensors"),
        (lambda data: b"\x80\x02\x8a\x0a" + data[4:], "a pickle of PyTorch"),
        (lambda data: b"PK\x03\x04" + data[4:], "a packed archive"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, damage, words):
    path = tmp_path / "a.bin"
    llama2c.save(path, random_model(tied=True))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=words):
        minillama.load(path)


@pytest.mark.parametrize(
    "place, change, words",
    [
        (4, struct.pack("<i", 3), "version 3; minillama reads 0, 1 and 2"),
        (4, struct.pack("<i", 0), "version 0; minillama"),
        (36, b"\2", "must be 0 or 1; it is 2"),
        (37, struct.pack("<i", 0), "0 int8 weights share a scale"),
        (37, struct.pack("<i", -8), "-8 int8 weights share a scale"),
        (37, struct.pack("<i", 7), "7 int8 weights share a scale, which does not divide every matrix"),
        (37, struct.pack("<i", 4), "asks for"),
        (32, struct.pack("<i", 2**31 - 1), "seq_len says 2,147,483,647 positions, whose tables would take"),
    ],
)
def test_a_damaged_int8_header_is_refused(tmp_path, place, change, words):
    data = bytearray(file_of_version(2, random_model(tied=True))[0])
    data[place : place + len(change)] = change
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        minillama.load(tmp_path / "a.bin")


def test_a_table_of_another_theta_is_refused(tmp_path):
    path = tmp_path / "a.bin"
    llama2c.save(path, random_model(tied=True))
    data = bytearray(path.read_bytes())
    sines = np.frombuffer(data, np.float32, offset=len(data) - 12 * 4 * 4).reshape(12, 4)
    np.testing.assert_allclose(sines[1], np.sin(10000.0 ** (-np.arange(4) / 4)), rtol=1e-6)
    sines[:] = np.sin(np.outer(np.arange(12), 1e6 ** (-np.arange(4) / 4)))
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not RoPE's with theta 10000"):
        minillama.load(path)


# Meta's layout

PARAMS = {"dim": 32, "n_layers": 2, "n_heads": 4, "multiple_of": 8, "norm_eps": 1e-5, "vocab_size": -1}
ROWS = ("wq", "wk", "wv", "w1", "w3", "output")
OURS = {
    "attention_norm": "attention_norm", "attention.wq": "w_q", "attention.wk": "w_k", "attention.wv": "w_v",
    "attention.wo": "w_o", "ffn_norm": "ffn_norm", "feed_forward.w1": "w_gate", "feed_forward.w2": "w_down",
    "feed_forward.w3": "w_up",
}  # fmt: skip


def meta_model(**changes):
    shape = dict(vocab_size=50, dim=32, layers=2, heads=4, ffn=ffn_width(32, 8), context=2048)
    return random_model(**{**shape, "rope_layout": "interleaved", **changes})


def meta_tensors(model):
    p = model.parameters
    tensors = {"tok_embeddings.weight": p["embedding"], "norm.weight": p["final_norm"]}
    tensors["output.weight"] = p["embedding" if model.config.tied else "output"]
    for i in range(model.config.layers):
        tensors |= {f"layers.{i}.{name}.weight": p[f"blocks.{i}.{ours}"] for name, ours in OURS.items()}
    return tensors


def write_meta(folder, model, pieces=1, embedding_axis=1, params=(), kind=None):
    """The model as Meta would write it for so many processors."""
    folder.mkdir(exist_ok=True)
    config = model.config
    values = PARAMS | ({"n_kv_heads": config.kv_heads} if config.kv_heads != config.heads else {}) | dict(params)
    (folder / "params.json").write_text(json.dumps(values))
    for k in range(pieces):
        part = {}
        for name, array in meta_tensors(model).items():
            role = name.split(".")[-2]
            if array.ndim == 1:
                part[name] = array
            else:
                axis = embedding_axis if role == "tok_embeddings" else 0 if role in ROWS else 1
                part[name] = np.ascontiguousarray(np.split(array, pieces, axis)[k])
        part["rope.freqs"] = np.ones(4, np.float32)
        path = folder / f"consolidated.{k:02d}.safetensors"
        if kind == "BF16":
            write_tensors(path, {n: ("BF16", (a.view(np.uint32) >> 16).astype(np.uint16)) for n, a in part.items()})
        else:
            save_file(part, path)


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("embedding_axis", [0, 1])
@pytest.mark.parametrize("heads", [{}, {"kv_heads": 2}], ids=["multi-head", "grouped"])
def test_metas_layout_in_pieces(tmp_path, pieces, embedding_axis, heads):
    model = meta_model(**heads)
    write_meta(tmp_path, model, pieces, embedding_axis)
    loaded, tokenizer = minillama.load(tmp_path)
    assert loaded.config == model.config and tokenizer is None
    np.testing.assert_array_equal(loaded.parameters.flat, model.parameters.flat)


def test_a_matrix_that_is_held_twice_is_tied(tmp_path):
    model = meta_model(tied=True)
    write_meta(tmp_path, model, 2, 0)
    loaded = minillama.load(tmp_path)[0]
    assert loaded.config.tied
    np.testing.assert_array_equal(loaded.parameters.flat, model.parameters.flat)
    for path in tmp_path.glob("*.safetensors"):
        save_file({name: array for name, array in load_file(path).items() if name != "output.weight"}, path)
    assert minillama.load(tmp_path)[0].config == loaded.config


@pytest.mark.parametrize("pieces", [1, 2])
def test_metas_bfloat16_is_kept(tmp_path, pieces):
    model = meta_model(kv_heads=2)
    model.parameters.flat.view(np.uint32)[:] &= 0xFFFF0000
    write_meta(tmp_path, model, pieces, kind="BF16")
    loaded = minillama.load(tmp_path)[0]
    assert loaded.weights.kind == "bfloat16"
    assert same(model, loaded)
    convert(tmp_path, tmp_path / "folder")
    convert(tmp_path / "folder", tmp_path / "a.bin")
    assert minillama.load(tmp_path / "folder")[0].weights.kind == "bfloat16"
    np.testing.assert_array_equal(minillama.load(tmp_path / "a.bin")[0].parameters.flat, model.parameters.flat)
    wide = minillama.load(tmp_path, dtype="float32")[0]
    np.testing.assert_array_equal(wide.parameters.flat, model.parameters.flat)


@pytest.mark.parametrize(
    "name, dim, layers, multiplier, multiple, scaled",
    [
        ("llama-3.2-1b", 2048, 16, 1.5, 256, True),
        ("llama-3.1-8b", 4096, 32, 1.3, 1024, True),
        ("llama-3-8b", 4096, 32, 1.3, 1024, False),
    ],
)
def test_published_models_are_recognised(name, dim, layers, multiplier, multiple, scaled):
    values = {
        "dim": dim, "n_layers": layers, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256, "norm_eps": 1e-5,
        "rope_theta": 500000.0, "ffn_dim_multiplier": multiplier, "multiple_of": multiple,
    }  # fmt: skip
    weights = SimpleNamespace(layers=layers, tied=PRESETS[name].tied)  # the real ones are too large for a test
    values |= {"use_scaled_rope": True} if scaled else {}
    assert config_from_params(values, weights) == replace(PRESETS[name], rope_layout="interleaved")


def test_what_params_json_leaves_open(tmp_path):
    model = meta_model()
    write_meta(tmp_path, model, params={"use_scaled_rope": True})
    config = read_config(tmp_path)
    assert (config.context, config.rope_scaling, config.rope_factor) == (131072, "llama3", 8)
    assert config.rope_original_context == 8192
    write_meta(tmp_path, model, params={"use_scaled_rope": True, "rope_scaling_factor": 32, "max_seq_len": 4096})
    assert (read_config(tmp_path).context, read_config(tmp_path).rope_factor) == (4096, 32)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"hidden_dim": 64}, "params.json: unknown key 'hidden_dim'"),
        ({"n_layer": 2}, "did you mean 'n_layers'"),
        ({"n_layers": 10**9}, "n_layers = 1000000000, and the weights have 2"),
        ({"dim": "32"}, "says dim = '32', and tok_embeddings.weight has the shape"),
        ({"dim": 64}, "says dim = 64, and tok_embeddings.weight has the shape"),
        ({"vocab_size": 51}, r"tok_embeddings.weight has shape \(50, 32\); params.json asks for \(51, 32\)|output"),
        ({"vocab_size": 50, "dim": 10**30}, "dim must be a whole number from 1"),
        ({"multiple_of": 0}, "multiple_of must be a whole number from 1"),
        ({"multiple_of": 64}, r"w1.weight has shape \(88, 32\); params.json asks for \(128, 32\)"),
        ({"ffn_dim_multiplier": -1}, "ffn_dim_multiplier must be a number above 0"),
        ({"ffn_dim_multiplier": float("nan")}, "ffn_dim_multiplier must be a number above 0"),
        ({"n_heads": 5}, "heads must divide dim"),
        ({"n_heads": None}, "heads must be a whole number"),
        ({"norm_eps": "small"}, "norm_eps must be a finite number"),
        ({"use_scaled_rope": "yes"}, "use_scaled_rope must be true or false"),
        ({"rope_scaling_factor": 8}, "changes nothing without use_scaled_rope"),
        ({"max_seq_len": 10**12}, "says 1,000,000,000,000 positions, whose tables would take"),
        ({"quantization_args": {"group_size": 256}}, "unknown key 'quantization_args'"),
    ],
)
def test_params_that_ask_for_something_else_are_refused(tmp_path, change, words):
    write_meta(tmp_path, meta_model(), params=change)
    with pytest.raises(ValueError, match=words):
        minillama.load(tmp_path)


def test_pieces_that_do_not_belong_together_are_refused(tmp_path):
    model = meta_model()
    write_meta(tmp_path, model, 2)
    second = tmp_path / "consolidated.01.safetensors"
    tensors = load_file(second)
    save_file({**tensors, "layers.0.attention.wq.weight": np.zeros((4, 32), np.float32)}, second)
    with pytest.raises(ValueError, match="do not hold pieces of the same tensors"):
        minillama.load(tmp_path)
    save_file({**tensors, "norm.weight": np.zeros(32, np.float64)}, second)
    with pytest.raises(ValueError, match="different number types of norm.weight"):
        minillama.load(tmp_path)
    second.unlink()
    with pytest.raises(ValueError, match=r"dim = 32, and tok_embeddings.weight has the shape \(50, 16\) in each of 1"):
        minillama.load(tmp_path)
    write_meta(tmp_path, model, 1)
    tensors = load_file(tmp_path / "consolidated.00.safetensors")
    save_file({**tensors, "layers.0.feed_forward.gate.weight": np.zeros(3)}, tmp_path / "consolidated.00.safetensors")
    with pytest.raises(ValueError, match="0 tensors missing .* 1 unexpected .*gate"):
        minillama.load(tmp_path)


def test_a_folder_without_weights_says_so(tmp_path):
    (tmp_path / "params.json").write_text(json.dumps(PARAMS))
    with pytest.raises(FileNotFoundError, match="no consolidated"):
        minillama.load(tmp_path)
    (tmp_path / "consolidated.00.pth").write_bytes(PICKLE)
    with pytest.raises(ValueError, match="(?s)is a pickle of PyTorch, which can run any code.*weights_only=True"):
        minillama.load(tmp_path)


# One load, one convert


def test_the_format_is_what_lies_there(tmp_path):
    model = meta_model()
    write_meta(tmp_path / "meta", model)
    minillama.save(model, tmp_path / "folder")
    llama2c.save(tmp_path / "a.bin", model)
    found = [find(tmp_path / name).name for name in ("folder", "meta", "a.bin")]
    assert found == ["huggingface", "meta", "llama2c"]
    for name in ("folder", "meta", "a.bin"):
        assert read_config(tmp_path / name).vocab_size == 50 and same(model, minillama.load(tmp_path / name)[0])
    for nothing in (tmp_path / "nothing", tmp_path / "folder" / "model.safetensors", tmp_path / "meta" / "params.json"):
        with pytest.raises(FileNotFoundError, match="no model at .*config.json; .*params.json; a file of llama2.c"):
            minillama.load(nothing)


@pytest.mark.parametrize("source", ["folder", "meta", "a.bin"])
@pytest.mark.parametrize("target", ["folder2", "b.bin"])
def test_convert_between_any_two(tmp_path, capsys, source, target):
    model = meta_model(kv_heads=2)
    write_meta(tmp_path / "meta", model)
    swapped = Model(replace(model.config, rope_layout="rotate_half"), threads=1)
    for name, array in model.parameters.items():
        heads = {"w_q": 4, "w_k": 2}.get(name.split(".")[-1])
        swapped.parameters[name][:] = swap_rope_layout(array, heads, "interleaved") if heads else array
    minillama.save(swapped, tmp_path / "folder")
    llama2c.save(tmp_path / "a.bin", swapped)
    assert __main__.main(["convert", str(tmp_path / source), str(tmp_path / target)]) == 0
    format = "huggingface" if target == "folder2" else "llama2c"
    assert f"{target} ({format}), without a tokenizer" in capsys.readouterr().out
    converted = minillama.load(tmp_path / target)[0]
    assert same(model, converted)
    assert converted.config.rope_layout == ("rotate_half" if target == "folder2" else "interleaved")
    assert __main__.main(["info", str(tmp_path / target)]) == 0


def test_convert_says_what_it_cannot_do(tmp_path, capsys):
    model = random_model(rope_theta=5e5)
    minillama.save(model, tmp_path / "folder")

    def error(*options):
        assert __main__.main(["convert", str(tmp_path / "folder"), *map(str, options)]) == 1
        return capsys.readouterr().err

    assert "fixed rope_theta" in error(tmp_path / "a.bin")
    assert "int8 is an option of llama2c only" in error(tmp_path / "b", "--int8")
    assert "no file" in error(tmp_path / "b", "--tokenizer", tmp_path / "none.json")
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"} == {"folder"}


def test_convert_int8(tmp_path):
    model = random_model()
    minillama.save(model, tmp_path / "folder")
    assert "(llama2c)" in convert(tmp_path / "folder", tmp_path / "model", to="llama2c", int8=True)
    assert llama2c.read_header(tmp_path / "model").group == 8
    assert relative_error(logits(model), logits(minillama.load(tmp_path / "model")[0])) < 0.1


def test_a_tokenizer_that_llama2c_does_not_have_is_left_out(tmp_path):
    model = random_model(vocab_size=9)
    minillama.save(model, tmp_path / "folder", CharTokenizer.train("abcdefghi"))
    note = convert(tmp_path / "folder", tmp_path / "a.bin")
    assert note.endswith(
        "without its tokenizer: llama2.c has SentencePiece's kind of tokenizer only, and this is a CharTokenizer. "
        "To open it here, put tokenizer.json beside it"
    )
    assert convert(tmp_path / "folder", tmp_path / "b").endswith("with its tokenizer")
    assert minillama.load(tmp_path / "b")[1].vocab_size == 9 and minillama.load(tmp_path / "a.bin")[1] is None


def test_llama2s_tokenizer_goes_along(assets, tmp_path):
    """From a tokenizer.model through tokenizer.json to llama2.c's file, which gives the ids of the published one."""
    model, texts = random_model(vocab_size=32000), ["  a  red ball\n\n   x", "naïve ☕ 日本", " " * 37 + "}", ""]
    minillama.save(model, tmp_path / "folder")
    convert(tmp_path / "folder", tmp_path / "with", tokenizer=assets / "models" / "llama2-tokenizer.model")
    assert convert(tmp_path / "with", tmp_path / "a.bin").endswith("with its tokenizer")
    expected = load_tokenizer(assets / "models" / "llama2-tokenizer.bin")
    for place in ("with", "a.bin"):
        tokenizer = minillama.load(tmp_path / place)[1]
        assert all(tokenizer.encode(text).tolist() == expected.encode(text).tolist() for text in texts)
    minillama.save(Model(Config(**SHAPE), threads=1), tmp_path / "small")
    convert(tmp_path / "small", tmp_path / "b.bin")
    assert minillama.load(tmp_path / "b.bin")[1] is None  # tokenizer.bin lies beside it, and has more tokens


def test_what_a_tokenizer_of_llama2c_cannot_say(assets):
    tokenizer = load_tokenizer(assets / "models" / "stories260K" / "tok512.bin")
    for change, words in (
        ({"prefix": "first"}, "a space before every text"),
        ({"cut": True}, "a space before every text"),
        ({"added_tokens": tokenizer.added_tokens[:2]}, "the special tokens 0, 1 and 2"),
        ({"pieces": {}}, "tokens of the bytes"),
    ):
        other = copy.copy(tokenizer)
        vars(other).update(change)
        with pytest.raises(ValueError, match=words):
            write_llama2c(other)
    rank, joined = next(made for made in tokenizer._merges.values() if made[1] == 300)
    other = copy.copy(tokenizer)
    other._merges = {**tokenizer._merges, (3, 3): (rank + 9, joined)}
    with pytest.raises(ValueError, match="merges that make the same piece lie apart"):
        write_llama2c(other)


def test_overwrite_replaces_models_and_no_other_file(tmp_path):
    minillama.save(random_model(), tmp_path / "folder")
    poem = tmp_path / "poem.txt"
    poem.write_text("no model\n", encoding="utf-8")
    with pytest.raises(FileExistsError, match="poem.txt is no model of the format llama2c.*nothing was changed"):
        convert(tmp_path / "folder", poem, "llama2c", overwrite=True)
    assert poem.read_text(encoding="utf-8") == "no model\n"
    (tmp_path / "new.bin").touch()  # as mktemp makes
    for _ in range(2):
        convert(tmp_path / "folder", tmp_path / "new.bin", overwrite=True)
    assert find(tmp_path / "new.bin").name == "llama2c"


def test_a_tokenizer_of_another_model_is_refused(stories, tmp_path):
    model = random_model(vocab_size=9)
    minillama.save(model, tmp_path / "folder")
    other = stories.with_name("tok512.bin")
    with pytest.raises(ValueError, match="the tokenizer has 512 tokens and the model 9"):
        convert(tmp_path / "folder", tmp_path / "new", tokenizer=other)
    CharTokenizer.train("abcdefghi").save(tmp_path / "old")
    with pytest.raises(FileExistsError, match="tokenizer.json.* there already"):
        convert(tmp_path / "folder", tmp_path / "old")
    convert(tmp_path / "folder", tmp_path / "old", overwrite=True)  # it has no tokenizer, and must not get another's
    assert not (tmp_path / "old" / "tokenizer.json").exists()
    with pytest.raises(ValueError, match="the path to write to is empty"):
        convert(tmp_path / "folder", "")


def test_the_chat_template_goes_along(tmp_path):
    minillama.save(random_model(vocab_size=9), tmp_path / "folder", CharTokenizer.train("abcdefghi"))
    path = tmp_path / "folder" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": "{{ messages }}"}))
    convert(tmp_path / "folder", tmp_path / "new")
    assert published_template(tmp_path / "new") == "{{ messages }}"


def test_what_was_meant_is_said(stories, tmp_path):
    shutil.copy(stories, tmp_path / "stories260K.bin")
    shutil.copy(stories.with_name("tok512.bin"), tmp_path / "tok512.bin")
    assert minillama.load(tmp_path)[1].vocab_size == 512
    shutil.copy(stories, tmp_path / "again.bin")
    with pytest.raises(FileNotFoundError, match=r"there are again.bin \(llama2c\), stories260K.bin \(llama2c\)\. Give"):
        minillama.load(tmp_path)
    minillama.save(random_model(vocab_size=9), tmp_path / "folder")
    with pytest.raises(FileNotFoundError, match="Give the folder of this file, .*folder"):
        minillama.load(tmp_path / "folder" / "model.safetensors")
    (tmp_path / "folder" / "model.safetensors").unlink()
    (tmp_path / "folder" / "pytorch_model.bin").write_bytes(PICKLE)
    with pytest.raises(ValueError, match=r"(?s)pytorch_model\.bin is a pickle.*copy that into .*pytorch_model.bin'$"):
        minillama.load(tmp_path / "folder")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "consolidated.00.pth").write_bytes(PICKLE)
    for path in (tmp_path / "meta", tmp_path / "meta" / "consolidated.00.pth"):
        with pytest.raises(ValueError, match="makes safetensors of it"):
            minillama.load(path)
    with pytest.raises(ValueError, match="dtype must be 'float32'.*received 'bfloat16'"):
        minillama.load(stories, dtype="bfloat16")


# What people have besides


def npz():
    file = io.BytesIO()
    np.savez(file, w=np.ones(3))
    return file.getvalue()


def packed(kind):
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model/config.json", "{}")
    else:
        with tarfile.open(fileobj=file, mode=kind) as archive:
            archive.addfile(tarfile.TarInfo("config.json"))
    return file.getvalue()


FOREIGN_FILES = {  # usual name: content, what it is called
    "ggml-model-q4_0.ggml": (b"tjgg\x03\0\0\0" + bytes(200), "a file of ggml, llama.cpp's format before GGUF"),
    "model.onnx": (b"\x08\x07\x12\x07pytorch" + bytes(200), "a model of ONNX"),
    "tf_model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(200), "a file of HDF5"),
    "model.tflite": (b"\x1c\0\0\0TFL3" + bytes(200), "a model of TensorFlow Lite"),
    "weights.npz": (npz(), "a file of NumPy arrays"),
    "model.zip": (packed("zip"), "a packed archive"),
    "model.tar": (packed("w"), "a packed archive"),
    "model.tgz": (packed("w:gz"), "a packed archive"),
    "model.pt": (PICKLE + bytes(200), "a pickle of PyTorch"),
    "flax_model.msgpack": (b"\x82\xabtransformer\x81" + bytes(200), "a file of MessagePack"),
    "saved_model.pb": (b"\x08\x01\x12\x7f\x0a" + bytes(200), "a SavedModel of TensorFlow"),
    "last.ckpt": (b"\x80\x02\x8a\x0a" + bytes(200), "a pickle of PyTorch"),
}
WITHOUT_A_NAME = {
    "model.bin": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of Git LFS"),
    "model2.bin": (b"\n<!DOCTYPE html><html>", "a web page, not a model"),
}
each_foreign = pytest.mark.parametrize("name", [*FOREIGN_FILES, *WITHOUT_A_NAME])


@each_foreign
@pytest.mark.parametrize("command", ["info", "sample", "convert", "perplexity"])
def test_another_format_is_named(name, command, cli, tmp_path):
    content, what = {**FOREIGN_FILES, **WITHOUT_A_NAME}[name]
    named = tmp_path / name
    named.write_bytes(content)
    rest = {"convert": [tmp_path / "new"], "perplexity": [named]}.get(command, [])
    code, _, err = cli(command, named, *rest)
    assert code == 1 and f"{named} is {what}" in err and "which minillama does not open. " in err
    for other in ("other.bin", "other", "other.safetensors", "config.json"):  # whatever its name
        named = named.rename(tmp_path / other)
        assert f"{named} is {what}" in cli(command, named, *rest)[2]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", FOREIGN_FILES)
@pytest.mark.parametrize("beside", [None, "config.json"])
def test_a_folder_of_another_format_is_named(name, beside, cli, tmp_path):
    if beside:
        minillama.save(random_model(), tmp_path)
        (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(FOREIGN_FILES[name][0])
    (tmp_path / "README.md").write_text("a model")
    with pytest.raises(ValueError) as raised:
        minillama.load(tmp_path)
    assert f"{tmp_path / name} is {FOREIGN_FILES[name][1]}" in str(raised.value)


def test_a_pointer_in_the_place_of_weights(tmp_path):
    minillama.save(random_model(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(WITHOUT_A_NAME["model.bin"][0])
    with pytest.raises(ValueError, match=r"model\.safetensors is a pointer of Git LFS .* Type git lfs pull"):
        minillama.load(tmp_path)


def test_no_model_that_is_opened_is_taken_for_another_format(tmp_path):
    model = random_model(tied=True)
    minillama.save(model, tmp_path / "folder")
    write_meta(tmp_path / "meta", meta_model())
    for version, options in enumerate(({}, {"int8": True})):
        llama2c.save(tmp_path / f"{version}.anything", model, **options)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5 and not any(foreign.recognise(Content(path)) for path in files)
    for dim in [*range(2, 3000, 2), 4096, 8192, 16384]:  # the first bytes of a file of version 0
        head = struct.pack("<7i", dim, 4 * dim, 32, 32, 32, 32000, 2048)
        assert not any(row.begins(head + bytes(300)) for row in foreign.FOREIGN), dim


def test_weights_alone_ask_for_their_config(cli, tmp_path):
    minillama.save(random_model(), tmp_path / "a")
    (tmp_path / "a" / "config.json").unlink()
    for path in (tmp_path / "a", tmp_path / "a" / "model.safetensors"):
        code, _, err = cli("info", path)
        assert code == 1 and f"no model at {path}" in err and "lacks the config.json that belongs to" in err


def test_a_folder_with_models_in_it_names_them(tmp_path):
    for name in ("runs/one", "cache/snapshots/abc"):
        minillama.save(random_model(), tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"Did you mean .*one\?"):
        minillama.load(tmp_path / "runs")
    with pytest.raises(FileNotFoundError, match=r"Did you mean .*abc\?"):
        minillama.load(tmp_path / "cache")


@pytest.mark.parametrize("name", ["a.ggml", "a.GGML", "a.safetensors", "a.pt", "a.pth", "a.onnx", "a.npz", "a.zip"])
def test_what_is_not_written_is_refused_by_its_name(name, cli, tmp_path):
    minillama.save(random_model(), tmp_path / "model")
    code, _, err = cli("convert", tmp_path / "model", tmp_path / name)
    assert code == 1 and f"the name of {tmp_path / name} is that of a" in err
    assert "ends in .gguf); give one of these" in err
    for to in WRITERS:  # whatever is asked for
        assert f"the name of {tmp_path / name}" in cli("convert", tmp_path / "model", tmp_path / name, "--to", to)[2]
    assert not (tmp_path / name).exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_what_is_read_more_than_once_is_no_pipe(cli, tmp_path):
    minillama.save(random_model(), tmp_path / "model")
    pipe = tmp_path / "tokenizer.json"
    os.mkfifo(pipe)
    text = "tokenizer.json is a pipe or a device, which can be read once, and a text is read again when a run goes on"
    commands = {
        ("train", "--data", pipe): text,
        ("tokenizer", "train", pipe, "--out", tmp_path / "new"): text,
        ("compare", pipe, "--out", tmp_path / "new" / "a.jsonl"): text,
        ("ablate", "ladder", "--corpora", pipe, "--out", tmp_path / "new"): text,
        ("tokenizer", "encode", pipe, "a"): "is a pipe or a device, and a tokenizer is a file",
        ("convert", tmp_path / "model", tmp_path / "new", "--tokenizer", pipe): "and a tokenizer is a file",
        ("info", pipe): "This is a pipe or a device; save what comes out of it to a file",
        ("sample", pipe): "This is a pipe or a device; save what comes out of it to a file",
    }
    for command, words in commands.items():
        code, _, err = cli(*command)
        assert code == 1 and words in err, command
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
