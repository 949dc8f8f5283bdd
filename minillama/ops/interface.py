"""The operations that a network calls through `op`, each with the place of its definition.

`op` is a backend (minillama.backend.active): a function for each of these names, NumPy's or a kernel's. A network knows
them by this list alone; what each computes, with its formula and its source, stands in the module that is named.
"""

from typing import Any, Protocol

from numpy import ndarray as Array


class Operations(Protocol):
    """A backend for a Config. tests/test_interface.py holds every backend to these names, arguments and defaults."""

    name: str  # "numpy" or "numba"

    # The choices of the config, by their roles: rows of ops.norms.NORMS and ops.feedforward.FEED_FORWARDS
    @staticmethod
    def norm(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Any]:
        """ops.norms: y (N, C), and what the backward wants."""

    @staticmethod
    def norm_backward(
        dy: Array,
        x: Array,
        weight: Array | None,
        saved: Any,
        dweight: Array | None,
        dbias: Array | None,
        dx: Array | None = None,
    ) -> Array:
        """ops.norms: dx (N, C), added to the given one in place."""

    @staticmethod
    def activation(z: Array) -> Array:
        """ops.feedforward: h (N, F), of z (N, F), or of gate and up (N, 2 F)."""

    @staticmethod
    def activation_backward(dh: Array, z: Array) -> Array:
        """ops.feedforward: dz, in the shape of z."""

    @staticmethod
    def linear(x: Array, weight: Array | None, bias: Array | None = None) -> Array:
        """ops.linear: y (N, out) = x weight^T + bias."""

    @staticmethod
    def linear_backward(
        dy: Array, x: Array, weight: Array | None, dweight: Array | None, dbias: Array | None = None
    ) -> Array:
        """ops.linear: dx (N, in)."""

    @staticmethod
    def embedding(ids: Array, weight: Array) -> Array:
        """ops.embedding: the rows of weight (V, C) that ids (N,) name."""

    @staticmethod
    def embedding_backward(dy: Array, ids: Array, dweight: Array) -> None:
        """ops.embedding: adds the rows dy (N, C) to those of dweight."""

    @staticmethod
    def rope(x: Array, cos: Array, sin: Array, layout: str, heads: int | None = None) -> Array:
        """ops.positions.rope: x (B, T, H, D) turned by the angles of its positions, in place."""

    @staticmethod
    def rope_backward(dy: Array, cos: Array, sin: Array, layout: str, heads: int | None = None) -> Array:
        """ops.positions.rope: dy turned back, in place."""

    @staticmethod
    def attention(
        q: Array, k: Array, v: Array, causal: bool = True, slopes: Array | None = None, lengths: Array | None = None
    ) -> tuple[Array, Array]:
        """ops.attention: o, and the logarithm of the softmax's denominator."""

    @staticmethod
    def attention_backward(
        do: Array, q: Array, k: Array, v: Array, o: Array, log_denominator: Array,
        causal: bool = True, slopes: Array | None = None, lengths: Array | None = None,
    ) -> Array:  # fmt: skip
        """ops.attention: dq, dk and dv."""

    @staticmethod
    def attention_map(
        q: Array, k: Array, log_denominator: Array,
        causal: bool = True, slopes: Array | None = None, lengths: Array | None = None,
    ) -> Array:  # fmt: skip
        """ops.attention: the weights that attention mixes values with."""

    @staticmethod
    def dropout(x: Array, rate: float, key: int, first_row: int = 0) -> Array:
        """ops.dropout: a share of the elements set to 0, in place."""

    @staticmethod
    def gelu(z: Array) -> Array:
        """ops.feedforward.gelu, which the head of a masked model has."""

    @staticmethod
    def gelu_backward(dh: Array, z: Array) -> Array:
        """ops.feedforward.gelu."""

    @staticmethod
    def cross_entropy(logits: Array, targets: Array) -> tuple[Array, Array]:
        """ops.loss: the loss of each row (N,), and the logarithm of its softmax's denominator."""

    @staticmethod
    def cross_entropy_backward(weights: Array, logits: Array, targets: Array, log_denominator: Array) -> Array:
        """ops.loss: dlogits (N, V), in the place of the logits."""

    @staticmethod
    def decode(config: Any, p: Any, weights: Any, token: int, rotation: Any, cache: Any, workers: Any) -> Array:
        """ops.decoding: the logits (V,) after one token of a LLaMA, in one call."""
