"""BERT's head for masked language modelling."""

from typing import NamedTuple

from ...ops.interface import Operations
from .. import declare
from ..declare import Affine


class MaskedLMWeights(NamedTuple):
    """The parameters of the head."""

    linear: Affine  # weight (C, C)
    norm: Affine  # weight (C,)


def masked_lm_head_parameters(config):
    """The MaskedLMWeights of such a model, declared."""
    C = config.dim
    return MaskedLMWeights(
        linear=declare.linear({"head": (C, C)}, "head", "head" in config.bias),
        norm=declare.norm(config, "head_norm", C),
    )


def masked_lm_head(op: Operations, config, p: MaskedLMWeights, x):
    """y = norm(gelu(w_head x + b_head)): (N, C)

    Source: Devlin et al. 2018 (arXiv 1810.04805) and its code, get_masked_lm_output.
    """
    inner = op.linear(x, *p.linear)
    hidden = op.gelu(inner)
    y, saved_norm = op.norm(hidden, *p.norm, config.norm_eps)
    return y, (x, inner, hidden, saved_norm)


def masked_lm_head_backward(op: Operations, config, p: MaskedLMWeights, grad: MaskedLMWeights, dy, saved):
    x, inner, hidden, saved_norm = saved
    dhidden = op.norm_backward(dy, hidden, p.norm.weight, saved_norm, *grad.norm)
    dinner = op.gelu_backward(dhidden, inner)
    return op.linear_backward(dinner, x, p.linear.weight, *grad.linear)
