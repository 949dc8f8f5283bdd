"""Where people run it: without kernels, without caches, with closed streams, with names that are no text."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minillama
from minillama import backend

from .conftest import needs_kernels

PACKAGE = Path(minillama.__file__).parent
WAIT = 300  # seconds


def python(*arguments, environment=None, path=(PACKAGE.parent,), **options):
    """The finished process python ARGUMENTS that imports from path; variables that are None are not set."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), **(environment or {})}
    variables = {name: str(value) for name, value in variables.items() if value is not None}
    options = {"cwd": path[0], "capture_output": True, "timeout": WAIT, "encoding": "utf-8", **options}
    return subprocess.run([sys.executable, *arguments], env=variables, **options)


# Kernels

COMPUTE = """
import numpy as np
from minillama import Config, Model, backend
model = Model(Config(vocab_size=16, dim=8, layers=1, heads=1, context=8), threads=1)
for _ in range(2):
    logits = model.logits(np.arange(6)[None])
print(backend.active().name, repr(float(logits.sum())))
"""
LAST_OF_RELEASE = ".".join(map(str, (*backend.LEAST_NUMBA[:-1], backend.LEAST_NUMBA[-1] - 1, 9)))
BROKEN = {
    "disabled": (None, {"NUMBA_DISABLE_JIT": "1"}, "NUMBA_DISABLE_JIT is set; unset it"),
    "broken": (
        "raise ImportError('Numba needs\\nNumPy 2.2 or less')",
        {},
        "cannot be imported (Numba needs NumPy 2.2 or",
    ),
    "half there": ("from . import errors", {}, "Numba is installed but cannot be imported (cannot import name"),
    "empty": ("", {}, "Numba is installed but cannot be imported (module 'numba' has no attribute '__version__')"),
    "old": (
        f"__version__ = '{LAST_OF_RELEASE}'\nclass config: DISABLE_JIT = 0",
        {},
        f"Numba {LAST_OF_RELEASE} is too old for them, {'.'.join(map(str, backend.LEAST_NUMBA))} is needed",
    ),
}


def python_with_numba(tmp_path, kind, *arguments):
    """What a process gives whose Numba is that of a row of BROKEN, and the reason that it must name."""
    source, environment, reason = BROKEN[kind]
    if source is not None:
        (tmp_path / "numba").mkdir()
        (tmp_path / "numba" / "__init__.py").write_text(source)
    elif backend.missing_kernels() is not None:
        pytest.skip("there are no kernels here to switch off")
    return python(*arguments, environment=environment, path=[tmp_path, PACKAGE.parent]), reason


@pytest.mark.parametrize("kind", BROKEN)
def test_without_kernels_the_numpy_operations_run_and_one_line_says_why(tmp_path, kind):
    done, reason = python_with_numba(tmp_path, kind, "-c", COMPUTE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("numpy ") and done.stdout.count("\n") == 1
    assert done.stderr.startswith("minillama: the NumPy operations run, as the kernels cannot: ")
    assert reason in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", BROKEN)
def test_what_needs_kernels_says_why_it_cannot_run(tmp_path, kind):
    done, reason = python_with_numba(tmp_path, kind, "-m", "minillama", "bench")
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("minillama: error: bench measures the Numba kernels, which cannot run here: ")
    assert reason in done.stderr
    shutil.rmtree(tmp_path / "numba", ignore_errors=True)
    done, reason = python_with_numba(tmp_path, kind, "-c", "from minillama import backend; backend.load('numba')")
    assert done.returncode == 1 and "ValueError: the backend 'numba' cannot run its kernels: " in done.stderr
    assert reason in done.stderr


USE_A_KERNEL = """
import numpy as np
from minillama import backend
print(backend.load("numba").widen_bfloat16(np.full((2, 3), 0x3F80, np.uint16)).sum())
"""


@needs_kernels
@pytest.mark.parametrize("variable", ["unset", "impossible", "possible"])
def test_kernels_run_where_their_compiled_form_cannot_be_kept(tmp_path, variable):
    """A copy of the package in whose folders nothing can be made, for whom ever, and a home like that."""
    shutil.copytree(PACKAGE, tmp_path / "minillama", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [tmp_path / "minillama", *(tmp_path / "minillama").rglob("*/")]:
        if folder.is_dir():
            (folder / "__pycache__").write_text("in the way")
    (tmp_path / "home").write_text("in the way")
    places = {"unset": None, "impossible": tmp_path / "home" / "cache", "possible": tmp_path / "kept"}
    environment = {"HOME": tmp_path / "home", "USERPROFILE": tmp_path / "home", "LOCALAPPDATA": tmp_path / "home"}
    environment |= {"XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": places[variable]}
    done = python("-c", USE_A_KERNEL, environment=environment, path=[tmp_path])
    assert (done.returncode, done.stdout) == (0, "6.0\n"), done.stderr
    if variable == "possible":
        assert done.stderr == "" and any(places[variable].iterdir())
    else:
        assert done.stderr.count("\n") == 1 and "NUMBA_CACHE_DIR names a folder for them" in done.stderr


# Streams and names


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A text and a model that was trained on it; their names are not UTF-8 where the system has such names."""
    folder = tmp_path_factory.mktemp("places")
    odd = os.fsdecode(b"\xff\xe9") if sys.platform.startswith("linux") else "odd"
    text, model = folder / f"text{odd}.txt", folder / f"run{odd}"
    text.write_text("the llama and the other llama. " * 60)
    done = command("", "train", "--data", text, "--out", model, "--steps", "2", "--tokenizer", "char", *TINY)
    assert done.returncode == 0, done.stderr
    return text, model


TINY = "--dim 8 --layers 1 --heads 1 --context 8 --batch-size 2 --threads 1".split()


def command(closed, *arguments, **options):
    """The finished process of a command; closed: numbers of streams that it starts without, as after a shell's <&-"""

    def close():
        for stream in map(int, closed):
            os.close(stream)

    return python("-m", "minillama", *map(str, arguments), preexec_fn=close if closed else None, cwd=None, **options)


# {command: its arguments for a text, a model, and a folder to write in}; each has all the paths that it takes
COMMANDS = {
    "train": lambda text, model, out: ["--data", text, "--out", out, "--steps", 1, "--tokenizer", "char", *TINY],
    "train --resume": lambda text, model, out: ["--out", shutil.copytree(model, out)],
    "sample": lambda text, model, out: [model, "--prompt", "the", "--max-tokens", 3],
    "info": lambda text, model, out: [model],
    "perplexity": lambda text, model, out: [model, text],
    "inspect": lambda text, model, out: [model, "--prompt", "the", "--out", out],
    "convert": lambda text, model, out: [model, out],
    "tokenizer train": lambda text, model, out: [text, "--vocab-size", 270, "--out", out],
    "tokenizer encode": lambda text, model, out: [model, "the"],
    "tokenizer decode": lambda text, model, out: [model, 3, 4],
    "table": lambda text, model, out: ["llama-7b", "--figure", out / "figure.png"],
}
each_command = pytest.mark.parametrize("name", COMMANDS)
posix = pytest.mark.skipif(os.name == "nt", reason="Windows starts no process without streams")


def of_command(name, trained, tmp_path):
    return [*name.split(), *COMMANDS[name](*trained, tmp_path / trained[1].name)]


@each_command
@pytest.mark.slow
def test_names_that_are_not_utf8_work_everywhere(trained, tmp_path, name):
    done = command("", *of_command(name, trained, tmp_path))
    assert done.returncode == 0, done.stderr
    written = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert bool(written) == (str(tmp_path) in str(done.args)) and all(size for size in written)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("table", "train --resume")])
