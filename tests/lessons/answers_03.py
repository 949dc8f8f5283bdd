"""Right and wrong answers to the exercises of lesson 03."""

import numpy as np

from minillama.ops.norms import layernorm, layernorm_backward, rmsnorm

RIGHT = {}  # exercise -> list of functions
WRONG = {}  # exercise -> list of (function, a part of the hint that it must get)


# ---- rmsnorm_as_llama


def llama_library(x, weight, eps):
    wide = x if x.dtype == np.float64 else x.astype(np.float32)
    return rmsnorm(wide, weight.astype(wide.dtype), eps)[0].astype(x.dtype)


def llama_order(x, weight, eps):
    h = x.astype(np.float32 if x.dtype != np.float64 else np.float64)
    h = h / np.sqrt((h**2).mean(-1, keepdims=True) + h.dtype.type(eps))
    return h.astype(x.dtype) * weight


def llama_loop(x, weight, eps):
    y = np.empty_like(x)
    for n in range(x.shape[0]):
        total = 0.0
        for value in x[n]:
            total += float(value) ** 2
        for c in range(x.shape[1]):
            y[n, c] = float(weight[c]) * float(x[n, c]) / (total / x.shape[1] + eps) ** 0.5
    return y


def llama_einsum(x, weight, eps):
    a = x.astype(np.float64)
    scale = (np.einsum("nc,nc->n", a, a) / a.shape[1] + eps) ** -0.5
    return np.einsum("nc,n,c->nc", a, scale, weight.astype(np.float64)).astype(x.dtype)


def _llama(change):
    """A wrong rmsnorm, computed in float64: change(x, weight, eps)."""
    return lambda x, weight, eps: change(x.astype(float), weight.astype(float), eps).astype(x.dtype)


def _mean2(x, **how):
    return (x**2).mean(**({"axis": 1, "keepdims": True} | how))


def llama_hypot(x, weight, eps):
    wide = x.astype(np.float64)
    rms = np.linalg.norm(wide, axis=1, keepdims=True) / np.sqrt(x.shape[1])
    return np.asfortranarray((weight * wide / np.hypot(rms, np.sqrt(eps))).astype(x.dtype))


def llama_half_eps(x, weight, eps):
    """Squares in float32, but an eps in float16, where 1e-8 is 0."""
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    return weight * (wide / np.sqrt(_mean2(wide) + wide.dtype.type(x.dtype.type(eps)))).astype(x.dtype)


def llama_half_mean(x, weight, eps):
    """Squares in float32, but their mean in float16."""
    wide = x.astype(np.promote_types(x.dtype, np.float32))
    return (weight * x / np.sqrt(_mean2(wide).astype(x.dtype) + x.dtype.type(max(eps, 1e-6)))).astype(x.dtype)


