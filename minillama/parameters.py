"""The parameters of a model: what its layers declare, as names and shapes, as views, and with their initial values."""

from math import prod
from typing import Any, NamedTuple

import numpy as np

from .layers.blocks import PLACEMENTS
from .layers.declare import ABSENT, Affine, Declared, filled, leaves, norm
from .layers.embedding import EmbeddingWeights, embedding_parameters
from .layers.heads import HEADS


class NetworkWeights(NamedTuple):
    """The parameters of a network by their places in it, or gradients in the place of parameters."""

    embedding: EmbeddingWeights
    blocks: list  # of the named tuple that the config's row of PLACEMENTS declares
    final_norm: Affine  # ABSENT where the blocks leave nothing to normalise
    head: Any  # the named tuple that the config's row of HEADS declares, or None
    output: Affine  # weight (V, C), which may be the embedding matrix


def network_parameters(config):
    """The NetworkWeights of such a model, declared; the blocks are alike, and their names have no prefix yet."""
    V, C, placement = config.vocab_size, config.dim, PLACEMENTS[config.placement]
    # A tied output matrix is declared a second time: looked up as the embedding, and multiplied by here.
    output = Declared({"embedding" if config.tied else "output": (V, C)}, "head")
    bias = Declared({"output_bias": (V,)}, "norms and biases") if "head" in config.bias else None
    return NetworkWeights(
        embedding=embedding_parameters(config),
        blocks=[placement.parameters(config)] * config.layers,
        final_norm=norm(config, "final_norm", C) if placement.final_norm else ABSENT,
        head=HEADS[config.head].parameters(config),
        output=Affine(output, bias),
    )


class Parameter(NamedTuple):
    """A parameter: its shape, and the declaration that it belongs to."""

    shape: tuple[int, ...]
    declared: Declared


def parameters_of(config):
    """{name: Parameter} in the network's order. Matrices are w_..., (out, in); biases b_...; norms end in _norm."""
    network, found = network_parameters(config), {}

    def add(declared, prefix=""):
        for one in declared:
            for name, shape in one.shapes.items():
                found.setdefault(prefix + name, Parameter(shape, one))  # a tied matrix is the embedding already

    add(leaves(network.embedding))
    block = list(leaves(network.blocks[0]))
    for i in range(config.layers):
        add(block, f"blocks.{i}.")
    add(leaves((network.final_norm, network.head, network.output)))
    return found


def parameter_shapes(config):
    """{name: shape} of every parameter."""
    return {name: parameter.shape for name, parameter in parameters_of(config).items()}


def views(config, store, matrix=None, vectors=None, position=None):
    """The NetworkWeights of a model: arrays in the place of what is declared

    Matrices that lie side by side are one view, which costs nothing. store: a Store, whose tables are looked up.
    matrix(names) gives the matrix of these names, vectors is where vectors come from; both are the store's own unless
    given. position: the fixed table that is added to the embeddings, where there is one.
    """
    matrix, vectors = matrix or store.fused, vectors or store

    def make(weights, prefix=""):
        def array(declared):
            names = [prefix + name for name in declared.shapes]
            if declared.looked_up:
                return store[names[0]]
            return vectors.fused(names) if declared.is_vector else matrix(names)

        return filled(weights, array)

    network = network_parameters(config)
    embedding = make(network.embedding)
    return NetworkWeights(
        embedding=embedding if position is None else embedding._replace(position=position),
        blocks=[make(block, f"blocks.{i}.") for i, block in enumerate(network.blocks)],
        final_norm=make(network.final_norm),
        head=make(network.head),
        output=make(network.output),
    )


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
    """Vectors as declared: norms 1, biases 0; matrices normal, with this deviation divided by what is declared

    Source: Radford et al. 2019 (GPT-2), section 2.3, with 0.02 for widths from 768.
    """
    rng, parameters = np.random.default_rng(seed), parameters_of(config)
    for name, array in store.items():
        parameters[name].declared.initialise(array, rng, deviation)
