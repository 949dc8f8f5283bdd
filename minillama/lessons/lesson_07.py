"""Checkers of lesson 07: units that multiply, the backward passes of gates, widths and counts."""

import math

import numpy as np

from ..config import ffn_width
from .checks import exercise

FLOAT32 = 1e-5  # tolerance where the input is float32


def _sigmoid(z):
    return 0.5 * (1 + np.tanh(z / 2))


def _silu(z):
    return z * _sigmoid(z)


@exercise("07", "Two units that multiply", difficulty=2, minutes=15)
def multiplying_units(answer, trial):
    """answer(C, i, j) -> w_gate (2, C), w_up (2, C), w_down (2,), so that the two units give x_i x_j."""

    def call(C, i, j):
        returns = [("w_gate", (2, C)), ("w_up", (2, C)), ("w_down", (2,))]
        return trial.call(answer, C, i, j, returns=returns)

    for case in range(6):
        C = int(trial.rng.integers(4, 9))
        i, j = (int(n) for n in trial.rng.permutation(C)[:2])
        if case % 3 == 2:
            j = i
        w_gate, w_up, w_down = call(C, i, j)
        x = trial.rng.standard_normal((20, C)) * (1, 8)[case % 2]
        gates = x @ w_gate.T
        y = (_silu(gates) * (x @ w_up.T)) @ w_down
        a, b = x[:, i], x[:, j]
        mistakes = {
            "the second unit gives 0, so silu(x_i) x_j is left: it must add the rest, x_i x_j - silu(x_i) x_j": (
                _silu(a) * b
            ),
            "both units give silu(x_i) x_j: the second must have another gate": 2 * _silu(a) * b,
            "the second unit is silu(-x_i) x_j; it must be silu(-x_i) (-x_j), so its up, or its down, is negative": (
                (_silu(a) + _silu(-a)) * b
            ),
            "the sign is wrong: it gives -x_i x_j": -a * b,
            "it gives 2 x_i x_j: the two units add up to one product already": 2 * a * b,
            "it gives half of x_i x_j: the two units need not be averaged": a * b / 2,
            "the two units cancel: with the same gate and opposite ups nothing is left": np.zeros(len(x)),
            "the gates are silu(x_i) and silu(x_j): use silu(x_i) and silu(-x_i), which differ by x_i": (
                _silu(a) * b + _silu(b) * a
            ),
            "both units read x_j alone: one of gate and up must read x_i": b * b,
            "both units read x_i alone: one of gate and up must read x_j": a * a,
        }
        otherwise = (
            "the units do not give x_i x_j. Which two values of silu differ by x_i? sigmoid(z) + sigmoid(-z) is 1"
        )
        trial.same("x_i squared" if i == j else "x_i x_j", y, a * b, mistakes, otherwise)


def _gate_case(trial, dtype=np.float64):
    N, F = trial.rng.integers(2, 6), trial.rng.integers(3, 7)
    dh, gate, up = trial.rng.standard_normal((3, N, F)).astype(dtype)
    return dh, 2 * gate, up


def _check_gate_backward(answer, trial, forward, right, mistakes_of):
    """Finite differences in float64, float32, and gates so large that an exponential overflows."""

    def call(dh, gate, up):
        return trial.call(answer, dh, gate, up, returns=[("dgate", gate.shape), ("dup", up.shape)])

    for _ in range(5):
        dh, gate, up = _gate_case(trial)

        def loss(dh=dh, gate=gate, up=up):
            return float(np.sum(dh * forward(gate) * up))

        dgate, dup = call(dh, gate, up)
        of_gate, of_up = mistakes_of(dh, gate, up)
        trial.gradient("dgate", dgate, loss, gate, of_gate)
        trial.gradient("dup", dup, loss, up, of_up)
    dh, gate, up = _gate_case(trial, np.float32)
    for name, got, expected in zip(
        ("dgate", "dup"), call(dh, gate, up), right(*(a.astype(float) for a in (dh, gate, up))), strict=True
    ):
        trial.same(f"{name} in float32", got, expected, tolerance=FLOAT32)
    gate = np.where(trial.rng.random(gate.shape) < 0.5, -1000, 1000).astype(np.float32)
    gate[0, :2] = -1000, 1000
    expected = [np.where(gate > 0, dh * up, 0), np.where(gate > 0, dh * gate, 0)]  # the gate is open, or shut
    for name, got, wanted in zip(("dgate", "dup"), call(dh, gate, up), expected, strict=True):
        trial.same(f"{name} for gates of 1000 and -1000", got, wanted, tolerance=FLOAT32)