RIGHT["rmsnorm_as_llama"] = [llama_library, llama_order, llama_loop, llama_einsum, llama_hypot]
WRONG["rmsnorm_as_llama"] = [
    (_llama(lambda x, w, e: w * x / (np.sqrt(_mean2(x)) + e)), "inside the square root"),
    (_llama(lambda x, w, e: w * x / np.sqrt(_mean2(x))), "eps is left out"),
    (_llama(lambda x, w, e: w * x / np.sqrt((x * x).sum(1, keepdims=True) + e)), "not averaged"),
    (_llama(lambda x, w, e: w * x / np.sqrt((x * x).sum(1, keepdims=True) / (x.shape[1] - 1) + e)), "Bessel"),
    (_llama(lambda x, w, e: w * x / np.sqrt(_mean2(x, axis=0) + e)), "wrong axis"),
    (_llama(lambda x, w, e: w * x / np.sqrt(np.mean(x**2) + e)), "whole array"),
    (_llama(lambda x, w, e: layernorm(x, w, e)[0]), "this is LayerNorm"),
    (_llama(lambda x, w, e: x / np.sqrt(_mean2(x) + e)), "weight is missing"),
    (_llama(lambda x, w, e: w * (w * x / np.sqrt(_mean2(x) + e))), "twice"),
    (_llama(lambda x, w, e: w * x / (_mean2(x) + e)), "root is missing"),
    (_llama(lambda x, w, e: w * x / np.sqrt(x.var(1, keepdims=True) + e)), "standard deviation"),
    (_llama(lambda x, w, e: w * x / np.sqrt(_mean2(w * x) + e)), "normalise first"),
    (_llama(lambda x, w, e: (1 + w) * x / np.sqrt(_mean2(x) + e)), "does not hold"),  # not in the table
    (_llama(lambda x, w, e: w * x / np.sqrt(_mean2(x) + 1e-5)), "does not hold"),  # not in the table: a fixed eps
    (llama_half_eps, "not finite"),
    (llama_half_mean, "are float16 on the way"),
    (_llama(lambda x, w, e: w * x / np.sqrt(_mean2(x) + e**2)), "eps is squared"),
    (_llama(lambda x, w, e: w * x / np.maximum(np.sqrt(_mean2(x)), e)), "larger of the root and eps"),
    (_llama(lambda x, w, e: w * x / np.sqrt(np.maximum(_mean2(x), e))), "larger of the mean of the squares and eps"),
    (_llama(lambda x, w, e: w * x / np.sqrt(np.clip(_mean2(x), e, None))), "larger of the mean of the squares and eps"),
    (_llama(lambda x, w, e: w * x / (np.sqrt(_mean2(x) + e) + e)), "once inside the root and once outside"),
    (_llama(lambda x, w, e: w * x / np.sqrt(_mean2(x) + e + e)), "twice inside"),
    (_llama(lambda x, w, e: w * x / (np.sqrt(_mean2(x)) + np.sqrt(e))), "before the root is taken"),
    (_llama(lambda x, w, e: w * x / np.sqrt(((x * x).sum(1, keepdims=True) + e) / x.shape[1])), "add it to their mean"),
    (_llama(lambda x, w, e: w * x / np.sqrt(_mean2(x)) + e), "added to the result"),
    (_llama(lambda x, w, e: w * x / (np.abs(x).mean(1, keepdims=True) + e)), "mean of |x|"),
    (_llama(lambda x, w, e: w * x / np.linalg.norm(x, axis=1, keepdims=True)), "does not hold"),  # not in the table
    (lambda x, w, e: (w * x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + e)).astype(x.dtype), "float32 first"),
    (lambda x, w, e: w * x / np.sqrt(_mean2(x.astype(np.float64)) + e), "dtype of the input"),
    (lambda x, w, e: llama_order(x.astype(np.float32), w.astype(np.float32), e).astype(x.dtype), "promote_types"),
]


# ---- partial_rmsnorm_backward


def partial_fused(dy, x, weight, eps, k):
    r = np.sqrt((x[:, :k] ** 2).mean(1, keepdims=True) + eps)
    g, dx = dy * weight, dy * weight / r
    dx[:, :k] -= x[:, :k] * (g * x).sum(1, keepdims=True) / (k * r**3)
    return dx, (dy * x / r).sum(0)


def partial_atomic(dy, x, weight, eps, k):
    mean_square = np.mean(x[:, :k] ** 2, axis=1)
    inverse = (mean_square + eps) ** -0.5
    dweight = np.einsum("nc,nc,n->c", dy, x, inverse)
    du = dy * weight
    dinverse = np.einsum("nc,nc->n", du, x)
    dmean_square = dinverse * -0.5 * (mean_square + eps) ** -1.5
    dx = du * inverse[:, None]
    dx[:, :k] += (dmean_square / k)[:, None] * 2 * x[:, :k]
    return dx, dweight


def partial_loop(dy, x, weight, eps, k):
    N, C = x.shape
    dx, dweight = np.zeros_like(x), np.zeros_like(weight)
    for n in range(N):
        r = np.sqrt(sum(x[n, j] ** 2 for j in range(k)) / k + eps)
        for i in range(C):
            dweight[i] += dy[n, i] * x[n, i] / r
            for j in range(C):  # dy_i / dx_j
                slope = (i == j) / r - (x[n, i] * x[n, j] / (k * r**3) if j < k else 0)
                dx[n, j] += dy[n, i] * weight[i] * slope
    return dx, dweight


