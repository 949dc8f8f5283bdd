"""AdamW, the schedule and clipping against their definitions."""

import numpy as np
import pytest

from minillama.runtime.memory import Store
from minillama.runtime.workers import Workers
from minillama.training.clipping import clip_scale, gradient_norm
from minillama.training.optimizers import AdamW
from minillama.training.schedules import learning_rate


def test_schedule_ends_and_turning_points():
    rates = [learning_rate(t, 100, 2.0, 10, 0.1) for t in range(1, 101)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == 2.0 and rates[-1] == pytest.approx(0.2)
    assert rates[54] == pytest.approx(2.0 * 0.55)  # halfway down the cosine
    assert all(a > b for a, b in zip(rates[9:], rates[10:], strict=False))
    assert learning_rate(1, 1, 1.0, 0, 0.1) == pytest.approx(0.1)


def test_the_floor_stays_after_the_last_step_and_step_0_divides_by_nothing():
    """As in the assignment of CS336 (get_lr_cosine_schedule), whose formula is written out here."""

    def written_out(t, peak, least, warmup, end):
        if t < warmup:
            return t / warmup * peak
        if t <= end:
            return least + 0.5 * (1 + np.cos((t - warmup) / (end - warmup) * np.pi)) * (peak - least)
        return least

    for steps, warmup, floor in [(21, 7, 0.1), (10, 0, 0.0), (100, 99, 1.0), (1, 0, 0.5), (40, 10, 0.25)]:
        rates = [learning_rate(t, steps, 3.0, warmup, floor) for t in range(3 * steps)]
        expected = [written_out(t, 3.0, 3.0 * floor, warmup, steps) for t in range(3 * steps)]
        np.testing.assert_allclose(rates, expected, rtol=1e-12, atol=1e-15)
    assert learning_rate(0, 10, 1.0, 0, 0.0) == 1.0  # the cosine begins at the peak
    assert learning_rate(50, 10, 1.0, 50, 0.1) == 1.0 and learning_rate(51, 10, 1.0, 50, 0.1) == 0.1


def test_clip_scale():
    assert clip_scale(4.0, 1.0) == 0.25 and clip_scale(0.5, 1.0) == 1.0 and clip_scale(0.0, 1.0) == 1.0
    assert clip_scale(4.0, 0.0) == 1.0  # clipping is off


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_adamw_written_out_element_by_element(threads, each_backend, rng):
    shapes = {"w": (3, 5), "v": (7,)}
    parameters, gradients = Store(shapes, np.float64), Store(shapes, np.float64)
    parameters.flat[:] = rng.standard_normal(22)
    expected, m, v = parameters.flat.copy(), np.zeros(22), np.zeros(22)
    optimizer, workers = AdamW(parameters, (0.8, 0.9), 1e-8, weight_decay=0.5), Workers(threads)
    for t in range(1, 4):
        gradients.flat[:] = rng.standard_normal(22)
        norm = gradient_norm(gradients, workers)
        assert norm == pytest.approx(np.linalg.norm(gradients.flat))
        g = gradients.flat / max(1.0, norm)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        decay = np.where(np.arange(22) < 15, 0.5, 0.0)  # matrices only
        expected = expected - 0.01 * (decay * expected + m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8))
        optimizer.step(gradients, 0.01, clip_scale(norm, 1.0), workers)
        np.testing.assert_allclose(parameters.flat, expected, rtol=1e-12)
