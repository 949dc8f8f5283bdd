"""BERT's head for masked language modelling."""


def masked_lm_head(op, config, p, x):
    """y = norm(gelu(w_head x + b_head)): (N, C)

    Source: Devlin et al. 2018 (arXiv 1810.04805) and its code, get_masked_lm_output.
    """
    inner = op.linear(x, *p.head)
    hidden = op.gelu(inner)
    y, saved_norm = op.norm(hidden, *p.head_norm, config.norm_eps)
    return y, (x, inner, hidden, saved_norm)


def masked_lm_head_backward(op, config, p, grad, dy, saved):
    x, inner, hidden, saved_norm = saved
    dhidden = op.norm_backward(dy, hidden, p.head_norm.weight, saved_norm, *grad.head_norm)
    dinner = op.gelu_backward(dhidden, inner)
    return op.linear_backward(dinner, x, p.head.weight, *grad.head)


def masked_lm_head_parameters(config):
    return {"head": (config.dim, config.dim)}, {"head_norm": config.dim}