def _partial(dx=None, dweight=None):
    """partial_fused with one result replaced: dx(g, u, r, first, k), dweight(dy, x, u, weight)."""

    def answer(dy, x, weight, eps, k):
        right = partial_fused(dy, x, weight, eps, k)
        r = np.sqrt(np.mean(x[:, :k] ** 2, axis=1, keepdims=True) + eps)
        first = (np.arange(x.shape[1]) < k).astype(x.dtype)
        made = dx(dy, weight, x / r, r, first, k) if dx else right[0]
        return made, dweight(dy, x, x / r, weight) if dweight else right[1]

    return answer


def _over_k(a, k):
    return a.sum(axis=1, keepdims=True) / k


def partial_no_eps(dy, x, weight, eps, k):
    return partial_fused(dy, x, weight, 0.0, k)


def partial_whole(dy, x, weight, eps, k):
    return partial_fused(dy, x, weight, eps, x.shape[1])


def partial_of_the_last(dy, x, weight, eps, k):
    dx, dweight = partial_fused(dy[:, ::-1], x[:, ::-1], weight[::-1], eps, k)
    return dx[:, ::-1], dweight[::-1]


def partial_rest_zero(dy, x, weight, eps, k):
    dx, dweight = partial_fused(dy, x, weight, eps, k)
    dx[:, k:] = 0
    return dx, dweight


def _partial_with(root):
    """partial_fused with another root of the mean square m and eps."""

    def answer(dy, x, weight, eps, k):
        r = root((x[:, :k] ** 2).mean(1, keepdims=True), eps)
        g, dx = dy * weight, dy * weight / r
        dx[:, :k] -= x[:, :k] * (g * x).sum(1, keepdims=True) / (k * r**3)
        return dx, (dy * x / r).sum(0)

    return answer


def _partial_dweight_with(root):
    return lambda *given: (partial_fused(*given)[0], _partial_with(root)(*given)[1])


MISPLACED = [  # where eps went, and a part of the hint
    (lambda m, e: np.sqrt(m) + e, "inside the square root"),
    (lambda m, e: np.maximum(np.sqrt(m), e), "larger of the root and eps"),
    (lambda m, e: np.sqrt(np.maximum(m, e)), "larger of the mean of the squares and eps"),
    (lambda m, e: np.sqrt(m + e) + e, "once inside the root and once outside"),
    (lambda m, e: np.sqrt(m + 2 * e), "twice inside"),
    (lambda m, e: np.sqrt(m) + np.sqrt(e), "before the root is taken"),
]


RIGHT["partial_rmsnorm_backward"] = [partial_fused, partial_atomic, partial_loop]
WRONG["partial_rmsnorm_backward"] = [
    (_partial(lambda dy, w, u, r, f, k: w * dy / r), "second path"),
    (_partial(lambda dy, w, u, r, f, k: (w * dy - u * _over_k(w * dy * u, k)) / r), "reaches all elements"),
    (_partial(lambda dy, w, u, r, f, k: (w * dy - f * u * _over_k(w * dy * u, len(w))) / r), "divided by C"),
    (
        _partial(lambda dy, w, u, r, f, k: (w * dy - f * u * _over_k((w * dy * u)[:, :k], k)) / r),
        "first k elements only",
    ),
    (_partial(lambda dy, w, u, r, f, k: (dy - f * u * _over_k(dy * u, k)) / r), "g = weight * dy"),
    (_partial(lambda dy, w, u, r, f, k: (w * dy - f * u * _over_k(dy * u, k)) / r), "in the correction"),
    (_partial(lambda dy, w, u, r, f, k: (w * dy + f * u * _over_k(w * dy * u, k)) / r), "wrong sign"),
    (_partial(lambda dy, w, u, r, f, k: w * dy - f * u * _over_k(w * dy * u, k)), "division by the RMS"),
    (_partial(lambda dy, w, u, r, f, k: (w * dy - f * u * _over_k(w * dy * u, 1)) / r), "divide by k"),
    (
        _partial(lambda dy, w, u, r, f, k: (w * dy - 2 * f * u * _over_k(w * dy * u, k)) / r),
        "term by term",
    ),  # not listed
    *[(_partial_with(root), hint) for root, hint in MISPLACED],
    *[(_partial_dweight_with(root), hint) for root, hint in MISPLACED],
    (_partial(lambda dy, w, u, r, f, k: w * (dy - f * u * _over_k(dy * u, k)) / r), "multiplied in at the end"),
    (_partial(lambda dy, w, u, r, f, k: (dy - f * u * _over_k(w * dy * u, k)) / r), "in the direct path"),
    (_partial(lambda dy, w, u, r, f, k: w * dy / r - f * u * _over_k(w * dy * u, k)), "only g is divided"),
    (_partial(lambda dy, w, u, r, f, k: w * dy - f * u * _over_k(w * dy * u, k) / r), "only the correction is divided"),
    (_partial(lambda dy, w, u, r, f, k: (w * dy - f * u * _over_k(w * dy * u, k)) / r**2), "divided by the RMS twice"),
    (lambda dy, x, w, e, k: _partial_with(lambda m, e: np.sqrt(k * m + e))(dy, x, w, e, k), "holds a mean"),
    (partial_no_eps, "eps is left out"),
    (partial_whole, "term by term"),  # not listed: both errors of it at once
    (partial_of_the_last, "term by term"),  # not listed
    (partial_rest_zero, "term by term"),  # not listed
    (_partial(dweight=lambda dy, x, u, w: (w * dy * u).sum(0)), "without the weight"),
    (_partial(dweight=lambda dy, x, u, w: (dy * x).sum(0)), "not x"),
    (_partial(dweight=lambda dy, x, u, w: (dy * u).mean(0)), "not the mean"),
    (_partial(dweight=lambda dy, x, u, w: dy.sum(0)), "gradient of a bias"),
    (_partial(dweight=lambda dy, x, u, w: dy * u), "must have shape"),
]


