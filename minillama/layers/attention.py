"""The attention layer: projections, positions, heads, and the projection back."""

from typing import NamedTuple

import numpy as np

from ..ops.interface import Operations
from ..runtime.memory import empty
from . import declare
from .declare import Affine


class AttentionWeights(NamedTuple):
    """The parameters of an attention layer."""

    qkv: Affine  # weight ((H + 2 K) D, C): w_q, w_k and w_v, one below the other
    q_norm: Affine  # weight (D,), and of k_norm; ABSENT without config.qk_norm
    k_norm: Affine
    o: Affine  # weight (C, H D)


class Attended(NamedTuple):
    """Attention of some heads of some sequences, as op.attention_backward takes it: B of them, and T positions"""

    q: np.ndarray  # (B, T, H, D)
    k: np.ndarray  # (B, S, K, D), and v
    v: np.ndarray
    o: np.ndarray  # (B, T, H, D)
    log_denominator: np.ndarray  # (B, H, T)
    causal: bool
    slopes: np.ndarray | None  # (H,)
    lengths: np.ndarray | None  # (B,)


class AttentionSaved(NamedTuple):
    """What the attention layer keeps for its backward."""

    x: np.ndarray  # (N, C)
    norms: list | None  # of queries and of keys: heads before their norm, and what the norm saved
    attended: list[Attended]  # for each of the shard's tasks
    mixed: np.ndarray  # (N, H D)


def attention_parameters(config):
    """The AttentionWeights of such a model, declared."""
    C, H, K, D = config.dim, config.heads, config.kv_heads, config.head_dim
    projections = {"q": (H * D, C), "k": (K * D, C), "v": (K * D, C)}
    return AttentionWeights(
        qkv=declare.linear(projections, "attention", "qkv" in config.bias),
        q_norm=declare.norm(config, "q_norm", D) if config.qk_norm else declare.ABSENT,
        k_norm=declare.norm(config, "k_norm", D) if config.qk_norm else declare.ABSENT,
        o=declare.linear({"o": (C, H * D)}, "attention", "o" in config.bias, declare.to_stream(config)),
    )


def attention_layer(op: Operations, config, p: AttentionWeights, x, shard, cache=None):
    """Project to queries, keys and values; turn queries and keys by their positions; attend; project back. (N, C)

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.2; the turn: Su et al. 2021 (arXiv 2104.09864).
    """
    H, K = config.heads, config.kv_heads
    qkv = op.linear(x, *p.qkv)  # (N, (H + 2 K) D)
    saved_norms = _normalise_heads(op, config, p, qkv) if config.qk_norm else None
    if shard.rotation is not None:
        cos, sin = shard.rotation
        op.rope(shard.by_position(qkv), cos, sin, config.rope_layout, H + K)  # not the values behind them
    attended = []
    for task, part in zip(shard.tasks, shard.to_heads(qkv), strict=True):
        q, k, v = split_heads(part, task)
        if cache is not None:
            k, v = cache.append(k, v, task.sequences, task.kv_heads)
        rules = shard.rules(task)
        attended.append(Attended(q, k, v, *op.attention(q, k, v, *rules), *rules))
    mixed = shard.to_rows([part.o for part in attended], H)  # (N, C)
    return op.linear(mixed, *p.o), AttentionSaved(x, saved_norms, attended, mixed)


def attention_layer_backward(
    op: Operations, config, p: AttentionWeights, grad: AttentionWeights, dy, shard, saved: AttentionSaved
):
    x, saved_norms, attended, mixed = saved
    H, K = config.heads, config.kv_heads
    dmixed = op.linear_backward(dy, mixed, p.o.weight, *grad.o)
    dparts = [op.attention_backward(do, *part) for do, part in zip(shard.to_heads(dmixed), attended, strict=True)]
    dqkv = shard.to_rows(dparts, H + 2 * K)  # (N, (H + 2 K) D)
    if shard.rotation is not None:
        cos, sin = shard.rotation
        op.rope_backward(shard.by_position(dqkv), cos, sin, config.rope_layout, H + K)
    if config.qk_norm:
        _normalise_heads_backward(op, config, p, grad, dqkv, saved_norms)
    return op.linear_backward(dqkv, x, p.qkv.weight, *grad.qkv)


def attention_maps(op: Operations, shard, saved: AttentionSaved):
    """Of what the forward saved: yield each task of the shard and its probabilities (sequences, heads, T, S)."""
    for task, part in zip(shard.tasks, saved.attended, strict=True):
        yield task, op.attention_map(part.q, part.k, part.log_denominator, part.causal, part.slopes, part.lengths)


def _normalise_heads(op: Operations, config, p: AttentionWeights, qkv):
    """Norm of each head's query and key, in place, one weight (D,) for all queries and one for all keys

    Source: Henry et al. 2020 (arXiv 2010.04245); with learned weights as in Dehghani et al. 2023 (arXiv 2302.05442).
    """
    saved = []
    for columns, norm in zip(_query_and_key_columns(config, qkv), (p.q_norm, p.k_norm), strict=True):
        heads = empty((columns.size // config.head_dim, config.head_dim), qkv.dtype)
        heads.reshape(columns.shape)[:] = columns
        y, saved_norm = op.norm(heads, *norm, config.norm_eps)
        columns[:] = y.reshape(columns.shape)
        saved.append((heads, saved_norm))
    return saved


def _normalise_heads_backward(op: Operations, config, p, grad, dqkv, saved):
    columns = _query_and_key_columns(config, dqkv)
    norms = (p.q_norm, grad.q_norm), (p.k_norm, grad.k_norm)
    for dcolumns, (norm, dnorm), (heads, saved_norm) in zip(columns, norms, saved, strict=True):
        dheads = empty(heads.shape, heads.dtype)
        dheads.reshape(dcolumns.shape)[:] = dcolumns
        dcolumns[:] = op.norm_backward(dheads, heads, norm.weight, saved_norm, *dnorm).reshape(dcolumns.shape)


def _query_and_key_columns(config, qkv):
    """Views of the columns of qkv (N, (H + 2 K) D) that hold queries and keys: (N, H D) and (N, K D)."""
    H, K, D = config.heads, config.kv_heads, config.head_dim
    return qkv[:, : H * D], qkv[:, H * D : (H + K) * D]


def split_heads(qkv, task):
    """Views of q (B, T, H, D), k and v (B, T, K, D) of a task, whose heads lie side by side: (B, T, H + 2 K, D)."""
    H, K = (heads.stop - heads.start for heads in (task.heads, task.kv_heads))
    return qkv[:, :, :H], qkv[:, :, H : H + K], qkv[:, :, H + K :]
