"""The whole decoder of lesson 08, forward and backward, right or with one of the usual mistakes.

The checkers compare an answer with what each mistake gives; the experiments train with one. A LLaMA as
`minillama.config.Config` has it by default, with grouped heads, tied or not; p is {name: array}, as Model.parameters.
"""

from types import SimpleNamespace

import numpy as np

from ..ops.attention import attention, attention_backward
from ..ops.feedforward import silu, swiglu, swiglu_backward
from ..ops.norms import rmsnorm, rmsnorm_backward
from ..ops.positions.rope import rope_frequencies, rotated, rotated_backward


def logits(p, ids, config, mistake=None):
    """ids (B, T) -> logits (B, T, V). mistake: a key of lesson_08.FORWARD_MISTAKES."""
    return _forward(p, ids, config, mistake)[0]


def loss(p, ids, targets, config):
    """The mean of the losses, in nats per token."""
    z = logits(p, ids, config)
    largest = z.max(axis=-1)
    log_denominator = largest + np.log(np.exp(z - largest[..., None]).sum(axis=-1))
    return float(np.mean(log_denominator - np.take_along_axis(z, targets[..., None], axis=-1)[..., 0]))


def gradients(p, ids, targets, config, mistake=None):
    """ids, targets (B, T) -> the mean loss, {name: gradient}. mistake: a key of lesson_08.BACKWARD_MISTAKES."""
    z, h, x, kept = _forward(p, ids, config)
    of = {name: np.zeros_like(array) for name, array in p.items()}
    output = "embedding" if config.tied else "output"
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    dz = e / e.sum(axis=-1, keepdims=True)
    np.put_along_axis(dz, targets[..., None], np.take_along_axis(dz, targets[..., None], axis=-1) - 1, axis=-1)
    dz /= {"sum": 1, "twice": ids.size**2, "by T": ids.shape[1], "by B": ids.shape[0]}.get(mistake, ids.size)
    if mistake != "lookup alone" or not config.tied:
        of[output] += _outer(dz, h)
    dx = dz @ p[output]
    if mistake != "no final norm":
        dx = rmsnorm_backward(dx, x, p["final_norm"], _inverse_rms(x, config), of["final_norm"])
    blocks = list(enumerate(kept))
    for i, saved in blocks if mistake == "blocks not reversed" else reversed(blocks):
        dx = _block_backward(_block_weights(p, i), _block_weights(of, i), dx, config, saved, mistake)
    if mistake == "assigned":
        of["embedding"][ids] = dx
    elif mistake == "assigned and added":
        of["embedding"][ids] += dx
    elif mistake != "output alone" or not config.tied:
        np.add.at(of["embedding"], ids, dx)
    if mistake == "last block for all":
        for name in of:
            if name.startswith("blocks."):
                of[name] = of[f"blocks.{config.layers - 1}.{name.split('.')[2]}"]
    return loss(p, ids, targets, config), of


def block_gradients(dy, x, w, config, mistake=None):
    """One block, one sequence: dy, x (T, C), w its weights -> dx (T, C), {name: gradient}."""
    of = {name: np.zeros_like(array) for name, array in w.items()}
    _, saved = _block(w, x[None], config, None)
    return _block_backward(w, of, dy[None], config, saved, mistake)[0], of


def block(x, w, config):
    """One block, one sequence: x (T, C) -> (T, C)."""
    return _block(w, x[None], config, None)[0][0]


def _block_weights(p, i):
    return {name.split(".")[2]: array for name, array in p.items() if name.startswith(f"blocks.{i}.")}


def _inverse_rms(x, config):
    return 1 / np.sqrt(np.mean(x * x, axis=-1) + config.norm_eps)


def _outer(dy, x):
    """dW = dy^T x, of y = x W^T with rows in all axes but the last."""
    return dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1])


def _forward(p, ids, config, mistake=None):
    if mistake == "one long text":
        z = logits(p, ids.reshape(1, -1), config)
        return z.reshape(*ids.shape, -1), None, None, None
    x, kept = p["embedding"][ids], []
    for i in range(config.layers):
        x, saved = _block(_block_weights(p, 0 if mistake == "first block for all" else i), x, config, mistake)
        kept.append(saved)
    weight = np.ones_like(p["final_norm"]) if mistake == "no norm weights" else p["final_norm"]
    h = x if mistake == "no final norm" else _norm(x, weight, config, mistake)
    z = h @ p["embedding" if config.tied or mistake == "always tied" else "output"].T
    if mistake == "probabilities":
        z = np.exp(z - z.max(axis=-1, keepdims=True))
        z /= z.sum(axis=-1, keepdims=True)
    return z, h, x, kept


def _norm(x, weight, config, mistake):
    if mistake == "no norm weights":
        weight = np.ones_like(weight)
    return rmsnorm(x, weight, 0.0 if mistake == "no eps" else config.norm_eps)[0]


def _turns(config, T, mistake):
    layout = config.rope_layout
    if mistake == "other layout":
        layout = {"rotate_half": "interleaved", "interleaved": "rotate_half"}[layout]
    theta = 10000.0 if mistake == "theta 10000" else config.rope_theta
    positions = np.zeros(T) if mistake == "no rope" else np.arange(T)
    return positions[:, None], rope_frequencies(config.head_dim, theta), 1.0, layout  # positions: as x (B, T, heads, D)


