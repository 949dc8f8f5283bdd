"""Models whose matrices stay in fewer bytes than they are computed with: bfloat16 and half precision, int8

They read and write text as other models do, and do not train. The network is that of minillama.model. A matrix is
widened a few rows at a time where many tokens meet it, and in the registers where a LLaMA writes a single token
(minillama.kernels.decoding), which reads every weight once: half the bytes are half the time.
"""

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np

from .. import backend
from ..model import Model
from ..parameters import parameter_shapes, stacked_views, views
from ..runtime.memory import Store, empty, frame
from ..runtime.workers import Workers, available_threads

WIDENED_AT_A_TIME = 2**20  # weights: 4 MB of float32, which stay in the cache until they are multiplied

# {kind of safetensors: (type of the array that holds the bits, the operation that widens it)}
HALVES = {"BF16": (np.uint16, "widen_bfloat16"), "F16": (np.int16, "widen_float16")}


class NarrowMatrix:
    """A matrix (R, C) of arrays whose rows belong together; matrix[rows] and matrix.T are float32, made when asked for

    widen: the name of the operation that makes float32 of the arrays.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, arrays, widen):
        self._arrays, self._widen = arrays, widen
        self.shape = arrays[0].shape

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        return getattr(backend.active(), self._widen)(*(array[rows] for array in self._arrays))

    @property
    def T(self):
        return self[:].T


class NarrowModel(Model):
    """A model of narrow matrices: all of Model but training; of int8 weights it is not saved

    stores: the arrays of which its matrices are made, a Store for each array of a NarrowMatrix, or for the only one;
    vectors: a Store of norms and biases in float32.
    """

    def __init__(self, config, stores, vectors, widen, threads=None, workers=None):
        self.config, self.workers = config, workers or Workers(available_threads() if threads is None else threads)
        self._make_tables(np.float32)
        self._vectors = vectors

        def matrix(names):
            return NarrowMatrix([store.fused(names) for store in stores], widen)

        self._matrices = {name: matrix([name]) for name in stores[0]}
        self._views = views(config, self._matrices, matrix, vectors, self._position_table)
        self._views.nbytes = sum(store.flat.nbytes for store in (*stores, vectors))
        if config.is_llama:
            embedding, blocks, _, output = zip(*(stacked_views(store, config) for store in stores), strict=True)
            norms = vectors.flat.reshape(-1, config.dim)
            alone = len(stores) == 1
            self._views.stacked = tuple(part[0] if alone else part for part in (embedding, blocks)) + (
                norms,
                output[0] if alone else output,
            )

    @property
    def dtype(self):
        return np.dtype(np.float32)

    @property
    def nbytes(self):
        """The size of all that is kept of the parameters, in bytes."""
        return self._views.nbytes

    @property
    def parameters(self):
        """{name: array} in float32, each made when it is asked for and read-only: nothing that is kept would change."""
        return _Widened(parameter_shapes(self.config), self._matrices, self._vectors)

    @property
    def matrices(self):
        return self._matrices

    def kept(self, names):
        raise TypeError(
            "int8 weights follow from others and are not saved: save the model that they were made from, or write a "
            "file of llama2.c with minillama convert --int8"
        )

    def loss_and_gradients(self, *_, **__):
        raise TypeError(
            "narrow weights cannot be trained, as steps are smaller than their rounding; open the checkpoint with "
            "minillama.load(path, dtype='float32')"
        )

    def _operations(self):
        """Those of the backend, of which linear and embedding meet narrow matrices too."""
        op = super()._operations()

        def linear(x, weight, bias=None):
            if not isinstance(weight, NarrowMatrix):
                return op.linear(x, weight, bias)
            y, rows = empty((len(x), len(weight)), x.dtype), max(1, WIDENED_AT_A_TIME // weight.shape[1])
            for start in range(0, len(weight), rows):
                with frame():
                    y[:, start : start + rows] = op.linear(x, weight[start : start + rows])
            if bias is not None:
                y += bias
            return y

        def embedding(ids, weight):
            return weight[ids] if isinstance(weight, NarrowMatrix) else op.embedding(ids, weight)

        return SimpleNamespace(**{**vars(op), "linear": linear, "embedding": embedding})


class _Widened(Mapping):
    def __init__(self, shapes, matrices, vectors):
        self.shapes, self._matrices, self._vectors = shapes, matrices, vectors

    def __getitem__(self, name):
        array = self._matrices[name][:] if name in self._matrices else self._vectors[name].view()
        array.flags.writeable = False
        return array

    def __iter__(self):
        return iter(self.shapes)

    def __len__(self):
        return len(self.shapes)


class HalfModel(NarrowModel):
    """A model whose matrices are bfloat16 ("BF16") or half precision ("F16"), the numbers of its checkpoint exactly

    Its matrices are the Store `bits`, its vectors the Store `vectors` in float32, for a reader of checkpoints to fill.
    """

    def __init__(self, config, kind, threads=None):
        dtype, widen = HALVES[kind]
        shapes = parameter_shapes(config)
        self.kind = kind
        self.bits = Store({name: shape for name, shape in shapes.items() if len(shape) > 1}, dtype)
        self.vectors = Store({name: shape for name, shape in shapes.items() if len(shape) == 1})
        super().__init__(config, (self.bits,), self.vectors, widen, threads)

    def kept(self, names):
        return (self.bits if names[0] in self.bits else self.vectors).fused(names)
