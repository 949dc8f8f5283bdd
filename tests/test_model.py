"""The whole network: gradients, and the properties that a causal decoder has."""

import threading
import tracemalloc

import numpy as np
import pytest

from minillama import IGNORED, Config, Model, backend
from minillama.data.batches import Batches
from minillama.gradcheck import directional_derivative, numerical_gradient, relative_error
from minillama.training.clipping import clip_scale, gradient_norm
from minillama.training.optimizers import AdamW

from .conftest import BACKENDS

TINY = dict(vocab_size=11, dim=12, layers=2, heads=3, kv_heads=1, ffn=10, context=7)
VARIANTS = {
    "multi-query": {},
    "multi-head": {"kv_heads": 3},
    "grouped": {"dim": 16, "heads": 4, "kv_heads": 2},
    "tied": {"tied": True},
    "interleaved": {"rope_layout": "interleaved"},
    "dropout": {"dropout": 0.3},
}


def make(rng, dtype=np.float64, threads=1, **changes):
    """A tiny model with weights large enough that every path through it matters, and a batch for it."""
    config = Config(**{**TINY, **changes})
    model = Model(config, seed=1, dtype=dtype, threads=threads)
    model.parameters.flat[:] = rng.standard_normal(model.parameters.flat.size) * 0.5
    ids = rng.integers(0, config.vocab_size, (3, config.context))
    targets = rng.integers(0, config.vocab_size, ids.shape)
    targets[0, 2:4] = IGNORED
    return model, ids, targets


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_of_the_whole_model_against_finite_differences(variant, each_backend, rng):
    model, ids, targets = make(rng, **VARIANTS[variant])
    seed = 5 if model.config.dropout else None
    _, gradients = model.loss_and_gradients(ids, targets, noise_seed=seed)
    gradients = gradients.flat.copy()

    def loss():
        return model.loss_and_gradients(ids, targets, noise_seed=seed)[0]

    for _ in range(8):
        direction = rng.standard_normal(gradients.size)
        expected = directional_derivative(loss, model.parameters.flat, direction / np.linalg.norm(direction), 1e-3)
        received = gradients @ direction / np.linalg.norm(direction)
        usual = np.linalg.norm(gradients) / gradients.size**0.5  # size of the derivative in a random direction
        assert abs(received - expected) < 1e-7 * usual, variant


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_its_own_gradient(variant, each_backend, rng):
    model, ids, targets = make(rng, **{"layers": 1, **VARIANTS[variant]})
    seed = 5 if model.config.dropout else None
    gradients = model.loss_and_gradients(ids, targets, noise_seed=seed)[1]
    gradients = {name: g.copy() for name, g in gradients.items()}

    def loss():  # the forward alone is three times as fast, and has no dropout
        return model.loss(ids, targets) if seed is None else model.loss_and_gradients(ids, targets, noise_seed=seed)[0]

    for name, x in model.parameters.items():
        numerical = numerical_gradient(loss, x)
        assert relative_error(gradients[name], numerical) < 1e-7, name


def test_loss_without_gradients_is_the_same_and_is_the_cross_entropy_of_the_logits(each_backend, rng):
    model, ids, targets = make(rng)
    logits = model.logits(ids)
    assert logits.shape == (3, 7, 11) and logits.dtype == np.float64
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    kept = targets != IGNORED
    expected = -np.mean(np.log(np.take_along_axis(p, np.where(kept, targets, 0)[..., None], -1)[..., 0][kept]))
    assert abs(model.loss(ids, targets) - expected) < 1e-12
    assert abs(model.loss_and_gradients(ids, targets)[0] - expected) < 1e-12