def _block(w, x, config, mistake):
    (B, T, C), H, K = x.shape, config.heads, config.kv_heads
    h1 = x if mistake == "no norm in blocks" else _norm(x, w["attention_norm"], config, mistake)
    w_q = w["w_q"].T if mistake == "w_q not transposed" else w["w_q"]
    q, k, v = ((h1 @ m.T).reshape(B, T, heads, -1) for m, heads in ((w_q, H), (w["w_k"], K), (w["w_v"], K)))
    turns = _turns(config, T, mistake)
    q, k = rotated(q, *turns), rotated(k, *turns)
    if mistake == "values turned":
        v = rotated(v, *turns)
    o = _attention(q, k, v, mistake)  # (B, T, H, D)
    merged = (o.swapaxes(1, 2) if mistake == "heads merged wrongly" else o).reshape(B, T, C)
    a = merged @ w["w_o"].T
    base = h1 if mistake == "stream replaced" else x
    middle = a if mistake == "no residual around attention" else base + a
    second = w["attention_norm" if mistake == "one norm a block" else "ffn_norm"]
    read = x if mistake == "in parallel" else middle
    h2 = read if mistake == "no norm in blocks" else _norm(read, second, config, mistake)
    gate, up = h2 @ w["w_gate"].T, h2 @ w["w_up"].T
    if mistake == "gate and up exchanged":
        gate, up = up, gate
    hidden = silu(gate) * up
    if mistake == "sigmoid for silu":
        hidden = up / (1 + np.exp(-gate))
    f = hidden @ w["w_down"].T
    base = h2 if mistake == "stream replaced" else middle
    out = f if mistake == "no residual around the feed-forward" else base + f
    saved = SimpleNamespace(
        x=x, h1=h1, q=q, k=k, v=v, o=o, middle=middle, h2=h2, gate_up=np.concatenate([gate, up], -1)
    )
    return out, saved


def _attention(q, k, v, mistake):
    H, K = q.shape[2], k.shape[2]
    if mistake == "groups by turns":
        k, v = (np.tile(a, (1, 1, H // K, 1)) for a in (k, v))
    k, v = (np.repeat(a, H // a.shape[2], axis=2) for a in (k, v))
    if mistake == "not divided":
        q = q * q.shape[-1] ** 0.5
    scores = np.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    if mistake != "no mask":
        scores = np.where(np.tri(q.shape[1], dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return np.einsum("bhts,bshd->bthd", shares, v)


def _block_backward(w, of, dx, config, saved, mistake):
    """The gradient of a block's input from that of its output; its weights' gradients are added to those in `of`."""
    (B, T, C), H, K = dx.shape, config.heads, config.kv_heads
    df = dx
    hidden = swiglu(saved.gate_up)
    of["w_down"] += _outer(df, hidden)
    dgate_up = swiglu_backward(df @ w["w_down"], saved.gate_up)
    dgate, dup = np.split(dgate_up, 2, axis=-1)
    of["w_gate"] += _outer(dgate, saved.h2)
    of["w_up"] += _outer(dup, saved.h2)
    dh = dup @ w["w_up"] if mistake == "gate's path dropped" else dgate @ w["w_gate"] + dup @ w["w_up"]
    through = _norm_backward(dh, saved.middle, w["ffn_norm"], config, of["ffn_norm"], mistake)
    dx = _joined(dx, through, mistake, "feed-forward")

    of["w_o"] += _outer(dx, saved.o.reshape(B, T, C))
    do = (dx @ w["w_o"]).reshape(B, T, H, -1)
    dq, dk, dv = _attention_backward(do, saved, K, mistake)
    turns = _turns(config, T, None)
    if mistake == "turned forwards":
        dq, dk = rotated(dq, *turns), rotated(dk, *turns)
    elif mistake != "not turned back":
        dq, dk = rotated_backward(dq, *turns), rotated_backward(dk, *turns)
    dh, parts = 0, {"w_q": dq, "w_k": dk, "w_v": dv}
    for name, gradient in parts.items():
        gradient = gradient.reshape(B, T, -1)
        of[name] += _outer(gradient, saved.h1)
        if mistake != "queries alone" or name == "w_q":
            dh = dh + gradient @ w[name]
    through = _norm_backward(dh, saved.x, w["attention_norm"], config, of["attention_norm"], mistake)
    return _joined(dx, through, mistake, "attention")


def _joined(dx, through, mistake, layer):
    """A residual's backward: what comes straight, and what comes through the layer."""
    if mistake in ("straight path dropped", f"straight path around {layer} dropped"):
        return through
    return dx if mistake in ("layers' path dropped", f"path through {layer} dropped") else dx + through


def _norm_backward(dh, x, weight, config, dweight, mistake):
    through = rmsnorm_backward(dh, x, weight, _inverse_rms(x, config), dweight)
    return dh if mistake == "norms passed over" else through


def _attention_backward(do, saved, K, mistake):
    q, k, v, H = saved.q, saved.k, saved.v, saved.q.shape[2]
    grouped = mistake not in ("group's mean", "group's first")
    if not grouped:
        k, v = (np.repeat(a, H // K, axis=2) for a in (k, v))
    dqkv = attention_backward(do, q, k, v, *attention(q, k, v))
    if grouped:
        return np.split(dqkv, [H, H + K], axis=2)
    dq, *copies = np.split(dqkv, 3, axis=2)
    groups = [a.reshape(*a.shape[:2], K, H // K, -1) for a in copies]
    return dq, *(g.mean(axis=3) if mistake == "group's mean" else g[:, :, :, 0] for g in groups)
