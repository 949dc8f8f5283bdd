"""The types of what users of the package meet: all there, resolvable, and right in the eyes of mypy."""

import inspect
import os
import subprocess
import sys
import typing
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from numpy.typing import DTypeLike

import minillama
from minillama.tokenizers import Tokenizer
from tests import typing_example

PACKAGE = Path(minillama.__file__).parent
EXAMPLE = Path(typing_example.__file__)
SURFACE = {  # {module: the names in it; None: all that its __all__ names, or that it defines itself}
    "minillama": None,
    "minillama.analysis.perplexity": None,
    "minillama.analysis.trace": None,
    "minillama.catalogue.presets": None,
    "minillama.config": None,
    "minillama.data.corpora": None,
    "minillama.generation.generate": None,
    "minillama.gradcheck": None,
    "minillama.runtime.memory": ["Store"],
    "minillama.tokenizers": None,
    "minillama.training.clipping": None,
    "minillama.training.optimizers": None,
    "minillama.training.run": None,
    "minillama.training.schedules": None,
    "minillama.training.trainer": None,
    "minillama.weights": ["Weights"],
    "minillama.weights.quantize": None,
}
# Names that annotations have from imports for type checkers alone.
FOR_CHECKERS = {"Model": minillama.Model, "Tokenizer": Tokenizer, "DTypeLike": DTypeLike}


def named(module):
    """The public functions and classes of a module of the surface, by name."""
    module = import_module(module)
    names = SURFACE[module.__name__] or getattr(module, "__all__", None)
    if names is None:
        names = [
            name for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]  # fmt: skip
    found = {name: getattr(module, name) for name in names}
    return {name: value for name, value in found.items() if inspect.isfunction(value) or inspect.isclass(value)}


def functions(name, value):
    """{name: function} of a function, or of the public methods and properties of a class and those that it inherits."""
    if inspect.isfunction(value):
        return {name: value}
    found = {}
    for owner in reversed(value.__mro__):
        if not owner.__module__.startswith("minillama"):
            continue
        for method, member in vars(owner).items():
            if isinstance(member, (classmethod, staticmethod)):
                member = member.__func__
            elif isinstance(member, property):
                member = member.fget
            elif isinstance(member, cached_property):
                member = member.func
            written = inspect.isfunction(member) and Path(member.__code__.co_filename).is_relative_to(PACKAGE)
            if written and (method == "__init__" or not method.startswith("_")):
                found[f"{name}.{method}"] = member
    return found


def lacking(name, function):
    """[what of a function has no annotation]"""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    bare = [f"{name}({each.name})" for each in parameters if each.annotation is each.empty]
    no_return = signature.return_annotation is signature.empty and not name.endswith("__init__")
    return bare + ([f"{name} ->"] if no_return else [])


ALL = [(module, name, value) for module in SURFACE for name, value in named(module).items()]


def test_the_surface_is_found():
    exported = {name for module, name, _ in ALL if module == "minillama"}
    assert exported == {"Config", "LayerAlone", "Model", "load", "save"}  # the other two of __all__ are data
    assert {"Trainer", "Settings", "NotFinite", "evaluate", "Run", "AdamW", "SGD", "learning_rate"} <= {
        name for _, name, _ in ALL
    }
    methods = functions("Model", minillama.Model)
    assert {"Model.__init__", "Model.dtype", "Model.logits", "Model.loss_and_gradients"} <= methods.keys()
    assert "Run.step" in functions("Run", dict((name, value) for _, name, value in ALL)["Run"])  # inherited


@pytest.mark.parametrize("module, name, value", ALL, ids=[f"{module}.{name}" for module, name, _ in ALL])
def test_everything_is_annotated(module, name, value):
    for each, function in functions(name, value).items():
        assert lacking(each, function) == []
        typing.get_type_hints(function, localns=FOR_CHECKERS)  # NameError for a name that there is not
    if inspect.isclass(value):
        typing.get_type_hints(value, localns=FOR_CHECKERS)


def test_what_lacks_an_annotation_is_found():
    def function(a: int, b, *c: int, d=1) -> int: ...

    def other(self, a: int): ...

    assert lacking("function", function) == ["function(b)", "function(d)"]
    assert lacking("other", other) == ["other ->"]


def test_the_package_says_that_it_has_types():
    assert (PACKAGE / "py.typed").read_bytes() == b""


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINILLAMA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 50, encoding="utf-8")
    typing_example.main(tmp_path, tmp_path / "text.txt")
    assert "nan" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed (extra dev)")
@pytest.mark.parametrize("settings", ["own", "of a user"])
def test_mypy_strict_passes_on_a_program_that_uses_the_package(tmp_path, settings):
    """With the settings of this project, and with those of a user, who has none of it; of the package only the surface
    is looked at."""
    (tmp_path / "none.ini").write_text("[mypy]\n", encoding="utf-8")
    config = PACKAGE.parent / "pyproject.toml" if settings == "own" else tmp_path / "none.ini"
    words = ["--strict", "--follow-imports=silent", "--config-file", config, "--cache-dir", tmp_path / "cache", EXAMPLE]
    environment = {**os.environ, "MYPYPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *map(str, words)],
        cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
