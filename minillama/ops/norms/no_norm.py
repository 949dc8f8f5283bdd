"""No normalisation: what is left of a norm without its arithmetic is the residual stream."""


def no_norm(x, weight, bias, eps, residual=None):
    """y = x

    x (N, C) -> x itself, not a copy, and nothing for the backward. With a residual (N, C), x += residual comes first,
    in place. weight, bias and eps are those of the other norms and not used. There is no kernel: NumPy's addition in
    place runs as fast as memory does.
    """
    if residual is not None:
        x += residual
    return x, None


def no_norm_backward(dy, x, weight, saved, dweight, dbias, dx=None):
    """dx = dy

    dy (N, C) -> dy itself, not a copy; or dx, with dy added to it, where a gradient that reaches the residual stream
    past the layer is given.
    """
    if dx is None:
        return dy
    dx += dy
    return dx
