"""Checkers of lesson 08's first half: the whole forward, and the whole backward."""

import numpy as np

from ..config import Config
from ..gradcheck import directional_derivative, relative_error
from ..parameters import parameter_shapes
from . import reference_llama
from .checks import exercise

FORWARD_MISTAKES = {  # of reference_llama.logits -> hint
    "no mask": "a token reads later ones: hide the keys behind the query before the softmax",
    "not divided": "the scores are not divided by the root of the head width D",
    "groups by turns": (
        "query head h reads key/value head h // (H / K): the heads of a group are neighbours (np.repeat, not np.tile)"
    ),
    "no rope": "queries and keys are not turned: rope_rotate comes between their product and the scores",
    "values turned": "the values are turned: RoPE belongs to queries and keys alone",
    "other layout": "RoPE pairs the numbers as the other layout does: pass config.rope_layout on",
    "theta 10000": "RoPE's base is config.rope_theta, not always 10000",
    "one long text": "the sequences of a batch are read as one long text: each has positions from 0, and reads itself",
    "heads merged wrongly": (
        "the heads are merged in the wrong order: o must be (B, T, H, D) before it is reshaped to (B, T, C)"
    ),
    "w_q not transposed": "a matrix is stored (out, in): the product is h @ w_q.T",
    "no residual around attention": "attention's result replaces the stream: it is added to it",
    "no residual around the feed-forward": "the feed-forward's result replaces the stream: it is added to it",
    "stream replaced": (
        "the layer's result is added to the normalised stream: add it to the stream itself, x, which no norm changes"
    ),
    "in parallel": "both layers read the stream as it came: the feed-forward reads what attention has added to",
    "one norm a block": "each block has two norms: the feed-forward's weight is ffn_norm, not attention_norm",
    "no norm in blocks": "each layer reads norm(x), not x",
    "no norm weights": "the norms' weights are left out",
    "no eps": "eps is left out of the norms: config.norm_eps stands inside the root",
    "no final norm": "the final norm is missing: the output matrix reads norm(x)",
    "gate and up exchanged": "gate and up are exchanged: silu belongs to w_gate's product",
    "sigmoid for silu": "the gate is sigmoid(z); silu(z) is z times that",
    "always tied": "the output matrix is p['output'] where config.tied is False; this uses the embedding",
    "first block for all": "each block has weights of its own, p[f'blocks.{i}.w_q']; this uses those of block 0",
    "probabilities": "these are probabilities: return the logits, before the softmax",
}
BACKWARD_MISTAKES = {  # of reference_llama.gradients -> hint
    "straight path dropped": (
        "the straight path of the residuals is dropped: of y = x + layer(x) the gradient of x is dy plus what comes "
        "back through the layer"
    ),
    "straight path around attention dropped": (
        "the straight path around attention is dropped: add what comes back through the layer to dx, do not replace it"
    ),
    "straight path around feed-forward dropped": (
        "the straight path around the feed-forward is dropped: add what comes back through the layer to dx"
    ),
    "layers' path dropped": (
        "the gradient passes the blocks straight on: what comes back through each layer is to be added to dx"
    ),
    "path through attention dropped": "what comes back through attention is not added to dx",
    "path through feed-forward dropped": "what comes back through the feed-forward is not added to dx",
    "assigned": (
        "the embedding's gradient is assigned: a token that stands at several places gets the sum over them (np.add.at)"
    ),
    "assigned and added": (
        "`dembedding[ids] += dx` adds once for a token that stands at several places; np.add.at adds for each of them"
    ),
    "lookup alone": "the matrix is tied: its gradient as output matrix, dlogits^T h, is missing",
    "output alone": "the embedding's gradient as a table that is looked up is missing: add dx to the rows of ids",
    "sum": "this is the gradient of the losses' sum: the loss is their mean, so dlogits has the factor 1 / N",
    "twice": "the factor 1 / N is there twice: the gradient of a mean has it in dlogits already",
    "by T": "the loss is the mean over all N = B T targets; this divides by T alone",
    "by B": "the loss is the mean over all N = B T targets; this divides by B alone",
    "no final norm": "the final norm is passed over on the way back",
    "norms passed over": "the gradient of the stream passes over the norms of the blocks: go back through each of them",
    "turned forwards": "dq and dk are turned forwards again: the way back is the rotation by the opposite angle",
    "not turned back": "dq and dk are not turned back: the products that made q and k came before the rotation",
    "queries alone": "three matrices read the same h: its gradient is the sum of those through w_q, w_k and w_v",
    "gate's path dropped": "two matrices read the same h: its gradient is the sum of those through w_gate and w_up",
    "group's mean": "the gradients of a key/value head are the sum over the query heads of its group, not their mean",
    "group's first": "a key/value head gets the gradients of all query heads of its group, not of the first alone",
    "blocks not reversed": "the blocks are undone in the order of the forward: the last one comes first",
    "last block for all": "all blocks get the gradients of one: make a new name for each, f'blocks.{i}.w_q'",
}
_WAY_BACK = ("w_down", "w_up", "w_gate", "ffn_norm", "w_o", "w_v", "w_k", "w_q", "attention_norm")


