"""CONTRIBUTING.md promises that a norm is one file and one row; here one is added to a copy of the package."""

import ast
from pathlib import Path

import pytest

import minillama
from minillama.config import SWITCHES

from .package_copy import PackageCopy

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
    copy = PackageCopy(tmp_path)
    copy.add("ops/norms/peaknorm.py", PEAKNORM)
    imports = "from .peaknorm import peaknorm, peaknorm_backward"
    copy.add_row("ops/norms/__init__.py", "NORMS", '"peaknorm": Norm(peaknorm, peaknorm_backward)', imports)
    # Gradient of the op and of the model, shards, causality, cached decoding.
    copy.passes("peaknorm", 8, "test_switches.py", "test_ops.py")
    copy.train("--norm", "peaknorm")
    variants = "from minillama.experiments.jobs import Protocol; from minillama.experiments.variants import variants"
    listed = copy.python("-c", f"{variants}; print(variants(['leave-one-out'], Protocol().base(65)))")
    assert "{'norm': 'peaknorm'}" in listed.stdout
    assert copy.touched == {"ops/norms/peaknorm.py", "ops/norms/__init__.py"}


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