# ---- layernorm_gradient


def layernorm_library(dy, x, weight, eps):
    _, saved = layernorm(x, weight, eps)
    dweight = np.zeros_like(weight)
    return layernorm_backward(dy, x, weight, saved, dweight), dweight, dy.sum(axis=0)


def layernorm_composed(dy, x, weight, eps):
    centre = np.eye(x.shape[1], dtype=x.dtype) - 1 / x.dtype.type(x.shape[1])
    z = x @ centre
    r = np.sqrt((z * z).mean(1, keepdims=True) + eps)
    dz = weight * dy / r - z * (weight * dy * z).mean(1, keepdims=True) / r**3
    return dz @ centre, (dy * z / r).sum(0), dy.sum(0)


def layernorm_jacobian(dy, x, weight, eps):
    dx = []
    for row, grad in zip(x, dy, strict=True):
        C, z = len(row), row - row.mean()
        s = np.sqrt(z.var() + eps)
        jacobian = (np.eye(C) - 1 / C - np.outer(z, z) / (C * s**2)) / s
        dx.append(jacobian @ (weight * grad))
    z = x - x.mean(1, keepdims=True)
    u = z / np.sqrt(x.var(1, keepdims=True) + eps)
    return np.array(dx, x.dtype), np.einsum("nc,nc->c", dy, u), np.einsum("nc->c", dy)


def _layernorm(dx=None, dweight=None, dbias=None):
    """layernorm_composed with one result replaced."""

    def answer(dy, x, weight, eps):
        right = list(layernorm_composed(dy, x, weight, eps))
        s = np.sqrt(x.var(axis=1, keepdims=True) + eps)
        u = (x - x.mean(axis=1, keepdims=True)) / s
        for i, change in enumerate((dx, dweight, dbias)):
            if change:
                right[i] = change(dy, x, weight, u, s)
        return tuple(right)

    return answer


def _mean(a):
    return a.mean(axis=1, keepdims=True)


def _sum(a):
    return a.sum(axis=1, keepdims=True)


def layernorm_bessel(dy, x, weight, eps):
    s = np.sqrt(x.var(axis=1, keepdims=True, ddof=1) + eps)
    u, g = (x - _mean(x)) / s, weight * dy
    return (g - _mean(g) - u * _mean(g * u)) / s, (dy * u).sum(0), dy.sum(0)


def layernorm_is_rmsnorm(dy, x, weight, eps):
    dx, dweight = partial_fused(dy, x, weight, eps, x.shape[1])
    return dx, dweight, dy.sum(0)


