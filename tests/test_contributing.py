"""CONTRIBUTING.md promises that a norm is one file and one row; here one is added to a copy of the package."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minillama
from minillama.config import SWITCHES

PEAKNORM = '''"""Normalisation by the largest magnitude."""

import numpy as np


def peaknorm(x, weight, eps):
    """y = weight * x / (max |x| + eps)"""
    scale = 1 / (np.abs(x).max(axis=-1, keepdims=True) + eps)
    return weight * (x * scale), scale


def peaknorm_backward(dy, x, weight, scale, dweight):
    """dx = scale * (g - sign(x_m) sum(g x) scale at m),   g = weight * dy,   m where |x| is largest"""
    g = weight * dy
    dweight += np.sum((dy * x * scale).reshape(-1, len(weight)), axis=0)
    m = np.abs(x).argmax(axis=-1, keepdims=True)
    through = np.sign(np.take_along_axis(x, m, -1)) * np.sum(g * x, axis=-1, keepdims=True) * scale**2
    dx = g * scale
    np.put_along_axis(dx, m, np.take_along_axis(dx, m, -1) - through, -1)
    return dx
'''


@pytest.mark.slow
def test_a_norm_is_one_file_and_one_row(tmp_path):
    source = Path(minillama.__file__).parent
    package = tmp_path / "minillama"
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).parent, tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "ops/norms/peaknorm.py").write_text(PEAKNORM, encoding="utf-8")
    table = package / "ops/norms/__init__.py"
    text = table.read_text(encoding="utf-8")
    row = '    "peaknorm": Norm(peaknorm, peaknorm_backward),\n'
    text = text.replace("NORMS = {\n", "NORMS = {\n" + row)
    text = text.replace(
        "from .rmsnorm import", "from .peaknorm import peaknorm, peaknorm_backward\nfrom .rmsnorm import"
    )
    table.write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "MINILLAMA_CACHE": str(tmp_path / "cache")}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
        )

    tests = run("-m", "pytest", "-q", "-k", "peaknorm and not numba", "tests/test_switches.py", "tests/test_ops.py")
    assert tests.returncode == 0, tests.stdout[-3000:]
    passed = int(tests.stdout.split(" passed")[0].split()[-1])
    assert passed >= 8, tests.stdout  # gradient of the op and of the model, shards, causality, cached decoding
    (tmp_path / "text.txt").write_text("to be or not to be " * 200, encoding="utf-8")
    options = "--data text.txt --tokenizer char --norm peaknorm --dim 16 --layers 1 --heads 2 --context 16 --steps 3"
    in_numpy = (  # a new norm has no kernel, and to compile the others for this copy takes a while
        "import sys; from minillama import backend, __main__\n"
        "with backend.use('numpy'): sys.exit(__main__.main(sys.argv[1:]))"
    )
    trained = run("-c", in_numpy, "train", "--out", "run", *options.split())
    assert trained.returncode == 0, trained.stderr
    variants = "from minillama.experiments.jobs import Protocol; from minillama.experiments.variants import variants"
    listed = run("-c", f"{variants}; print(variants(['leave-one-out'], Protocol().base(65)))")
    assert "{'norm': 'peaknorm'}" in listed.stdout, listed.stderr


# The swap of the layouts stands in the file of their table; "silu" is transformers' name there.
COMPARED = {
    ("ops/positions/rope.py", "source == 'interleaved'"),
    ("checkpoint/llama.py", "name == values.get('hidden_act', 'silu')"),
    ("lessons/lesson_04.py", "layout == 'interleaved'"),  # an exercise about these two layouts
}


def test_no_code_asks_for_a_choice_by_its_name():
    """What a choice does stands in its row; `if config.norm == "layernorm"` would be a second place to change."""
    names = {name for table in SWITCHES.values() for name in table}
    package, found = Path(minillama.__file__).parent, set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            subjects = [node] if isinstance(node, ast.Compare) else getattr(node, "cases", [])
            for subject in subjects:
                strings = {
                    c.value for c in ast.walk(subject) if isinstance(c, ast.Constant) and isinstance(c.value, str)
                }
                if strings & names:
                    found.add((path.relative_to(package).as_posix(), ast.unparse(subject)))
    assert found == COMPARED
