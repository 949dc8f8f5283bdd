"""Which function serves each operation: the NumPy specification, or its Numba kernel.

A backend is a namespace with one function for each operation, so model code says `op.linear(...)` and means either.
The operations are the public functions of the modules of minillama.ops. A module of the same name in
minillama.kernels holds kernels for some of its functions; an operation without a kernel runs as NumPy. A kernel called
fused_NAME does what a network wants of the operation NAME and what it wants next in one pass (`Norm.with_bias`).
The default is "numba" where Numba can be used and "numpy" elsewhere; kernels are imported, and compiled or read from
Numba's cache on disk, when they are first used. Where Numba is installed but switched off, broken or too old, a line on
standard error says so.
"""

import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace

from .messages import closest
from .ops.feedforward import FEED_FORWARDS
from .ops.norms import NORMS

BACKENDS = {"numpy": ("ops",), "numba": ("ops", "kernels")}
LEAST_NUMBA = 0, 60
_chosen = None  # a name of BACKENDS, a namespace, or None for the default


@cache
def missing_kernels():
    """Why the Numba kernels cannot run here, with what to do; None where they can."""
    if importlib.util.find_spec("numba") is None:
        return "Numba is not installed; pip install numba"
    try:
        numba = importlib.import_module("numba")
        version = tuple(map(int, re.findall(r"\d+", numba.__version__)[:2]))
        disabled = numba.config.DISABLE_JIT
    except Exception as error:  # whatever a broken installation raises: ImportError, OSError, AttributeError ...
        reason = " ".join(str(error).split())
        return f"Numba is installed but cannot be imported ({reason[:200]}); pip install --force-reinstall numba"
    if version < LEAST_NUMBA:
        least = ".".join(map(str, LEAST_NUMBA))
        return f"Numba {numba.__version__} is too old for them, {least} is needed; pip install --upgrade numba"
    return "NUMBA_DISABLE_JIT is set; unset it" if disabled else None


@cache
def _default():
    reason = missing_kernels()
    if reason is not None and importlib.util.find_spec("numba") is not None:  # without Numba nothing else was meant
        print(f"minillama: the NumPy operations run, as the kernels cannot: {reason}", file=sys.stderr)
    return "numba" if reason is None else "numpy"


@cache
def load(name):
    """The namespace of operations called "numpy" or "numba"; ValueError for "numba" where kernels cannot run."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; there are {', '.join(map(repr, BACKENDS))}")
    if "kernels" in BACKENDS[name] and missing_kernels() is not None:
        raise ValueError(f"the backend {name!r} cannot run its kernels: {missing_kernels()}")
    functions = {}
    for package in BACKENDS[name]:
        modules = _modules(package)
        for path, names in operations().items():
            if path in modules:
                module = importlib.import_module(modules[path])
                wanted = [*names, *(f"fused_{name}" for name in names)]
                functions.update({name: getattr(module, name) for name in wanted if hasattr(module, name)})
    return SimpleNamespace(name=name, **functions)


@cache
def operations():
    """{module, its path inside of minillama.ops: names of its operations}"""
    found = {}
    for path, full_name in _modules("ops").items():
        functions = inspect.getmembers(importlib.import_module(full_name), inspect.isfunction)
        names = [name for name, f in functions if f.__module__ == full_name and not name.startswith("_")]
        if names:
            found[path] = names
    return found


@cache
def _modules(package):
    """{path inside of the package: full name} of its modules."""
    root = importlib.import_module(f"{__package__}.{package}")
    infos = pkgutil.walk_packages(root.__path__, root.__name__ + ".")
    return {info.name.removeprefix(root.__name__ + "."): info.name for info in infos}


@cache
def _bound(name, config):
    return _with_roles(load(name), config)


def _with_roles(op, config):
    norm, norm_backward = NORMS[config.norm].with_bias(op)
    activation, activation_backward = (getattr(op, f.__name__) for f in FEED_FORWARDS[config.feed_forward][:2])
    return SimpleNamespace(
        **vars(op),
        norm=norm,
        norm_backward=norm_backward,
        activation=activation,
        activation_backward=activation_backward,
    )


def active(config=None):
    """The backend in use: what `use` or `replaced` asked for, or the default

    With a Config it has, besides all operations, those that the config chose under the names of their roles: `norm`,
    `norm_backward`, `activation` and `activation_backward`.
    """
    chosen = _chosen or _default()
    if isinstance(chosen, SimpleNamespace):
        return chosen if config is None else _with_roles(chosen, config)
    return load(chosen) if config is None else _bound(chosen, config)


@contextmanager
def use(name):
    """Inside this block every model computes with the backend called name."""
    load(name)
    with _choosing(name):
        yield


@contextmanager
def replaced(**functions):
    """Inside this block every model computes with the NumPy backend, and with these functions for its own operations

    For a function that is to be tried in a whole model: it has the arguments and results of the operation of its name
    in minillama.ops, and is called by as many threads as the model has. ValueError for a name that is no operation.
    """
    known = vars(load("numpy"))
    for name in functions:
        if name == "name" or name not in known:
            near = ", ".join(map(repr, closest(name, known, most=3)))
            raise ValueError(f"there is no operation {name!r}" + (f"; did you mean {near}?" if near else ""))
    with _choosing(SimpleNamespace(**{**known, **functions})):
        yield


@contextmanager
def _choosing(chosen):
    global _chosen
    before, _chosen = _chosen, chosen
    try:
        yield
    finally:
        _chosen = before
