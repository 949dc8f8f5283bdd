"""Checkers of lesson 03."""

import numpy as np

from .checks import exercise
from .reference_norms import layernorm, misplaced_eps, rms, rmsnorm, small_row


@exercise("03", "Where eps goes, in half precision too", difficulty=1, minutes=10)
def rmsnorm_as_llama(answer, trial):
    """answer(x, weight, eps) -> y, of the shape and dtype of x."""

    def call(x, weight, eps):
        return trial.call(answer, x, weight, eps, returns=[("y", x.shape)])

    for _ in range(4):
        N, C = trial.rng.integers(2, 6), trial.rng.integers(3, 9)
        x, weight = small_row(trial.rng.standard_normal((N, C)) + 0.5), trial.rng.uniform(0.5, 2, C)
        eps = float(trial.rng.uniform(0.2, 0.8))  # so large that its place shows
        mean_square = np.mean(x * x, axis=1, keepdims=True)
        centred = x - np.mean(x, axis=1, keepdims=True)
        mistakes = {
            **{hint: weight * x / root for hint, root in misplaced_eps(mean_square, eps).items()},
            "eps is added to the sum of the squares: add it to their mean": weight * x / np.sqrt(mean_square + eps / C),
            "eps is added to the result: it belongs inside the root": weight * x / np.sqrt(mean_square) + eps,
            "eps is left out: add it to the mean of the squares": weight * x / np.sqrt(mean_square),
            "the squares are summed, not averaged: divide by C": weight * x / np.sqrt(C * mean_square + eps),
            "the mean of |x| was taken, not the root of the mean of the squares": weight
            * x
            / (np.mean(np.abs(x), axis=1, keepdims=True) + eps),
            "this divides by C - 1 (Bessel's correction); RMSNorm takes the plain mean, over C": weight
            * x
            / np.sqrt(mean_square * C / (C - 1) + eps),
            "the mean runs over the wrong axis: each row, a token, has an RMS of its own": weight
            * x
            / np.sqrt(np.mean(x * x, axis=0) + eps),
            "one RMS for the whole array: each row has its own (axis=1, keepdims=True)": weight
            * x
            / np.sqrt(np.mean(x * x) + eps),
            "the mean is subtracted: this is LayerNorm": weight * centred / rms(centred, eps),
            "this divides by the standard deviation; for the RMS no mean is subtracted": weight * x / rms(centred, eps),
            "the RMS is that of weight * x: normalise first, then multiply by the weight": rmsnorm(weight * x, 1, eps),
            "the weight is missing": x / rms(x, eps),
            "the weight is multiplied in twice": weight**2 * x / rms(x, eps),
            "this divides by the mean square itself; the root is missing": weight * x / (mean_square + eps),
        }
        trial.same("y in float64", call(x, weight, eps), rmsnorm(x, weight, eps), mistakes)
    trial.same(
        "float64 keeps its digits",
        call(x, weight, eps),
        rmsnorm(x, weight, eps),
        otherwise="float64 is rounded to float32 on the way: convert to float32 only what has fewer digits than it "
        "(np.promote_types(x.dtype, np.float32))",
        tolerance=1e-12,
    )
    N, C = 3, trial.rng.integers(4, 9)
    weight = trial.rng.uniform(0.5, 2, C)
    trial.same("a row of zeros stays 0", call(np.zeros((N, C)), weight, 1e-5), np.zeros((N, C)))
    for dtype, tolerance in ((np.float32, 1e-4), (np.float16, 3e-3)):
        x, w = trial.rng.standard_normal((N, C)).astype(dtype), weight.astype(dtype)
        expected = rmsnorm(x.astype(np.float64), w.astype(np.float64), 1e-5)
        trial.same(f"y in {np.dtype(dtype)}", call(x, w, 1e-5), expected, tolerance=tolerance)
    for scale, what in ((1000, "large"), (0.002, "small")):
        x, w = (scale * trial.rng.uniform(0.5, 1.5, (N, C))).astype(np.float16), weight.astype(np.float16)
        expected = rmsnorm(x.astype(np.float64), w.astype(np.float64), 1e-6)
        trial.same(
            f"{what} numbers in float16",
            call(x, w, 1e-6),
            expected,
            otherwise="the squares or their mean are float16 on the way, where 300 * 300 is inf and "
            "0.0001 * 0.0001 is 0: convert x to float32 first, and the result back at the end",
            tolerance=3e-3,
        )
    zeros = np.zeros((N, C), np.float16)
    trial.same("a row of zeros stays 0 in float16", call(zeros, weight.astype(np.float16), 1e-8), zeros)


