"""Batches that do not divide by the workers: cut inside of sequences, the result stays the same."""

import re
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from minillama import IGNORED, Config, Model
from minillama.gradcheck import relative_error
from minillama.runtime.shards import Meeting, Reading, Shard, attention_tasks, cut
from minillama.runtime.workers import Workers


@pytest.fixture(autouse=True)
def short_sequences_are_worth_cutting(monkeypatch):
    monkeypatch.setattr("minillama.runtime.shards.ROWS_WORTH_CUTTING", 16)


@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (6, 3), (4, 1), (5, 1)])
@pytest.mark.parametrize("batch, T", [(1, 129), (3, 50), (5, 40)])
@pytest.mark.parametrize("threads", [2, 4])
def test_cut_sequences_equal_the_whole_batch(heads, kv_heads, batch, T, threads, each_backend, rng):
    config = Config(11, dim=8 * heads, layers=2, heads=heads, kv_heads=kv_heads, ffn=10, context=T, dropout=0.2)
    whole, parts = (Model(config, dtype=np.float64, threads=n) for n in (1, threads))
    whole.parameters.flat[:] = rng.standard_normal(whole.parameters.flat.size) * 0.5
    parts.parameters.flat[:] = whole.parameters.flat
    ids, targets = rng.integers(0, 11, (2, batch, T))
    targets[0, 3:9] = IGNORED
    assert cut(config, batch, T, whole.tables.reading(T), threads)[0].rows != slice(0, batch * T)
    for micro_batches in (1, 2):
        loss, expected = whole.loss_and_gradients(ids, targets, noise_seed=3)
        received_loss, received = parts.loss_and_gradients(ids, targets, None, micro_batches, noise_seed=3)
        assert abs(loss - received_loss) < 1e-13
        assert relative_error(received.flat, expected.flat) < 1e-12
    logits, cache, half = whole.logits(ids), parts.new_cache(batch), T // 2
    received = [parts.logits(ids[:, :half], cache), parts.logits(ids[:, half:], cache)]
    assert relative_error(np.concatenate(received, axis=1), logits) < 1e-12
    assert abs(parts.loss(ids, targets) - whole.loss(ids, targets)) < 1e-13


@pytest.mark.parametrize("H, K", [(4, 4), (8, 2), (6, 3), (5, 1)])
def test_tasks_cover_every_head_of_every_sequence_once_and_read_the_right_keys(H, K):
    for count in range(1, 8):
        pairs = []
        for i in range(count):
            for task in attention_tasks(3 * H * i // count, 3 * H * (i + 1) // count, H, K):
                heads, kv_heads = range(H)[task.heads], range(K)[task.kv_heads]
                for place, head in enumerate(heads):
                    assert kv_heads[place // (len(heads) // len(kv_heads))] == head // (H // K)
                pairs += [(task.sequences.start, head) for head in heads]
        assert pairs == [(sequence, head) for sequence in range(3) for head in range(H)]


def test_a_worker_that_fails_takes_the_others_along(rng, monkeypatch):
    model = Model(Config(11, dim=8, layers=2, heads=2, context=200), threads=2)
    ids = rng.integers(0, 11, (1, 200))
    before = model.loss(ids, ids)

    def fail_on_second_half(shard):
        if shard.rows.start > 0:
            raise MemoryError("no more memory")
        return original(shard)

    original = Shard._rotation
    with monkeypatch.context() as patch:
        patch.setattr(Shard, "_rotation", fail_on_second_half)
        with pytest.raises(MemoryError, match="no more memory"):
            model.loss_and_gradients(ids, ids)
    assert model.loss(ids, ids) == before


def test_an_interrupt_before_the_first_worker_begins_leaves_nobody_waiting(rng, monkeypatch):
    model = Model(Config(11, dim=8, layers=2, heads=2, context=200), threads=2)
    ids = rng.integers(0, 11, (1, 200))
    before = model.loss(ids, ids)

    def interrupted():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model.workers.arenas[0], "active", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.loss_and_gradients(ids, ids)
    assert model.loss(ids, ids) == before


@pytest.fixture
def nobody_waits_for_ever(monkeypatch):
    """Who still waits after a minute is sent home with another error than the tests expect."""
    timers, make = [], Meeting.__init__

    def make_and_watch(meeting, count):
        make(meeting, count)
        timers.append(threading.Timer(60, meeting.abort))
        timers[-1].start()

    monkeypatch.setattr(Meeting, "__init__", make_and_watch)
    yield
    for timer in timers:
        timer.cancel()


SHARED = ["output", "embedding", *(f"blocks.{i}.w_{name}" for i in range(2) for name in ("q", "o", "gate", "down"))]


@pytest.mark.parametrize("breach", ["skips", "adds twice", "has another order"])
@pytest.mark.parametrize("culprit", [0, 1, 2])
@pytest.mark.parametrize("name", SHARED)
def test_workers_that_add_differently_get_an_error_that_names_the_parameter(
    name, culprit, breach, rng, monkeypatch, nobody_waits_for_ever
):
    model = Model(Config(11, dim=8, layers=2, heads=2, context=200), threads=3)
    ids = rng.integers(0, 11, (1, 200))
    assert len(cut(model.config, 1, 200, Reading(model.dtype), 3)) == 3
    before, turn = model.loss_and_gradients(ids, ids)[1].flat.copy(), Shard.turn
    late = []  # a turn that is taken after the next one

    @contextmanager
    def broken_turn(shard, names):
        if shard._index != culprit or (name not in names and not late):
            with turn(shard, names):
                yield
        elif breach == "skips":
            yield
        elif breach == "adds twice":
            with turn(shard, names):
                yield
            with turn(shard, names):
                pass
        elif late:
            for each in (names, late.pop()):
                with turn(shard, each):
                    pass
            yield
        else:
            late.append(names)
            yield

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "turn", broken_turn)
        with pytest.raises(RuntimeError, match=rf"(?s)worker \d.*{re.escape(name)}.*add zeros") as raised:
            model.loss_and_gradients(ids, ids)
    assert not isinstance(raised.value, threading.BrokenBarrierError)
    np.testing.assert_array_equal(model.loss_and_gradients(ids, ids)[1].flat, before)  # the next call is as any


@pytest.mark.parametrize("culprit", [0, 1])
@pytest.mark.parametrize("meeting", ["to_heads", "to_rows"])
def test_a_worker_that_stays_away_from_attention_is_an_error(meeting, culprit, rng, monkeypatch, nobody_waits_for_ever):
    model = Model(Config(11, dim=8, layers=1, heads=2, context=200), threads=2)
    ids = rng.integers(0, 11, (1, 200))
    original = getattr(Shard, meeting)

    def comes_twice(shard, *arguments):
        if shard._index == culprit:
            original(shard, *arguments)
        return original(shard, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Shard, meeting, comes_twice)
        with pytest.raises(Exception) as raised:  # arrays of another meeting may not fit, before the error can come
            model.loss_and_gradients(ids, ids)
    assert not isinstance(raised.value, threading.BrokenBarrierError)


def test_a_worker_that_ends_while_another_waits_for_it(nobody_waits_for_ever):
    meeting = Meeting(2)
    meeting.shards = [None, None]
    workers = Workers(2)

    def task(i, _):
        if i == 1:
            with meeting.turn(1, ["blocks.3.w_down"]):
                pass
        meeting.leave(i)

    words = "worker 0 has come to its end, but worker 1 adds to the gradient of blocks.3.w_down"
    with pytest.raises(RuntimeError, match=words):
        workers.run(task, range(2), meeting.abort)
