"""A command is one file and one row; no command waits for what another one imports."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import minillama
from minillama.cli.commands import COMMANDS
from minillama.messages import closest, near

from .package_copy import PackageCopy

PACKAGE = Path(minillama.__file__).parent
COUNT = '''"""minillama count: how many characters text files have."""

from pathlib import Path

from .options import with_default


def add_arguments(parser):
    parser.add_positional("files", also=("file", "data"), nargs="+", metavar="FILE", help="text files")
    parser.add_argument("--least", type=int, default=0, metavar="N", help=with_default("to be shown", 0))
    parser.add_argument("--total-only", action="store_true", help="leave out those of each file")


def run(options):
    counts = {file: len(Path(file).read_text(encoding="utf-8")) for file in options.files}
    if not any(counts.values()):
        raise ValueError("the files are empty")
    for file, count in counts.items():
        if not options.total_only and count >= options.least:
            print(file, count)
    print("total", sum(counts.values()))


def _of_each(options):
    if options.total_only:
        return "with --total-only no file is shown"


IDLE = [(("least",), _of_each)]
'''


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package that has a command more."""
    copy = PackageCopy(tmp_path_factory.mktemp("copy"))
    copy.add("cli/count.py", COUNT)
    copy.add_row("cli/commands.py", "COMMANDS", '"count": Command("count", "how many characters text files have")')
    (copy.folder / "a.txt").write_text("abc", encoding="utf-8")
    (copy.folder / "b.txt").write_text("", encoding="utf-8")
    return copy


@pytest.mark.parametrize(
    "line, code, words",
    [
        ("count a.txt b.txt --least 1", 0, "a.txt 3\ntotal 3\n"),
        ("--help", 0, "how many characters text files have\n"),
        ("count --help", 0, "--least N to be shown (default: 0)"),
        ("count b.txt", 1, "minillama: error: the files are empty\n"),
        ("count nofile", 1, "minillama: error: [Errno 2] No such file or directory: 'nofile'\n"),
        ("count a.txt --least 2 --total-only", 1, "--least has no effect here: with --total-only no file is shown"),
        ("cuont a.txt", 2, "there is no command 'cuont'; did you mean count or convert?"),
        ("count --data a.txt", 2, "FILE is given without one, as in minillama count a.txt"),
        ("count a.txt --lest 3", 2, "there is no option --lest; did you mean --least?"),
        ("sample x --total-only", 2, "there is no option --total-only of sample, but of count;"),
    ],
)
def test_a_command_is_one_file_and_one_row(line, code, words, copy):
    done = copy.python("-m", "minillama", *line.split(), code=code, COLUMNS="1000")
    said = " ".join((done.stdout + done.stderr).split())
    assert " ".join(words.split()) in said, done.stdout + done.stderr
    assert copy.touched == {"cli/count.py", "cli/commands.py"}


def test_the_tests_of_all_commands_are_its_tests(copy):
    """Near names, missing values and descriptions are tested over the table, with the new command in it."""
    which = "nearly_right or missing_value or word_too_many or hints or another_type or described"
    done = copy.python(
        "-m", "pytest", "-q", "-k", which, "tests/test_arguments.py", "tests/test_cli.py", COLUMNS="1000"
    )
    assert "6 passed" in done.stdout, done.stdout[-3000:]


# What is imported


def modules_after(*words):
    """The modules that are there when a command has been run in a new process."""
    code = (
        "import sys\nfrom minillama.__main__ import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('MODULES', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("MODULES ")[1].split())


FILES = {f"minillama.cli.{row.module}" for row in COMMANDS.values() if row.module is not None}


@pytest.mark.parametrize("line", ["--version", "--help", "", "tokenizer --help", "trian"])
def test_what_needs_no_command_imports_neither_numpy_nor_the_model(line):
    loaded = modules_after(*line.split())
    assert not loaded & {"numpy", "numba", "safetensors", "tqdm", "matplotlib", "torch"}
    ours = {name for name in loaded if name.startswith("minillama.")}
    assert {name.split(".")[1] for name in ours} == {"__main__", "cli", "messages"} and not ours & FILES, ours


@pytest.mark.parametrize("line", [line for line, row in COMMANDS.items() if row.module is not None])
def test_help_of_a_command_imports_no_other_command_and_nothing_that_is_slow(line):
    loaded = modules_after(*line.split(), "--help")
    assert loaded & FILES == {f"minillama.cli.{COMMANDS[line].module}"}
    assert not loaded & {"numba", "matplotlib", "torch", "multiprocessing.pool", "jupyter_client"}


def test_version_and_help_come_at_once():
    for word in ("--version", "--help"):
        seconds = []
        for _ in range(5):
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-m", "minillama", word], capture_output=True, check=True)
            seconds.append(time.perf_counter() - begin)
        assert min(seconds) < 1, seconds  # on an idle machine less than 0.2


def in_new_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")


def test_the_package_is_imported_when_it_is_used():
    code = "import sys, minillama; assert 'numpy' not in sys.modules; print(*dir(minillama)); print(minillama.__all__)"
    done = in_new_process(code)
    assert done.returncode == 0 and set(minillama.__all__) <= set(done.stdout.splitlines()[0].split()), done.stderr
    for name in minillama.__all__:
        assert in_new_process(f"from minillama import {name}; assert {name} is not None").returncode == 0, name
    assert in_new_process("from minillama import *; Config(65), Model, load, PRESETS, IGNORED").returncode == 0
    assert in_new_process("import minillama; minillama.backend.use, minillama.catalogue").returncode == 0
    for name in ("nothing", "__wrapped__", "a.b", "1"):
        assert not hasattr(minillama, name)
    done = in_new_process("from minillama import Modell")
    assert done.returncode == 1 and "ImportError: cannot import name 'Modell' from 'minillama'" in done.stderr


# Names that are nearly right


def test_what_a_name_may_have_meant_is_worked_out_in_one_place():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {path.relative_to(PACKAGE).as_posix()} if "difflib" in names else set()
    assert found == {"messages.py"}


def test_near_names():
    assert closest("KV_HEAD", ["dim", "heads", "kv_heads"]) == ["kv_heads"]
    assert closest("encod", ["train", "encode", "decode"], 3) == ["encode", "decode"]
    assert closest("encod", ["train", "Encode", "decode"]) == ["Encode"] and closest("x", ["dim"]) == []
    assert near("LLAMA", ["gpt2", "llama"]) == ["llama"] and near("llama", ["llama-7b", "llama-13b", "x"]) != []
    assert near("lama-7", ["llama-7b", "gpt2"]) == ["llama-7b"] and near("", ["dim"]) == []
    with pytest.raises(ValueError, match="no field 'DIM'; did you mean 'dim'"):
        minillama.Config.from_dict({"vocab_size": 65, "DIM": 3})