@exercise("03", "The backward pass of partial RMSNorm", difficulty=2, minutes=20)
def partial_rmsnorm_backward(answer, trial):
    """answer(dy, x, weight, eps, k) -> dx, dweight; the RMS is that of the first k elements of a row."""

    def case(k=None):
        N, C = trial.rng.integers(2, 6), trial.rng.integers(4, 9)
        k = int(trial.rng.integers(3, C)) if k is None else C  # not 2: twice a mean would be the sum of its terms
        dy, x = trial.rng.standard_normal((2, N, C))
        return dy, small_row(x), trial.rng.uniform(0.5, 2, C), float(trial.rng.uniform(0.2, 0.8)), k

    def call(dy, x, weight, eps, k):
        shapes = [("dx", x.shape), ("dweight", weight.shape)]
        return trial.call(answer, dy, x, weight, eps, int(k), returns=shapes)

    for whole in (None, None, "C", None):
        dy, x, weight, eps, k = case(whole)
        C, r = x.shape[1], rms(x, eps, k)
        u, g, first = x / r, weight * dy, np.arange(x.shape[1]) < k
        along, along_dy = (np.sum(a * u, axis=1, keepdims=True) / k for a in (g, dy))

        def loss(dy=dy, x=x, weight=weight, eps=eps, k=k):
            return float(np.sum(dy * (weight * x / rms(x, eps, k))))

        def with_root(r, x=x, g=g, first=first, k=k):
            return (g - first * x / r * np.sum(g * x / r, axis=1, keepdims=True) / k) / r

        u_no_eps, misplaced = x / rms(x, 0.0, k), misplaced_eps(rms(x, 0.0, k) ** 2, eps)
        mistakes = {
            "the second path is missing: x also acts through the RMS": g / r,
            "the correction reaches all elements: the RMS depends on the first k only": (g - u * along) / r,
            "the correction is divided by C: the mean in the RMS is over k": (g - first * u * along * k / C) / r,
            "the sum in the correction runs over the first k elements only: all elements of y depend on the RMS": (
                g - first * u * np.sum((g * u)[:, :k], axis=1, keepdims=True) / k
            )
            / r,
            "the weight is missing in g = weight * dy": (dy - first * u * along_dy) / r,
            "the weight is multiplied in at the end: it belongs to dy, g = weight * dy, and so into the mean": (
                weight * (dy - first * u * along_dy) / r
            ),
            "the weight is missing in the correction, mean(g u)": (g - first * u * along_dy) / r,
            "the weight is missing in the direct path, g": (dy - first * u * along) / r,
            "the correction has the wrong sign: a larger x makes the RMS larger and y smaller": (g + first * u * along)
            / r,
            "the division by the RMS is missing": g - first * u * along,
            "the division by the RMS covers both terms; here only g is divided": g / r - first * u * along,
            "the division by the RMS covers both terms; here only the correction is divided": g - first * u * along / r,
            "divided by the RMS twice; u has one division already": (g - first * u * along) / r**2,
            **{hint: with_root(root) for hint, root in misplaced.items()},
            "the squares are summed in the RMS: it holds a mean": with_root(np.sqrt(k * (r**2 - eps) + eps)),
            "the RMS is taken over all of the row: it is that of the first k": with_root(rms(x, eps)),
            "eps is left out of the RMS": (g - first * u_no_eps * np.sum(g * u_no_eps, axis=1, keepdims=True) / k)
            / rms(x, 0.0, k),
            "the correction is a sum; the RMS holds a mean: divide by k": (g - first * u * along * k) / r,
        }
        mistakes_weight = {
            "dweight is the sum of dy u, without the weight": np.sum(g * u, axis=0),
            "dweight is the sum of dy u, with the normalised u = x / rms, not x": np.sum(dy * x, axis=0),
            "dweight is the sum over the rows, not the mean": np.mean(dy * u, axis=0),
            "dweight is the sum of dy u; this is the sum of dy, the gradient of a bias": np.sum(dy, axis=0),
            "eps is left out of the RMS": np.sum(dy * u_no_eps, axis=0),
            **{hint: np.sum(dy * x / root, axis=0) for hint, root in misplaced.items()},
        }
        dx, dweight = call(dy, x, weight, eps, k)
        trial.gradient("dx", dx, loss, x, mistakes)
        trial.gradient("dweight", dweight, loss, weight, mistakes_weight)
    for _ in range(2):
        dy, x, weight, _, k = case()
        dx, _ = call(dy, x, weight, 0.0, k)
        trial.same("dx is orthogonal to x when eps is 0", 1 + np.sum(dx * x, axis=1), np.ones(len(x)))
    dy, x, weight = (a.astype(np.float32) for a in (dy, x, weight))
    expected = np.sum(dy * x / rms(x, 0.1, k), axis=0)
    trial.same("dweight in float32", call(dy, x, weight, 0.1, k)[1], expected, tolerance=1e-4)