def random_llama(trial, tied, kv_heads):
    """A tiny Config, its weights in float64, ids and targets (B, T) in which tokens repeat

    A head has two pairs at least: with one, theta and the layout would change nothing.
    """
    rng, heads = trial.rng, 4
    config = Config(
        int(rng.integers(5, 8)), dim=heads * 2 * int(rng.integers(2, 4)), layers=int(rng.integers(2, 4)), heads=heads,
        kv_heads=kv_heads, ffn=int(rng.integers(3, 8)), context=16, norm_eps=float(rng.uniform(0.1, 0.3)),
        rope_theta=float(rng.uniform(20, 500)), rope_layout=str(rng.choice(["rotate_half", "interleaved"])), tied=tied,
    )  # fmt: skip
    p = {
        name: rng.standard_normal(shape) * (1.5 / shape[-1]) ** 0.5 if len(shape) == 2 else rng.uniform(0.5, 2, shape)
        for name, shape in parameter_shapes(config).items()
    }
    B, T = int(rng.integers(2, 4)), int(rng.integers(4, 7))
    ids, targets = rng.integers(config.vocab_size, size=(2, B, T))
    ids[0, :2] = ids[1, 0]  # whoever assigns, or adds once, gets another embedding gradient
    return config, p, ids, targets


def _answered(answer, trial, p, before, behind, returns):
    """What answer(*before, p, *behind) returns; the weights must come back as they were."""
    given = {name: array.copy() for name, array in p.items()}
    results = trial.call(answer, *before, given, *behind, returns=returns)
    changed = [name for name, array in p.items() if not np.array_equal(given.get(name), array)]
    trial.that("the weights stay as they were", not changed, f"it changed weights that it was given: {changed[:3]}")
    return results


@exercise("08", "The whole forward", difficulty=2, minutes=30)
def llama_logits(answer, trial):
    """answer(p, ids, config) -> logits (B, T, V)."""

    def call(p, ids, config):
        returns = [("logits", (*ids.shape, config.vocab_size))]
        return _answered(answer, trial, p, (), (ids, config), returns)

    for tied, kv_heads in ((False, 2), (True, 1), (False, 4), (True, 2)):
        config, p, ids, _ = random_llama(trial, tied, kv_heads)
        got, right = call(p, ids, config), reference_llama.logits(p, ids, config)
        mistakes = {}
        if not _equal(got, right):
            mistakes = {hint: reference_llama.logits(p, ids, config, m) for m, hint in FORWARD_MISTAKES.items()}
        group = config.heads // kv_heads
        what = f"logits, groups of {group}, the output matrix {'tied' if tied else 'its own'}"
        trial.same(what, got, right, mistakes, _where(p, ids, config, got))
        t = ids.shape[1] // 2
        other = ids.copy()
        other[:, t:] = (ids[:, t:] + 1) % config.vocab_size
        trial.same("earlier logits do not know later tokens", call(p, other, config)[:, :t], got[:, :t])
        trial.same("a sequence alone, as in a batch", call(p, ids[:1], config), got[:1])


def _where(p, ids, config, got):
    """The hint where no known mistake fits: whether the first token is right, which reads nobody but itself."""
    first = relative_error(got[:, 0], reference_llama.logits(p, ids, config)[:, 0]) < 1e-6
    if first:
        return (
            "the first token of each sequence is right and later ones are not: look at what joins tokens, positions, "
            "mask, softmax and groups"
        )
    return (
        "the first token, which reads only itself, is wrong already: look at norms, residuals, feed-forward and the "
        "output matrix; compare the stream after each step with the lesson's"
    )