def layernorm_without_eps(dy, x, weight, eps):
    return layernorm_composed(dy, x, weight, 0.0)


def layernorm_moments(dy, x, weight, eps):
    mean = _mean(x)
    s = np.sqrt(_mean(x**2) - mean**2 + eps)
    u, g = (x - mean) / s, weight * dy
    return [(g - _mean(g) - u * _mean(g * u)) / s, (dy * u).sum(0), dy.T @ np.ones(len(x), x.dtype)]


def layernorm_projected_rmsnorm(dy, x, weight, eps):
    """The mean is taken out of dx, but not out of x."""
    dx, dweight, dbias = layernorm_is_rmsnorm(dy, x, weight, eps)
    return dx - _mean(dx), dweight, dbias


def _layernorm_with(root):
    def answer(dy, x, weight, eps):
        centred, g = x - _mean(x), weight * dy
        s = root(_mean(centred**2), eps)
        u = centred / s
        return (g - _mean(g) - u * _mean(g * u)) / s, (dy * u).sum(0), dy.sum(0)

    return answer


def _layernorm_dweight_with(root):
    def answer(*given):
        dx, _, dbias = layernorm_composed(*given)
        return dx, _layernorm_with(root)(*given)[1], dbias

    return answer


RIGHT["layernorm_gradient"] = [layernorm_library, layernorm_composed, layernorm_jacobian, layernorm_moments]
WRONG["layernorm_gradient"] = [
    (_layernorm(lambda dy, x, w, u, s: (w * dy - u * _mean(w * dy * u)) / s), "mean(g) is missing"),
    (_layernorm(lambda dy, x, w, u, s: (w * dy - _mean(w * dy)) / s), "u mean(g u) is missing"),
    (_layernorm(lambda dy, x, w, u, s: w * dy / s), "both corrections"),
    (_layernorm(lambda dy, x, w, u, s: (dy - _mean(dy) - u * _mean(dy * u)) / s), "g = weight * dy"),
    (
        _layernorm(lambda dy, x, w, u, s: (w * dy - (w * dy).mean(0) - u * (w * dy * u).mean(0)) / s),
        "wrong axis",
    ),
    (
        _layernorm(
            lambda dy, x, w, u, s: (
                (w * dy - (w * dy).sum(1, keepdims=True) - u * (w * dy * u).sum(1, keepdims=True)) / s
            )
        ),
        "divide by C",
    ),
    (_layernorm(lambda dy, x, w, u, s: w * dy - _mean(w * dy) - u * _mean(w * dy * u)), "division by the standard"),
    (
        _layernorm(lambda dy, x, w, u, s: (w * dy + _mean(w * dy) - u * _mean(w * dy * u)) / s),
        "term by term",
    ),  # not listed
    *[(_layernorm_with(root), hint) for root, hint in MISPLACED],
    *[(_layernorm_dweight_with(root), hint) for root, hint in MISPLACED],
    (_layernorm(lambda dy, x, w, u, s: w * (dy - _mean(dy) - u * _mean(dy * u)) / s), "multiplied in at the end"),
    (_layernorm(lambda dy, x, w, u, s: (w * dy - _mean(dy) - u * _mean(dy * u)) / s), "missing in both means"),
    (_layernorm(lambda dy, x, w, u, s: (w * dy - _mean(dy) - u * _mean(w * dy * u)) / s), "in the mean of g"),
    (_layernorm(lambda dy, x, w, u, s: (w * dy - _mean(w * dy) - u * _mean(dy * u)) / s), "in the mean of g u"),
    (_layernorm(lambda dy, x, w, u, s: (w * dy - _sum(w * dy) - u * _mean(w * dy * u)) / s), "first correction is"),
    (_layernorm(lambda dy, x, w, u, s: (w * dy - _mean(w * dy) - u * _sum(w * dy * u)) / s), "second correction"),
    (_layernorm(lambda dy, x, w, u, s: (w * dy + _mean(w * dy) + u * _mean(w * dy * u)) / s), "both corrections are"),
    (_layernorm(lambda dy, x, w, u, s: w * dy / s - _mean(w * dy) - u * _mean(w * dy * u)), "only g is divided"),
    (_layernorm(lambda dy, x, w, u, s: (w * dy - _mean(w * dy) - u * _mean(w * dy * u)) / s**2), "deviation twice"),
    (lambda dy, x, w, e: _layernorm_with(lambda m, e: np.sqrt(x.shape[1] * m + e))(dy, x, w, e), "holds a mean"),
    (_layernorm(dweight=lambda dy, x, w, u, s: (dy * u).mean(0)), "not the mean"),
    (layernorm_bessel, "Bessel"),
    (layernorm_is_rmsnorm, "RMSNorm"),
    (layernorm_without_eps, "eps is left out"),
    (layernorm_projected_rmsnorm, "term by term"),  # not listed
    (_layernorm(dweight=lambda dy, x, w, u, s: (dy * u * s).sum(0)), "the division is missing"),
    (_layernorm(dweight=lambda dy, x, w, u, s: (w * dy * u).sum(0)), "without the weight"),
    (_layernorm(dweight=lambda dy, x, w, u, s: (dy * x).sum(0)), "not x"),
    (_layernorm(dweight=lambda dy, x, w, u, s: dy.sum(0)), "exchanged"),
    (_layernorm(dbias=lambda dy, x, w, u, s: (w * dy).sum(0)), "added after the weight"),
    (_layernorm(dbias=lambda dy, x, w, u, s: dy.mean(0)), "not the mean"),
]


