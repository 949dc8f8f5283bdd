"""No command changes a file that it did not make: every command that writes, in folders full of foreign files."""

import argparse
import json
import os

import pytest

from minillama import Config, Model, __main__
from minillama.checkpoint import llama2c
from minillama.checkpoint.places import MODEL_FILES
from minillama.data import downloads
from minillama.data.fetch import File
from minillama.files import alone, require_free

from .conftest import needs_kernels, whole_parser

TINY = "--tokenizer char --context 16 --dim 16 --layers 1 --heads 2 --batch-size 2 --steps 2 --threads 1".split()
ABLATION = "--dim 8 --layers 1 --heads 2 --context 8 --steps 2 --batch-size 2 --warmup 1 --seeds 1 --jobs 1".split()
MODEL = [
    *MODEL_FILES,
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "tokenizer.model",
    "vocab.json",
]
RUN = [*MODEL, "trainer.safetensors", "metrics.jsonl", "loss.png"]
FIGURES = ["logit-lens.png", "stream-norms.png", "attention-layer-0.png"]
LEFT_ONE_OUT = ["report.md", "ablation-leave-one-out.png", "ablation-norm.png"]
ABLATED = [*LEFT_ONE_OUT, "ablation-ladder.png", "ablation-extrapolation.png"]
BENCHED = ["bench.png", "roofline.png", "attention-length.png"]

