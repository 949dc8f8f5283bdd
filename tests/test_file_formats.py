"""Formats are told by what is in a file: every row of FORMATS under any name, near misses, and options of writers."""

import json
import random
import shutil
import struct

import numpy as np
import pytest

import minillama
from minillama.checkpoint import foreign, gguf, llama2c
from minillama.checkpoint.contents import Content
from minillama.checkpoint.convert import convert, writer_options
from minillama.checkpoint.formats import FORMATS, WRITERS, Option
from minillama.checkpoint.open import find, read_config
from minillama.checkpoint.places import DOWNLOADED, MODEL_FILES, TEXTS_OF_MODELS
from tests.test_formats import (
    FOREIGN_FILES,
    WITHOUT_A_NAME,
    file_of_version,
    logits,
    meta_model,
    packed,
    random_model,
    write_meta,
)


def version(number):
    def write(folder):
        (folder / "model.bin").write_bytes(file_of_version(number, random_model(rope_layout="interleaved"))[0])

    return write


# {name: (the row of FORMATS, make(folder), the file that is recognised)}
MADE = {
    "a run": ("huggingface", lambda folder: minillama.save(random_model(), folder), "config.json"),
    "minillama's own": (
        "huggingface", lambda folder: minillama.save(random_model(position="alibi"), folder), "config.json"
    ),
    "gpt2": (
        "huggingface",
        lambda folder: minillama.save(random_model(**minillama.catalogue.presets.FAMILIES["gpt2"]), folder),
        "config.json",
    ),
    "meta": ("meta", lambda folder: write_meta(folder, meta_model(), 2), "params.json"),
    "llama2c 0": ("llama2c", lambda folder: llama2c.save(folder / "model.bin", random_model()), "model.bin"),
    "llama2c 1": ("llama2c", version(1), "model.bin"),
    "llama2c 2": ("llama2c", version(2), "model.bin"),
    "gguf": ("gguf", lambda folder: gguf.save(folder / "model.gguf", random_model()), "model.gguf"),
}  # fmt: skip
NAMES = [
    "model", "model.bin", "tokenizer.bin", "config.json", "params.json", "x.json", "notes.txt", "x.safetensors",
    "x.gguf", "x.GGUF", "x.pth", "x.zip", "x.npz", "x.onnx", "x.json.bak", "modèle α.日本", "a b (1).json",
]  # fmt: skip
each_made = pytest.mark.parametrize("made", MADE)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """{name: its folder}, of all that is MADE; look, and copy it to change it."""
    folder = tmp_path_factory.mktemp("made")
    for name, (_, make, _) in MADE.items():
        (folder / name).mkdir()
        make(folder / name)
    return {name: folder / name for name in MADE}


@pytest.fixture
def copied(models, made, tmp_path):
    shutil.copytree(models[made], tmp_path / "copy")
    return tmp_path / "copy"


def is_folder(made):
    return FORMATS[MADE[made][0]].usual is not None


def test_every_format_is_tried():
    assert {row for row, *_ in MADE.values()} == FORMATS.keys()


@each_made
@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_recognised_under_any_name(made, name, copied):
    """The one that is recognised; a file that is a whole model is given itself, and by its folder."""
    row, _, file = MADE[made]
    if is_folder(made) and name == "tokenizer.bin":
        pytest.skip("a folder's tokenizer is found by its name")
    expected = logits(minillama.load(copied)[0])
    new = (copied / file).rename(copied / name)
    for path in [copied] if is_folder(made) else [copied, new]:
        found = find(path)
        assert (found.name, found.file) == (row, new)
        np.testing.assert_array_equal(logits(minillama.load(path)[0]), expected)


@pytest.mark.parametrize("made", [name for name in MADE if is_folder(name)])
def test_tensors_are_found_under_any_name(made, copied):
    expected = logits(minillama.load(copied)[0])
    for i, file in enumerate(sorted(copied.glob("*.safetensors"))):
        file.rename(copied / f"weights{i}")
    np.testing.assert_array_equal(logits(minillama.load(copied)[0]), expected)
    for file in copied.glob("weights*"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match="is the copy complete"):
        minillama.load(copied)


def test_the_state_of_a_run_is_not_taken_for_its_weights(tmp_path):
    minillama.save(random_model(), tmp_path)
    minillama.checkpoint.tensors.write_tensors(tmp_path / "trainer.safetensors", {"first": ("F32", np.ones(3, "f"))})
    expected = logits(minillama.load(tmp_path)[0])
    (tmp_path / "model.safetensors").rename(tmp_path / "other")
    np.testing.assert_array_equal(logits(minillama.load(tmp_path)[0]), expected)


def test_each_file_is_of_one_format(models):
    for name, folder in models.items():
        for path in folder.iterdir():
            rows = [row for row, format in FORMATS.items() if format.recognises(Content(path))]
            assert rows == ([MADE[name][0]] if path.name == MADE[name][2] else []), path
            assert foreign.recognise(Content(path)) is None


