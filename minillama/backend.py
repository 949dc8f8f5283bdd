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

# Each operation with the module that holds it, in minillama.ops and (where listed below) in minillama.kernels.
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
}

_chosen = None


@cache
def load(name):
    """The namespace of operations called "numpy" or "numba"."""
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; there are {', '.join(map(repr, BACKENDS))}")
    package = f"{__package__}.{BACKENDS[name]}"
    functions = {}
    for module_name, operations in OPERATIONS.items():
        module = importlib.import_module(f"{package}.{module_name}")
        functions.update({operation: getattr(module, operation) for operation in operations})
    return SimpleNamespace(name=name, **functions)


BACKENDS = {"numpy": "ops", "numba": "kernels"}


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
