"""A new file format is one file and one row; here one is added to a copy of the package: an .npz of named arrays."""

import json

from .package_copy import PackageCopy

ARRAYS = '''"""A model as one .npz file: a JSON text with its Config and tokenizer, and the parameters by name."""

import json

import numpy as np

from ..config import Config
from ..files import replacing
from ..model import Model
from ..tokenizers import CharTokenizer

_FIRST = "minillama"


def recognises(content):
    """Whether a file is a zip archive that begins with our description."""
    return content.head.startswith(b"PK\\x03\\x04") and content.head[30:].startswith(f"{_FIRST}.npy".encode())


def _described(path):
    with np.load(path, allow_pickle=False) as arrays:
        return json.loads(arrays[_FIRST].tobytes())


def read_config(path):
    return Config.from_dict(_described(path)["config"])


def load(path, threads=None, dtype=None):
    with np.load(path, allow_pickle=False) as arrays:
        kind = dtype or arrays["embedding"].dtype
        model = Model(read_config(path), dtype=kind, threads=threads, init_std=None)
        for name in model.parameters:
            model.parameters[name][:] = arrays[name]
    return model


def load_tokenizer(path, vocab_size):
    found = _described(path)["tokenizer"]
    return None if found is None else CharTokenizer.from_json(found)


def save(path, model, tokenizer, said, precision="float32"):
    text = {"config": model.config.to_dict(), "tokenizer": tokenizer and tokenizer.to_json()}
    described = np.frombuffer(json.dumps(text).encode(), np.uint8)
    arrays = {name: array.astype(precision) for name, array in model.parameters.items()}
    with replacing(path) as new, open(new, "wb") as file:
        np.savez(file, **{_FIRST: described}, **arrays)


def check_tokenizer(path, tokenizer, config, overwrite):
    if not isinstance(tokenizer, CharTokenizer):
        raise ValueError(f"such a file has tokenizers of characters only, and this is a {type(tokenizer).__name__}")
'''
ROW = """    "arrays": FileFormat(
        "a file of our arrays (.npz)",
        arrays.recognises,
        arrays.read_config,
        arrays.load,
        arrays.load_tokenizer,
        save=arrays.save,
        options={"precision": Option("number type of the arrays", ("float32", "float64"))},
        suffix=".npz",
        check_tokenizer=arrays.check_tokenizer,
    ),
"""


def test_a_file_format_is_one_file_and_one_row(tmp_path):
    copy = PackageCopy(tmp_path)
    run = copy.command
    copy.add("checkpoint/arrays.py", ARRAYS)
    copy.add_row("checkpoint/formats.py", "FORMATS", ROW.strip().rstrip(","), "from . import arrays")
    copy.train()
    sample = ["--prompt", "to", "--max-tokens", "9", "--top-k", "1"]
    expected = run("sample", "run", *sample)

    assert "run (huggingface) is now in x.npz (arrays), with its tokenizer" in run("convert", "run", "x.npz")
    assert "(arrays)" in run("convert", "run", "without-a-suffix", "--to", "arrays", "--precision", "float64")
    (tmp_path / "folder").mkdir()
    (tmp_path / "x.npz").rename(tmp_path / "folder" / "x.gguf")  # any name, and a folder with one such file
    for place in ("without-a-suffix", "folder/x.gguf", "folder"):
        assert run("info", place) == run("info", "run")
        assert run("sample", place, *sample) == expected
    assert "(arrays) is now in back (huggingface), with its tokenizer" in run("convert", "folder", "back")
    assert (tmp_path / "back/model.safetensors").read_bytes() == (tmp_path / "run/model.safetensors").read_bytes()
    assert json.loads((tmp_path / "back/tokenizer.json").read_text(encoding="utf-8"))

    written = run("convert", "--help")
    assert "a file of our arrays (.npz)" in written and "{float32,float64}" in written and "arrays" in written
    assert "precision is an option of arrays only" in run("convert", "run", "new", "--precision", "float64", code=1)
    assert "int8 is an option of llama2c only" in run("convert", "run", "new.npz", "--int8", code=1)
    assert "arrays (a file whose name ends in .npz)" in run("convert", "run", "new.onnx", code=1)
    run("tokenizer", "train", "text.txt", "--vocab-size", "280", "--out", "bpe")
    copy.train("--vocab-size", "280", "--tokenizer", "bpe", out="other")
    assert "without its tokenizer: such a file has tokenizers of characters only" in run("convert", "other", "y.npz")
    (tmp_path / "broken.npz").write_bytes((tmp_path / "y.npz").read_bytes()[:20])
    assert "broken.npz is a packed archive" in run("info", "broken.npz", code=1)
    assert copy.touched == {"checkpoint/arrays.py", "checkpoint/formats.py"}
