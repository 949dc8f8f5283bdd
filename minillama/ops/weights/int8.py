"""int8 weights for decoding: a quarter of the memory to hold and to read, and nearly the same model.

Along each row of a matrix, every GROUP weights share one float32 scale, the largest magnitude among them / 127, so that
a large weight costs only its neighbours precision. Activations, norms and all sums stay float32.
Source: symmetric quantisation by groups as in llama2.c (runq.c) and, with the name, in Shen et al. 2020 (Q-BERT,
arXiv 1909.05840), section 3.3; here the activations are not rounded.
"""

import numpy as np

GROUP = 64  # weights of a row that share a scale; the last group may be shorter


def layout_int8(columns):
    return {"q": (np.int8, columns), "scales": (np.float32, -(-columns // GROUP))}


def pack_int8(weight):
    """q = round(w / scale),   scale = max |w| / 127 over each group;   |w - scale q| <= scale / 2

    weight (R, C) -> q int8 (R, C), scales float32 (R, ceil(C / GROUP)); a group of zeros has the scale 0.
    """
    if not np.isfinite(weight).all():
        raise ValueError("the weights are not all finite: this model is damaged, or its training diverged")
    starts = np.arange(0, weight.shape[1], GROUP)
    scales = (np.maximum.reduceat(np.abs(weight), starts, axis=1) / 127).astype(np.float32)
    divisors = np.where(scales == 0, np.float32(1), scales)
    spread = np.repeat(divisors, GROUP, axis=1)[:, : weight.shape[1]]
    return np.rint(weight / spread).clip(-127, 127).astype(np.int8), scales


def widen_int8(q, scales):
    """w = scale q: q int8 (R, C), scales float32 (R, ceil(C / GROUP)) -> float32 (R, C)"""
    return q * np.repeat(scales, GROUP, axis=1)[:, : q.shape[1]]