# {command: [(arguments with {run}, {text} and {out}, the names in {out} of which each alone is in the way)]}. A name
# that begins with ./ is the path {out} itself.
WRITES = {
    "train": [(["--data", "{text}", "--out", "{out}", *TINY], RUN)],
    "convert": [
        (["{run}", "{out}"], [*MODEL, "trainer.safetensors"]),
        (["{run}", "{out}/model.bin"], ["model.bin"]),
        (["{run}", "{out}/model.bin", "--int8"], ["model.bin"]),
    ],
    "tokenizer train": [(["{text}", "--vocab-size", "280", "--out", "{out}"], [*MODEL, "trainer.safetensors"])],
    "inspect": [(["{run}", "--prompt", "the", "--out", "{out}"], FIGURES)],
    "table": [(["llama-7b", "--figure", "{out}/table.png"], ["table.png"])],
    "compare": [
        (["{text}", "--seeds", "1", "--steps", "1", "--context", "16", "--vocab-size", "280", "--threads", "1", "--out",
          "{out}/rows.jsonl"], ["rows.jsonl"]),
        (["nofile", "--out", "{out}/rows.jsonl"], ["rows.jsonl"]),
    ],
    "ablate": [
        (["leave-one-out", "--corpora", "{text}", "--out", "{out}", *ABLATION], ["results.jsonl", *LEFT_ONE_OUT]),
        (["leave-one-out", "--corpora", "nofile", "--out", "{out}", *ABLATION], ["results.jsonl", *LEFT_ONE_OUT]),
        (["report", "{results}", "--figures", "{out}"], ABLATED),
    ],
    "bench": [
        (["training", "--shapes", "char", "--no-torch", "--json", "{out}/bench.json"], ["bench.json"]),
        (["training", "length", "--no-torch", "--figures", "{out}"], BENCHED),
    ],
    "download": [(["tiny", "--mirror", "{nowhere}", "--out", "{out}"],
                  ["tiny.bin", "tiny.bin.part", "words.bin.sha256"])],
}  # fmt: skip
READS = {"sample", "chat", "fill", "perplexity", "info", "tokenizer encode", "tokenizer decode"}
CONTENTS = [b"one line", b"", b"a line\n", b'{"a": 1}\n', b"\xff\xfe\0", b"{", b'{"kind": "Pod"}']


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Paths that the commands read: a text, a run, results of an ablation."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "my.txt").write_text("the cat sat on the mat. the dog did too.\n" * 60)
    text, run, results = map(str, (folder / "my.txt", folder / "run", folder / "results"))
    assert __main__.main(["train", "--data", text, "--out", run, *TINY]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minillama.experiments.scheduler.variants", lambda *_: [{}, {"tied": True}])
        assert __main__.main(["ablate", "leave-one-out", "--corpora", text, "--out", results, *ABLATION]) == 0
    # No server listens at the port 9 of this machine.
    return {"text": text, "run": run, "results": results, "nowhere": "http://127.0.0.1:9"}


@pytest.fixture
def two_variants(monkeypatch):
    monkeypatch.setattr("minillama.experiments.scheduler.variants", lambda *_: [{}, {"tied": True}])


@pytest.fixture(autouse=True)
def a_download(monkeypatch):
    files = (
        File("tiny.bin", "https://example.org/tiny.bin", 7, "0" * 64),
        File("words.bin", "https://example.org/words.bin"),
    )
    monkeypatch.setitem(downloads.DOWNLOADS, "tiny", downloads.Download(files, "minillama info {folder}"))


def snapshot(folder):
    """{path: content} of all files but locks, and whether each path is a folder."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix != ".lock"
    }


def filled_in(arguments, out, given):
    return [argument.format(out=out, **given) for argument in arguments]


CASES = [
    pytest.param(command, arguments, names, id=f"{command}-{i}", marks=needs_kernels if command == "bench" else ())
    for command, variants in WRITES.items()
    for i, (arguments, names) in enumerate(variants)
]


def subcommands(parser, prefix=""):
    """The names of all commands of the parser, with those below them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                inner = list(subcommands(below, f"{prefix}{name} "))
                yield from inner or [f"{prefix}{name}"]


def test_every_command_is_known_to_write_or_not_to():
    assert set(subcommands(whole_parser())) == WRITES.keys() | READS


@pytest.mark.parametrize("command, arguments, names", CASES)
def test_a_folder_full_of_foreign_files_stays_the_same_to_the_byte(command, arguments, names, given, cli, tmp_path):
    for content in CONTENTS:
        if command == "compare" and not content:
            continue  # to an empty file results may be added
        for name in names:
            (tmp_path / name).write_bytes(content)
        (tmp_path / "notes.txt").write_bytes(content)
        before = snapshot(tmp_path)
        code, _, err = cli(*command.split(), *filled_in(arguments, tmp_path, given))
        assert code == 1 and err.startswith("minillama: error: "), (content, err)
        assert "Traceback" not in err and (str(tmp_path) in err or "nofile" in err), (content, err)
        assert snapshot(tmp_path) == before, content


@pytest.mark.parametrize("command, arguments, names", CASES)
def test_each_of_the_files_alone_is_in_the_way_and_named(command, arguments, names, given, cli, tmp_path):
    for name in names:
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_bytes(b"of somebody else\n")
        code, _, err = cli(*command.split(), *filled_in(arguments, folder, given))
        assert code == 1 and (name in err or "nofile" in err), (name, err)
        assert snapshot(folder) == {name: b"of somebody else\n"}, name


@pytest.mark.parametrize("command, arguments, names", CASES)
def test_a_folder_in_the_place_of_a_file_is_named_too(command, arguments, names, given, cli, tmp_path):
    """Also where --overwrite is given, which replaces files alone."""
    (tmp_path / names[0] / "inside").mkdir(parents=True)
    before = snapshot(tmp_path)
    for more in ([], ["--overwrite"]):
        if more and command in ("compare", "download"):  # results are added to, what was received is compared
            continue
        code, _, err = cli(*command.split(), *filled_in(arguments, tmp_path, given), *more)
        assert code == 1 and "Traceback" not in err and snapshot(tmp_path) == before, err


OVERWRITE = {
    "train": [0],
    "convert": [0, 1, 2],
    "tokenizer train": [0],
    "inspect": [0],
    "table": [0],
    "ablate": [0, 2],
}


@pytest.mark.parametrize("command, i", [(command, i) for command, places in OVERWRITE.items() for i in places])
@pytest.mark.slow
def test_overwrite_replaces_what_the_command_made_before(command, i, given, cli, tmp_path, two_variants):
    arguments = [*command.split(), *filled_in(WRITES[command][i][0], tmp_path, given)]
    if command == "convert" and i:  # llama2.c has no tokenizer of characters; the text says so
        llama2c.save(tmp_path / "model.bin", Model(Config(9, dim=8, heads=2, layers=1, tied=True), threads=1))
    else:
        assert cli(*arguments)[0] == 0
    (tmp_path / "notes.txt").write_bytes(b"mine")
    made = snapshot(tmp_path)
    code, _, err = cli(*arguments)
    assert code == 1 and "--overwrite" in err and snapshot(tmp_path) == made
    code, _, err = cli(*arguments, "--overwrite")
    assert code == 0, err
    again = snapshot(tmp_path)
    assert again.keys() == made.keys() and again["notes.txt"] == b"mine"
    assert again["notes.txt"] == b"mine" and (command != "convert" or i == 0 or again["model.bin"] != made["model.bin"])


def test_results_are_added_to_and_nothing_else_is(given, cli, tmp_path, two_variants):
    """What `ablate` and `compare` made themselves they go on with, without being asked."""
    arguments = ["ablate", *filled_in(WRITES["ablate"][0][0], tmp_path, given)]
    assert cli(*arguments)[0] == 0
    before = (tmp_path / "results.jsonl").read_bytes()
    assert cli(*arguments, "--seeds", 2, "--overwrite")[0] == 0
    after = (tmp_path / "results.jsonl").read_bytes()
    assert after.startswith(before) and len(after) > len(before)
    for line in after.decode().splitlines():
        json.loads(line)


def test_a_model_is_not_converted_over_itself_nor_mixed_with_another(given, cli, tmp_path):
    code, _, err = cli("convert", given["run"], given["run"], "--overwrite")
    assert code == 1 and "written over itself" in err
    (tmp_path / "model.safetensors.index.json").write_bytes(b"{}")
    code, _, err = cli("convert", given["run"], tmp_path, "--overwrite")
    assert code == 1 and "belong to another model" in err
    assert snapshot(tmp_path) == {"model.safetensors.index.json": b"{}"}


def test_a_link_that_leads_nowhere_is_in_the_way(tmp_path):
    link = tmp_path / "link.png"
    try:
        link.symlink_to(tmp_path / "nothing")
    except OSError:
        pytest.skip("this system makes no links")
    with pytest.raises(FileExistsError, match="link.png is there already"):
        require_free([link])


@pytest.mark.parametrize("target", ["model", "model.bin"])
def test_a_model_stays_whole_where_the_new_one_cannot_be_written(target, given, cli, tmp_path, monkeypatch):
    """With --overwrite too: the last file fails, here the tokenizer."""
    assert cli("convert", given["run"], tmp_path / target)[0] == 0
    assert cli("train", "--data", given["text"], "--out", tmp_path / "other", *TINY, "--seed", 1)[0] == 0
    before = snapshot(tmp_path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minillama.tokenizers.CharTokenizer.save", fail)
    monkeypatch.setattr("minillama.checkpoint.llama2c.tokenizer_name", fail)
    monkeypatch.setattr("minillama.checkpoint.llama2c.check_tokenizer_place", lambda *_: None)
    monkeypatch.setattr("minillama.checkpoint.llama2c.tokenizer_bytes", lambda *_: b"words")
    code, _, err = cli("convert", tmp_path / "other", tmp_path / target, "--overwrite")
    assert code == 1 and ("No space left" in err or "disk is full" in err)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
@pytest.mark.parametrize("command, arguments, names", CASES)
def test_a_file_in_the_place_of_a_folder_is_named(command, arguments, names, overwrite, given, cli, tmp_path):
    """Before any work is done, and as what it is."""
    if command in ("compare", "download") and overwrite:
        pytest.skip("has no --overwrite")
    out = tmp_path / "mine.txt"
    out.write_text("words of mine")
    code, stdout, err = cli(*command.split(), *filled_in(arguments, out, given), *overwrite)
    assert (code, stdout) == (1, "") and f"{out} is a file and no folder" in err, err
    assert snapshot(tmp_path) == {"mine.txt": b"words of mine"}


def test_two_options_with_one_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    for other in ("bench.png", "a/../bench.png", str(tmp_path / "bench.png")):
        with pytest.raises(ValueError, match="written twice"):
            require_free(["bench.png", "loss.png", other])
    require_free(["bench.png", "a/bench.png"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such pipes")
def test_a_pipe_or_a_device_is_not_replaced(given, cli, tmp_path):
    """--figure /dev/null --overwrite, by a user who may, would leave the whole system without it."""
    os.mkfifo(tmp_path / "pipe")
    code, out, err = cli("table", "llama-7b", "--figure", tmp_path / "pipe", "--overwrite")
    assert (code, out) == (1, "") and "pipe is there already; nothing was changed" in err
    assert not (tmp_path / "pipe").is_file() and not (tmp_path / "pipe").is_dir()


@pytest.mark.parametrize("target, lock", [("model", "model/.convert.lock"), ("model.bin", ".model.bin.lock")])
def test_two_processes_do_not_convert_to_one_place(target, lock, given, cli, tmp_path, monkeypatch):
    """Their files would be mixed: the weights of one model and the config of the other."""
    with alone(tmp_path / lock, "writing"):
        code, _, err = cli("convert", given["run"], tmp_path / target, "--overwrite")
    assert code == 1 and "another process is writing a model to" in err and set(snapshot(tmp_path)) <= {"model"}

    def meanwhile(*_):  # another process has come and gone while the model was read
        (tmp_path / target).mkdir(exist_ok=True) if target == "model" else None
        path = tmp_path / target / "config.json" if target == "model" else tmp_path / target
        path.write_text("of another")

    monkeypatch.setattr("minillama.checkpoint.convert.load_tokenizer", meanwhile)
    code, _, err = cli("convert", given["run"], tmp_path / target)
    assert code == 1 and "is there already" in err
    assert [content for content in snapshot(tmp_path).values() if content is not None] == [b"of another"]


@pytest.mark.parametrize("out", [".", "folder"])
def test_the_rows_of_a_comparison_do_not_go_to_a_folder(out, given, cli, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    code, stdout, err = cli("compare", given["text"], "--context", "16", "--vocab-size", "280", "--out", out)
    assert (code, stdout) == (1, "") and f"{out} is a folder, and the rows go to a file" in err


def test_overwrite_is_offered_where_it_helps(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "b").mkdir()
    with pytest.raises(FileExistsError, match="give --overwrite to replace it"):
        require_free([tmp_path / "a"])
    with pytest.raises(FileExistsError, match="a, .*b are there already.*Choose another place$"):
        require_free([tmp_path / "a", tmp_path / "b"])