@exercise("07", "The backward pass of SwiGLU", difficulty=1, minutes=10)
def swiglu_backward(answer, trial):
    """answer(dh, gate, up) -> dgate, dup, for h = silu(gate) up; all (N, F)."""

    def right(dh, gate, up):
        s = _sigmoid(gate)
        return dh * up * (s + gate * s * (1 - s)), dh * _silu(gate)

    def mistakes_of(dh, gate, up):
        s = _sigmoid(gate)
        slope, silu = s + gate * s * (1 - s), gate * s
        return {
            "dgate and dup are exchanged": dh * silu,
            "up is missing in dgate: the gate's gradient is multiplied by what it lets through": dh * slope,
            "the slope is that of the sigmoid, s (1 - s); silu is z times it, so there are two paths": (
                dh * up * s * (1 - s)
            ),
            "one path is missing in silu': z also stands in front of the sigmoid, which gives a term s": (
                dh * up * gate * s * (1 - s)
            ),
            "one path is missing in silu': z also acts through the sigmoid, which gives a term z s (1 - s)": (
                dh * up * s
            ),
            "the factor z is missing in the second term of silu', z s (1 - s)": dh * up * (s + s * (1 - s)),
            "the second term of silu' has the wrong sign: the sigmoid rises": dh * up * (s - gate * s * (1 - s)),
            "dgate needs the slope of silu, not silu itself": dh * up * silu,
            "where s = sigmoid(gate) belongs, silu(gate) stands: silu' is s + z s (1 - s)": (
                dh * up * (silu + gate * silu * (1 - silu))
            ),
            "dgate is multiplied by gate where up belongs": dh * gate * slope,
            "dh is missing in dgate": up * slope,
            "the gate is taken for a ReLU: its slope is not 0 or 1": dh * up * (gate > 0),
        }, {
            "dgate and dup are exchanged": dh * up * slope,
            "dup is dh times silu(gate); this is dh times the gate before silu": dh * gate,
            "dup is dh times silu(gate) = gate sigmoid(gate); this is dh sigmoid(gate)": dh * s,
            "dup is dh times silu(gate), not times its slope: h is linear in up": dh * slope,
            "dup is multiplied by up: h is linear in up, so up itself falls out": dh * silu * up,
            "silu stands around up here; it stands around the gate": dh * _silu(up),
            "dh is missing in dup": silu,
        }

    _check_gate_backward(answer, trial, _silu, right, mistakes_of)


_ROOT = math.sqrt(2 / math.pi)
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu_tanh(z):
    return 0.5 * z * (1 + np.tanh(_ROOT * (z + 0.044715 * z**3)))


@exercise("07", "The backward pass of GEGLU", difficulty=2, minutes=20)
def geglu_backward(answer, trial):
    """answer(dh, gate, up) -> dgate, dup, for h = gelu(gate) up with GELU's tanh form; all (N, F)."""

    def parts(z):
        t = np.tanh(_ROOT * (z + 0.044715 * z**3))
        return t, (1 - t * t) * _ROOT * (1 + 3 * 0.044715 * z * z)

    def right(dh, gate, up):
        t, dt = parts(gate)
        return dh * up * 0.5 * (1 + t + gate * dt), dh * _gelu_tanh(gate)

    def mistakes_of(dh, gate, up):
        z, s = gate, _sigmoid(gate)
        t, dt = parts(z)
        slope, gelu = 0.5 * (1 + t + z * dt), _gelu_tanh(z)
        phi = (1 + _erf(z / math.sqrt(2))) / 2
        exact = phi + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        inner = _ROOT * (1 + 3 * 0.044715 * z * z)
        return {
            "dgate and dup are exchanged": dh * gelu,
            "up is missing in dgate: the gate's gradient is multiplied by what it lets through": dh * slope,
            "one path is missing: z also acts through tanh": dh * up * 0.5 * (1 + t),
            "one path is missing: z also stands in front of (1 + tanh)": dh * up * 0.5 * z * dt,
            "the slope of tanh, 1 - t^2, is missing in the second path": dh * up * 0.5 * (1 + t + z * inner),
            "the slope of tanh is 1 - t^2; here it is 1 - t": (dh * up * 0.5 * (1 + t + z * (1 - t) * inner)),
            "the slope of what stands inside tanh is missing: sqrt(2/pi) (1 + 3 0.044715 z^2)": (
                dh * up * 0.5 * (1 + t + z * (1 - t * t))
            ),
            "the factor sqrt(2/pi) is missing in the slope of what stands inside tanh": (
                dh * up * 0.5 * (1 + t + z * dt / _ROOT)
            ),
            "the slope of z^3 is 3 z^2: the 3 is missing": (
                dh * up * 0.5 * (1 + t + z * (1 - t * t) * _ROOT * (1 + 0.044715 * z * z))
            ),
            "the cubic term inside tanh has a slope too, 3 0.044715 z^2": (
                dh * up * 0.5 * (1 + t + z * (1 - t * t) * _ROOT)
            ),
            "the half is missing: gelu is z (1 + tanh) / 2": dh * up * (1 + t + z * dt),
            "the half is missing in one of the two paths": dh * up * (0.5 * (1 + t) + z * dt),
            "the factor z is missing in the second path": dh * up * 0.5 * (1 + t + dt),
            "this is the slope of the exact GELU, by way of erf; asked for is that of the tanh form": dh * up * exact,
            "this is the slope of SiLU; the gate is GELU here": dh * up * (s + z * s * (1 - s)),
            "dgate needs the slope of GELU, not GELU itself": dh * up * gelu,
        }, {
            "dgate and dup are exchanged": dh * up * slope,
            "dup is dh times gelu(gate), in the tanh form; this is the exact one": dh * z * phi,
            "dup is dh times gelu(gate); this is SiLU": dh * z * s,
            "dup is dh times gelu(gate); this is dh times the gate before GELU": dh * gate,
            "dup is dh times gelu(gate); the factor gate in front of (1 + tanh) / 2 is missing": dh * 0.5 * (1 + t),
            "the half is missing: gelu is z (1 + tanh) / 2": dh * z * (1 + t),
            "dup is dh times gelu(gate), not times its slope: h is linear in up": dh * slope,
        }

    _check_gate_backward(answer, trial, _gelu_tanh, right, mistakes_of)


