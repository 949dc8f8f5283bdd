"""The length of a gradient, and clipping: a gradient that is longer than a limit is shortened to it."""

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from ..runtime.memory import Store
from ..runtime.workers import Workers

_ADDED = 1e-6  # to the length that clip_gradients divides by, as in PyTorch


def gradient_norm(gradients: Store, workers: Workers) -> float:
    """The Euclidean norm of all gradients of a Store as one vector, a share of the sum on each worker."""
    flat = gradients.flat
    return sqrt(sum(workers.run(lambda _, s: float(np.dot(flat[s], flat[s])), workers.split(len(flat)))))


def clip_scale(norm: float, limit: float) -> float:
    """min(1, limit / norm): the factor that shortens a gradient to at most `limit`; 1 where that is 0, clipping off

    An optimizer takes it as `scale` and multiplies as it reads, so that no pass over the gradients is needed for it.
    Source: Pascanu et al. 2013 (arXiv 1211.5063), algorithm 1.
    """
    return min(1.0, limit / norm) if norm > 0 and limit > 0 else 1.0


def clip_gradients(arrays: Mapping[str, np.ndarray] | Iterable[np.ndarray], limit: float) -> float:
    """Multiply all arrays by min(1, limit / (norm + 1e-6)), in place; returns norm, their length as one vector before

    arrays: a mapping {name: array}, a Store among them, or arrays one after the other. The 1e-6 is that of PyTorch's
    torch.nn.utils.clip_grad_norm_: what is clipped comes out shorter than the limit by about that, where `clip_scale`
    meets it. The squares are added up in float64. ValueError for a limit that is not above 0 and for a norm that is
    infinite or not a number, which would make all gradients so, and for what cannot be changed in place: no array of
    floating-point numbers, a read-only one, the same array twice. Then nothing is changed.
    """
    if not limit > 0:
        raise ValueError(f"limit, the length that is allowed, must be above 0; received {limit}")
    arrays = list(arrays.values() if hasattr(arrays, "values") else arrays)
    for i, array in enumerate(arrays):
        _check_changeable(i, array, arrays[:i])
    norm = sqrt(sum(float(np.sum(np.square(array, dtype=np.float64))) for array in arrays))
    if not np.isfinite(norm):
        raise ValueError(f"the gradients have the length {norm}, and none is left that could be clipped")
    scale = limit / (norm + _ADDED)
    if scale < 1:
        for array in arrays:
            array *= scale
    return norm


def _check_changeable(i: int, array: Any, before: Sequence[np.ndarray]) -> None:
    """ValueError where the array of index i cannot be multiplied in place, once."""
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(
            f"arrays must be several arrays of floating-point numbers, to be changed in place; number {i} is {kind}. "
            f"A single array goes into a list"
        )
    if not array.flags.writeable:
        raise ValueError(f"arrays are changed in place, and number {i} cannot be: it is read-only; give a copy")
    if any(array is other for other in before):
        raise ValueError(f"array number {i} is there twice and would be shortened twice; give each array once")