# ---- gradient_along_x


def along_closed(dy, x, weight, eps):
    r2 = (x * x).mean(1) + eps
    return eps * np.einsum("nc,c,nc->n", dy, weight, x) / r2**1.5


def along_loop(dy, x, weight, eps):
    result = []
    for grad, row in zip(dy, x, strict=True):
        r = np.sqrt(np.dot(row, row) / len(row) + eps)
        result.append(np.dot(grad * weight, row) / r * (eps / r**2))
    return np.array(result)


def along_y(dy, x, weight, eps):
    y, inverse = rmsnorm(x, weight, eps)
    return (dy * y).sum(axis=1) * eps * inverse**2


def along_subtracted(dy, x, weight, eps):
    return (partial_fused(dy, x, weight, eps, x.shape[1])[0] * x).sum(axis=1)


def along_share(dy, x, weight, eps):
    mean_square = (x * x).mean(axis=1)
    return (weight * dy * x).sum(axis=1) / np.sqrt(mean_square + eps) * (1 - mean_square / (mean_square + eps))


def _along(change):
    """change(gx, m, eps, x, dy), with gx = sum(g x) and m the mean square."""
    return lambda dy, x, weight, eps: change((weight * dy * x).sum(1), (x * x).mean(1), eps, x, dy)


RIGHT["gradient_along_x"] = [along_closed, along_loop, along_y]
WRONG["gradient_along_x"] = [
    (_along(lambda gx, m, e, x, dy: gx / np.sqrt(m + e)), "path through the RMS"),
    (_along(lambda gx, m, e, x, dy: gx / np.sqrt(m + e) * m / (m + e)), "taken out"),
    (_along(lambda gx, m, e, x, dy: -gx * e / (m + e) ** 1.5), "sign"),
    (_along(lambda gx, m, e, x, dy: (dy * x).sum(1) * e / (m + e) ** 1.5), "weight is missing"),
    (_along(lambda gx, m, e, x, dy: gx * e / (m + e)), "division by the RMS"),
    (_along(lambda gx, m, e, x, dy: gx / np.sqrt(m + e) * e / m), "in the denominator"),
    (_along(lambda gx, m, e, x, dy: 0 * m), "only when eps is 0"),
    (_along(lambda gx, m, e, x, dy: gx * e / (m + e) ** 1.5 / x.shape[1]), "not the mean"),
    (_along(lambda gx, m, e, x, dy: gx * e / (m + e) ** 2), "once more"),
    *[(_along(lambda gx, m, e, x, dy, r=root: gx / r(m, e) ** 3 * e), hint) for root, hint in MISPLACED],
    *[(_along(lambda gx, m, e, x, dy, r=root: gx / r(m, e) * (1 - m / r(m, e) ** 2)), h) for root, h in MISPLACED],
    (_along(lambda gx, m, e, x, dy: gx / np.sqrt(m) * e / (m + e)), "term by term"),  # not listed
    (_along(lambda gx, m, e, x, dy: gx / (m + e) ** 1.5), "term by term"),  # not listed
    (_along(lambda gx, m, e, x, dy: (gx * e / (m + e) ** 1.5)[:, None]), "must have shape"),
    (along_subtracted, "digits are lost"),
    (along_share, "digits are lost"),
]


