"""int8 weights for decoding: a quarter of the memory to hold and to read, and nearly the same model.

Along each row of a matrix, every GROUP weights share one float32 scale, the largest magnitude among them / 127, so that
a large weight costs only its neighbours precision. Activations, norms and all sums stay float32.
Source: symmetric quantisation by groups as in llama2.c (runq.c) and, with the name, in Shen et al. 2020 (Q-BERT,
arXiv 1909.05840), section 3.3; here the activations are not rounded.
"""

from types import SimpleNamespace

import numpy as np

from .memory import Store
from .model import Model, parameter_shapes, stacked_views
from .ops.positions.rope import rope_angles

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
        tables = np.arange(config.context), config.head_dim, config.rope_theta
        self.rotation = rope_angles(*tables, np.float32)
        matrices = {name: shape for name, shape in shapes.items() if len(shape) > 1}
        groups = {name: (rows, -(-columns // GROUP)) for name, (rows, columns) in matrices.items()}
        self.quantized = Store(matrices, np.int8)
        self.scales_and_norms = Store({**shapes, **groups})
        for name, array in self.scales_and_norms.items():
            if name in matrices:
                self.quantized[name][:], array[:] = quantize_rows(model.parameters[name])
            else:
                array[:] = model.parameters[name]
        self._views = _Views(config, self.quantized, self.scales_and_norms)

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
    """What `minillama.model.named_views` gives, but matrices are made from int8 each time that they are asked for."""

    def __init__(self, config, quantized, scales_and_norms):
        self._config, self._quantized, self._scales = config, quantized, scales_and_norms
        self.final_norm = scales_and_norms["final_norm"]
        self.blocks = _Blocks(self)
        self.nbytes = quantized.flat.nbytes + scales_and_norms.flat.nbytes
        embedding, blocks, _, output = stacked_views(quantized, config)
        embedding_scales, block_scales, norms, output_scales = stacked_views(scales_and_norms, config)
        self.stacked = (embedding, embedding_scales), (blocks, block_scales), norms, (output, output_scales)

    @property
    def embedding(self):
        return self.matrix("embedding")

    @property
    def output(self):
        return self.matrix("embedding" if self._config.tied else "output")

    def matrix(self, *names):
        """The matrices of these names, which lie side by side, as one in float32."""
        return dequantize_rows(self._quantized.fused(names), self._scales.fused(names))

    def block(self, i):
        prefix = f"blocks.{i}."

        def matrix(*names):
            return self.matrix(*(prefix + name for name in names))

        return SimpleNamespace(
            attention_norm=self._scales[prefix + "attention_norm"],
            ffn_norm=self._scales[prefix + "ffn_norm"],
            w_qkv=matrix("w_q", "w_k", "w_v"),
            w_o=matrix("w_o"),
            w_gate_up=matrix("w_gate", "w_up"),
            w_down=matrix("w_down"),
        )


class _Blocks:
    """The blocks as a sequence; each is made when it is asked for, so that one layer is in float32 at a time."""

    def __init__(self, views):
        self._views = views

    def __len__(self):
        return self._views._config.layers

    def __getitem__(self, i):
        if i >= len(self):
            raise IndexError(i)
        return self._views.block(i)
