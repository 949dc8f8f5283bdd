"""Which function serves each operation: the NumPy specification, or its Numba kernel.

A backend is a namespace with one function for each operation, so model code says `op.rmsnorm(...)` and means either.
The default is "numba" where Numba is installed and "numpy" elsewhere; kernels are imported, and compiled or read from
Numba's cache on disk, when they are first used.
"""

import importlib
import importlib.util
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace

# Each operation with the module of minillama.ops that holds it. The module of the same name in minillama.kernels, where
# there is one, holds its kernels; an operation without a kernel runs as NumPy.
OPERATIONS = {
    "embedding": ("embedding", "embedding_backward"),
    "linear": ("linear", "linear_backward"),
    "norms": ("rmsnorm", "rmsnorm_backward"),
    "positions": ("rope", "rope_backward"),
    "attention": ("attention", "attention_backward"),
    "feedforward": ("swiglu", "swiglu_backward"),
    "loss": ("cross_entropy", "cross_entropy_backward"),
    "dropout": ("dropout",),
    "adamw": ("adamw",),
    "decoding": ("decode",),
    "sampling": ("softmax_weights", "draw"),
}

_chosen = None


@cache
def load(name):
    """The namespace of operations called "numpy" or "numba"."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; there are {', '.join(map(repr, BACKENDS))}")
    functions = {}
    for package in BACKENDS[name]:
        for module_name, operations in OPERATIONS.items():
            path = f"{__package__}.{package}.{module_name}"
            if package == "ops" or importlib.util.find_spec(path):
                module = importlib.import_module(path)
                functions.update({name: getattr(module, name) for name in operations if hasattr(module, name)})
    return SimpleNamespace(name=name, **functions)


BACKENDS = {"numpy": ("ops",), "numba": ("ops", "kernels")}


def active():
    """The backend in use: what `use` asked for, or the default."""
    return load(_chosen or ("numba" if importlib.util.find_spec("numba") else "numpy"))


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
