"""The linear map."""


def linear(x, weight, bias=None):
    """y = x weight^T + bias

    x (N, C), weight (O, C), bias (O,) or None -> y (N, O).
    """
    y = x @ weight.T
    if bias is not None:
        y += bias
    return y


def linear_backward(dy, x, weight, dweight, dbias=None):
    """dx = dy weight,   dweight += dy^T x,   dbias += sum over rows of dy

    dy (N, O), x (N, C), weight (O, C) -> dx (N, C); adds to dweight (O, C) and dbias (O,).
    """
    rows = dy.reshape(-1, dy.shape[-1])
    dweight += rows.T @ x.reshape(-1, x.shape[-1])
    if dbias is not None:
        dbias += rows.sum(axis=0)
    return dy @ weight