@pytest.mark.parametrize("name", [*FOREIGN_FILES, *WITHOUT_A_NAME])
def test_what_is_refused_by_name_is_of_no_format_here(name, tmp_path):
    (tmp_path / name).write_bytes({**FOREIGN_FILES, **WITHOUT_A_NAME}[name][0])
    content = Content(tmp_path / name)
    assert not any(row.recognises(content) for row in FORMATS.values())
    assert sum(row.begins(content.head) for row in foreign.FOREIGN[:-1]) <= 1


# Near misses


@each_made
def test_a_file_that_is_cut_off_anywhere_says_so(made, copied):
    file = copied / MADE[made][2]
    whole = file.read_bytes()
    lengths = {*range(min(600, len(whole))), *range(0, len(whole), max(1, len(whole) // 50)), len(whole) - 1}
    for length in sorted(lengths - {len(whole.rstrip())}):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="copy it again") as error:
            minillama.load(copied if is_folder(made) else file)
        assert str(file) in str(error.value), length


NEAR_MISSES = {  # {name: (content, what is said of it as a file, and in the place of a folder's description)}
    "empty": (b"", "it is empty", "truncated or not JSON"),
    "blank": (b"  \n", "it is text, '  \\\\n'", "truncated or not JSON"),
    "text": (
        "Once upon a time there was ☕ and more.\n".encode(),
        "it is text, 'Once upon a time there w'",
        "not JSON",
    ),
    "latin": ("café à la carte, s'il vous plaît".encode("latin-1"), "bytes begin with 63 61 66 e9", "not JSON"),
    "random": (random.Random(1).randbytes(3000), "3,000 bytes begin with ", "not JSON"),
    "zip": (packed("zip"), "is a packed archive, which minillama does not open. Unpack it", "not JSON"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "is a packed archive", "not JSON"),
    "list": (b"[1, 2]", r"it is text, '\[1, 2\]'", "must hold an object"),
    "deep": (b"[" * 100_000, "it is text, '", "truncated or not JSON"),
    "no description": (b'{"a": 1}', "no model at", "lacks|unknown key"),
    "zeros": (bytes(100), "100 bytes begin with 00 00", "not JSON"),
    "numbers": (struct.pack("<10i", *range(10**8, 10**8 + 10)), "40 bytes begin with", "not JSON"),
}
each_near_miss = pytest.mark.parametrize("miss", NEAR_MISSES)


@each_near_miss
def test_a_file_that_is_no_model_is_described(miss, tmp_path):
    content, words, _ = NEAR_MISSES[miss]
    for name in ("model", "model.bin", "model.gguf", "config.json"):
        path = tmp_path / f"{name[:3]}" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError), match=words) as error:
            read_config(path)
        assert str(path) in str(error.value)


@each_near_miss
@pytest.mark.parametrize("made", [name for name in MADE if is_folder(name)])
def test_what_is_no_description_is_named(made, miss, copied):
    content, _, words = NEAR_MISSES[miss]
    (copied / MADE[made][2]).write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        minillama.load(copied)
    assert MADE[made][2] in str(error.value)


def test_no_random_bytes_are_taken_for_a_model(tmp_path):
    rng, path = random.Random(2), tmp_path / "x"
    for _ in range(300):
        path.write_bytes(rng.randbytes(rng.randrange(200)))
        content = Content(path)
        assert not any(row.recognises(content) for row in FORMATS.values()), content.head


def test_a_mark_is_enough_to_be_told_what_is_damaged(models, tmp_path):
    data = bytearray((models["llama2c 2"] / "model.bin").read_bytes())
    data[8:24] = bytes(16)  # dim, hidden_dim, n_layers, n_heads
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match="no model of llama2.c, or damaged; its header says {'dim': 0, 'ffn': 0"):
        read_config(tmp_path / "x")