@exercise("03", "The backward pass of LayerNorm", difficulty=2, minutes=20)
def layernorm_gradient(answer, trial):
    """answer(dy, x, weight, eps) -> dx, dweight, dbias."""

    def call(dy, x, weight, eps):
        shapes = [("dx", x.shape), ("dweight", weight.shape), ("dbias", weight.shape)]
        return trial.call(answer, dy, x, weight, eps, returns=shapes)

    for _ in range(4):
        N, C = trial.rng.integers(2, 6), trial.rng.integers(4, 9)
        dy, x = trial.rng.standard_normal((2, N, C))
        x, weight, bias = small_row(x + 1), trial.rng.uniform(0.5, 2, C), np.zeros(C)
        eps = float(trial.rng.uniform(0.2, 0.8))

        def loss(dy=dy, x=x, weight=weight, bias=bias, eps=eps):
            return float(np.sum(dy * layernorm(x, weight, bias, eps)))

        def row_mean(a):
            return np.mean(a, axis=1, keepdims=True)

        centred = x - row_mean(x)
        s, g, r = rms(centred, eps), weight * dy, rms(x, eps)
        u = centred / s
        s_bessel = np.sqrt(np.sum(centred**2, axis=1, keepdims=True) / (C - 1) + eps)
        u_bessel, u_raw = centred / s_bessel, centred / rms(centred, 0.0)
        misplaced = misplaced_eps(np.mean(centred**2, axis=1, keepdims=True), eps)

        def with_root(s, g=g, centred=centred):
            return (g - row_mean(g) - centred / s * row_mean(g * centred / s)) / s

        mistakes = {
            "the term mean(g) is missing: x also acts through its mean": (g - u * row_mean(g * u)) / s,
            "the term u mean(g u) is missing: x also acts through the standard deviation": (g - row_mean(g)) / s,
            "both corrections are missing: x also acts through its mean and standard deviation": g / s,
            "this is the backward pass of RMSNorm: subtract the mean from x": (g - x / r * row_mean(g * x / r)) / r,
            "the weight is missing in g = weight * dy": (dy - row_mean(dy) - u * row_mean(dy * u)) / s,
            "the weight is multiplied in at the end: it belongs to dy, g = weight * dy, and so into both means": (
                weight * (dy - row_mean(dy) - u * row_mean(dy * u)) / s
            ),
            "the weight is missing in both means: they are those of g and of g u": (
                g - row_mean(dy) - u * row_mean(dy * u)
            )
            / s,
            "the weight is missing in the mean of g": (g - row_mean(dy) - u * row_mean(g * u)) / s,
            "the weight is missing in the mean of g u": (g - row_mean(g) - u * row_mean(dy * u)) / s,
            "the means run over the wrong axis: over the elements of a row": (
                g - np.mean(g, axis=0) - u * np.mean(g * u, axis=0)
            )
            / s,
            "the corrections are sums; means are wanted: divide by C": (g - C * row_mean(g) - C * u * row_mean(g * u))
            / s,
            "the first correction is a sum; it is the mean of g: divide by C": (
                g - C * row_mean(g) - u * row_mean(g * u)
            )
            / s,
            "the second correction is a sum; it is u times the mean of g u: divide by C": (
                g - row_mean(g) - C * u * row_mean(g * u)
            )
            / s,
            "the signs: both corrections are subtracted": (g + row_mean(g) + u * row_mean(g * u)) / s,
            **{hint: with_root(root) for hint, root in misplaced.items()},
            "the squares are summed in the standard deviation: it holds a mean": with_root(
                np.sqrt(C * np.mean(centred**2, axis=1, keepdims=True) + eps)
            ),
            "this divides by C - 1 (Bessel's correction) in the variance; LayerNorm divides by C": (
                g - row_mean(g) - u_bessel * row_mean(g * u_bessel)
            )
            / s_bessel,
            "eps is left out of the standard deviation": (g - row_mean(g) - u_raw * row_mean(g * u_raw))
            / rms(centred, 0.0),
            "the division by the standard deviation is missing": g - row_mean(g) - u * row_mean(g * u),
            "the division by the standard deviation covers all three terms; here only g is divided": (
                g / s - row_mean(g) - u * row_mean(g * u)
            ),
            "divided by the standard deviation twice; u has one division already": (
                (g - row_mean(g) - u * row_mean(g * u)) / s**2
            ),
        }
        mistakes_weight = {
            "dweight is the sum of dy u, without the weight": np.sum(g * u, axis=0),
            "dweight is the sum of dy u, with the normalised u, not x": np.sum(dy * x, axis=0),
            "dweight and dbias are exchanged": np.sum(dy, axis=0),
            "in u = (x - mean) / std the mean is missing": np.sum(dy * x / r, axis=0),
            "in u = (x - mean) / std the division is missing": np.sum(dy * centred, axis=0),
            "dweight is the sum over the rows, not the mean": np.mean(dy * u, axis=0),
            "eps is left out of the standard deviation": np.sum(dy * u_raw, axis=0),
            "this divides by C - 1 (Bessel's correction) in the variance; LayerNorm divides by C": (
                np.sum(dy * u_bessel, axis=0)
            ),
            **{hint: np.sum(dy * centred / root, axis=0) for hint, root in misplaced.items()},
        }
        mistakes_bias = {
            "dbias is the sum of dy, without the weight: the bias is added after the weight": np.sum(g, axis=0),
            "dbias is the sum over the rows, not the mean": np.mean(dy, axis=0),
        }
        dx, dweight, dbias = call(dy, x, weight, eps)
        trial.gradient("dx", dx, loss, x, mistakes)
        trial.gradient("dweight", dweight, loss, weight, mistakes_weight)
        trial.gradient("dbias", dbias, loss, bias, mistakes_bias)
        trial.same("each row of dx sums to 0", 1 + np.sum(dx, axis=1), np.ones(N))
    dx, _, _ = call(dy, x, weight, 0.0)
    trial.same("dx is orthogonal to x when eps is 0", 1 + np.sum(dx * x, axis=1), np.ones(N))
    dy, x, weight = (a.astype(np.float32) for a in (dy, x, weight))
    trial.same("dbias in float32", call(dy, x, weight, 0.1)[2], np.sum(dy, axis=0), tolerance=1e-4)


