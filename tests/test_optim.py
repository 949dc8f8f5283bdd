"""Optimizers, schedules and clipping against their definitions."""

import numpy as np
import pytest

from minillama.runtime.memory import Store
from minillama.runtime.workers import Workers
from minillama.training.clipping import clip_gradients, clip_scale, gradient_norm
from minillama.training.optimizers import OPTIMIZERS, Adam, AdamW
from minillama.training.schedules import SCHEDULES, learning_rate
from minillama.training.trainer import Settings


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


SETTINGS = Settings(weight_decay=0.3, decay_share=0.25)
each_kind = pytest.mark.parametrize("kind", OPTIMIZERS)


def make(kind, parameters):
    return OPTIMIZERS[kind].with_settings(parameters, SETTINGS)


@each_kind
def test_weight_decay_shrinks_matrices_only(kind, each_backend):
    arrays = {"matrix": np.ones((2, 3)), "vector": np.ones(4)}
    make(kind, arrays).step({name: np.zeros_like(array) for name, array in arrays.items()}, 0.1)
    assert (arrays["vector"] == 1).all() and (arrays["matrix"] < 1).all()


def test_an_l2_decay_is_divided_by_the_gradients_size_and_a_decoupled_one_is_not(each_backend):
    """What Loshchilov and Hutter 2019 (section 2) say sets AdamW apart: of two weights that differ in the size of their
    gradients alone, AdamW shrinks both alike, and Adam the one with the larger gradients less."""
    shrunk = {}
    for kind in (Adam, AdamW):
        w = {decay: {"w": np.ones((1, 2))} for decay in (0.0, 0.1)}
        for decay, arrays in w.items():
            optimizer, rng = kind(arrays, weight_decay=decay), np.random.default_rng(0)
            for _ in range(400):
                optimizer.step({"w": rng.standard_normal() * np.array([[1.0, 100.0]])}, 1e-3)
        shrunk[kind] = (w[0.0]["w"] - w[0.1]["w"])[0]
    assert shrunk[AdamW][0] == pytest.approx(shrunk[AdamW][1], rel=1e-3)
    assert shrunk[Adam][1] < 0.1 * shrunk[Adam][0]


@each_kind
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_plain_arrays_are_trained_as_a_store_is(kind, dtype, each_backend, rng):
    shapes = {"a": (4, 3), "c": (2, 2, 2), "b": (5,)}  # in the order of a Store: matrices first
    store, gradients = Store(shapes, dtype), Store(shapes, dtype)
    store.flat[:] = rng.standard_normal(25)
    arrays = {name: array.copy() for name, array in store.items()}
    same = dict(arrays)
    flat, plain, workers = make(kind, store), make(kind, arrays), Workers(2)
    for _ in range(4):
        gradients.flat[:] = rng.standard_normal(25)
        kept = gradients.flat.copy()
        flat.step(gradients, 0.1, workers=workers)
        plain.step({name: gradients[name] for name in reversed(shapes)}, 0.1)
        np.testing.assert_array_equal(gradients.flat, kept)
    for name, array in arrays.items():
        assert array is same[name] and array.dtype == dtype
        np.testing.assert_allclose(array, store[name], rtol=1e-6 if dtype == np.float32 else 1e-13)
    for name in flat.state_names:
        np.testing.assert_allclose(plain.state[name], flat.state[name], rtol=1e-5, atol=1e-7)


@each_kind
def test_the_state_is_all_that_it_takes_to_go_on(kind, rng):
    shapes = {"a": (4, 3), "b": (5,)}
    gradients = [rng.standard_normal(17) for _ in range(6)]

    def train(store, optimizer, some):
        for gradient in some:
            optimizer.step(Store(shapes, np.float64, gradient), 0.1)

    whole = Store(shapes, np.float64)
    train(whole, make(kind, whole), gradients)
    first, second = Store(shapes, np.float64), Store(shapes, np.float64)
    one, two = make(kind, first), make(kind, second)
    train(first, one, gradients[:3])
    second.flat[:], two.steps = first.flat, one.steps
    assert one.state.keys() == two.state.keys() == set(one.state_names)
    for name, array in one.state.items():
        two.state[name][:] = array
    train(second, two, gradients[3:])
    np.testing.assert_array_equal(second.flat, whole.flat)