@exercise("07", "The width, rounded up", difficulty=1, minutes=10)
def llama_width(answer, trial):
    """answer(dim, multiple_of, multiplier) -> the width of the feed-forward layer, an int."""
    rng, found = trial.rng, []
    cases = [(4096, 256, 1.0), (8192, 4096, 1.3), (4096, 1024, 1.3), (192, 256, 1.0)]  # the last: 512, a multiple
    for _ in range(8):
        multiple = int(rng.choice([8, 32, 100, 256]))
        cases.append((64 * int(rng.integers(3, 200)), multiple, float(rng.choice([1.0, 1.3, 1.2, 1.5]))))
    for C, m, factor in cases:
        got = trial.call(answer, C, m, factor, returns=[("the width", int)])
        exact = factor * 8 * C / 3
        third, up = int(factor * int(8 * C / 3)), lambda n, m=m: -(-n // m) * m
        mistakes = {
            "two thirds are missing: a gated layer has 2/3 of 4 dim": up(int(factor * 4 * C)),
            "two thirds of dim were taken: it is two thirds of 4 dim": up(int(factor * int(2 * C / 3))),
            "it is rounded down: Meta's code rounds up to the next multiple": third // m * m,
            "it is rounded to the nearest multiple: Meta's code rounds up": (third + m // 2) // m * m,
            "a width that is a multiple already stays; this goes one further": third // m * m + m,
            "it is not rounded to a multiple at all": third,
            "multiplier is left out": up(int(8 * C / 3)),
            "multiplier comes before the rounding to a multiple, not after it": int(factor * up(int(8 * C / 3))),
            "multiplier comes before the rounding to a multiple, and not before and after it": (
                up(int(factor * up(int(8 * C / 3))))
            ),
            "the number of multiples is returned: multiply by multiple_of": up(third) // m,
        }
        case = f"llama_width({C}, {m}, {factor})"
        otherwise = (
            "take int(8 dim / 3), multiply by multiplier, take int again, and round up to a multiple: "
            f"before the rounding it is {exact:,.1f} here"
        )
        found.append(("Meta's width", int(got), ffn_width(C, m, factor), case, mistakes, otherwise))
    trial.all_equal(found)
    for C, m, factor, width in ((4096, 256, 1.0, 11008), (8192, 4096, 1.3, 28672)):
        got = trial.call(answer, C, m, factor, returns=[("the width", int)])
        trial.equal("7B and 70B of Llama 2", int(got), width, f"llama_width({C}, {m}, {factor})")


@exercise("07", "Count the parameters", difficulty=1, minutes=5)
def feed_forward_count(answer, trial):
    """answer(C, F, gated, bias) -> the number of parameters of a feed-forward layer, an int."""
    found = []
    for case in range(8):
        C, F = (int(n) for n in trial.rng.permutation(np.arange(3, 60))[:2])
        gated, bias = bool(case % 2), bool(case // 2 % 2)
        got = trial.call(answer, C, F, gated, bias, returns=[("the count", int)])
        matrices, into, out = (3 if gated else 2) * C * F, (2 if gated else 1) * F, C
        mistakes = {
            "a gated layer has three matrices, w_gate, w_up and w_down": 2 * C * F + bias * (F + C),
            "gated and not gated are exchanged": (5 - (3 if gated else 2)) * C * F + bias * ((3 * F - into) + C),
            "without a gate there are two matrices; this counts three": 3 * C * F + bias * (2 * F + C),
            "the biases are left out": matrices,
            "bias is False here: there is none to count": matrices + into + out,
            "w_down has a bias too, of C numbers": matrices + bias * into,
            "the matrices that lead to the hidden units have biases too, of F numbers each": matrices + bias * out,
            "w_gate and w_up have a bias each": matrices + bias * (F + C),
            "w_down leads back to C numbers, so its bias has C, not F": matrices + bias * (into + F),
            "a bias has one number for each output; w_gate and w_up have F outputs, not C": (
                matrices + bias * (into // F * C + C)
            ),
        }
        case = f"feed_forward_count({C}, {F}, {gated}, {bias})"
        what = ("gated" if gated else "not gated") + (", with biases" if bias else ", without biases")
        otherwise = "a matrix from n to m numbers has n m parameters, and its bias m. Add up all matrices"
        found.append((what, int(got), matrices + bias * (into + out), case, mistakes, otherwise))
    trial.all_equal(found)
