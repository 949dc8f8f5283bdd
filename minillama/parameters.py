"""The parameters of a model: names and shapes, from which sizes, views and file names derive; their initial values."""

from math import prod
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from .layers.blocks import PLACEMENTS
from .layers.heads import HEADS
from .ops.norms import NORMS
from .ops.positions import POSITIONS


class Affine(NamedTuple):
    """A matrix and its bias, or a norm's weight and bias; what the model does not have is None."""

    weight: np.ndarray | None
    bias: np.ndarray | None


def parameter_shapes(config):
    """{name: shape} of every parameter. Matrices are w_..., (out, in); their biases b_...; norms end in _norm."""
    C, D = config.dim, config.head_dim
    H, K = config.heads, config.kv_heads
    shapes = {"embedding": (config.vocab_size, C)}
    if POSITIONS[config.position].learned:
        shapes["position_embedding"] = (config.context, C)
    if config.token_types:
        shapes["type_embedding"] = (config.token_types, C)
    if config.embedding_norm:
        shapes |= _norm(config, "embedding_norm", C)
    for i in range(config.layers):
        block = _norm(config, "attention_norm", C)
        block |= _linear(config, "qkv", {"q": (H * D, C), "k": (K * D, C), "v": (K * D, C)})
        if config.qk_norm:
            block |= _norm(config, "q_norm", D) | _norm(config, "k_norm", D)
        block |= _linear(config, "o", {"o": (C, H * D)})
        block |= _norm(config, "ffn_norm", C)
        block |= _linear(config, "ffn", {name: (config.ffn, C) for name in inner_names(config)})
        block |= _linear(config, "ffn", {"down": (C, config.ffn)})
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    if PLACEMENTS[config.placement].final_norm:
        shapes |= _norm(config, "final_norm", C)
    matrices, norms = HEADS[config.head].parameters(config)
    shapes |= _linear(config, "head", matrices)
    for name, width in norms.items():
        shapes |= _norm(config, name, width)
    if not config.tied:
        shapes["output"] = (config.vocab_size, C)
    if "head" in config.bias:
        shapes["output_bias"] = (config.vocab_size,)
    return shapes


def inner_names(config):
    """The matrices that lead into the feed-forward's activation."""
    return ("gate", "up") if config.gated else ("up",)


def _norm(config, name, width):
    weight = {name: (width,)} if NORMS[config.norm].has_weight else {}
    return weight | ({f"{name}_bias": (width,)} if "norm" in config.bias else {})


def _linear(config, kind, matrices):
    biases = {f"b_{name}": shape[:1] for name, shape in matrices.items()} if kind in config.bias else {}
    return {f"w_{name}": shape for name, shape in matrices.items()} | biases


def views(config, store, matrix=None, vectors=None, position=None):
    """The parameters as attributes, or gradients in the place of parameters

    blocks: a list; embedding, position, token_type, output: matrices, None where the model has none; the rest Affine:
    qkv, o, inner (gate and up as one matrix, where there is a gate), down, head and every norm by its name. Fused
    matrices are views that cost nothing, as their parts lie side by side.
    store: a Store. matrix(names) gives the matrix of these names, vectors is where vectors come from; both are the
    store's own unless given. position: the fixed table that is added to the embeddings, where there is one.
    """
    matrix, vectors = matrix or store.fused, vectors or store
    outer = {name: make() for name, make in outer_views(config, store, matrix, vectors, position).items()}
    return SimpleNamespace(blocks=[block_views(config, i, matrix, vectors) for i in range(config.layers)], **outer)


def outer_views(config, tables, matrix, vectors, position=None):
    """{name: function that makes the view} of what stands outside of the blocks; tables[name]: an embedding."""

    def table(name, absent=None):
        return lambda: tables[name] if name in tables else absent

    def norm(name):
        return lambda: _norm_view(vectors, name)

    return {
        "embedding": table("embedding"),
        "position": table("position_embedding", position),
        "token_type": table("type_embedding"),
        "embedding_norm": norm("embedding_norm"),
        "final_norm": norm("final_norm"),
        "head": lambda: Affine(matrix(["w_head"]) if "w_head" in tables else None, vectors.get("b_head")),
        "head_norm": norm("head_norm"),
        "output": lambda: Affine(matrix(["embedding" if config.tied else "output"]), vectors.get("output_bias")),
    }


def block_views(config, i, matrix, vectors):
    """The parameters of block i, as attributes."""
    prefix = f"blocks.{i}."

    def affine(*names):
        biases = [f"{prefix}b_{name}" for name in names]
        bias = vectors.fused(biases) if biases[0] in vectors else None
        return Affine(matrix([f"{prefix}w_{name}" for name in names]), bias)

    return SimpleNamespace(
        qkv=affine("q", "k", "v"),
        o=affine("o"),
        inner=affine(*inner_names(config)),
        down=affine("down"),
        **{name: _norm_view(vectors, prefix + name) for name in ("attention_norm", "ffn_norm", "q_norm", "k_norm")},
    )


def _norm_view(vectors, name):
    return Affine(vectors.get(name), vectors.get(f"{name}_bias"))


def stacked_views(store, config):
    """The arrays of a LLaMA for a kernel that runs through all layers: embedding, blocks, norms, output

    Blocks are alike and lie one after the other, so theirs are two arrays: the matrices of each block in a row
    (L, size), and all norms (2 L + 1, C).
    """
    size = sum(prod(shape) for name, shape in store.shapes.items() if name.startswith("blocks.0.") and len(shape) > 1)
    first = store["embedding"].size
    blocks = store.matrices[first : first + config.layers * size].reshape(config.layers, size)
    norms = store.vectors.reshape(-1, config.dim)
    return store["embedding"], blocks, norms, store["embedding" if config.tied else "output"]


def initialise(store, config, seed, deviation=0.02):
    """Norms 1; biases 0; matrices normal, their deviation divided by sqrt(2 L) where they write to the residual stream

    The 2 L layers each add to the stream; the smaller deviation keeps its variance from growing with depth.
    Source: Radford et al. 2019 (GPT-2), section 2.3, with 0.02 for widths from 768.
    """
    rng = np.random.default_rng(seed)
    for name, array in store.items():
        if array.ndim == 1:
            array[:] = 1 if name.endswith("_norm") else 0
        else:
            residual = name.endswith(("w_o", "w_down"))
            scale = deviation / np.sqrt(2 * config.layers) if residual else deviation
            array[:] = rng.standard_normal(array.shape, np.float32) * np.float32(scale)
