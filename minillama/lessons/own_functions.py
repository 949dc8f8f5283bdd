"""The reader's own functions of lessons 02 to 07, fetched for lesson 08; a working one where theirs does not pass."""

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ..ops.attention import attention, attention_backward, attention_map
from ..ops.feedforward import swiglu_backward
from ..ops.linear import linear_backward
from ..ops.loss import IGNORED, cross_entropy, cross_entropy_backward
from ..ops.norms import rmsnorm, rmsnorm_backward
from ..ops.positions.rope import rope_frequencies, rotated
from .checks import EXERCISES, check
from .notebooks import read
from .sittings import tags


def fetch(folder="."):
    """A namespace with a function for each name of WORKING, and a line on each, printed

    The function is that of the exercise's cell in the notebook of its lesson in this folder, where it passes its check;
    otherwise the one of WORKING. Of several notebooks of a lesson the one with the shortest name counts: copies have
    longer ones. Of its cells the first one with code, its imports, is executed here, and the exercises up to this one,
    whose functions it may call.
    """
    found = {}
    for name, working in WORKING.items():
        own, said = _from_notebook(name, Path(folder))
        found[name] = own or working
        print(f"{EXERCISES[name].lesson} {name:26} {'yours' if own else 'a working one'}: {said}")
    return SimpleNamespace(**found)


def _from_notebook(name, folder):
    """The reader's function, or None, and what there is to say of it."""
    lesson = EXERCISES[name].lesson
    path = min(folder.glob(f"{lesson}-*.ipynb"), key=lambda path: (len(path.name), path.name), default=None)
    if path is None:
        return None, f"there is no notebook {lesson} in this folder"
    try:
        code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    except Exception as error:  # nbformat has many ways to fail
        return None, f"{path.name} cannot be read, {type(error).__name__}: {' '.join(str(error).split())[:80]}"
    exercises = [cell.source for cell in code if "exercise" in tags(cell)]
    at = next((number for number, source in enumerate(exercises) if f"check({name})" in source), None)
    if at is None:
        return None, f"{path.name} has no cell of this exercise any more"
    names = {"__name__": path.stem}
    try:
        with np.printoptions():  # a lesson sets those of its own kernel
            exec(code[0].source, names)
            names["check"] = lambda *_: None  # it is checked below, once
            for source in exercises[:at]:
                with suppress(Exception, SystemExit):  # said where it is fetched itself
                    exec(source, names)
            exec(exercises[at], names)
        report = check(names[name])
    except (Exception, SystemExit) as error:  # whatever the reader's cell raises
        return None, f"the cell in {path.name} stops with {type(error).__name__}: {error}"
    if not report.passed:
        return None, report.status if report.status == "not started" else f"{report.status}. {report.hint}"
    return names[name], "passed its check"


def _gpt2_linear_backward(dy, x, weight):
    dweight, dbias = np.zeros_like(weight.T), np.zeros_like(weight[0])
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dx = linear_backward(drows, rows, weight.T, dweight, dbias)
    return dx.reshape(x.shape), dweight.T, dbias


def _cross_entropy_gradients(logits, targets):
    losses, log_denominator = cross_entropy(logits, targets)
    weights = (targets != IGNORED) / max(1, np.count_nonzero(targets != IGNORED))
    dlogits = cross_entropy_backward(weights.astype(logits.dtype), logits.copy(), targets, log_denominator)
    return float(np.sum(losses * weights)), dlogits


def _rmsnorm_as_llama(x, weight, eps):
    wide = x.astype(np.float32) if x.dtype == np.float16 else x  # squares of half precision overflow
    return rmsnorm(wide, weight, eps)[0].astype(x.dtype)


def _partial_rmsnorm_backward(dy, x, weight, eps, k):
    """Beyond the first k elements the RMS is a factor; within them it has a gradient, the sum over all of a row."""
    inverse_rms = 1 / np.sqrt(np.mean(x[:, :k] ** 2, axis=1) + eps)
    dweight, first, g = np.zeros_like(weight), np.arange(x.shape[1]) < k, weight * dy
    rmsnorm_backward(dy, x, weight, inverse_rms, dweight)
    along = np.sum(g * x, axis=1, keepdims=True) * inverse_rms[:, None] ** 3 / k
    return g * inverse_rms[:, None] - first * x * along, dweight


def _rope_rotate(x, positions, theta, layout):
    return rotated(x, positions[:, None], rope_frequencies(x.shape[-1], theta), layout=layout)


def _causal_weights(q, k):
    heads = [a[None, :, None] for a in (q, k)]
    _, log_denominator = attention(*heads, heads[1])
    return attention_map(*heads, log_denominator)[0, 0]


def _causal_attention_backward(do, q, k, v):
    """By the library's, which has as many queries as keys, and one width: queries without do, and zeros, fill up."""
    (T, D), (S, E) = q.shape, v.shape
    width = max(D, E)

    def filled(a, rows, factor=1.0):
        wide = np.zeros((rows, width), a.dtype)
        wide[rows - len(a) :, : a.shape[1]] = a * factor
        return wide[None, :, None]

    heads = filled(q, S, (width / D) ** 0.5), filled(k, S), filled(v, S)
    dqkv = attention_backward(filled(do, S), *heads, *attention(*heads))[0]
    return dqkv[S - T :, 0, :D] * (width / D) ** 0.5, dqkv[:, 1, :D], dqkv[:, 2, :E]


def _shared_head_gradient(dk, kv_heads):
    B, T, H, D = dk.shape
    return dk.reshape(B, T, kv_heads, H // kv_heads, D).sum(axis=3)


def _swiglu_backward(dh, gate, up):
    return tuple(np.split(swiglu_backward(dh, np.concatenate([gate, up], axis=-1)), 2, axis=-1))


WORKING = {  # exercise -> a function that passes its check
    "gpt2_linear_backward": _gpt2_linear_backward,
    "cross_entropy_gradients": _cross_entropy_gradients,
    "rmsnorm_as_llama": _rmsnorm_as_llama,
    "partial_rmsnorm_backward": _partial_rmsnorm_backward,
    "rope_rotate": _rope_rotate,
    "causal_weights": _causal_weights,
    "causal_attention_backward": _causal_attention_backward,
    "shared_head_gradient": _shared_head_gradient,
    "swiglu_backward": _swiglu_backward,
}