@exercise("03", "What eps leaves of the gradient along x", difficulty=3, minutes=20)
def gradient_along_x(answer, trial):
    """answer(dy, x, weight, eps) -> sum(dx * x) of each row (N,), dx that of RMSNorm."""

    def case():
        N, C = trial.rng.integers(2, 6), trial.rng.integers(3, 9)
        dy, x = trial.rng.standard_normal((2, N, C))
        return dy, small_row(x), trial.rng.uniform(0.5, 2, C)

    def call(dy, x, weight, eps):
        return trial.call(answer, dy, x, weight, eps, returns=[("dx_x", (len(x),))])

    for _ in range(5):
        (dy, x, weight), eps = case(), float(trial.rng.uniform(0.2, 0.8))
        scale = np.ones((len(x), 1))

        def loss(dy=dy, x=x, weight=weight, eps=eps, scale=scale):
            return float(np.sum(dy * rmsnorm(scale * x, weight, eps)))

        mean_square, r = np.mean(x * x, axis=1), rms(x, eps)[:, 0]
        g_x, dy_x = np.sum(weight * dy * x, axis=1), np.sum(dy * x, axis=1)
        right = g_x / r * eps / r**2
        mistakes = {
            "the path through the RMS is missing: this is only g x / rms": g_x / r,
            "this is the part of g along x that is taken out; asked for is what is left": g_x / r * mean_square / r**2,
            "the sign is wrong: what is left points the way g does": -right,
            "the weight is missing in g = weight * dy": dy_x / r * eps / r**2,
            "a division by the RMS is missing: g is divided by it": g_x * eps / r**2,
            "the share that is left is eps / (mean square + eps): eps is missing in the denominator": g_x
            / r
            * eps
            / mean_square,
            "it is 0 only when eps is 0": np.zeros(len(x)),
            **{hint: g_x / root * eps / root**2 for hint, root in misplaced_eps(mean_square, eps).items()},
            **{  # of dx with such a root, multiplied by x
                f"{hint} (dx comes from a wrong root)": g_x / root * (1 - mean_square / root**2)
                for hint, root in misplaced_eps(mean_square, eps).items()
            },
            "the share of g that is left is divided by the RMS once more; g itself is divided once": right / r,
            "the sum over a row is asked for, not the mean": right / x.shape[1],
        }
        trial.gradient(
            "sum(dx x)", call(dy, x, weight, eps)[:, None], loss, scale, {h: m[:, None] for h, m in mistakes.items()}
        )
    dy, x, weight = case()
    trial.same("0 when eps is 0", 1 + call(dy, x, weight, 0.0), np.ones(len(x)))
    for _ in range(2):
        (dy, x, weight), eps = case(), 1e-13
        r = rms(x, eps)[:, 0]
        trial.same(
            "all digits when eps is tiny",
            call(dy, x, weight, eps),
            np.sum(weight * dy * x, axis=1) * eps / r**3,
            otherwise="for a tiny eps the digits are lost: two nearly equal numbers are subtracted. Multiplying dx by "
            "x does that too; simplify on paper until eps is a factor",
        )