def test_the_head_works_in_chunks(each_backend, rng, monkeypatch):
    model, ids, targets = make(rng)
    loss, gradients = model.loss_and_gradients(ids, targets)
    gradients, logits = gradients.flat.copy(), model.logits(ids)
    monkeypatch.setattr("minillama.model.LOGITS_AT_A_TIME", 4 * 11)  # 4 rows of 21 at a time
    chunked, chunked_gradients = model.loss_and_gradients(ids, targets)
    assert abs(chunked - loss) < 1e-14 and relative_error(chunked_gradients.flat, gradients) < 1e-13
    assert abs(model.loss(ids, targets) - loss) < 1e-14
    np.testing.assert_allclose(model.logits(ids), logits, rtol=1e-13)


def test_nothing_leaks_from_the_future(each_backend, rng):
    model, ids, _ = make(rng)
    logits = model.logits(ids)
    ids[:, 4] = (ids[:, 4] + 1) % 11
    changed = model.logits(ids)
    np.testing.assert_array_equal(changed[:, :4], logits[:, :4])
    assert np.abs(changed[:, 4:] - logits[:, 4:]).min() > 0


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_decoding_with_a_cache_equals_decoding_without(dtype, tolerance, each_backend, rng):
    model, ids, _ = make(rng, dtype, heads=2, kv_heads=1)
    expected = model.logits(ids)
    cache = model.new_cache(batch_size=3)
    parts = [model.logits(ids[:, part], cache) for part in (slice(0, 3), slice(3, 4), slice(4, 7))]
    assert cache.length == 7 and parts[0].dtype == dtype
    assert relative_error(np.concatenate(parts, axis=1), expected) < tolerance


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_shards_and_micro_batches_equal_the_whole_batch(threads, each_backend, rng):
    whole, ids, targets = make(rng, dropout=0.2)
    shards = Model(whole.config, dtype=np.float64, threads=threads)
    shards.parameters.flat[:] = whole.parameters.flat
    for micro_batches in (1, 2, 7):
        loss, expected = whole.loss_and_gradients(ids, targets, noise_seed=3)
        received_loss, received = shards.loss_and_gradients(ids, targets, None, micro_batches, noise_seed=3)
        assert abs(loss - received_loss) < 1e-14
        assert relative_error(received.flat, expected.flat) < 1e-13
    np.testing.assert_allclose(shards.logits(ids), whole.logits(ids), rtol=1e-12)


def test_a_weight_for_each_target(each_backend, rng):
    """The weighted sum of the losses, its gradient by finite differences, on shards and micro-batches too."""
    model, ids, targets = make(rng)
    targets[0, :2], weights = IGNORED, rng.standard_normal(targets.shape)
    loss, gradients = model.loss_and_gradients(ids, targets, weights)
    received = gradients.flat.copy()
    expected = float(np.sum(np.where(targets == IGNORED, 0, weights) * model.losses(ids, targets)))
    assert loss == pytest.approx(expected, rel=1e-13)
    direction = rng.standard_normal(received.size)
    slope = directional_derivative(
        lambda: model.loss_and_gradients(ids, targets, weights)[0], model.parameters.flat, direction, 1e-4
    )
    assert slope == pytest.approx(received @ direction, rel=1e-7)
    shards = Model(model.config, dtype=np.float64, threads=2)
    shards.parameters.flat[:] = model.parameters.flat
    part_loss, parts = shards.loss_and_gradients(ids, targets, weights, micro_batches=2)
    assert part_loss == pytest.approx(loss, rel=1e-13) and relative_error(parts.flat, received) < 1e-12
    alike = np.full(targets.shape, 1 / np.count_nonzero(targets != IGNORED))
    mean, whole = model.loss_and_gradients(ids, targets, alike)
    whole = whole.flat.copy()
    assert mean == pytest.approx(model.loss_and_gradients(ids, targets)[0], rel=1e-14)  # another order of the sum
    np.testing.assert_array_equal(model.loss_and_gradients(ids, targets)[1].flat, whole)
    nothing = model.loss_and_gradients(ids, targets, np.zeros(targets.shape))
    assert nothing[0] == 0 and not nothing[1].flat.any()


