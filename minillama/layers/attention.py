"""The attention layer: projections, positions, heads, and the projection back."""

from ..runtime.memory import empty


def attention_layer(op, config, p, x, shard, cache=None):
    """Project to queries, keys and values; turn queries and keys by their positions; attend; project back. (N, C)

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.2; the turn: Su et al. 2021 (arXiv 2104.09864).
    """
    H, K = config.heads, config.kv_heads
    qkv = op.linear(x, *p.qkv)  # (N, (H + 2 K) D)
    saved_norms = _normalise_heads(op, config, p, qkv) if config.qk_norm else None
    if shard.rotation is not None:
        op.rope(shard.by_position(qkv), *shard.rotation, config.rope_layout, H + K)  # not the values behind them
    attended = []
    for job, part in zip(shard.jobs, shard.to_heads(qkv), strict=True):
        q, k, v = split_heads(part, job)
        if cache is not None:
            k, v = cache.append(k, v, job.sequences, job.kv_heads)
        rules = shard.rules(job)
        attended.append((q, k, v, *op.attention(q, k, v, *rules), *rules))
    mixed = shard.to_rows([o for _, _, _, o, *_ in attended], H)  # (N, C)
    return op.linear(mixed, *p.o), (x, saved_norms, attended, mixed)


def attention_layer_backward(op, config, p, grad, dy, shard, saved):
    x, saved_norms, attended, mixed = saved
    H, K = config.heads, config.kv_heads
    dmixed = op.linear_backward(dy, mixed, p.o.weight, *grad.o)
    dparts = [op.attention_backward(do, *part) for do, part in zip(shard.to_heads(dmixed), attended, strict=True)]
    dqkv = shard.to_rows(dparts, H + 2 * K)  # (N, (H + 2 K) D)
    if shard.rotation is not None:
        op.rope_backward(shard.by_position(dqkv), *shard.rotation, config.rope_layout, H + K)
    if config.qk_norm:
        _normalise_heads_backward(op, config, p, grad, dqkv, saved_norms)
    return op.linear_backward(dqkv, x, p.qkv.weight, *grad.qkv)


def attention_maps(op, shard, saved):
    """Of what the forward saved: yield each job of the shard and its probabilities (sequences, heads, T, S)."""
    _, _, attended, _ = saved
    for job, (q, k, _, _, log_denominator, *rules) in zip(shard.jobs, attended, strict=True):
        yield job, op.attention_map(q, k, log_denominator, *rules)


def _normalise_heads(op, config, p, qkv):
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


def _normalise_heads_backward(op, config, p, grad, dqkv, saved):
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


def split_heads(qkv, job):
    """Views of q (B, T, H, D), k and v (B, T, K, D) of a job, whose heads lie side by side: (B, T, H + 2 K, D)."""
    H, K = (heads.stop - heads.start for heads in (job.heads, job.kv_heads))
    return qkv[:, :, :H], qkv[:, :, H : H + K], qkv[:, :, H + K :]