@exercise("08", "Back through a block", difficulty=3, minutes=45)
def block_gradients(answer, trial):
    """answer(dy, x, w, config) -> dx (T, C), {name: gradient}: of one block for one sequence; x and dy (T, C)."""
    for kv_heads in (2, 1, 4, 2):
        config, p, ids, _ = random_llama(trial, True, kv_heads)
        w = {name.split(".")[2]: array for name, array in p.items() if name.startswith("blocks.0.")}
        dy, x = trial.rng.standard_normal((2, ids.shape[1], config.dim))
        returns = [("dx", x.shape), ("gradients", dict)]
        dx, got = _answered(answer, trial, w, (dy, x), (config,), returns)
        _complete(trial, w, got)

        def of(mistake, dy=dy, x=x, w=w, config=config):
            dx, gradients = reference_llama.block_gradients(dy, x, w, config, mistake)
            return {**gradients, "dx": dx}

        def loss(dy=dy, x=x, w=w, config=config):
            return float(np.sum(dy * reference_llama.block(x, w, config)))

        got = {**got, "dx": dx}
        what = f"dx and the gradients of 9 weights, groups of {config.heads // kv_heads}"
        _as_expected(trial, what, got, of, [*_WAY_BACK, "dx"])
        _slopes(trial, {**w, "dx": x}, got, loss)


@exercise("08", "The whole backward", difficulty=2, minutes=30)
def llama_gradients(answer, trial):
    """answer(p, ids, targets, config) -> the mean loss, {name: gradient}."""
    for tied, kv_heads in ((True, 2), (False, 2), (True, 1)):
        config, p, ids, targets = random_llama(trial, tied, kv_heads)
        returns = [("loss", float), ("gradients", dict)]
        loss, got = _answered(answer, trial, p, (), (ids, targets, config), returns)
        right = reference_llama.loss(p, ids, targets, config)
        sums = {
            "this is the losses' sum; return their mean over all B T targets": right * ids.size,
            "this is the mean over B sequences of the losses' sum; return the mean over all B T targets": (
                right * ids.shape[1]
            ),
            "the means of the B sequences are added up: divide by B": right * ids.shape[0],
        }
        trial.same("the loss", loss, right, sums, "the loss is wrong: it is the mean of the losses of all B T targets")
        _complete(trial, p, got)

        def of(mistake, p=p, ids=ids, targets=targets, config=config):
            return reference_llama.gradients(p, ids, targets, config, mistake)[1]

        def mean(p=p, ids=ids, targets=targets, config=config):
            return reference_llama.loss(p, ids, targets, config)

        what = f"{len(p)} gradients, groups of {config.heads // kv_heads}, {'tied' if tied else 'not tied'}"
        _as_expected(trial, what, got, of, _way_back(config))
        _slopes(trial, p, got, mean)


def _way_back(config):
    """The names in the order in which a backward is done with them; the embedding, looked up at first, comes last."""
    blocks = [f"blocks.{i}.{name}" for i in reversed(range(config.layers)) for name in _WAY_BACK]
    return [*(() if config.tied else ("output",)), "final_norm", *blocks, "embedding"]


def _complete(trial, w, got):
    """A gradient for each weight, of its shape."""
    missing, unknown = sorted(w.keys() - got.keys()), sorted(map(str, got.keys() - w.keys()))
    trial.that(
        "a gradient for each weight",
        not missing and not unknown,
        f"the gradients must have the names of the weights; missing: {missing[:4]}, unknown: {unknown[:4]}",
    )
    for name, array in w.items():
        shape = np.shape(got[name])
        hint = f"the gradient of {name} must have the shape of its weight, {array.shape}; it has {shape}"
        trial.that("the shape of its weight", shape == array.shape, hint)


def _as_expected(trial, what, got, of, order):
    """Fails unless got is of(None); the hint is the mistake whose of(mistake) it is, or the first that is wrong."""
    right = of(None)
    wrong = [name for name in order if not _equal(got[name], right[name])]
    hint = ""
    for mistake, text in BACKWARD_MISTAKES.items() if wrong else ():
        if all(_equal(got[name], array) for name, array in of(mistake).items()):
            hint = text
            break
    if wrong and not hint:
        hint = f"on the way back {wrong[0]} is the first that is wrong: look at it, and at what it is made of"
    evidence = f"right: {', '.join(n for n in order if n not in wrong) or 'none'}; wrong: {', '.join(wrong)}"
    trial.that(what, not wrong, hint, evidence)


def _equal(got, expected):
    return bool(relative_error(got, expected) <= 1e-6)


def _slopes(trial, arrays, got, loss):
    """The gradients against finite differences of the loss, each along a direction: one for each number takes long."""
    slopes, found = [], []
    for name, array in arrays.items():
        direction = trial.rng.standard_normal(array.shape)
        found.append(np.sum(got[name] * direction))
        slopes.append(directional_derivative(loss, array, direction, 1e-4))
    trial.same("slopes of the loss by finite differences", np.array(found), np.array(slopes))