def dpo_loss_and_gradients(model, reference, ids, targets, beta):
    """mean over pairs of -log sigmoid(beta (log p/q of the chosen answer - log p/q of the rejected one)), equation 7

    ids, targets (2 P, T): P chosen answers, then P rejected ones. Source: Rafailov et al. 2023 (arXiv 2305.18290).
    """
    ratios = (reference.losses(ids, targets) - model.losses(ids, targets)).sum(axis=1)
    chosen, rejected = np.split(ratios, 2)
    margin = beta * (chosen - rejected)
    slope = beta / (1 + np.exp(margin)) / len(margin)  # -dL/d(chosen ratio); a loss is minus a log probability
    weights = np.concatenate([slope, -slope])[:, None] * np.ones(targets.shape)
    _, gradients = model.loss_and_gradients(ids, targets, weights)
    return float(np.log1p(np.exp(-margin)).mean()), gradients


def test_a_preference_loss_is_ten_lines_on_weights(rng):
    model, _, _ = make(rng)
    reference, _, _ = make(np.random.default_rng(5))
    ids, targets = rng.integers(0, model.config.vocab_size, (2, 6, 7))
    targets[:, :3] = IGNORED  # the question
    loss, gradients = dpo_loss_and_gradients(model, reference, ids, targets, beta=0.3)
    received, direction = gradients.flat.copy(), rng.standard_normal(gradients.flat.size)

    def again():
        return dpo_loss_and_gradients(model, reference, ids, targets, beta=0.3)[0]

    slope = directional_derivative(again, model.parameters.flat, direction, 1e-4)
    assert loss == again() and slope == pytest.approx(received @ direction, rel=1e-7)


