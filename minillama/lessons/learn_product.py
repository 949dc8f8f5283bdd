"""Learning x1 x2 with one hidden layer, at equal numbers of parameters (lesson 07).

    y = w_out . activation(w_in x + b_in),   x = (x1, x2) uniform in [-1, 1]^2

Several trainings of one shape run side by side, on a leading axis of their own; they share nothing but the code. Steps
and rates were chosen in trials with other seeds than those that are reported.
"""

from typing import NamedTuple

import numpy as np

from ..ops.feedforward import FEED_FORWARDS

STEPS, POINTS, TEST_POINTS = 1000, 128, 4096
RATES, TUNING_SEED, SEEDS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), 1000, (20, 21, 22, 23, 24)
# Hidden units of each activation, 4 or, with a gate, 7 numbers each: 14, 28, 56 and 112 parameters. Of 4 numbers there
# are no 14, so the first two begin with 16.
WIDTHS = {"relu": (4, 7, 14, 28), "silu": (4, 7, 14, 28), "swiglu": (2, 4, 8, 16)}


class Network(NamedTuple):
    """The parameters of R networks of one shape; F hidden units, 2 F columns if the activation has a gate."""

    w_in: np.ndarray  # (R, 2, F or 2 F)
    b_in: np.ndarray  # (R, 1, F or 2 F)
    w_out: np.ndarray  # (R, F, 1)

    @property
    def parameters(self):
        """Numbers in one of the networks."""
        return sum(array[0].size for array in self)


def network(kind, width, seeds):
    """One Network of this activation and width for each seed: weights and biases uniform, outputs smaller."""
    columns = 2 * width if FEED_FORWARDS[kind].gated else width
    shapes = (2, columns), (1, columns), (width, 1)
    scales = 1.0, 1.0, width**-0.5
    drawn = []
    for seed in seeds:
        rng = np.random.default_rng([seed, 1])
        drawn.append([scale * rng.uniform(-1, 1, shape) for shape, scale in zip(shapes, scales, strict=True)])
    return Network(*(np.stack(arrays) for arrays in zip(*drawn, strict=True)))


def outputs(kind, net, x):
    """x (R, N, 2) -> y (R, N, 1), and what the backward wants: inner and hidden."""
    inner = x @ net.w_in + net.b_in
    rows = inner.reshape(-1, inner.shape[-1])
    hidden = FEED_FORWARDS[kind].forward(rows).reshape(*inner.shape[:2], -1)
    return hidden @ net.w_out, inner, hidden


def loss_and_gradients(kind, net, x):
    """The mean square error of each network (R,) on points x (R, N, 2), and the gradients of their sum, a Network."""
    y, inner, hidden = outputs(kind, net, x)
    error = y - x[..., :1] * x[..., 1:]
    dy = 2 * error / x.shape[1]
    dhidden = dy @ net.w_out.swapaxes(1, 2)
    flat = (array.reshape(-1, array.shape[-1]) for array in (dhidden, inner))
    dinner = FEED_FORWARDS[kind].backward(*flat).reshape(inner.shape)
    gradients = Network(x.swapaxes(1, 2) @ dinner, dinner.sum(axis=1, keepdims=True), hidden.swapaxes(1, 2) @ dy)
    return np.mean(error**2, axis=(1, 2)), gradients


def train(kind, width, seeds, rates, steps=STEPS):
    """Train one network for each seed and rate; returns their relative errors (R,)

    Adam (betas 0.9 and 0.99), a rate that falls to 0 along a cosine, new points in every step, those of the seed. The
    relative error is the root of the mean square error on TEST_POINTS other points, divided by that of answering 0.
    """
    net = network(kind, width, seeds)
    rate = np.reshape(rates, (-1, 1, 1))
    rngs = [np.random.default_rng([seed, 2]) for seed in seeds]
    means, squares = ([np.zeros_like(array) for array in net] for _ in range(2))
    for step in range(1, steps + 1):
        x = np.stack([rng.uniform(-1, 1, (POINTS, 2)) for rng in rngs])
        _, gradients = loss_and_gradients(kind, net, x)
        now = rate * 0.5 * (1 + np.cos(np.pi * (step - 1) / steps))
        for w, g, m, v in zip(net, gradients, means, squares, strict=True):
            m += 0.1 * (g - m)
            v += 0.01 * (g * g - v)
            w -= now * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.99**step)) + 1e-8)
    x = np.stack([np.random.default_rng([seed, 3]).uniform(-1, 1, (TEST_POINTS, 2)) for seed in seeds])
    target = x[..., :1] * x[..., 1:]
    error = outputs(kind, net, x)[0] - target
    return np.sqrt(np.mean(error**2, axis=(1, 2)) / np.mean(target**2, axis=(1, 2)))


def experiment(kind, width, steps=STEPS):
    """Relative errors of the seeds, at the rate that is best with a seed that is not among them; and that rate."""
    tried = train(kind, width, [TUNING_SEED] * len(RATES), RATES, steps)
    rate = RATES[int(np.nanargmin(tried))]
    return train(kind, width, SEEDS, [rate] * len(SEEDS), steps), rate