# ---- decoder_stack


def stack_plain(x, placement, layers, norms, final_norm):
    for layer, norm in zip(layers, norms, strict=True):
        x = x + layer(norm(x)) if placement == "pre" else norm(x + layer(x))
    return final_norm(x) if placement == "pre" else x


def stack_indexed(x, placement, layers, norms, final_norm):
    stream = x.copy()
    for i in range(len(layers)):
        if placement == "post":
            stream += layers[i](stream)
            stream = norms[i](stream)
        else:
            stream += layers[i](norms[i](stream))
    if placement == "pre":
        stream = final_norm(stream)
    return stream


def stack_recursive(x, placement, layers, norms, final_norm):
    if not layers:
        return final_norm(x) if placement == "pre" else x
    (layer, *layers), (norm, *norms) = layers, norms
    first = x + layer(norm(x)) if placement == "pre" else norm(x + layer(x))
    return stack_recursive(first, placement, layers, norms, final_norm)


def _stack(pre=None, post=None, ends=("pre",), norm_of=lambda norms, i: norms[i]):
    pre = pre or (lambda x, f, n: x + f(n(x)))
    post = post or (lambda x, f, n: n(x + f(x)))

    def answer(x, placement, layers, norms, final_norm):
        for i, layer in enumerate(layers):
            x = (pre if placement == "pre" else post)(x, layer, norm_of(norms, i))
        return final_norm(x) if placement in ends else x

    return answer


def stack_in_place(x, placement, layers, norms, final_norm):
    for layer, norm in zip(layers, norms, strict=True):
        x += layer(norm(x))
    return final_norm(x)


def stack_exchanged(x, placement, layers, norms, final_norm):
    return stack_plain(x, "post" if placement == "pre" else "pre", layers, norms, final_norm)


def stack_last_norm(x, placement, layers, norms, final_norm):
    return stack_plain(x, placement, layers, norms, norms[-1])


def stack_parallel(x, placement, layers, norms, final_norm):
    if placement == "post":
        return stack_plain(x, placement, layers, norms, final_norm)
    return final_norm(x + sum(layer(norm(x)) for layer, norm in zip(layers, norms, strict=True)))


def stack_reversed(x, placement, layers, norms, final_norm):
    return stack_plain(x, placement, layers[::-1], norms[::-1], final_norm)


def stack_empty_post(x, placement, layers, norms, final_norm):
    return stack_plain(x, placement, layers, norms, final_norm) if layers else final_norm(x)


RIGHT["decoder_stack"] = [stack_plain, stack_indexed, stack_recursive]
WRONG["decoder_stack"] = [
    (_stack(ends=()), "final norm is missing"),
    (_stack(ends=("pre", "post")), "post has no final norm"),
    (stack_exchanged, "exchanged"),
    (_stack(pre=lambda x, f, n: x + n(f(x))), "x + layer(norm(x))"),
    (_stack(pre=lambda x, f, n: n(x) + f(n(x))), "passes by as it is"),
    (_stack(pre=lambda x, f, n: f(n(x))), "residual is missing"),
    (_stack(pre=lambda x, f, n: n(x + f(x))), "makes it post"),
    (_stack(post=lambda x, f, n: x + n(f(x))), "norm(x + layer(x))"),
    (_stack(post=lambda x, f, n: n(f(x))), "residual is missing"),
    (_stack(norm_of=lambda norms, i: norms[0]), "norm of its own"),
    (_stack(pre=lambda x, f, n: x + n(f(n(x)))), "does not hold"),  # not listed: a norm on either side
    (stack_in_place, "changed an array"),
    (stack_last_norm, "one of its own"),
    (stack_parallel, "read the same x"),
    (stack_reversed, "does not hold"),  # not listed
    (stack_empty_post, "in post"),  # not listed
]
