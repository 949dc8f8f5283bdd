"""Which function serves each operation: the NumPy specification, or its Numba kernel.

A backend is a namespace with one function for each operation, so model code says `op.linear(...)` and means either.
The operations are the public functions of the modules of minillama.ops. A module of the same name in
minillama.kernels holds kernels for some of its functions; an operation without a kernel runs as NumPy.
The default is "numba" where Numba is installed and "numpy" elsewhere; kernels are imported, and compiled or read from
Numba's cache on disk, when they are first used.
"""

import importlib
import importlib.util
import inspect
import pkgutil
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace

from .ops.feedforward import FEED_FORWARDS
from .ops.norms import NORMS

BACKENDS = {"numpy": ("ops",), "numba": ("ops", "kernels")}
_chosen = None


@cache
def load(name):
    """The namespace of operations called "numpy" or "numba"."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; there are {', '.join(map(repr, BACKENDS))}")
    functions = {}
    for package in BACKENDS[name]:
        modules = _modules(package)
        for path, names in operations().items():
            if path in modules:
                module = importlib.import_module(modules[path])
                functions.update({name: getattr(module, name) for name in names if hasattr(module, name)})
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
    op = load(name)
    norm, feed_forward = NORMS[config.norm], FEED_FORWARDS[config.feed_forward]
    chosen = {
        "norm": norm.forward,
        "norm_backward": norm.backward,
        "activation": feed_forward.forward,
        "activation_backward": feed_forward.backward,
    }
    return SimpleNamespace(**vars(op), **{role: getattr(op, f.__name__) for role, f in chosen.items()})


def active(config=None):
    """The backend in use: what `use` asked for, or the default

    With a Config it has, besides all operations, those that the config chose under the names of their roles: `norm`,
    `norm_backward`, `activation` and `activation_backward`.
    """
    name = _chosen or ("numba" if importlib.util.find_spec("numba") else "numpy")
    return load(name) if config is None else _bound(name, config)


@contextmanager
def use(name):
    """Inside this block every model computes with the backend called name."""
    global _chosen
    load(name)
    before, _chosen = _chosen, name
    try:
        yield
    finally:
        _chosen = before