def test_weights_that_are_none_are_refused(rng):
    model, ids, targets = make(rng)
    for wrong, words in [
        (np.ones(3), r"shape of targets, \(3, 7\); received float64 \(3,\)"),
        (np.full(targets.shape, np.nan), "must be finite"),
        (np.full(targets.shape, "x"), "must be numbers"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.loss_and_gradients(ids, targets, wrong)


def test_the_same_threads_give_the_same_bits(each_backend, rng):
    model, ids, targets = make(rng, np.float32, threads=2)
    first = model.loss_and_gradients(ids, targets)[1].flat.copy()
    for _ in range(5):
        np.testing.assert_array_equal(model.loss_and_gradients(ids, targets)[1].flat, first)


@pytest.mark.skipif("numba" not in BACKENDS, reason="Numba is not installed: there is one backend")
def test_backends_agree_on_a_whole_model(rng):
    results = []
    for name in BACKENDS:
        with backend.use(name):
            model, ids, targets = make(np.random.default_rng(3), np.float32, dim=32, heads=4, kv_heads=2, context=40)
            loss, gradients = model.loss_and_gradients(ids, targets)
            results.append((loss, gradients.flat.copy(), model.logits(ids)))
    for loss, gradients, logits in results[1:]:
        assert abs(loss - results[0][0]) < 1e-5
        assert relative_error(gradients, results[0][1]) < 1e-5
        assert relative_error(logits, results[0][2]) < 1e-5


def test_float32_stays_float32(each_backend, rng):
    model, ids, targets = make(rng, np.float32)
    _, gradients = model.loss_and_gradients(ids, targets)
    assert model.logits(ids).dtype == np.float32
    assert {array.dtype for array in gradients.values()} == {np.dtype(np.float32)}


@pytest.mark.skipif("numba" not in BACKENDS, reason="Numba is not installed: the NumPy backend allocates")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_steady_step_allocates_no_array(threads):
    rng = np.random.default_rng(0)
    model = Model(Config(512, dim=64, layers=3, heads=4, kv_heads=2, context=256), threads=threads)
    optimizer = AdamW(model.parameters)
    batches = Batches(rng.integers(0, 512, 10_000).astype(np.int32), 256, 8, seed=0)

    def step():
        ids, targets = batches[0]  # the token ids are the one thing that a step allocates: 8 bytes a token
        _, gradients = model.loss_and_gradients(ids, targets, micro_batches=2)
        norm = gradient_norm(gradients, model.workers)
        optimizer.step(gradients, 1e-3, clip_scale(norm, 1.0), model.workers)

    for _ in range(3):
        step()
    tracemalloc.start()
    try:
        step()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        step()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak < 64_000, f"{peak} bytes"


@pytest.mark.skipif("numba" not in BACKENDS, reason="Numba is not installed: the NumPy backend holds T x T scores")
def test_memory_grows_linearly_with_the_context():
    sizes = []
    for context in (512, 1024, 2048):
        model = Model(Config(64, dim=32, layers=2, heads=2, context=context), threads=1)
        ids = np.zeros((1, context), int)
        for _ in range(2):
            model.loss_and_gradients(ids, ids)
        sizes.append(model.workers.arenas[0].nbytes)
    first, second = np.diff(sizes)
    assert abs(second / first - 2) < 0.02, sizes  # a T x T array would make it 4
    assert sizes[-1] < 2048 * 2048 * 4  # less than one T x T array of float32


@pytest.mark.parametrize(
    "ids, words",
    [
        (np.zeros((2, 8), int), "context of 7"),
        (np.full((1, 2), 11), r"\[0, 11\)"),
        (np.full((1, 2), -1), r"\[0, 11\)"),
        (np.zeros(3, int), r"shape \(B, T\)"),
        (np.zeros((1, 3)), "whole numbers"),
        (np.zeros((0, 3), int), r"shape \(B, T\)"),
    ],
)
def test_wrong_ids_are_refused_with_a_reason(ids, words, rng):
    model, _, _ = make(rng)
    with pytest.raises(ValueError, match=words):
        model.logits(ids)
    with pytest.raises(ValueError, match=words):
        model.loss_and_gradients(ids, ids)


@pytest.mark.parametrize(
    "targets, words",
    [
        (np.full((1, 3), IGNORED), "nothing to predict"),
        (np.full((1, 3), 11), r"\[0, 11\)"),
        (np.zeros((1, 2), int), r"shape of ids, \(1, 3\)"),
    ],
)
def test_wrong_targets_are_refused_with_a_reason(targets, words, rng):
    model, _, _ = make(rng)
    with pytest.raises(ValueError, match=words):
        model.loss_and_gradients(np.zeros((1, 3), int), targets)


def test_initial_weights_follow_the_seed_and_the_stated_deviations():
    config = Config(500, dim=64, layers=8, heads=4)
    a, b = Model(config, seed=1), Model(config, seed=1, dtype=np.float64)
    np.testing.assert_array_equal(a.parameters.flat, b.parameters.flat)  # one start for both types
    assert (Model(config, seed=2).parameters["embedding"] != a.parameters["embedding"]).any()
    assert abs(a.parameters["embedding"].std() / 0.02 - 1) < 0.02
    assert abs(a.parameters["blocks.3.w_down"].std() / (0.02 / 4) - 1) < 0.02
    assert (a.parameters["blocks.0.ffn_norm"] == 1).all()


def test_another_thread_that_waits_for_its_turn_leaves_the_gradients_alone(rng, monkeypatch):
    """Its new batch begins when this one is summed up, and not between two parts of it."""
    model = Model(Config(vocab_size=11, dim=8, layers=1, heads=2, context=6), threads=1)
    ids, targets = rng.integers(0, 11, (2, 4, 6))
    expected = model.loss_and_gradients(ids, targets, micro_batches=2)[1].flat.copy()
    other = threading.Thread(target=model.loss_and_gradients, args=(ids, targets))
    reading, parts = model.tables.reading, []

    def started_between_the_parts(*args):
        parts.append(args)
        if len(parts) == 2:
            other.start()
            other.join(0.3)  # it waits for the end of this batch
        return reading(*args)

    monkeypatch.setattr(model.tables, "reading", started_between_the_parts)
    with model.workers.alone():
        found = model.loss_and_gradients(ids, targets, micro_batches=2)[1].flat.copy()
    other.join()
    np.testing.assert_array_equal(found, expected)
