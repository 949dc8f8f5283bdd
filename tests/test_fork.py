"""A process that is forked from one whose models were used computes the same, and does not hang."""

import multiprocessing
import os
import threading
import time

import numpy as np
import pytest
import threadpoolctl

from minillama import Config, Model
from minillama.generation.generate import generate
from minillama.runtime.workers import Workers

from .conftest import needs_kernels

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # of Python 3.12 and later, on threads
]
PATIENCE = 60  # seconds; a child that hangs does so for ever
LARGE = dict(vocab_size=4096, dim=256, layers=2, heads=4, context=64)  # its decoding is shared among threads


@pytest.fixture(autouse=True)
def few_rows_are_worth_cutting(monkeypatch):
    monkeypatch.setattr("minillama.runtime.shards.ROWS_WORTH_CUTTING", 1)


def make(large=False):
    shape = LARGE if large else dict(vocab_size=32, dim=16, layers=2, heads=4, kv_heads=2, context=32)
    return Model(Config(**shape), threads=2)


def ids(model, B=3, T=16):
    return np.random.default_rng(0).integers(0, model.config.vocab_size, (B, T))


def logits(model):
    return model.logits(ids(model))


def loss_and_gradients(model):
    loss, gradients = model.loss_and_gradients(ids(model), ids(model))
    return np.append(gradients.flat.copy(), loss)


def one_long_sequence(model):
    return model.logits(ids(model, 1, 31))  # its rows are cut among the threads, which meet


def answer(model):
    return np.array(list(generate(model, [1, 2, 3], 20, seed=5)))


def threads_of_blas():
    return [library["num_threads"] for library in threadpoolctl.threadpool_info()]


def in_a_child(function):
    """What function() gives in a forked process, as an array."""
    context = multiprocessing.get_context("fork")
    receives, sends = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sends.send(np.asarray(function())))
    child.start()
    try:
        assert receives.poll(PATIENCE), "the child hangs"
        return receives.recv()
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("compute", [logits, loss_and_gradients, one_long_sequence, answer])
@pytest.mark.parametrize("large", [False, True])
def test_a_child_computes_what_its_parent_does(each_backend, compute, large):
    model = make(large)
    expected = compute(model)
    np.testing.assert_array_equal(in_a_child(lambda: compute(model)), expected)
    np.testing.assert_array_equal(in_a_child(lambda: in_a_child(lambda: compute(model))), expected)
    np.testing.assert_array_equal(compute(model), expected)  # and the parent goes on


def test_a_conversation_goes_on_in_a_child(each_backend):
    model = make(large=True)
    cache = model.new_cache()
    for token in range(5):
        model.next_logits(np.array([[token]]), cache)
    helped = in_a_child(lambda: model.next_logits(np.array([[5]]), cache))
    np.testing.assert_array_equal(helped, model.next_logits(np.array([[5]]), cache))


def _in_pool(seed):
    return list(generate(_model, [1, 2, 3], 8, seed=seed))


def test_a_pool_of_forked_processes(each_backend):
    global _model
    _model = make(large=True)
    expected = [_in_pool(seed) for seed in range(6)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_in_pool, range(6)).get(PATIENCE) == expected


def test_a_child_of_a_process_that_is_computing_elsewhere():
    """Another thread computes without a pause, is not there in the child, and goes on in the parent."""
    model, busy = make(), make()
    expected, rounds, done, before = logits(model), [], threading.Event(), threads_of_blas()

    def compute():
        while not done.is_set():
            rounds.append(logits(busy))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        for _ in range(5):
            count = len(rounds)
            np.testing.assert_array_equal(in_a_child(lambda: logits(model)), expected)
            assert (in_a_child(threads_of_blas) == before).all()
            deadline = time.monotonic() + PATIENCE
            while len(rounds) == count and time.monotonic() < deadline:
                time.sleep(0.001)
            assert len(rounds) > count
    finally:
        done.set()
        thread.join()


def test_a_fork_in_the_middle_of_a_computation_of_the_same_thread():
    """A callback may fork: the lock is its own thread's, and the limit of BLAS that it holds ends in the child too."""
    model, workers = make(), Workers(1)
    expected = logits(model)
    with workers.blas(1):
        np.testing.assert_array_equal(in_a_child(lambda: logits(model)), expected)
    np.testing.assert_array_equal(logits(model), expected)


@needs_kernels
def test_a_decoder_that_another_thread_is_in_is_made_anew_in_a_child():
    from minillama.kernels import decoding

    model = make(large=True)
    cache = model.new_cache()
    model.next_logits(np.array([[1]]), cache)
    door = decoding._sessions[cache].control
    door[decoding.DOOR] += 1  # a helper is inside
    child = in_a_child(lambda: model.next_logits(np.array([[2]]), cache))
    door[decoding.DOOR] -= 1
    np.testing.assert_array_equal(child, model.next_logits(np.array([[2]]), cache))