def test_a_gradient_may_have_any_layout_and_number_type(rng):
    w, g = rng.standard_normal((3, 4)), rng.standard_normal((4, 3))
    one, two = {"w": w.copy()}, {"w": w.copy()}
    AdamW(one).step({"w": g.T}, 0.1)
    AdamW(two).step({"w": np.ascontiguousarray(g.T)}, 0.1)
    np.testing.assert_array_equal(one["w"], two["w"])
    single = {"w": w.astype(np.float32)}
    AdamW(single).step({"w": g.T}, 0.1)
    assert single["w"].dtype == np.float32
    np.testing.assert_allclose(single["w"], one["w"], rtol=1e-5)


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({}, "no parameters"),
        ({"w": [1.0, 2.0]}, "w is list"),
        ({"w": np.zeros(3, int)}, "w is int64"),
        ({"w": np.zeros((2, 3)).T}, "w cannot be: it is a view, such as a transpose; give a copy"),
        ({"w": np.broadcast_to(1.0, (1,))}, "w cannot be: it is read-only"),
        ({"v": np.zeros(2), "w": np.zeros(3, np.float32)}, "among float32, float64"),
    ],
)
def test_arrays_that_cannot_be_changed_in_place_are_refused(parameters, words):
    with pytest.raises(ValueError, match=words):
        AdamW(parameters)


def test_gradients_that_are_none_of_these_parameters_are_refused():
    optimizer = AdamW({"w": np.zeros((2, 3))})
    with pytest.raises(ValueError, match="names of the parameters, w; received v"):
        optimizer.step({"v": np.zeros((2, 3))}, 0.1)
    with pytest.raises(ValueError, match=r"shape of the parameter, \(2, 3\); received \(3, 2\)"):
        optimizer.step({"w": np.zeros((3, 2))}, 0.1)
    assert optimizer.steps == 0


def test_clip_gradients_in_place(rng):
    a, b = rng.standard_normal((3, 4)), rng.standard_normal(5).astype(np.float32)
    norm = np.sqrt(np.sum(a**2) + np.sum(b.astype(float) ** 2))
    expected = a / (norm + 1e-6) * 0.5, b / (norm + 1e-6) * 0.5
    assert clip_gradients({"a": a, "b": b}, 0.5) == pytest.approx(norm)
    np.testing.assert_allclose(a, expected[0])
    np.testing.assert_allclose(b, expected[1], rtol=1e-6)
    assert b.dtype == np.float32
    kept = a.copy()
    assert clip_gradients([a, b], 0.51) == pytest.approx(0.5, rel=1e-5)  # short enough: as it is
    np.testing.assert_array_equal(a, kept)
    store = Store({"w": (2, 3), "v": (4,)})
    store.flat[:] = 2
    assert clip_gradients(store, 1.0) == pytest.approx(np.sqrt(40)) and np.linalg.norm(store.flat) < 1
    with pytest.raises(ValueError, match="must be above 0; received 0"):
        clip_gradients([a], 0)
    with pytest.raises(ValueError, match="length nan"):
        clip_gradients([a, np.array([np.nan])], 1.0)
    np.testing.assert_array_equal(a, kept)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_begins_at_the_peak_and_never_rises_again(name):
    share, numbers = SCHEDULES[name].share, [getattr(SETTINGS, field) for field in SCHEDULES[name].settings]
    rates = [learning_rate(t, 110, 2.0, 10, *numbers, schedule=name) for t in range(1, 121)]
    assert rates[:10] == pytest.approx([0.2 * t for t in range(1, 11)])
    assert all(a >= b for a, b in zip(rates[9:], rates[10:], strict=False))
    last = 0.1 if "lr_floor" in SCHEDULES[name].settings else share(1.0, *numbers)
    assert rates[109:] == pytest.approx([2.0 * last] * 11)  # and stays after the last step
    assert share(0.0, *numbers) == 1.0


def test_wsd_keeps_the_peak_until_the_last_part():
    rates = [learning_rate(t, 100, 1.0, 20, 0.0, 0.5, schedule="wsd") for t in range(1, 101)]
    assert rates[19:60] == [1.0] * 41 and rates[79] == pytest.approx(0.5) and rates[99] == 0
    assert learning_rate(1, 10, 1.0, 0, 0.0, 1.0, schedule="wsd") == pytest.approx(0.9)  # all of it is decay
