"""The wheel in an environment of its own, and from a folder that knows no clone: what it brings and what works there.

python -m build && python -m venv build/core && build/core/bin/pip install dist/minillama-*.whl
MINILLAMA_WHEEL=build/core/bin/python python -m pytest tests/test_wheel.py
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import minillama

PYTHON = os.path.abspath(os.environ.get("MINILLAMA_WHEEL", ""))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "MINILLAMA_WHEEL" not in os.environ,
        reason="MINILLAMA_WHEEL names no Python of an environment that has the wheel alone (.ci/run makes one)",
    ),
]

INSTALLED = """
import importlib.metadata as metadata, json, sys
import minillama
loaded = sorted({name.partition(".")[0] for name in sys.modules})
files = [str(path) for path in metadata.files("minillama")]
names = sorted(each.metadata["Name"].lower() for each in metadata.distributions())
print(json.dumps([minillama.__file__, minillama.__version__, loaded, files, names, sys.prefix]))
"""
SHAPE = "--tokenizer char --dim 16 --layers 1 --heads 2 --context 16 --batch-size 4 --steps 20".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "text.txt").write_text("the llama and the other llama. " * 60, encoding="utf-8")
    return folder


def run(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [PYTHON, *map(str, arguments)]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, encoding="utf-8")


def test_it_brings_the_package_and_the_dependencies_of_the_core_alone(folder):
    done = run(folder, "-c", INSTALLED)
    assert done.returncode == 0, done.stderr
    file, version, loaded, files, names, prefix = json.loads(done.stdout)
    assert Path(file).is_relative_to(prefix) and version == minillama.__version__
    assert not {"numba", "matplotlib", "tqdm", "filelock"} & set(loaded)  # imported when they are needed
    places = {re.sub(r"^minillama-.*\.dist-info", "info", path.replace("\\", "/")).split("/")[0] for path in files}
    assert places <= {"minillama", "info", "..", "bin", "Scripts"}, places
    assert "minillama/py.typed" in {path.replace("\\", "/") for path in files}  # its types are for others to use
    core = {"filelock", "llvmlite", "minillama", "numba", "numpy", "threadpoolctl", "tqdm"}
    assert set(names) - {"pip", "setuptools", "wheel"} == core


def test_every_module_of_the_clone_is_in_it(folder):
    package = Path(minillama.__file__).parent
    files = json.loads(run(folder, "-c", INSTALLED).stdout)[3]
    there = {path.replace("\\", "/") for path in files if path.endswith(".py")}
    assert there == {path.relative_to(package.parent).as_posix() for path in package.rglob("*.py")}


def test_it_trains_and_goes_on(folder):
    done = run(folder, "-m", "minillama", "train", "--data", "text.txt", "--out", "run", *SHAPE)
    assert done.returncode == 0, done.stderr
    assert "validation loss" in done.stdout and 'pip install "minillama[plots]"' in done.stdout
    for arguments in (
        ["sample", "run", "--prompt", "the", "--max-tokens", "5"],
        ["info", "run"],
        ["table", "llama-7b"],
        ["perplexity", "run", "text.txt"],
        ["convert", "run", "other"],
        ["train", "--out", "run", "--resume"],
    ):
        done = run(folder, "-m", "minillama", *arguments)
        assert done.returncode == 0 and done.stdout, (arguments, done.stderr)


@pytest.mark.parametrize("name", ["minillama", "minillama.exe"])
def test_the_command_is_there(folder, name):
    script = Path(PYTHON).with_name(name)
    if not script.exists():
        pytest.skip(f"no {name} on this system")
    done = subprocess.run([script, "--version"], cwd=folder, capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and minillama.__version__ in done.stdout


def test_the_lessons_tools_say_what_they_need(folder):
    assert "rmsnorm" in run(folder, "-m", "minillama.lessons", "exercises").stdout
    done = run(folder, "-m", "minillama.lessons", "lint")
    assert done.returncode == 1 and 'pip install "minillama[lessons]"' in done.stderr
    assert "Traceback" not in done.stderr
