"""Sampling: the distribution that is drawn from, the cache, the context, and settings that make no sense."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from minillama import Config, Model, backend
from minillama.generation.generate import draw, generate, next_token_distribution, penalise


@pytest.fixture
def model(rng):
    model = Model(Config(20, dim=16, layers=2, heads=2, context=12), threads=1)
    model.parameters.flat[:] = rng.standard_normal(model.parameters.flat.size).astype(np.float32) * 0.4
    return model


def test_temperature_top_k_and_top_p_on_a_distribution_by_hand(each_backend):
    logits = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))
    np.testing.assert_allclose(next_token_distribution(logits), [0.1, 0.4, 0.2, 0.3], rtol=1e-6)
    squares = np.array([0.01, 0.16, 0.04, 0.09])
    np.testing.assert_allclose(next_token_distribution(logits, 0.5), squares / squares.sum(), rtol=1e-6)
    np.testing.assert_allclose(next_token_distribution(logits, top_k=2), [0, 4 / 7, 0, 3 / 7], rtol=1e-6)
    np.testing.assert_allclose(next_token_distribution(logits, top_p=0.75), [0, 4 / 9, 2 / 9, 3 / 9], rtol=1e-6)
    np.testing.assert_allclose(next_token_distribution(logits, top_p=0.65), [0, 4 / 7, 0, 3 / 7], rtol=1e-6)
    np.testing.assert_allclose(next_token_distribution(logits, top_p=1e-9), [0, 1, 0, 0])
    np.testing.assert_allclose(next_token_distribution(np.zeros(4), top_k=1), [1, 0, 0, 0])  # a tie: one of them


def test_top_k_1_follows_the_largest_logit_with_and_without_the_cache(model):
    tokens = list(generate(model, [3], 10, top_k=1))
    text = [3]
    for _ in range(10):
        text.append(int(model.logits(np.array([text]))[0, -1].argmax()))
    assert tokens == text[1:]


def test_frequencies_of_the_first_token_follow_the_distribution(model):
    expected = next_token_distribution(model.logits(np.array([[3, 1]]))[0, -1], 1.5, top_p=0.9)
    drawn = [next(generate(model, [3, 1], 1, 1.5, top_p=0.9, seed=seed)) for seed in range(1000)]
    counts = np.bincount(drawn, minlength=20)
    assert not counts[expected == 0].any()
    deviation = np.sqrt(1000 * expected * (1 - expected)) + 1e-9
    assert (np.abs(counts - 1000 * expected) / deviation)[expected > 0].max() < 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_repetition_penalty_by_hand(dtype):
    logits = np.array([3, -2, 1, 0, -4], dtype)
    penalise(logits, [0, 1, 3], 2.0)
    assert logits.dtype == dtype and logits.tolist() == [1.5, -4, 1, 0, -4]
    penalise(logits, [4], 0.5)  # below 1: likelier
    assert logits.tolist() == [1.5, -4, 1, 0, -2]


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.8])
@pytest.mark.parametrize("sliding", [False, True])
def test_the_repetition_penalty_counts_prompt_and_text(penalty, sliding, model, each_backend):
    """Each token once, however often it occurred, and those that the window forgot too."""
    length = 30 if sliding else 9
    tokens = list(generate(model, [3, 7, 3], length, top_k=1, repetition_penalty=penalty, sliding_window=sliding))
    text, start = [3, 7, 3], 0
    for token in tokens:
        if len(text) - start > 12:
            start = len(text) - 6
        logits = model.logits(np.array([text[start:]]))[0, -1].copy()
        penalise(logits, sorted(set(text)), penalty)
        assert token == int(logits.argmax())
        text.append(token)


def test_a_high_penalty_writes_every_token_once(model):
    assert len(set(generate(model, [3], 11, top_k=1, repetition_penalty=1000))) == 11
    assert len(set(generate(model, [3], 11, top_k=1))) < 11


def test_a_penalty_hides_no_damage(model):
    model.parameters["final_norm"][0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        next(generate(model, [1], repetition_penalty=2.0))


def test_extreme_temperatures_still_give_a_distribution(each_backend):
    logits = np.array([3.0, 9.0, 1.0])
    np.testing.assert_allclose(next_token_distribution(logits, 1e-308), [0, 1, 0])
    np.testing.assert_allclose(next_token_distribution(logits, 1e308), [1 / 3] * 3)


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf])
def test_a_damaged_model_is_not_sampled(damage, model, each_backend):
    model.parameters["final_norm"][0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        next(generate(model, [1]))
    for place in (0, 5, 299):
        logits = np.zeros(300, np.float32)
        logits[place] = damage
        with pytest.raises(ValueError, match="not finite"):
            next_token_distribution(logits)


def test_the_seed_decides(model):
    a, b, c = (list(generate(model, [1], 10, seed=seed)) for seed in (1, 1, 2))
    assert a == b != c


def test_it_stops_after_any_of_the_stop_tokens(model):
    tokens = list(generate(model, [3], 11, seed=1))
    for stop in ({tokens[4]}, [tokens[4], tokens[2]], (tokens[2], None), {tokens[0]}):
        last = min(tokens.index(token) for token in stop if token is not None)
        assert list(generate(model, [3], 11, seed=1, stop=stop)) == tokens[: last + 1]


def test_a_cache_goes_on_with_the_text_that_it_holds(model, monkeypatch):
    expected = list(generate(model, [3, 1, 4, 1, 5], 7, seed=1))
    cache, logits, read = model.new_cache(), model.next_logits, []
    model.next_logits(np.array([[3, 1, 4]]), cache)
    monkeypatch.setattr(model, "next_logits", lambda ids, cache: read.append(ids[0].tolist()) or logits(ids, cache))
    assert list(generate(model, [3, 1, 4, 1, 5], 7, seed=1, cache=cache)) == expected
    assert read == [[1, 5], *[[token] for token in expected[:-1]]] and cache.length == 11
    cache.length = 5  # the answer is forgotten
    other = [3, 1, 4, 1, 5, 9]
    assert list(generate(model, other, 4, seed=2, cache=cache)) == list(generate(model, other, 4, seed=2))
    assert read[7] == [9]


def test_a_cache_that_cannot_go_on_is_refused(model):
    cache = model.new_cache()
    model.next_logits(np.array([[3, 1, 4]]), cache)
    with pytest.raises(ValueError, match="cache holds 3 tokens and the prompt has 3: .* lower cache.length"):
        generate(model, [3, 1, 4], 2, cache=cache)
    with pytest.raises(ValueError, match="sliding window forgets; choose one"):
        generate(model, [3, 1, 4, 1], 2, cache=cache, sliding_window=True)
    with pytest.raises(ValueError, match="the cache is for 2 sequences"):
        next(generate(model, [3], cache=model.new_cache(2)))


def test_the_context_is_the_limit_unless_the_window_slides(model):
    assert len(list(generate(model, [1, 2, 3], 9))) == 9
    assert len(list(generate(model, [1, 2, 3]))) == 9
    with pytest.raises(ValueError, match="prompt of 3 tokens and an answer of 10 .* context of 12"):
        generate(model, [1, 2, 3], 10)
    with pytest.raises(ValueError, match="prompt of 40 tokens"):
        generate(model, [1] * 40)
    assert len(list(generate(model, [1] * 40, 50, sliding_window=True))) == 50


def test_without_a_number_of_tokens_the_sliding_window_goes_on_until_the_model_ends_the_text(model):
    for length in (1, 11, 12, 40):  # less than the context, all but one, all, more
        endless = list(islice(generate(model, [1] * length, stop={7}, seed=3, sliding_window=True), 100))
        expected = list(generate(model, [1] * length, 100, stop={7}, seed=3, sliding_window=True))
        assert endless == expected and len(expected) > 12
        assert 7 not in expected[:-1] and (expected[-1] == 7 or len(expected) == 100)
    for stop in ((), {None}, {20}, {25}):  # the last two are never drawn: there are 20 tokens
        with pytest.raises(ValueError, match=r"no token ends a text; say how many .* max_tokens \(--max-tokens\)"):
            generate(model, [1], stop=stop, sliding_window=True)


def test_the_sliding_window_reads_the_newer_half(model, monkeypatch):
    logits, read = model.next_logits, []
    monkeypatch.setattr(model, "next_logits", lambda ids, cache: read.append(ids[0].tolist()) or logits(ids, cache))
    text = [5, *generate(model, [5], 30, top_k=1, sliding_window=True)]
    again = [(n, ids) for n, ids in enumerate(read, start=1) if len(ids) > 1]  # n: the length of the text by then
    assert [n for n, _ in again] == [13, 20, 27]  # the context of 12 is full: 6 are read again, 6 more fit
    assert all(ids == text[n - 6 : n] for n, ids in again)
    assert text[13] == int(model.logits(np.array([text[7:13]]))[0, -1].argmax())


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"temperature": 0}, "above 0; received 0.*top-k 1"),
        ({"temperature": -1.0}, "above 0; received -1"),
        ({"temperature": float("nan")}, "above 0"),
        ({"top_p": 0}, r"\(0, 1\].*received 0"),
        ({"top_p": 1.5}, r"\(0, 1\].*received 1.5"),
        ({"top_k": 0}, "at least 1"),
        ({"max_tokens": 0}, "at least 1; received 0"),
        ({"prompt": []}, "prompt is empty"),
        ({"seed": -1}, "seed must not be negative; received -1"),
        ({"repetition_penalty": 0}, r"repetition penalty must lie in \[0.001, 1000\]; received 0"),
        ({"repetition_penalty": float("nan")}, "repetition penalty must lie in"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(settings, words, model):
    with pytest.raises(ValueError, match=words):
        generate(model, **{"prompt": [1], **settings})


@pytest.mark.parametrize("size, deviation", [(1, 1), (300, 0.1), (3000, 0.1), (3000, 3), (3000, 30)])
def test_a_large_vocabulary_is_cut_as_sorting_it_would(size, deviation, each_backend, rng):
    logits = np.round(rng.standard_normal(size) * deviation, 2)  # rounded: there are equal ones
    for top_k, top_p in [(None, 0.9), (None, 0.1), (1, 1.0), (40, 1.0), (2000, 0.5), (5000, 0.99)]:
        p = np.exp(logits - logits.max())
        order = np.argsort(-p, kind="stable")
        ranked = p[order][:top_k] / p[order][:top_k].sum()
        ranked = ranked[np.cumsum(ranked) - ranked < top_p]
        expected = np.zeros(size)
        expected[order[: len(ranked)]] = ranked / ranked.sum()
        cut = next_token_distribution(logits, 1.0, top_k, top_p)
        np.testing.assert_allclose(cut, expected, rtol=1e-9, atol=0, err_msg=f"top-k {top_k}, top-p {top_p}")


@pytest.mark.parametrize("size", [1, 255, 256, 257, 3000])
def test_a_draw_follows_the_running_sum(size, each_backend, rng):
    p = rng.random(size) ** 4
    p[rng.random(size) < 0.5] = 0
    p[size // 2] = 0.3
    running = np.cumsum(p)
    for u in [0, *rng.random(200), 1 - 2**-53]:
        token = draw(p, u)
        assert p[token] > 0
        assert running[token] - p[token] <= (u + 1e-12) * running[-1] and u * running[-1] <= running[token] * (
            1 + 1e-12
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 2, 15, 17, 512, 3000])
def test_the_kernels_draw_the_tokens_that_numpy_draws(size, dtype, rng):
    pytest.importorskip("numba")
    specification, kernels = backend.load("numpy"), backend.load("numba")
    for deviation in (0.1, 3, 30):
        logits = (rng.standard_normal(size) * deviation).astype(dtype)
        for temperature in (1.0, 0.7, 1e-308, 1e308):
            (z, weights), (own_z, own_weights) = (
                op.softmax_weights(logits, temperature) for op in (specification, kernels)
            )
            assert own_z.dtype == own_weights.dtype == np.float64
            np.testing.assert_array_equal(own_z, z)
            np.testing.assert_allclose(own_weights, weights, rtol=1e-12, atol=1e-300)
            for u in rng.random(50):
                assert kernels.draw(own_weights, u) == specification.draw(weights, u)


def test_a_scaling_by_length_writes_as_far_as_a_cache_of_keys_reaches(model):
    config = replace(model.config, rope_scaling="dynamic", rope_factor=2.0, rope_original_context=7)
    stretched = Model(config, threads=1)
    stretched.parameters.flat[:] = model.parameters.flat
    assert list(generate(stretched, [3])) == list(generate(model, [3], 6))
    with pytest.raises(ValueError, match="do not fit this model's context of 7 tokens"):
        generate(stretched, [3], 7)
    assert len(list(generate(stretched, [3] * 9, 12, sliding_window=True))) == 12


def test_a_cache_has_room_for_what_it_is_asked_for(model):
    cache = model.new_cache(room=3)
    assert cache.keys.nbytes < model.new_cache().keys.nbytes
    expected = model.logits(np.array([[1, 2, 3]]))[0, -1]
    model.next_logits(np.array([[1, 2]]), cache)
    np.testing.assert_allclose(model.next_logits(np.array([[3]]), cache)[0], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="4 positions do not fit the cache, which has room for 3"):
        model.next_logits(np.array([[4]]), cache)
    for room in (0, model.config.context + 1):
        with pytest.raises(ValueError, match=f"room must lie in .* received {room}"):
            model.new_cache(room=room)
