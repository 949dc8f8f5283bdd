"""The embeddings: what a row knows of its token, of its position and of the kind of its text."""

from typing import NamedTuple

import numpy as np

from ..ops.interface import Operations
from ..ops.positions import POSITIONS
from . import declare
from .declare import Affine


class EmbeddingWeights(NamedTuple):
    """The tables whose rows are looked up, and the norm of their sum."""

    token: np.ndarray  # (V, C)
    position: np.ndarray | None  # (context, C), learned or fixed; a fixed table is no parameter and has no gradient
    token_type: np.ndarray | None  # (token_types, C)
    norm: Affine  # weight (C,); ABSENT without config.embedding_norm


def embedding_parameters(config):
    """The EmbeddingWeights of such a model, declared."""
    C, learned = config.dim, POSITIONS[config.position].learned
    return EmbeddingWeights(
        token=declare.table("embedding", config.vocab_size, C),
        position=declare.table("position_embedding", config.context, C) if learned else None,
        token_type=declare.table("type_embedding", config.token_types, C) if config.token_types else None,
        norm=declare.norm(config, "embedding_norm", C) if config.embedding_norm else declare.ABSENT,
    )


def embed(op: Operations, config, p: EmbeddingWeights, ids, types, shard):
    """Token, position and type vectors of each row, added up, and normalised where the config asks for it: (N, C)"""
    x = op.embedding(ids, p.token)
    for indices, table in _added_vectors(p, types, shard):
        x += op.embedding(indices, table)
    if not config.embedding_norm:
        return x, None
    y, saved_norm = op.norm(x, *p.norm, config.norm_eps)
    return y, (x, saved_norm)


def embed_backward(op: Operations, config, p: EmbeddingWeights, grad: EmbeddingWeights, ids, types, dx, shard, saved):
    if config.embedding_norm:
        x, saved_norm = saved
        dx = op.norm_backward(dx, x, p.norm.weight, saved_norm, *grad.norm)
    with shard.turn(["embedding"]):  # and the tables that are added to it
        op.embedding_backward(dx, ids, grad.token)
        for indices, dtable in _added_vectors(grad, types, shard):
            op.embedding_backward(dx, indices, dtable)


def _added_vectors(p: EmbeddingWeights, types, shard):
    """(indices (N,), table) of what is added to the token's embedding; a fixed table has no gradient."""
    position, token_type = p.position, p.token_type
    added = [(shard.positions(), position)] if position is not None else []
    return added + ([(types, token_type)] if token_type is not None else [])
