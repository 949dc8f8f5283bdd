"""A token of one sequence: the specification and the kernel against the general forward, for every kind of model."""

import gc
import threading
import time
import weakref
from concurrent.futures import wait

import numpy as np
import pytest

from minillama import Config, Model, backend
from minillama.generation.generate import generate
from minillama.runtime.memory import BLOCK_POSITIONS

PRECISIONS = [(np.float32, 1e-5), (np.float64, 1e-12)]


def random_model(rng, dtype=np.float32, threads=2, **shape):
    config = Config(**{"vocab_size": 50, "dim": 48, "layers": 2, "heads": 4, "ffn": 44, "context": 12, **shape})
    model = Model(config, dtype=dtype, threads=threads)
    model.parameters.flat[:] = rng.standard_normal(model.parameters.flat.size) * 0.3
    return model


def token_by_token(model, ids):
    """next_logits after each token of ids (1, T): (T, V)"""
    cache = model.new_cache()
    return np.concatenate([model.next_logits(ids[:, t : t + 1], cache) for t in range(ids.shape[1])])


@pytest.fixture(params=["alone", "shared"])
def sharing(request, monkeypatch):
    """Small models are left to one thread; here two share them as well."""
    if request.param == "shared":
        decoding = pytest.importorskip("minillama.kernels.decoding")
        monkeypatch.setattr(decoding, "LEAST_BYTES_TO_SHARE", 0)


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
@pytest.mark.parametrize("rope_layout", ["rotate_half", "interleaved"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_a_token_in_one_call_equals_the_forward(
    kv_heads, tied, rope_layout, dtype, tolerance, each_backend, sharing, rng
):
    model = random_model(rng, dtype, kv_heads=kv_heads, tied=tied, rope_layout=rope_layout)
    ids = rng.integers(0, 50, (1, 12))
    logits = token_by_token(model, ids)
    assert logits.dtype == dtype
    np.testing.assert_allclose(logits, model.logits(ids)[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("other", [{"layers": 1}, {"layers": 3}, {"kv_heads": 2}, {"dim": 96}, {"heads": 2}])
def test_the_cache_of_another_model_is_refused(other, each_backend, rng):
    """A kernel would leave layers out, or read beyond the arrays."""
    model, cache = random_model(rng), random_model(rng, **other).new_cache()
    for ids in ([[3]], [[3, 4]]):
        with pytest.raises(ValueError, match="ask the new_cache of this model"):
            model.next_logits(np.array(ids), cache)
    with pytest.raises(ValueError, match="the cache is for . layers"):
        model.logits(np.array([[3]]), cache)
    assert cache.length == 0


def test_a_cache_of_less_than_nothing_is_refused(each_backend, rng):
    model = random_model(rng)
    cache = model.new_cache()
    cache.length = -1
    with pytest.raises(ValueError, match="its length was set to -1"):
        model.next_logits(np.array([[3]]), cache)


@pytest.mark.parametrize("dtype, tolerance", PRECISIONS)
def test_a_context_of_several_blocks_and_units(dtype, tolerance, each_backend, sharing, rng):
    """150 positions are two blocks of the cache, and 3,000 rows of output more than one unit."""
    model = random_model(rng, dtype, vocab_size=3000, heads=3, kv_heads=3, context=BLOCK_POSITIONS + 22)
    ids = rng.integers(0, 3000, (1, BLOCK_POSITIONS + 22))
    expected, cache = model.logits(ids)[0], model.new_cache()
    np.testing.assert_allclose(model.next_logits(ids[:, :120], cache)[0], expected[119], rtol=tolerance, atol=tolerance)
    for t in range(120, BLOCK_POSITIONS + 22):
        logits = model.next_logits(ids[:, t : t + 1], cache)[0]
        np.testing.assert_allclose(logits, expected[t], rtol=tolerance, atol=tolerance, err_msg=f"position {t}")
    with pytest.raises(ValueError, match="151 positions do not fit"):
        model.next_logits(ids[:, :1], cache)


def test_the_last_position_of_each_sequence(each_backend, monkeypatch, rng):
    model = random_model(rng)
    ids = rng.integers(0, 50, (3, 7))
    expected = model.logits(ids)[:, -1]
    np.testing.assert_allclose(model.next_logits(ids), expected, rtol=1e-5, atol=1e-5)
    cache = model.new_cache(3)
    model.next_logits(ids[:, :4], cache)
    model.next_logits(ids[:, 4:6], cache)
    np.testing.assert_allclose(model.next_logits(ids[:, 6:], cache), expected, rtol=1e-5, atol=1e-5)
    assert cache.length == 7
    monkeypatch.setattr("minillama.model.LOGITS_AT_A_TIME", 2 * 50)  # chunks of two rows, most without a last position
    np.testing.assert_allclose(model.next_logits(ids), expected, rtol=1e-5, atol=1e-5)


def test_logits_of_a_token_stay_when_the_next_is_computed(rng):
    model = random_model(rng)
    cache = model.new_cache()
    first = model.next_logits(np.array([[1]]), cache)
    copy = first.copy()
    model.next_logits(np.array([[2]]), cache)
    np.testing.assert_array_equal(first, copy)


def test_threads_do_not_change_a_bit(sharing, rng):
    ids = rng.integers(0, 50, (1, 12))
    one, four = (token_by_token(random_model(np.random.default_rng(1), threads=n), ids) for n in (1, 4))
    np.testing.assert_array_equal(one, four)


def test_damaged_weights_reach_the_logits(each_backend, rng):
    model = random_model(rng)
    model.parameters["blocks.1.w_k"][0, 0] = np.nan
    assert np.isnan(token_by_token(model, np.array([[1, 2]]))).all()


def test_rows_that_are_no_whole_number_of_vectors(sharing, rng):
    pytest.importorskip("numba")
    model = random_model(rng, dim=30, heads=3, ffn=37)
    ids = rng.integers(0, 50, (1, 12))
    with backend.use("numpy"):
        expected = token_by_token(model, ids)
    np.testing.assert_allclose(token_by_token(model, ids), expected, rtol=1e-5, atol=1e-5)


def test_helpers_go_home_when_no_token_comes(sharing, rng):
    model = random_model(rng, threads=3)
    token_by_token(model, rng.integers(0, 50, (1, 12)))
    done, lingering = wait(model.workers._helpers, timeout=10)
    assert not lingering


def test_helpers_may_come_late_or_not_at_all(sharing, monkeypatch, rng):
    """Some tokens find them awake, some wake them again, and some they miss."""
    decoding = pytest.importorskip("minillama.kernels.decoding")
    monkeypatch.setattr(decoding, "available_threads", lambda: 4)
    ids = rng.integers(0, 50, (1, 12))
    expected = token_by_token(random_model(np.random.default_rng(1), threads=1), ids)
    model = random_model(np.random.default_rng(1), threads=4)
    for _ in range(30):
        monkeypatch.setattr(decoding, "LINGER", int(rng.integers(0, 2000)))
        cache = model.new_cache()
        for t in range(12):
            time.sleep(rng.choice([0, 1e-4, 3e-3], p=[0.8, 0.1, 0.1]))
            np.testing.assert_array_equal(model.next_logits(ids[:, t : t + 1], cache)[0], expected[t])


def test_helpers_of_one_text_leave_for_another_and_for_training(sharing, rng):
    model = random_model(rng, threads=3)
    ids = rng.integers(0, 50, (2, 12))
    expected, (loss, _) = model.logits(ids), model.loss_and_gradients(ids[:, :-1], ids[:, 1:])
    caches = model.new_cache(), model.new_cache()
    for t in range(12):
        for text, logits, cache in zip(ids, expected, caches, strict=True):
            np.testing.assert_allclose(model.next_logits(text[None, t : t + 1], cache)[0], logits[t], 1e-5, 1e-5)
        assert model.loss_and_gradients(ids[:, :-1], ids[:, 1:])[0] == pytest.approx(loss, rel=1e-6)


def test_a_changed_weight_is_seen_by_the_next_token(sharing, rng):
    model = random_model(rng)
    cache, other = model.new_cache(), model.new_cache()
    for c in (cache, other):
        model.next_logits(np.array([[1]]), c)
    before = model.next_logits(np.array([[2]]), cache)
    model.parameters["blocks.1.w_down"][:] *= 2
    assert np.abs(model.next_logits(np.array([[2]]), other) - before).max() > 1e-3


def test_nothing_is_kept_of_a_text_that_was_given_up(sharing, rng):
    decoding = pytest.importorskip("minillama.kernels.decoding")
    gc.collect()  # of other tests' texts
    model, before = random_model(rng), len(decoding._sessions)
    text = generate(model, [1], 5)
    next(text)
    next(text)  # the first one read the prompt
    cache = weakref.ref(text.gi_frame.f_locals["cache"])
    keys = weakref.ref(cache().keys)
    text.close()
    wait(model.workers._helpers, timeout=10)
    gc.collect()
    assert cache() is None and keys() is None and len(decoding._sessions) == before


def test_a_token_is_not_ready_while_a_helper_is_inside(rng):
    decoding, numba = pytest.importorskip("minillama.kernels.decoding"), pytest.importorskip("numba")
    model = random_model(rng, threads=1)
    cache = model.new_cache()
    model.next_logits(np.array([[1]]), cache)
    control = decoding._sessions[cache].control
    count = numba.njit(lambda control, number: decoding.add(control, decoding.DOOR, number))
    count(control, 1)  # somebody comes in
    caller = threading.Thread(target=model.next_logits, args=(np.array([[2]]), cache))
    caller.start()
    caller.join(0.05)
    assert caller.is_alive()
    count(control, -1)
    caller.join(10)
    assert not caller.is_alive()


def test_a_helper_does_nothing_where_the_door_is_closed(rng):
    decoding = pytest.importorskip("minillama.kernels.decoding")
    model = random_model(rng, threads=1)
    cache = model.new_cache()
    expected = model.next_logits(np.array([[1]]), cache).copy()
    session = decoding._sessions[cache]
    session.help()
    session.linger = 0
    session.help()
    np.testing.assert_array_equal(session.logits, expected[0])
    assert session.control[decoding.DOOR] == 2 * decoding.PHASE  # opened and closed, and nobody is inside
