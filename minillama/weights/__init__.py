"""What a Model has: weights of some kind, behind one interface.

A kind says how the matrices are kept: as they are computed with and trained (float32, float64), or in fewer bytes, to
be widened where they are used. WEIGHT_KINDS lists the kinds. A new one is a file in minillama.ops.weights, whose
docstring says what stands in it, and a row here; a kernel may follow in minillama.kernels.weights. Norms and biases are
vectors, of which there are few: where matrices are kept in fewer bytes they are float32.

The weights of a whole model are FloatWeights or PackedWeights (minillama.weights.floats, .packed). Of either, and of
any further holder, ask what the class Weights lists.

What is to train beside frozen weights of any kind, as low-rank matrices do, is a holder that has both: its
matrix(names) pairs the two, and its operations multiply by the pair.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..ops.weights.halves import (
    layout_bfloat16,
    layout_float16,
    pack_bfloat16,
    pack_float16,
    widen_bfloat16,
    widen_float16,
)
from ..ops.weights.int8 import layout_int8, pack_int8, widen_int8


class Weights(Protocol):
    """What every holder of a model's weights has."""

    @property
    def kind(self) -> str:
        """A name of WEIGHT_KINDS."""

    @property
    def dtype(self) -> np.dtype:
        """What is computed in: float32 or float64."""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Of a matrix's arrays, by which compiled code knows the kind."""

    @property
    def nbytes(self) -> int:
        """The size of all that is kept."""

    @property
    def parameters(self) -> Mapping[str, np.ndarray]:
        """{name: array}; where they cannot be changed, read-only copies, each made when asked for."""

    @property
    def matrices(self) -> Mapping[str, Any]:
        """{name: matrix}; matrix.shape, matrix[rows] and matrix.T as of an array."""

    @property
    def vectors(self) -> Mapping[str, np.ndarray]:
        """{name: array} of norms and biases."""

    def matrix(self, names: Sequence[str]) -> Any:
        """Matrices that lie side by side as one: what op.linear and op.embedding take."""

    def kept(self, names: Sequence[str]) -> np.ndarray:
        """The array of parameters that lie side by side, as it is kept: for a reader of a checkpoint to fill, and a
        writer to write; TypeError for a kind that has no form of a checkpoint."""

    def operations(self, op: Any) -> Any:
        """The operations of a backend, those among them that meet matrices knowing this kind."""

    def stacked(self, config: Any) -> tuple:
        """All arrays of a LLaMA, for a kernel that runs through its layers: embedding (V, ...), blocks (L, ...), norms
        (2 L + 1, C), output (V, ...); all but the norms are tuples, an array for each that a matrix is kept in."""

    def require_trainable(self) -> None:
        """TypeError where a training step would change nothing."""


class WeightKind(NamedTuple):
    """A row of WEIGHT_KINDS; the functions are as minillama.ops.weights says."""

    layout: Callable
    pack: Callable | None = None  # None: an array as it is, which can be trained
    widen: Callable | None = None
    tensor: str | None = None  # what safetensors call such numbers; None: matrices of this kind are not saved there
    told: bool = False  # whether `info` says what a model takes in it
    option: str | None = None  # help of the option --KIND of commands that read or write text; None: there is no option

    def row_bytes(self, columns):
        """The size of a row of so many weights."""
        return sum(np.dtype(dtype).itemsize * count for dtype, count in self.layout(columns).values())


WEIGHT_KINDS = {
    "float32": WeightKind(lambda columns: {"weight": (np.float32, columns)}, tensor="F32", told=True),
    "float64": WeightKind(lambda columns: {"weight": (np.float64, columns)}, tensor="F64"),
    "bfloat16": WeightKind(layout_bfloat16, pack_bfloat16, widen_bfloat16, tensor="BF16", told=True),
    "float16": WeightKind(layout_float16, pack_float16, widen_float16, tensor="F16"),  # takes what bfloat16 takes
    "int8": WeightKind(
        layout_int8,
        pack_int8,
        widen_int8,
        told=True,
        option="round the weights to 8 bits: a quarter of the memory, faster",
    ),
}
TRAINABLE = [name for name, row in WEIGHT_KINDS.items() if row.pack is None]
PACKED = [name for name, row in WEIGHT_KINDS.items() if row.pack is not None]
OF_TENSORS = {row.tensor: name for name, row in WEIGHT_KINDS.items() if row.tensor}  # {"BF16": "bfloat16" ...}
OPTIONS = {name: row.option for name, row in WEIGHT_KINDS.items() if row.option}
