"""int8 weights for decoding: a quarter of the memory to hold and to read, and nearly the same model.

Along each row of a matrix, every GROUP weights share one float32 scale, the largest magnitude among them / 127, so that
a large weight costs only its neighbours precision. Activations, norms and all sums stay float32.
Source: symmetric quantisation by groups as in llama2.c (runq.c) and, with the name, in Shen et al. 2020 (Q-BERT,
arXiv 1909.05840), section 3.3; here the activations are not rounded.
"""

import numpy as np

from ..ops.narrow import GROUP
from ..parameters import parameter_shapes
from ..runtime.memory import Store
from .narrow import WIDENED_AT_A_TIME, NarrowModel


def quantize_rows(weight):
    """q = round(w / scale),   scale = max |w| / 127 over each group;   |w - scale q| <= scale / 2

    weight (R, C) -> q int8 (R, C), scales float32 (R, ceil(C / GROUP)); a group of zeros has the scale 0.
    The inverse is minillama.ops.narrow.widen_int8.
    """
    if not np.isfinite(weight).all():
        raise ValueError("the weights are not all finite: this model is damaged, or its training diverged")
    starts = np.arange(0, weight.shape[1], GROUP)
    scales = (np.maximum.reduceat(np.abs(weight), starts, axis=1) / 127).astype(np.float32)
    divisors = np.where(scales == 0, np.float32(1), scales)
    spread = np.repeat(divisors, GROUP, axis=1)[:, : weight.shape[1]]
    return np.rint(weight / spread).clip(-127, 127).astype(np.int8), scales


def quantize(model):
    """A copy of the model with int8 matrices, which reads and writes text as the model does, and does not train."""
    return QuantizedModel(model)


class QuantizedModel(NarrowModel):
    """A model of int8 matrices, made by `quantize`."""

    def __init__(self, model):
        shapes = parameter_shapes(model.config)
        matrices = {name: shape for name, shape in shapes.items() if len(shape) > 1}
        groups = {name: (rows, -(-columns // GROUP)) for name, (rows, columns) in matrices.items()}
        quantized, scales = Store(matrices, np.int8), Store(groups)
        vectors = Store({name: shape for name, shape in shapes.items() if len(shape) == 1})
        for name, (rows, columns) in matrices.items():
            step = max(1, WIDENED_AT_A_TIME // columns)
            for part in (slice(start, start + step) for start in range(0, rows, step)):
                quantized[name][part], scales[name][part] = quantize_rows(model.matrices[name][part])
        for name, vector in vectors.items():
            vector[:] = model.parameters[name]
        super().__init__(model.config, (quantized, scales), vectors, "widen_int8", workers=model.workers)