@pytest.mark.parametrize("name", ["config.json", "x"])
def test_a_config_with_metas_keys_is_that_of_its_model_type(name, tmp_path):
    """DistilBERT's keys are those of Meta."""
    values = {"model_type": "distilbert", "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072}
    (tmp_path / name).write_text(json.dumps(values))
    with pytest.raises(ValueError, match="model_type = 'distilbert'; minillama opens llama, gpt2"):
        read_config(tmp_path)


# Folders


def test_a_folder_with_a_model_and_a_file_that_is_one_is_the_model_that_it_describes(models, tmp_path):
    """Unless it has no weights: beside a file that is a whole model, the repositories of others keep a config.json."""
    shutil.copytree(models["a run"], tmp_path / "a")
    shutil.copy(models["llama2c 0"] / "model.bin", tmp_path / "a")
    assert find(tmp_path / "a").name == "huggingface"
    (tmp_path / "a" / "model.safetensors").unlink()
    assert find(tmp_path / "a").name == "llama2c"
    (tmp_path / "a" / "config.json").write_text('{"model_type": "llama"}')
    assert find(tmp_path / "a").name == "llama2c"
    shutil.copy(models["a run"] / "model.safetensors", tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text("{")  # damaged, and not passed over
    with pytest.raises(ValueError, match="config.json is truncated"):
        read_config(tmp_path / "a")


def test_one_description_under_the_name_of_another(models, tmp_path):
    shutil.copytree(models["meta"], tmp_path / "a")
    (tmp_path / "a" / "params.json").rename(tmp_path / "a" / "config.json")
    assert find(tmp_path / "a").name == "meta"
    shutil.copytree(models["meta"], tmp_path / "b")
    shutil.copy(models["a run"] / "config.json", tmp_path / "b")
    assert find(tmp_path / "b").name == "huggingface"  # as its own name says, and the first row


def test_several_models_in_a_folder_are_named(models, tmp_path):
    for name in ("x.bin", "y"):
        shutil.copy(models["llama2c 2"] / "model.bin", tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"there are x.bin \(llama2c\), y \(llama2c\)\. Give the path of one"):
        find(tmp_path)
    (tmp_path / "a").mkdir()
    for name in ("x.json", "y.json"):
        shutil.copy(models["a run"] / "config.json", tmp_path / "a" / name)
    with pytest.raises(FileNotFoundError, match=r"there are x.json \(huggingface\), y.json \(huggingface\)"):
        find(tmp_path / "a")


def test_what_is_hidden_is_not_looked_at(models, tmp_path):
    shutil.copy(models["llama2c 2"] / "model.bin", tmp_path / ".model.bin.7.new")
    with pytest.raises(FileNotFoundError, match="no model at"):
        find(tmp_path)


# Names


def test_the_names_of_a_models_files_stand_once():
    """What is written is downloaded, passed over in a folder of texts, and in the way of another model."""
    texts = {*MODEL_FILES} - {"model.safetensors"}
    assert texts <= {*DOWNLOADED} <= {*TEXTS_OF_MODELS}
    assert {row.usual for row in FORMATS.values()} - {None} <= {*TEXTS_OF_MODELS}


@pytest.mark.parametrize("name", [*TEXTS_OF_MODELS, *(f"x{row.suffix}" for row in WRITERS.values() if row.suffix)])
def test_a_file_of_another_model_is_in_the_way(name, models, tmp_path):
    (tmp_path / name).write_bytes(b"of somebody else")
    with pytest.raises(FileExistsError, match="nothing was changed"):
        convert(models["a run"], tmp_path)


# Options


def test_options_of_writers_come_from_their_rows(monkeypatch, tmp_path, cli):
    received = []
    wide = Option("number type of the weights", ("f32", "f16"))

    def save(path, model, tokenizer, said, **options):
        received.append(options)

    monkeypatch.setitem(WRITERS, "huggingface", WRITERS["huggingface"]._replace(save=save, options={"dtype": wide}))
    other = Option("of the numbers", ("f32", "q8"))
    monkeypatch.setitem(WRITERS, "llama2c", WRITERS["llama2c"]._replace(save=save, options={"dtype": other}))
    both = writer_options()["dtype"]
    assert (
        both.choices == ("f32", "f16", "q8") and both.help.count("(huggingface)") == both.help.count("(llama2c)") == 1
    )
    minillama.save(random_model(), tmp_path / "a")
    assert cli("convert", tmp_path / "a", tmp_path / "b", "--dtype", "f16")[0] == 0
    assert cli("convert", tmp_path / "a", tmp_path / "b", "--to", "llama2c", "--dtype", "q8")[0] == 1  # a folder
    assert cli("convert", tmp_path / "a", tmp_path / "c", "--to", "llama2c", "--dtype", "q8")[0] == 0
    assert cli("convert", tmp_path / "a", tmp_path / "d")[0] == 0
    assert received == [{"dtype": "f16"}, {"dtype": "q8"}, {}]
    code, _, err = cli("convert", tmp_path / "a", tmp_path / "e", "--dtype", "q8")
    assert code == 1 and "dtype of the format huggingface must be one of f32, f16; received 'q8'" in err
    with pytest.raises(ValueError, match="group is no option of any format"):
        convert(tmp_path / "a", tmp_path / "e", group=3)
    with pytest.raises(ValueError, match="minillama writes the formats huggingface, llama2c, gguf; received 'meta'"):
        convert(tmp_path / "a", tmp_path / "e", to="meta")


def test_a_config_under_another_name_says_how_text_is_drawn(models, tmp_path, cli):
    shutil.copytree(models["a run"], tmp_path / "a")
    path = tmp_path / "a" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [3, 4]}))
    path.rename(tmp_path / "a" / "x")
    assert minillama.checkpoint.open.read_generation(tmp_path / "a", 50).end == (3, 4)
    assert cli("convert", tmp_path / "a", tmp_path / "b")[0] == 0
    assert json.loads((tmp_path / "b" / "config.json").read_text())["eos_token_id"] == [3, 4]
