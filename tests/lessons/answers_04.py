"""Right and wrong answers to the exercises of lesson 04."""

import math

import numpy as np


def _theta_in_one_line(theta, head_width, factor):
    return theta * factor ** (head_width / (head_width - 2))


def _theta_by_logarithms(theta, head_width, factor):
    slowest = theta ** (-(head_width - 2) / head_width) / factor
    return math.exp(-math.log(slowest) * head_width / (head_width - 2))


def _theta_by_bisection(theta, head_width, factor):
    low, high = theta, theta * factor**3
    wanted = theta ** -((head_width - 2) / head_width) / factor
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle ** -((head_width - 2) / head_width) > wanted else (low, middle)
    return np.float64(low)


def _rotate_by_loop(x, positions, theta, layout):
    T, H, D = x.shape
    y = np.empty_like(x)
    for t in range(T):
        for h in range(H):
            for i in range(D // 2):
                first, second = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + D // 2)
                angle = float(positions[t]) / theta ** (2 * i / D)
                c, s = math.cos(angle), math.sin(angle)
                y[t, h, first] = x[t, h, first] * c - x[t, h, second] * s
                y[t, h, second] = x[t, h, first] * s + x[t, h, second] * c
    return y


def _rotate_by_complex_numbers(x, positions, theta, layout):
    T, H, D = x.shape
    turn = np.exp(1j * np.outer(positions, theta ** (-2 * np.arange(D // 2) / D)))[:, None]
    if layout == "interleaved":
        pairs = x.reshape(T, H, D // 2, 2)
        z = (pairs[..., 0] + 1j * pairs[..., 1]) * turn
        y = np.stack([z.real, z.imag], axis=-1).reshape(x.shape)
    else:
        z = (x[..., : D // 2] + 1j * x[..., D // 2 :]) * turn
        y = np.concatenate([z.real, z.imag], axis=-1)
    return y.astype(x.dtype)


def _rotate_with_matrices(x, positions, theta, layout):
    T, H, D = x.shape
    R = np.zeros((T, D, D))
    for i in range(D // 2):
        a, b = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + D // 2)
        angle = np.asarray(positions, float) * theta ** (-2 * i / D)
        R[:, a, a], R[:, a, b], R[:, b, a], R[:, b, b] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return np.einsum("tij,thj->thi", R, x).astype(x.dtype)


def _rotate_half_formula(x, positions, theta, layout):
    T, H, D = x.shape
    if layout == "interleaved":
        order = np.r_[0:D:2, 1:D:2]
        y = np.empty_like(x)
        y[..., order] = _rotate_half_formula(x[..., order], positions, theta, "rotate_half")
        return y
    angles = np.outer(positions, 1.0 / theta ** (np.arange(0, D, 2) / D))
    cos, sin = (np.concatenate([f(angles)] * 2, axis=1)[:, None].astype(x.dtype) for f in (np.cos, np.sin))
    return x * cos + np.concatenate([-x[..., D // 2 :], x[..., : D // 2]], axis=-1) * sin


def _wrong_rotation(
    pairs_as="same", angle=None, sign=1, rotate=None, upto=None, change_positions=lambda p: p, dtype=np.float64
):
    """rope_rotate with one thing wrong."""

    def answer(x, positions, theta, layout):
        D = x.shape[-1]
        half = D // 2
        i = np.arange(half)
        f = theta ** (-2 * i / D) if angle is None else angle(theta, i, D)
        angles = np.outer(change_positions(np.asarray(positions)).astype(dtype), np.asarray(f).astype(dtype))
        cos, sin = np.cos(angles)[:, None].astype(x.dtype), sign * np.sin(angles)[:, None].astype(x.dtype)
        neighbours = (layout == "interleaved") if pairs_as == "same" else pairs_as == "neighbours"
        first, second = (np.s_[..., 0::2], np.s_[..., 1::2]) if neighbours else (np.s_[..., :half], np.s_[..., half:])
        y = np.empty_like(x)
        y[first], y[second] = rotate(x[first], x[second], cos, sin) if rotate else (
            x[first] * cos - x[second] * sin, x[first] * sin + x[second] * cos,
        )  # fmt: skip
        if upto is not None:
            y[..., int(upto * D) :] = x[..., int(upto * D) :]
        return y

    return answer


def _rotates_in_place(x, positions, theta, layout):
    D = x.shape[-1]
    angles = np.outer(positions, theta ** (-np.arange(0, D, 2) / D))[:, None]
    a, b = (x[..., 0::2], x[..., 1::2]) if layout == "interleaved" else (x[..., : D // 2], x[..., D // 2 :])
    a[...], b[...] = a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)
    return x


def _rotates_overwritten(x, positions, theta, layout):
    D = x.shape[-1]
    angles = np.outer(positions, theta ** (-np.arange(0, D, 2) / D))[:, None]
    y = x.copy()
    a, b = (y[..., 0::2], y[..., 1::2]) if layout == "interleaved" else (y[..., : D // 2], y[..., D // 2 :])
    a[...] = a * np.cos(angles) - b * np.sin(angles)
    b[...] = a * np.sin(angles) + b * np.cos(angles)
    return y


def _rotates_and_concatenates(x, positions, theta, layout):
    """Neighbours are turned, and then packed as halves."""
    D = x.shape[-1]
    angles = np.outer(positions, theta ** (-np.arange(0, D, 2) / D))[:, None]
    a, b = (x[..., 0::2], x[..., 1::2]) if layout == "interleaved" else (x[..., : D // 2], x[..., D // 2 :])
    a, b = a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)
    return np.concatenate([a, b], axis=-1).astype(x.dtype)


def _rotates_all_heads_as_one(x, positions, theta, layout):
    return _rotate_half_formula(x.reshape(len(x), 1, -1), positions, theta, layout).reshape(x.shape)


def _rotates_without_the_minus(x, positions, theta, layout):
    """rotate_half by np.roll, which has no sign; neighbours done right."""
    if layout == "interleaved":
        return _rotate_by_loop(x, positions, theta, layout)
    D = x.shape[-1]
    angles = np.tile(np.outer(positions, theta ** (-np.arange(0, D, 2) / D)), 2)[:, None]
    return (x * np.cos(angles) + np.roll(x, D // 2, axis=-1) * np.sin(angles)).astype(x.dtype)


def _rotates_with_the_minus_in_the_other_half(x, positions, theta, layout):
    if layout == "interleaved":
        return _rotate_by_loop(x, positions, theta, layout)
    D = x.shape[-1]
    angles = np.tile(np.outer(positions, theta ** (-np.arange(0, D, 2) / D)), 2)[:, None]
    turned = np.concatenate([x[..., D // 2 :], -x[..., : D // 2]], axis=-1)
    return (x * np.cos(angles) + turned * np.sin(angles)).astype(x.dtype)


def _rotates_with_tables_of_the_other_layout(x, positions, theta, layout):
    """rotate_half with repeated instead of tiled cosines; neighbours done right."""
    if layout == "interleaved":
        return _rotate_by_loop(x, positions, theta, layout)
    D = x.shape[-1]
    angles = np.repeat(np.outer(positions, theta ** (-np.arange(0, D, 2) / D)), 2, axis=1)[:, None]
    turned = np.concatenate([-x[..., D // 2 :], x[..., : D // 2]], axis=-1)
    return (x * np.cos(angles) + turned * np.sin(angles)).astype(x.dtype)


def _rotates_by_head_instead_of_position(x, positions, theta, layout):
    return np.swapaxes(_rotate_by_loop(np.swapaxes(x, 0, 1), np.arange(x.shape[1]), theta, layout), 0, 1)


def _rows_by_indices(w, heads):
    D = len(w) // heads
    index = [h * D + member * D // 2 + i for h in range(heads) for i in range(D // 2) for member in (0, 1)]
    return w[index]


def _rows_by_stack(w, heads):
    rows = w.reshape(heads, -1, *w.shape[1:])
    half = rows.shape[1] // 2
    return np.stack([rows[:, :half], rows[:, half:]], axis=2).reshape(w.shape)


def _rows_by_slices(w, heads):
    y, D = np.empty_like(w), len(w) // heads
    for h in range(heads):
        y[h * D : (h + 1) * D : 2] = w[h * D : h * D + D // 2]
        y[h * D + 1 : (h + 1) * D : 2] = w[h * D + D // 2 : (h + 1) * D]
    return y


def _rows_forwards(w, heads):
    return w.reshape(heads, len(w) // heads // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


def _rows_across_heads(w, heads):
    return w.reshape(2, len(w) // 2, -1).swapaxes(0, 1).reshape(w.shape)


def _rows_across_heads_forwards(w, heads):
    return np.concatenate([w[0::2], w[1::2]])


def _rows_with_members_exchanged(w, heads):
    return w.reshape(heads, 2, len(w) // heads // 2, -1)[:, ::-1].swapaxes(1, 2).reshape(w.shape)


def _rows_with_halves_exchanged(w, heads):
    return w.reshape(heads, 2, -1)[:, ::-1].reshape(w.shape)


def _rows_without_a_bias(w, heads):
    rows, columns = w.shape
    return w.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _rows_and_the_bias_as_it_was(w, heads):
    return w.copy() if w.ndim == 1 else _rows_by_slices(w, heads)


def _rows_forwards_twice(w, heads):
    return _rows_forwards(_rows_forwards(w, heads), heads)


def _rows_reversed(w, heads):
    return w.reshape(heads, len(w) // heads, -1)[:, ::-1].reshape(w.shape)


def _speeds_by_loop(dy, x, positions, speeds):
    dx, dspeeds = np.zeros_like(x), np.zeros_like(speeds)
    for t in range(len(x)):
        for i in range(len(speeds)):
            c, s = math.cos(positions[t] * speeds[i]), math.sin(positions[t] * speeds[i])
            (a, b), (da, db) = x[t, 2 * i : 2 * i + 2], dy[t, 2 * i : 2 * i + 2]
            dx[t, 2 * i], dx[t, 2 * i + 1] = da * c + db * s, db * c - da * s
            dspeeds[i] += positions[t] * (da * (-a * s - b * c) + db * (a * c - b * s))
    return dx, dspeeds


def _speeds_with_matrices(dy, x, positions, speeds):
    angles = np.outer(positions, speeds)
    R = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]])  # (2, 2, T, D/2)
    dR = np.array([[-np.sin(angles), -np.cos(angles)], [np.cos(angles), -np.sin(angles)]])
    pairs, dpairs = x.reshape(len(x), -1, 2), dy.reshape(len(dy), -1, 2)
    dx = np.einsum("ijtp,tpi->tpj", R, dpairs).reshape(x.shape)
    return dx, np.einsum("tpi,ijtp,tpj,t->p", dpairs, dR, pairs, positions.astype(float))


def _wrong_speeds(direction=-1, of_y=True, factor=True, sign=1, dot=False, mean=False, dx_of_x=False, halves=False):
    """rope_backward_with_speeds with one thing wrong."""

    def members(a):
        half = a.shape[1] // 2
        return (a[:, :half] + 1j * a[:, half:]) if halves else (a[:, 0::2] + 1j * a[:, 1::2])

    def answer(dy, x, positions, speeds):
        angles = np.outer(positions, speeds)
        z, dz = members(x), members(dy)
        back = (z if dx_of_x else dz) * np.exp(direction * 1j * angles)
        dx = np.stack([back.real, back.imag], axis=-1).reshape(x.shape)
        if halves:
            dx = np.concatenate([back.real, back.imag], axis=1)
        point = (members(x) * np.exp(1j * angles)) if of_y else members(x)
        product = point.conj() * dz
        torque = sign * (product.real if dot else product.imag) * (positions[:, None] if factor else 1)
        return dx, torque.mean(axis=0) if mean else torque.sum(axis=0)

    return answer


def _speeds_and_dy_itself(dy, x, positions, speeds):
    return dy.copy(), _speeds_by_loop(dy, x, positions, speeds)[1]


def _speeds_at_counted_positions(dy, x, positions, speeds):
    return _speeds_by_loop(dy, x, np.arange(len(x)), speeds)


def _speeds_times_counted_positions(dy, x, positions, speeds):
    dx, _ = _speeds_by_loop(dy, x, positions, speeds)
    y, force = _speeds_by_loop(x, x, -positions, speeds)[0].T, dy.T  # turned forwards is turned back by the opposite
    return dx, (y[0::2] * force[1::2] - y[1::2] * force[0::2]) @ np.arange(len(x))


def _shift_by_loop(k, C):
    M = np.zeros((C, C))
    for i in range(0, C, 2):
        angle = k / 10000 ** (i / C)
        M[i, i] = M[i + 1, i + 1] = math.cos(angle)
        M[i + 1, i], M[i, i + 1] = math.sin(angle), -math.sin(angle)
    return M


def _shift_by_least_squares(k, C):
    blocks = np.zeros((C, C))
    for i in range(C // 2):
        w = 10000.0 ** (-2 * i / C)
        # A slow pair hardly moves within a few positions; its own times make the fit exact.
        t = np.linspace(0, 6, 20) / w
        before, after = (np.stack([np.sin((t + d) * w), np.cos((t + d) * w)], axis=1) for d in (0, k))
        blocks[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = np.linalg.lstsq(before, after, rcond=None)[0]
    return blocks


def _shift_by_power(k, C):
    one = _shift_by_loop(1, C)
    return np.linalg.matrix_power(one if k >= 0 else one.T, abs(k))


def _shift_sines_first(k, C):
    angles = k * 10000.0 ** (-np.arange(0, C, 2) / C)
    c, s = np.diag(np.cos(angles)), np.diag(np.sin(angles))
    return np.block([[c, -s], [s, c]])


def _shift_wrong(angle):
    def answer(k, C):
        M = np.zeros((C, C))
        for i in range(C // 2):
            c, s = math.cos(angle(k, i, C)), math.sin(angle(k, i, C))
            M[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, -s], [s, c]]
        return M

    return answer


def _shift_with_one_sign_wrong(k, C):
    return np.abs(np.sign(_shift_by_loop(k, C))) * _shift_by_loop(k, C) * np.where(np.triu(np.ones((C, C)), 1), -1, 1)


RIGHT = {  # exercise -> list of functions
    "stretched_theta": [_theta_in_one_line, _theta_by_logarithms, _theta_by_bisection],
    "rope_rotate": [_rotate_by_loop, _rotate_by_complex_numbers, _rotate_with_matrices, _rotate_half_formula],
    "half_to_interleaved": [_rows_by_indices, _rows_by_stack, _rows_by_slices],
    "rope_backward_with_speeds": [_speeds_by_loop, _speeds_with_matrices],
    "sinusoid_shift": [_shift_by_loop, _shift_by_least_squares, _shift_by_power],
}
WRONG = {  # exercise -> list of (function, a part of the hint that it must get)
    "stretched_theta": [
        (lambda theta, D, s: theta * s, "a power of it"),
        (lambda theta, D, s: theta * s ** ((D - 2) / D), "upside down"),
        (lambda theta, D, s: theta * s ** (D / (D - 1)), "no pair i = D/2"),
        (lambda theta, D, s: theta / s ** (D / (D - 2)), "larger than theta"),
        (lambda theta, D, s: theta * s ** (2 * D / (D - 2)), "not i/D"),
        (lambda theta, D, s: theta * s ** (D / (D - 4)) if D > 4 else theta * s**4, "not the number of pairs"),
        (lambda theta, D, s: theta * s ** (D / (D + 2)), "does not slow the slowest pair"),
        (lambda theta, D, s: theta * s**2, "does not slow the slowest pair"),
        (lambda theta, D, s: theta + s, "does not slow the slowest pair"),
        (lambda theta, D, s: np.full(3, theta), "must be of type float"),
    ],
    "rope_rotate": [
        (_wrong_rotation(pairs_as="neighbours"), "is this the other layout"),
        (_wrong_rotation(pairs_as="halves"), "is this the other layout"),
        (_wrong_rotation(sign=-1), "the direction is reversed"),
        (_wrong_rotation(rotate=lambda a, b, c, s: (a * c + b * s, a * s + b * c)), "lengths change"),
        (_wrong_rotation(rotate=lambda a, b, c, s: (a * s + b * c, a * c - b * s)), "exchanged"),
        (_wrong_rotation(rotate=lambda a, b, c, s: (a * c - b * s, a * c + b * s)), "no rotation"),
        (_wrong_rotation(angle=lambda theta, i, D: theta ** (-i / D)), "not -i/D"),
        (_wrong_rotation(angle=lambda theta, i, D: theta ** (-2 * i / (D // 2))), "not the number of pairs"),
        (_wrong_rotation(angle=lambda theta, i, D: theta ** (2 * i / D)), "the exponent is negative"),
        (_wrong_rotation(angle=lambda theta, i, D: theta ** (-2 * (i + 1) / D)), "count pairs from 0"),
        (_wrong_rotation(angle=lambda theta, i, D: 2 * np.pi * theta ** (-2 * i / D)), "not those asked for"),
        (_wrong_rotation(angle=lambda theta, i, D: 10000.0 ** (-2 * i / D)), "not those asked for"),
        (_wrong_rotation(change_positions=lambda p: p + 1), "shifted by one"),
        (_wrong_rotation(change_positions=lambda p: np.arange(len(p))), "the positions that are given"),
        (_wrong_rotation(change_positions=lambda p: p - p[0]), "not those asked for"),
        (_wrong_rotation(upto=0.5), "only some of the coordinates"),
        (_wrong_rotation(dtype=np.float32), "float64"),
        (_rotates_in_place, "it changed an array"),
        (_rotates_overwritten, "was overwritten"),
        (_rotates_all_heads_as_one, "as one wide head"),
        (_rotates_without_the_minus, "lengths change"),
        (_rotates_with_the_minus_in_the_other_half, "minus of rotate_half at the wrong half"),
        (_rotates_and_concatenates, "in the order of the other layout"),
        (_rotates_with_tables_of_the_other_layout, "given to the wrong coordinates"),
        (_rotates_by_head_instead_of_position, "not those asked for"),
        (lambda x, positions, theta, layout: _rotate_by_loop(x.astype(float), positions, theta, layout), "dtype"),
    ],
    "half_to_interleaved": [
        (_rows_forwards, "from interleaved to rotate-half"),
        (_rows_across_heads, "within each head"),
        (_rows_across_heads_forwards, "mixed, and it is the inverse"),
        (_rows_with_members_exchanged, "members of each pair are exchanged"),
        (_rows_with_halves_exchanged, "halves"),
        (_rows_without_a_bias, "it stopped with ValueError"),
        (_rows_and_the_bias_as_it_was, "a bias must be reordered"),
        (_rows_forwards_twice, "0, D/2, 1, D/2 + 1"),
        (_rows_reversed, "0, D/2, 1, D/2 + 1"),
        (lambda w, heads: w.copy(), "nothing was reordered"),
        (lambda w, heads: w[:, ::-1].copy(), "0, D/2, 1, D/2 + 1"),
    ],
    "rope_backward_with_speeds": [
        (_wrong_speeds(direction=1), "turns in the direction of the forward"),
        (_wrong_speeds(dx_of_x=True), "must turn dy back, not x"),
        (_wrong_speeds(halves=True), "rotate-half layout"),
        (_speeds_and_dy_itself, "dx is dy"),
        (_wrong_speeds(factor=False), "the gradient of the angles"),
        (_wrong_speeds(sign=-1), "the sign of dspeeds"),
        (_wrong_speeds(of_y=False), "made of x"),
        (_wrong_speeds(mean=True), "sum over the positions"),
        (_wrong_speeds(dot=True), "at a right angle"),
        (_speeds_at_counted_positions, "use the positions that are given"),
        (_speeds_times_counted_positions, "not the row's number"),
        (_wrong_speeds(sign=2), "not the gradient of the forward"),
    ],
    "sinusoid_shift": [
        (lambda k, C: _shift_by_loop(-k, C), "transposed"),
        (lambda k, C: _shift_by_loop(1, C), "for one position"),
        (_shift_sines_first, "all sines first"),
        (_shift_wrong(lambda k, i, C: k * 10000.0 ** (-i / C)), "not i/C"),
        (_shift_wrong(lambda k, i, C: k * 10000.0 ** (2 * i / C)), "the exponent is negative"),
        (_shift_wrong(lambda k, i, C: k), "is not P_(t+k)"),
        (_shift_with_one_sign_wrong, "is not P_(t+k)"),
        (lambda k, C: np.eye(C), "is not P_(t+k)"),
    ],
}
