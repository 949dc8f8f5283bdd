"""int8 weights for decoding: a quarter of the memory to hold and to read, and nearly the same model.

Along each row of a matrix, every GROUP weights share one float32 scale, the largest magnitude among them / 127, so that
a large weight costs only its neighbours precision. Activations, norms and all sums stay float32.
Source: symmetric quantisation by groups as in llama2.c (runq.c) and, with the name, in Shen et al. 2020 (Q-BERT,
arXiv 1909.05840), section 3.3; here the activations are not rounded.
"""

from collections.abc import Mapping

import numpy as np

from .memory import Store
from .model import Model
from .parameters import block_views, outer_views, parameter_shapes, stacked_views

GROUP = 64  # weights that share a scale; the last group of a row may be shorter


def quantize_rows(weight):
    """q = round(w / scale),   scale = max |w| / 127 over each group;   |w - scale q| <= scale / 2

    weight (R, C) -> q int8 (R, C), scales float32 (R, ceil(C / GROUP)); a group of zeros has the scale 0.
    """
    if not np.isfinite(weight).all():
        raise ValueError("the weights are not all finite: this model is damaged, or its training diverged")
    starts = np.arange(0, weight.shape[1], GROUP)
    scales = (np.maximum.reduceat(np.abs(weight), starts, axis=1) / 127).astype(np.float32)
    divisors = np.where(scales == 0, np.float32(1), scales)
    q = np.rint(weight / _spread(divisors, weight.shape[1])).clip(-127, 127).astype(np.int8)
    return q, scales


def dequantize_rows(q, scales):
    """w = scale q: q int8 (R, C), scales (R, ceil(C / GROUP)) -> float32 (R, C)"""
    return q * _spread(scales, q.shape[1])


def _spread(scales, columns):
    """Each scale once for every weight of its group: (R, groups) -> (R, columns)."""
    return np.repeat(scales, GROUP, axis=1)[:, :columns]


def quantize(model):
    """A copy of the model with int8 matrices, which reads and writes text as the model does, and does not train."""
    return QuantizedModel(model)


class QuantizedModel(Model):
    """A model of int8 matrices: `logits`, `next_logits`, `loss` and `new_cache` of Model; made by `quantize`

    A token of one sequence is computed from the int8 weights as they lie. Longer inputs get the matrices of one layer
    at a time in float32.
    """

    def __init__(self, model):
        self.config, self.workers = model.config, model.workers
        config, shapes = model.config, parameter_shapes(model.config)
        self._make_tables(np.float32)
        matrices = {name: shape for name, shape in shapes.items() if len(shape) > 1}
        groups = {name: (rows, -(-columns // GROUP)) for name, (rows, columns) in matrices.items()}
        self.quantized = Store(matrices, np.int8)
        self.scales_and_vectors = Store({**shapes, **groups})
        for name, array in self.scales_and_vectors.items():
            if name in matrices:
                self.quantized[name][:], array[:] = quantize_rows(model.parameters[name])
            else:
                array[:] = model.parameters[name]
        self._views = _Views(config, self.quantized, self.scales_and_vectors, self._position_table)

    @property
    def dtype(self):
        return np.dtype(np.float32)

    @property
    def nbytes(self):
        """The size of weights and scales, in bytes."""
        return self._views.nbytes

    @property
    def parameters(self):
        raise TypeError("a model of int8 weights has no float parameters; change the model that it was made from")

    def loss_and_gradients(self, *_, **__):
        raise TypeError("int8 weights cannot be trained; train the model that they were made from, then quantize it")

    def save(self, *_, **__):
        raise TypeError("int8 weights are not a format of checkpoints; save the model that they were made from")


class _Views:
    """What `minillama.parameters.views` gives, but matrices are made from int8 each time that they are asked for."""

    def __init__(self, config, quantized, scales_and_vectors, position):
        def matrix(names):
            return dequantize_rows(quantized.fused(names), scales_and_vectors.fused(names))

        tables = _Matrices(quantized, matrix)
        self._outer = outer_views(config, tables, matrix, scales_and_vectors, position)
        self.blocks = _Blocks(config.layers, lambda i: block_views(config, i, matrix, scales_and_vectors))
        self.nbytes = quantized.flat.nbytes + scales_and_vectors.flat.nbytes
        if config.is_llama:
            embedding, blocks, _, output = stacked_views(quantized, config)
            embedding_scales, block_scales, norms, output_scales = stacked_views(scales_and_vectors, config)
            self.stacked = (embedding, embedding_scales), (blocks, block_scales), norms, (output, output_scales)

    def __getattr__(self, name):
        try:
            return self._outer[name]()
        except KeyError:
            raise AttributeError(name) from None


class _Matrices(Mapping):
    """The matrices by name, each in float32 when it is asked for."""

    def __init__(self, quantized, matrix):
        self._names, self._matrix = quantized.shapes, matrix

    def __getitem__(self, name):
        if name not in self._names:
            raise KeyError(name)
        return self._matrix([name])

    def __contains__(self, name):
        return name in self._names

    def __iter__(self):
        return iter(self._names)

    def __len__(self):
        return len(self._names)


class _Blocks:
    """The blocks as a sequence; each is made when it is asked for, so that one layer is in float32 at a time."""

    def __init__(self, count, make):
        self._count, self._make = count, make

    def __len__(self):
        return self._count

    def __getitem__(self, i):
        if i >= self._count:
            raise IndexError(i)
        return self._make(i)
