"""The list of operations that a network calls (minillama.ops.interface) against the backends, and against the calls."""

import ast
import inspect
from pathlib import Path

import pytest

import minillama
from minillama import Config, backend
from minillama.config import SWITCHES
from minillama.ops.interface import Operations

PACKAGE = Path(minillama.__file__).parent
LISTED = {name for name in vars(Operations) if not name.startswith("_")}
CALLERS = ["model.py", *sorted(path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "layers").rglob("*.py"))]


def arguments(function):
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("norm", SWITCHES["norm"])
@pytest.mark.parametrize("feed_forward", SWITCHES["feed_forward"])
def test_every_backend_has_the_operations_as_they_are_listed(each_backend, norm, feed_forward):
    op = backend.active(Config(11, dim=8, heads=2, norm=norm, feed_forward=feed_forward))
    assert op.name == each_backend and len(LISTED) > 15
    for name in LISTED:
        listed, found = arguments(getattr(Operations, name)), arguments(getattr(op, name))
        if name.startswith("activation"):  # gate and up have a name of their own in activations with a gate
            listed, found = len(listed), len(found)
        elif name == "norm_backward":  # what was saved has its own name in each norm
            listed, found = listed[:3] + listed[4:], found[:3] + found[4:]
        assert found == listed, name


@pytest.mark.parametrize("file", CALLERS)
def test_a_network_calls_no_operation_that_is_not_listed(file):
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    called = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "op"
    }
    assert called <= LISTED


def test_every_listed_operation_is_called_somewhere():
    source = "".join((PACKAGE / file).read_text(encoding="utf-8") for file in CALLERS)
    assert [name for name in sorted(LISTED) if f"op.{name}(" not in source] == []


@pytest.mark.parametrize("name", sorted(LISTED))
def test_the_place_that_is_named_has_the_operation(name):
    module = getattr(Operations, name).__doc__.split(":")[0].split(",")[0].rstrip(".")
    assert module.startswith("ops.")
    path = PACKAGE / f"{module.replace('.', '/')}.py"
    assert path.exists() or path.with_suffix("").is_dir()
    role = name.removesuffix("_backward") in {"norm", "activation"}
    assert role or f"\ndef {name}(" in path.read_text(encoding="utf-8")
