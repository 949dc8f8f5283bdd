"""Weights as they are computed with and trained: float32 or float64, all in one flat buffer."""

import numpy as np

from ..parameters import parameter_shapes, stacked_views
from ..runtime.memory import Store
from . import TRAINABLE


class FloatWeights:
    """Parameters of a Config in a Store, all 0, for `initialise` or a reader of checkpoints to fill. The interface is
    that of minillama.weights."""

    def __init__(self, config, dtype=np.float32):
        if np.dtype(dtype).name not in TRAINABLE:
            raise ValueError(f"dtype must be {' or '.join(TRAINABLE)}; received {np.dtype(dtype)}")
        self._config = config
        self.parameters = self.vectors = store = Store(parameter_shapes(config), dtype)
        self.matrices = {name: array for name, array in store.items() if array.ndim > 1}
        self.dtype, self.kind, self.nbytes = store.flat.dtype, store.flat.dtype.name, store.flat.nbytes
        self.dtypes = (self.kind,)

    def __reduce__(self):  # what is copied, or sent to another process, is the buffer; all else are views of it
        return type(self), (self._config, self.dtype), self.parameters.flat

    def __setstate__(self, flat):
        self.parameters.flat[:] = flat

    def matrix(self, names):
        """The array of parameters that lie side by side, which is both kept and computed with."""
        return self.parameters.fused(names)

    kept = matrix

    def operations(self, op):
        """Those of a backend, as they are."""
        return op

    def stacked(self, config):
        """embedding, blocks, norms and output of a LLaMA, as minillama.parameters.stacked_views makes them."""
        embedding, blocks, norms, output = stacked_views(self.parameters, config)
        return (embedding,), (blocks,), norms, (output,)

    def require_trainable(self):
        """Nothing: these are trained."""
