"""Weights in fewer bytes than they are computed with: bfloat16, half precision, int8 ...

A model of them reads and writes text as others do, and does not train. A matrix is widened a few rows at a time where
many tokens meet it, and in the registers where a LLaMA writes a single token (minillama.kernels.decoding), which reads
every weight once: half the bytes are half the time.
"""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np

from .. import backend
from ..parameters import parameter_shapes, stacked_views
from ..runtime.memory import Store, empty, frame
from . import PACKED, WEIGHT_KINDS

WIDENED_AT_A_TIME = 2**20  # weights: 4 MB of float32, which stay in the cache until they are multiplied


class PackedMatrix:
    """A matrix (R, C) of arrays (R, ...) of a kind; matrix[rows] and matrix.T are float32, made when asked for."""

    dtype = np.dtype(np.float32)

    def __init__(self, row, arrays, columns):
        self.arrays, self.shape = arrays, (len(arrays[0]), columns)
        self._widen = row.widen.__name__  # an operation, which may have a kernel

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        wide = getattr(backend.active(), self._widen)(*(array[rows] for array in self.arrays))
        return wide[:, : self.shape[1]]

    @property
    def T(self):
        """The transpose (C, R), float32."""
        return self[:].T


class PackedWeights:
    """Parameters of a Config in a kind of PACKED, all 0, for a reader of checkpoints or `pack` to fill

    stores: a Store for each array of the kind's layout, with the names of the matrices. The interface is that of
    minillama.weights.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, config, kind):
        if kind not in PACKED:
            raise ValueError(f"weights are packed as {', '.join(PACKED)}; received {kind!r}")
        self._config, self.kind, self._row = config, kind, WEIGHT_KINDS[kind]
        self._shapes = shapes = parameter_shapes(config)
        layouts = {name: (shape[0], self._row.layout(shape[1])) for name, shape in shapes.items() if len(shape) > 1}
        self.stores = [
            Store({name: (rows, layout[array][1]) for name, (rows, layout) in layouts.items()}, dtype)
            for array, (dtype, _) in self._row.layout(config.dim).items()
        ]
        self.dtypes = tuple(store.flat.dtype.name for store in self.stores)
        self.vectors = Store({name: shape for name, shape in shapes.items() if len(shape) == 1})
        self.matrices = {name: self.matrix([name]) for name in layouts}
        self.parameters = _Widened(self)
        self.nbytes = sum(store.flat.nbytes for store in (*self.stores, self.vectors))

    def __reduce__(self):  # what is copied, or sent to another process, are the buffers; all else are views of them
        return type(self), (self._config, self.kind), [store.flat for store in (*self.stores, self.vectors)]

    def __setstate__(self, flats):
        for store, flat in zip((*self.stores, self.vectors), flats, strict=True):
            store.flat[:] = flat

    def matrix(self, names):
        """A PackedMatrix over matrices that lie side by side."""
        return PackedMatrix(self._row, [store.fused(names) for store in self.stores], self._shapes[names[0]][1])

    def kept(self, names):
        """The array of parameters that lie side by side, as it is kept; TypeError for a kind that is not saved."""
        if self._row.tensor is None:
            raise TypeError(
                f"{self.kind} weights follow from others and are not saved: save the model that they were made from, "
                f"or write a file of llama2.c with minillama convert --int8"
            )
        return (self.stores[0] if names[0] in self.matrices else self.vectors).fused(names)

    def pack(self, weights):
        """Fill these weights with others of the same Config, rounded; ValueError for what the kind cannot hold."""
        for name, matrix in weights.matrices.items():
            rows = max(1, WIDENED_AT_A_TIME // matrix.shape[1])
            for part in (slice(start, start + rows) for start in range(0, len(matrix), rows)):
                for store, packed in zip(self.stores, self._row.pack(matrix[part]), strict=True):
                    store[name][part] = packed
        for name, vector in self.vectors.items():
            vector[:] = weights.vectors[name]

    def operations(self, op):
        """Those of a backend, of which linear and embedding meet packed matrices too."""

        def linear(x, weight, bias=None):
            if not isinstance(weight, PackedMatrix):
                return op.linear(x, weight, bias)
            y, rows = empty((len(x), len(weight)), x.dtype), max(1, WIDENED_AT_A_TIME // weight.shape[1])
            for start in range(0, len(weight), rows):
                with frame():
                    y[:, start : start + rows] = op.linear(x, weight[start : start + rows])
            if bias is not None:
                y += bias
            return y

        def embedding(ids, weight):
            return weight[ids] if isinstance(weight, PackedMatrix) else op.embedding(ids, weight)

        return SimpleNamespace(**{**vars(op), "linear": linear, "embedding": embedding})

    def stacked(self, config):
        """embedding, blocks, norms and output of a LLaMA; all but the norms are tuples, an array for each store."""
        embedding, blocks, _, output = zip(*(stacked_views(store, config) for store in self.stores), strict=True)
        return embedding, blocks, self.vectors.flat.reshape(-1, config.dim), output

    def require_trainable(self):
        """TypeError: a step of training would be lost in the rounding."""
        raise TypeError(
            "narrow weights cannot be trained, as steps are smaller than their rounding; open the checkpoint with "
            "minillama.load(path, dtype='float32')"
        )


class _Widened(Mapping):
    """{name: array} of packed weights, read-only: nothing that is kept would change."""

    def __init__(self, weights):
        self.shapes, self._matrices, self._vectors = weights._shapes, weights.matrices, weights.vectors

    def __getitem__(self, name):
        array = self._matrices[name][:] if name in self._matrices else self._vectors[name].view()
        array.flags.writeable = False
        return array

    def __iter__(self):
        return iter(self.shapes)

    def __len__(self):
        return len(self.shapes)