def test_a_missing_file_whose_name_is_not_utf8_is_named_with_escapes(trained, tmp_path, name):
    missing = tmp_path / trained[0].name
    done = command("", *name.split(), *COMMANDS[name](missing, missing, tmp_path / "out"))
    assert done.returncode == 1 and done.stderr.startswith("minillama: error: ") and "Traceback" not in done.stderr
    assert ("text\\udcff\\udce9" if "\udcff" in missing.name else missing.name) in done.stderr


@posix
@each_command
@pytest.mark.slow
def test_a_closed_standard_input_matters_to_nobody_who_does_not_read_it(trained, tmp_path, name):
    expected = command("", *of_command(name, trained, tmp_path / "a"))
    done = command("0", *of_command(name, trained, tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    if not any((tmp_path / "b").glob("*")):  # what is written is named in what is said
        assert done.stdout == expected.stdout


@posix
@pytest.mark.parametrize("arguments", [["chat"], ["tokenizer", "encode"], ["tokenizer", "decode"]])
@pytest.mark.parametrize("closed", ["0", "02", "012"])
@pytest.mark.slow
def test_who_reads_a_closed_standard_input_says_so(trained, arguments, closed):
    done = command(closed, *arguments, trained[1])
    assert done.returncode == 1 and done.stdout == ""
    if "2" not in closed:
        assert done.stderr.startswith("minillama: error: standard input is closed") and done.stderr.count("\n") == 1


@posix
@each_command
@pytest.mark.parametrize("closed", ["1", "012"])
@pytest.mark.slow
def test_without_standard_output_nothing_is_begun(trained, tmp_path, name, closed):
    arguments = of_command(name, trained, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = command(closed, *arguments)
    assert done.returncode == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    if closed == "1":
        assert done.stderr.startswith("minillama: error: standard output is closed") and done.stderr.count("\n") == 1


@posix
@each_command
@pytest.mark.slow
def test_a_closed_standard_error_changes_nothing(trained, tmp_path, name):
    done = command("2", *of_command(name, trained, tmp_path))
    assert done.returncode == 0 and done.stderr == ""
    (tmp_path / "a").mkdir(exist_ok=True)
    assert command("2", "info", tmp_path / "nothing").returncode == 1


@posix
def test_the_number_of_a_closed_stream_goes_to_no_file(tmp_path):
    """What a library writes to number 2 would go into the file that has it."""
    program = (
        "import os, sys; from minillama.cli import streams; streams.prepare('test')\n"
        f"with open({str(tmp_path / 'file')!r}, 'w') as file: number = file.fileno()\n"
        "sys.exit(10 + number)"
    )
    for closed in ("0", "2", "02"):
        done = python("-c", program, preexec_fn=lambda closed=closed: [os.close(int(number)) for number in closed])
        assert done.returncode > 12, closed


@pytest.mark.slow
def test_a_report_on_a_text_whose_name_is_not_utf8_is_written(trained, tmp_path):
    """Also by matplotlib, which takes no such name in a title."""
    options = "--dim 8 --layers 1 --heads 2 --context 8 --steps 2 --batch-size 2 --seeds 2 --jobs 1".split()
    done = command("", "ablate", "ladder", "--corpora", trained[0], "--out", tmp_path / "results", *options)
    assert done.returncode == 0, done.stderr
    assert "\\udcff" in (tmp_path / "results" / "report.md").read_text(encoding="utf-8")
    assert (tmp_path / "results" / "ablation-ladder.png").is_file()
