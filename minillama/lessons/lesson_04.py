"""Checkers of lesson 04."""

import numpy as np

from .checks import exercise


@exercise("04", "Another base", difficulty=2, minutes=15)
def stretched_theta(answer, trial):
    """answer(theta, head_width, factor) -> the base whose slowest pair is slowed by the factor"""
    for head_width in (10, *(2 * int(n) for n in trial.rng.integers(4, 65, 4)), 4):
        theta, factor = 10.0 ** trial.rng.uniform(2, 6), trial.rng.uniform(1.5, 32)
        got = trial.call(answer, theta, head_width, factor, returns=[("theta'", float)])
        D = head_width
        mistakes = {
            "the base itself is not what is slowed: the slowest frequency is a power of it, so theta * factor slows "
            "that pair by less than the factor": theta * factor,
            "the exponent is upside down: solve for theta', and (D - 2)/D goes to the other side": theta
            * factor ** ((D - 2) / D),
            "there is no pair i = D/2; the slowest is i = D/2 - 1, whose exponent is (D - 2)/D": theta
            * factor ** (D / (D - 1)),
            "theta' must be larger than theta: a larger base turns more slowly": theta * factor ** (-D / (D - 2)),
            "the exponents of the frequencies are 2i/D, not i/D": theta * factor ** (2 * D / (D - 2)),
            "D is the width of the head, not the number of pairs": theta * factor ** (D / max(D - 4, 1)),
        }
        trial.same(
            "theta'",
            got,
            theta * factor ** (D / (D - 2)),
            mistakes,
            "theta' does not slow the slowest pair by the factor: theta^(-(D - 2)/D) must be factor times "
            "theta'^(-(D - 2)/D)",
        )
        slowest = 2 * (D // 2 - 1) / D
        trial.same("the slowest pair is slowed by the factor", (got / theta) ** slowest, factor)
        unstretched = trial.call(answer, theta, D, 1.0, returns=[("theta'", float)])
        trial.same("factor 1 changes nothing", unstretched, theta)


def _turned(x, angles, layout, direction=1.0, form="plain"):
    """x (T, H, D) turned by angles (T, D/2); the other forms are mistakes."""
    half = x.shape[-1] // 2
    cos, sin = np.cos(angles)[:, None], direction * np.sin(angles)[:, None]
    first, second = {
        "interleaved": (np.s_[..., 0::2], np.s_[..., 1::2]),
        "rotate_half": (np.s_[..., :half], np.s_[..., half:]),
    }[layout]
    y, (a, b) = np.empty_like(x), (x[first], x[second])
    y[first], y[second] = a * cos - b * sin, a * sin + b * cos
    if form == "exchanged":  # (a, b) <- the new b and the new a
        y[first], y[second] = a * sin + b * cos, a * cos - b * sin
    elif form == "sign":  # the sign at the wrong member's sine only: no rotation
        y[first], y[second] = a * cos + b * sin, a * sin + b * cos
    elif form == "in place":  # the second member is made of the first one that was overwritten
        y[second] = y[first] * sin + b * cos
    elif form == "packed":  # pairs taken from one layout, and written as in the other
        other = (
            (np.s_[..., :half], np.s_[..., half:]) if layout == "interleaved" else (np.s_[..., 0::2], np.s_[..., 1::2])
        )
        packed = y.copy()
        packed[other[0]], packed[other[1]] = y[first], y[second]
        return packed
    return y


def _rotation_mistakes(x, positions, theta, layout):
    D = x.shape[-1]
    pairs, whole = np.arange(D // 2), x.reshape(len(x), 1, -1)

    def by(positions=positions, exponents=-2 * pairs / D, layout=layout, **more):
        return _turned(x, np.outer(positions, theta**exponents), layout, **more)

    other = {"interleaved": "rotate_half", "rotate_half": "interleaved"}[layout]
    here = {"interleaved": "neighbours, (0, 1), (2, 3), ...", "rotate_half": "coordinates i and i + D/2"}[layout]
    partly = by()
    partly[..., D // 2 :] = x[..., D // 2 :]
    tiled = np.tile if layout == "interleaved" else lambda a, n: np.repeat(a, n, axis=1)
    return {
        f"is this the other layout? {layout} pairs {here}": by(layout=other),
        "the direction is reversed: the first member is a cos - b sin, the second a sin + b cos. "
        "Is the minus of rotate_half at the wrong half?": by(direction=-1.0),
        "the pairs are right, but the results are written in the order of the other layout": by(form="packed"),
        "the members of each pair are exchanged in the result": by(form="exchanged"),
        "lengths change: one of the two sines has the wrong sign (a cos - b sin, a sin + b cos)": by(form="sign"),
        "the second member is computed from the first one after that was overwritten; keep the old values": by(
            form="in place"
        ),
        "the exponent of pair i is -2i/D, not -i/D": by(exponents=-pairs / D),
        "the exponent of pair i is -2i/D with D the width of the head, not the number of pairs": by(
            exponents=-4 * pairs / D
        ),
        "the exponent is negative: pair 0 is the fastest, 1 radian a token, and all others are slower": by(
            exponents=2 * pairs / D
        ),
        "the exponents count pairs from 0: pair 0 turns 1 radian a token": by(exponents=-2 * (pairs + 1) / D),
        "position 0 must be left as it is: are the positions shifted by one?": by(positions=positions + 1),
        "use the positions that are given: they need not be 0, 1, 2, ...": by(positions=np.arange(len(x))),
        "only some of the coordinates are turned": partly,
        "all heads were turned as one wide head: D is the width of one head, and each has all speeds": _turned(
            whole, np.outer(positions, theta ** (-np.arange(0, whole.shape[-1], 2) / whole.shape[-1])), layout
        ).reshape(x.shape),
        "the speeds are given to the wrong coordinates: both members of a pair need the cosine and sine of that pair": (
            _spread(x, np.outer(positions, theta ** (-2 * pairs / D)), layout, tiled)
        ),
    }


def _spread(x, angles, layout, tiled):
    """x cos + swapped(x) sin with the tables of the other layout."""
    half = x.shape[-1] // 2
    cos, sin = (tiled(f(angles), (1, 2) if layout == "interleaved" else 2)[:, None] for f in (np.cos, np.sin))
    swapped = np.empty_like(x)
    if layout == "interleaved":
        swapped[..., 0::2], swapped[..., 1::2] = -x[..., 1::2], x[..., 0::2]
    else:
        swapped[..., :half], swapped[..., half:] = -x[..., half:], x[..., :half]
    return x * cos + swapped * sin


@exercise("04", "RoPE in both layouts", difficulty=2, minutes=20)
def rope_rotate(answer, trial):
    """answer(x, positions, theta, layout) -> x (T, H, D) turned"""
    rng = trial.rng
    for case in range(4):
        layout = ("interleaved", "rotate_half")[case % 2]
        T, H, D = int(rng.integers(3, 7)), int(rng.integers(2, 4)), 2 * int(rng.integers(2, 6))
        theta, positions = rng.uniform(20, 20000), np.sort(rng.choice(np.arange(1, 40), T, replace=False))
        x = rng.standard_normal((T, H, D))
        returns = [("the result", x.shape)]
        got = trial.call(answer, x, positions, theta, layout, returns=returns)
        mistakes = _rotation_mistakes(x, positions, theta, layout)
        expected = _turned(x, np.outer(positions, theta ** (-np.arange(0, D, 2) / D)), layout)
        trial.same(f"the rotation, {layout}", got, expected, mistakes, _no_rotation(got, x))
        first = trial.call(answer, x[:1], np.array([0]), theta, layout, returns=[("the result", x[:1].shape)])
        trial.same("position 0 is left as it is", first, x[:1])
        moved = trial.call(answer, x, positions + 17, theta, layout, returns=returns)
        scores, moved_scores = (np.einsum("mhd,nhd->hmn", y, y) for y in (got, moved))
        trial.same("scores depend on distances only", moved_scores, scores)
        lengths, before = np.linalg.norm(got, axis=-1), np.linalg.norm(x, axis=-1)
        trial.same("lengths are preserved", lengths, before)
    x = rng.standard_normal((2, 2, 8)).astype(np.float32)
    positions = np.array([3, 98_765])
    got = trial.call(answer, x, positions, 5000.0, "rotate_half", returns=[("the result", x.shape)])
    angles = np.outer(positions, 5000.0 ** (-np.arange(0, 8, 2) / 8))
    trial.same(
        "float32, far from 0",
        got.astype(np.float64),
        _turned(x.astype(np.float64), angles, "rotate_half"),
        otherwise="at position 98,765 the angle is not exact: compute it in float64, and round cosine and sine",
        tolerance=1e-5,
    )


def _no_rotation(got, x):
    """A word on what else may be wrong."""
    same_length = np.allclose(np.linalg.norm(got, axis=-1), np.linalg.norm(x, axis=-1))
    if not same_length:
        return "this is no rotation, lengths change: check (a cos - b sin, a sin + b cos) for each pair"
    return (
        "it preserves lengths, but the angles or the pairs are not those asked for: print what it makes of position 1"
    )


@exercise("04", "Weights for the other layout, backwards", difficulty=2, minutes=15)
def half_to_interleaved(answer, trial):
    """answer(w, heads) -> the rows in the order of the interleaved layout"""
    rng = trial.rng
    for half, heads in ((3, 2), (4, 3), (5, 2), (int(rng.integers(6, 9)), int(rng.integers(2, 5)))):
        D, C, T = 2 * half, int(rng.integers(2, 5)), 4
        w = rng.standard_normal((heads * D, C))
        order = np.arange(D).reshape(2, half).T.ravel()  # 0, half, 1, half + 1, ...
        rows = w.reshape(heads, D, C)
        whole = np.arange(heads * D).reshape(2, -1).T.ravel()
        mistakes = {
            "this is the way from interleaved to rotate-half; the way back is the inverse permutation": rows[
                :, np.argsort(order)
            ].reshape(w.shape),
            "rows of different heads are mixed: reorder within each head": w[whole],
            "rows of different heads are mixed, and it is the inverse permutation: reorder within each head": w[
                np.argsort(whole)
            ],
            "nothing was reordered": w,
            "the members of each pair are exchanged: the first member comes from the first half": rows[
                :, order.reshape(-1, 2)[:, ::-1].ravel()
            ].reshape(w.shape),
            "this turns or exchanges the halves; the rows of a pair must stand side by side": rows[
                :, np.r_[half:D, :half]
            ].reshape(w.shape),
        }
        got = trial.call(answer, w, heads, returns=[("the result", w.shape)])
        trial.same(
            "the rows",
            got,
            rows[:, order].reshape(w.shape),
            mistakes,
            "the rows of a head must come in the order 0, D/2, 1, D/2 + 1, ...: of np.arange(12) and 2 heads "
            "0 3 1 4 2 5 6 9 7 10 8 11",
        )
        x, angles = rng.standard_normal((T, C)), np.outer(np.arange(T), 100.0 ** (-np.arange(half) / half))

        def scores(weight, layout, x=x, angles=angles, shape=(T, heads, D)):
            q = _turned((x @ weight.T).reshape(shape), angles, layout)
            return np.einsum("mhd,nhd->hmn", q, q)

        trial.same("scores are the same in the other layout", scores(got, "interleaved"), scores(w, "rotate_half"))
        bias = rng.standard_normal(heads * D)
        got = trial.call(answer, bias, heads, returns=[("the result, for a bias,", bias.shape)])
        trial.same(
            "a bias",
            got,
            bias.reshape(heads, D)[:, order].ravel(),
            {"a bias must be reordered as well: its entries belong to the rows": bias},
            "the entries of a bias must come in the same order as the rows of the weight",
        )


@exercise("04", "What if the speeds were learned?", difficulty=3, minutes=25)
def rope_backward_with_speeds(answer, trial):
    """answer(dy, x, positions, speeds) -> dx, dspeeds"""
    rng = trial.rng
    for _ in range(4):
        T, D = int(rng.integers(3, 6)), 2 * int(rng.integers(2, 5))
        x, dy = rng.standard_normal((2, T, D))
        positions = rng.choice(np.arange(1, 12), T, replace=False)
        speeds = rng.uniform(0.1, 1.0, D // 2)
        returns = [("dx", (T, D)), ("dspeeds", (D // 2,))]
        dx, dspeeds = trial.call(answer, dy, x, positions, speeds, returns=returns)

        def turned(a, direction=1.0, positions=positions, speeds=speeds, layout="interleaved"):
            return _turned(a[:, None], np.outer(positions, speeds), layout, direction)[:, 0]

        def loss(dy=dy, x=x, turned=turned):
            return float(np.sum(dy * turned(x)))

        counted = np.arange(T)  # instead of the positions

        trial.gradient(
            "dx",
            dx,
            loss,
            x,
            {
                "dx turns in the direction of the forward pass; the transpose of a rotation turns back": turned(dy),
                "dx must turn dy back, not x": turned(x, -1.0),
                "is this the rotate-half layout? Here pairs are neighbours": turned(dy, -1.0, layout="rotate_half"),
                "dx is dy: the gradient has to be turned back": dy,
                "use the positions that are given: they need not be 0, 1, 2, ...": turned(dy, -1.0, counted),
            },
        )
        y = turned(x)

        def torque(point, force):
            return point[:, 0::2] * force[:, 1::2] - point[:, 1::2] * force[:, 0::2]

        right, times = torque(y, dy), positions[:, None]
        trial.gradient(
            "dspeeds",
            dspeeds,
            loss,
            speeds,
            {
                "this is the gradient of the angles; an angle is the position times the speed, so the position is a "
                "factor of it": right.sum(axis=0),
                "the sign of dspeeds is wrong: differentiate cos and sin once more": -(times * right).sum(axis=0),
                "dspeeds is made of x; the derivative of the rotated pair by its angle is made of y": (
                    times * torque(x, dy)
                ).sum(axis=0),
                "the factor is the position that is given, not the row's number": (counted[:, None] * right).sum(
                    axis=0
                ),
                "a speed is used at every position: sum over the positions, do not take the mean": (times * right).mean(
                    axis=0
                ),
                "dspeeds holds the dot product of y and dy; the derivative of (cos, sin) is (-sin, cos), at a right "
                "angle": (times * (y[:, 0::2] * dy[:, 0::2] + y[:, 1::2] * dy[:, 1::2])).sum(axis=0),
            },
        )
        trial.same("dx is as long as dy", np.linalg.norm(dx, axis=1), np.linalg.norm(dy, axis=1))
        _, still = trial.call(answer, y, x, positions, speeds, returns=returns)
        trial.same("a force along the hand does not turn it", still, np.zeros(D // 2), tolerance=1e-9)


@exercise("04", "Sinusoids know rotations too", difficulty=2, minutes=15)
def sinusoid_shift(answer, trial):
    """answer(k, C) -> M (C, C)"""
    for case in range(4):
        C, k = 2 * int(trial.rng.integers(2, 8)), int(trial.rng.integers(2, 40)) * (-1 if case == 3 else 1)

        def sinusoids(t, C=C):
            angles = t * 10000.0 ** (-np.arange(0, C, 2) / C)
            return np.stack([np.sin(angles), np.cos(angles)], axis=-1).ravel()

        def blocks(angles, C=C):
            M = np.zeros((C, C))
            for i, angle in enumerate(angles):
                c, s = np.cos(angle), np.sin(angle)
                M[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, -s], [s, c]]
            return M

        M = trial.call(answer, k, C, returns=[("M", (C, C))])
        pairs = np.arange(C // 2)
        right = blocks(k * 10000.0 ** (-2 * pairs / C))
        permuted = np.r_[0:C:2, 1:C:2]
        mistakes = {
            "M leads k positions back: is it transposed? P is a row, on the left of M": right.T,
            "the exponents are 2i/C, not i/C": blocks(k * 10000.0 ** (-pairs / C)),
            "the frequencies fall: the exponent is negative": blocks(k * 10000.0 ** (2 * pairs / C)),
            "the sines and cosines alternate; this is for all sines first": right[np.ix_(permuted, permuted)],
            "this is for one position, whatever k is": blocks(10000.0 ** (-2 * pairs / C)),
        }
        trial.same(
            "M",
            M,
            right,
            mistakes,
            "P_t M is not P_(t+k): column 2i of M must hold cos(k w_i) in row 2i and sin(k w_i) in row 2i + 1",
        )
        for t in (0, 5, 123):
            trial.same("P_t M is P_(t+k)", sinusoids(t) @ M, sinusoids(t + k))
    C, j, k = 8, 3, 9
    returns = [("M", (C, C))]
    one, two, both = (trial.call(answer, n, C, returns=returns) for n in (j, k, j + k))
    trial.same("two shifts one after the other are one shift", one @ two, both)