@exercise("03", "A stack of layers, norms before or after", difficulty=1, minutes=10)
def decoder_stack(answer, trial):
    """answer(x, placement, layers, norms, final_norm) -> the output, (N, C)

    layers and norms are lists of functions (N, C) -> (N, C), as many of one as of the other.
    """
    N, C, count = trial.rng.integers(2, 5), trial.rng.integers(3, 7), 3
    matrices, weights = trial.rng.standard_normal((count, C, C)), trial.rng.uniform(0.5, 2, (count + 1, C))
    layers = [lambda a, m=m: np.tanh(a @ m) for m in matrices]
    *norms, final_norm = [lambda a, w=w: rmsnorm(a, w, 1e-5) for w in weights]
    nothing = [np.zeros_like] * count

    def call(x, placement, layers, norms):
        returns = [("the output", x.shape)]
        return trial.call(answer, x, placement, list(layers), list(norms), final_norm, returns=returns)

    def stack(x, step, end=lambda a: a, layers=layers, norms=norms):
        for layer, norm in zip(layers, norms, strict=True):
            x = step(x, layer, norm)
        return end(x)

    def pre(a, layer, norm):
        return a + layer(norm(a))

    def post(a, layer, norm):
        return norm(a + layer(a))

    first = norms[:1] * count
    for _ in range(2):
        x = 2 * trial.rng.standard_normal((N, C))
        before = {
            "the final norm is missing: pre never normalises the stream itself, so it is done once at the end": stack(
                x, pre
            ),
            "pre and post are exchanged": stack(x, post),
            "a norm after the sum makes it post; in pre it stands on the layer's input": stack(x, post, final_norm),
            "the norm stands on the layer's output; pre is x + layer(norm(x))": stack(
                x, lambda a, f, n: a + n(f(a)), final_norm
            ),
            "the stream itself is normalised: only the layer's input is, and x passes by as it is": stack(
                x, lambda a, f, n: n(a) + f(n(a)), final_norm
            ),
            "the residual is missing: the layer's output is added to the stream": stack(
                x, lambda a, f, n: f(n(a)), final_norm
            ),
            "each layer has a norm of its own; this uses the first for all": stack(x, pre, final_norm, norms=first),
            "the last of the norms is used at the end: the final norm is one of its own": stack(x, pre, norms[-1]),
            "all layers read the same x: each reads what the one before it left": final_norm(
                x + sum(layer(norm(x)) for layer, norm in zip(layers, norms, strict=True))
            ),
        }
        after = {
            "pre and post are exchanged": stack(x, pre, final_norm),
            "post has no final norm: its last layer ends with a norm already": stack(x, post, final_norm),
            "the norm stands on the layer's output alone; post is norm(x + layer(x))": stack(
                x, lambda a, f, n: a + n(f(a))
            ),
            "the residual is missing: post is norm(x + layer(x))": stack(x, lambda a, f, n: n(f(a))),
            "each layer has a norm of its own; this uses the first for all": stack(x, post, norms=first),
        }
        trial.same("pre", call(x, "pre", layers, norms), stack(x, pre, final_norm), before)
        trial.same("post", call(x, "post", layers, norms), stack(x, post), after)
    trial.same("pre, layers that add nothing: the stream passes by", call(x, "pre", nothing, norms), final_norm(x))
    expected = stack(x, post, layers=nothing)
    trial.same("post, layers that add nothing: norm after norm", call(x, "post", nothing, norms), expected)
    trial.same("no layers at all: only the final norm of pre", call(x, "pre", [], []), final_norm(x))
    trial.same("no layers at all in post: x", call(x, "post", [], []), x)
