"""Formats besides Hugging Face's against the libraries that they come from."""

import json
import subprocess
import sys

import numpy as np
import pytest

from minillama import load
from minillama.checkpoint import llama2c
from minillama.checkpoint.convert import convert
from minillama.checkpoint.llama2c_tables import rotation_tables
from minillama.gradcheck import relative_error
from tests.test_formats import meta_model, meta_tensors, write_meta

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def test_stories260K_in_transformers_and_back(assets, tmp_path, rng):
    path = assets / "models" / "stories260K" / "stories260K.bin"
    model = llama2c.load(path)
    convert(path, tmp_path / "folder")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    ids = rng.integers(0, 512, (2, 200))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids)).logits.numpy()
    assert relative_error(model.logits(ids), expected) < 1e-5
    theirs.save_pretrained(tmp_path / "theirs")
    for folder in ("folder", "theirs"):
        convert(tmp_path / folder, tmp_path / f"{folder}.bin")
        assert (tmp_path / f"{folder}.bin").read_bytes() == path.read_bytes()


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="PyTorch computes cosines without MKL here")
@pytest.mark.parametrize("width", [8, 48, 64, 80, 128])
def test_the_table_of_rotations_is_pytorchs(width):
    """llama2.c's precompute_freqs_cis

    With AVX-512, PyTorch's power is another one than with AVX2, whose bits are those of the published files: there a
    frequency may differ in its last bit, and the cosines of all others are compared.
    """
    frequencies = 1.0 / (10000.0 ** (torch.arange(0, width, 2).float() / width))
    angles = torch.outer(torch.arange(2048), frequencies).float()
    tables = rotation_tables(2048, width)
    ours = rotation_tables(2, width)["sin"][1]  # of the angle 1: where it agrees, so do the frequencies
    same = ours.view(np.int32) == torch.sin(frequencies).numpy().view(np.int32)
    assert same.all() or torch.backends.cpu.get_cpu_capability() == "AVX512" and np.count_nonzero(~same) == 1
    for name, function in (("cos", torch.cos), ("sin", torch.sin)):
        expected = function(angles).numpy()
        np.testing.assert_array_equal(tables[name][:, same].view(np.int32), expected[:, same].view(np.int32))
        np.testing.assert_allclose(tables[name], expected, atol=2048 * 2**-23, rtol=0)  # an angle's last bit


def metas_logits(model, ids):
    """Meta's forward pass, with its complex numbers, over Meta's names."""
    c, F = model.config, torch.nn.functional
    p = {name: torch.from_numpy(array) for name, array in meta_tensors(model).items()}
    D, T = c.head_dim, ids.shape[1]

    def norm(x, weight):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight

    frequencies = 1.0 / (10000.0 ** (torch.arange(0, D, 2).float() / D))
    angles = torch.outer(torch.arange(T).float(), frequencies)
    turns = torch.polar(torch.ones_like(angles), angles)[:, None]

    def rotate(x):
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turns).flatten(-2)

    h = p["tok_embeddings.weight"][torch.from_numpy(ids)]
    for i in range(c.layers):
        w = {name: p[f"layers.{i}.attention.{name}.weight"] for name in ("wq", "wk", "wv", "wo")}
        f = {name: p[f"layers.{i}.feed_forward.{name}.weight"] for name in ("w1", "w2", "w3")}
        x = norm(h, p[f"layers.{i}.attention_norm.weight"])
        q, k, v = ((x @ w[name].T).unflatten(-1, (-1, D)) for name in ("wq", "wk", "wv"))
        q, k = rotate(q), rotate(k)
        k, v = (t.repeat_interleave(c.heads // c.kv_heads, 2) for t in (k, v))
        y = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True)
        h = h + y.transpose(1, 2).flatten(2) @ w["wo"].T
        x = norm(h, p[f"layers.{i}.ffn_norm.weight"])
        h = h + (F.silu(x @ f["w1"].T) * (x @ f["w3"].T)) @ f["w2"].T
    return (norm(h, p["norm.weight"]) @ p["output.weight"].T).numpy()


@pytest.mark.parametrize("heads", [{}, {"kv_heads": 2}], ids=["multi-head", "grouped"])
def test_metas_layout_computes_what_metas_code_does(tmp_path, heads, rng):
    model = meta_model(**heads)
    write_meta(tmp_path, model, 2)
    ids = rng.integers(0, 50, (2, 20))
    expected = metas_logits(model, ids)
    assert relative_error(load(tmp_path)[0].logits(ids), expected) < 1e-5
    convert(tmp_path, tmp_path / "folder")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    with torch.no_grad():
        assert relative_error(theirs(torch.from_numpy(ids)).logits.numpy(), expected) < 1e-5


def test_the_way_round_a_pickle(tmp_path, rng):
    """What the error says, done."""
    model = meta_model()
    (tmp_path / "params.json").write_text(json.dumps({"dim": 32, "n_layers": 2, "n_heads": 4, "multiple_of": 8}))
    tensors = {name: torch.from_numpy(array.copy()).bfloat16() for name, array in meta_tensors(model).items()}
    torch.save(tensors, tmp_path / "consolidated.00.pth")
    with pytest.raises(ValueError, match="is a pickle") as error:
        load(tmp_path)
    command = str(error.value).split("\n\n", 1)[1]
    assert command.startswith("python -c ")
    subprocess.run(command.replace("python", f'"{sys.executable}"', 1), shell=True, check=True)
    loaded = load(tmp_path)[0]
    assert loaded.weights.kind == "bfloat16"
    expected = tensors["layers.1.attention.wq.weight"].float().numpy()
    np.testing.assert_array_equal(loaded.parameters["blocks.1.w_q"], expected)
