"""The flat store, the arena, and the workers that use them."""

import threading
import time

import numpy as np
import pytest

from minillama.runtime.memory import Arena, Store, empty, frame
from minillama.runtime.workers import Workers


def test_store_puts_matrices_first_and_views_share_the_buffer():
    store = Store({"norm": (3,), "a": (2, 3), "b": (4, 3), "bias": (2,)})
    store["a"][:], store["b"][:], store["norm"][:] = 1, 2, 3
    np.testing.assert_array_equal(store.flat, [1] * 6 + [2] * 12 + [3] * 3 + [0] * 2)
    assert list(store) == ["norm", "a", "b", "bias"] and len(store.matrices) == 18
    fused = store.fused(["a", "b"])
    assert fused.shape == (6, 3) and np.shares_memory(fused, store["b"])


def test_arena_gives_the_same_addresses_again_and_nothing_overlaps():
    arena, addresses = Arena(), []
    for _ in range(3):
        with arena.active():
            arrays = [empty((5, 3), np.float32), empty((7,), np.float64), empty((0, 4), np.float32)]
            for i, array in enumerate(arrays):
                array[:] = i
            assert [array.max(initial=i) for i, array in enumerate(arrays)] == [0, 1, 2]
            addresses.append([array.ctypes.data for array in arrays[:2]])
    assert addresses[1] == addresses[2]
    assert all(address % 64 == 0 for address in addresses[1])
    assert arena.nbytes == 64 + 64


def test_a_frame_gives_back_what_was_taken_inside_it():
    arena = Arena()
    for _ in range(2):
        with arena.active():
            kept = empty((16,), np.float32)
            with frame():
                inside = empty((16,), np.float32).ctypes.data
            assert empty((16,), np.float32).ctypes.data == inside or arena.nbytes == 0
            assert kept.ctypes.data != inside
    assert arena.nbytes == 128


def test_without_an_arena_arrays_are_numpys_own():
    array = empty((2, 2), np.float32)
    assert array.base is None
    with frame():
        pass


def test_a_model_may_decode_on_one_python_thread_and_train_on_another(rng, monkeypatch):
    from threading import Thread

    from minillama import Config, Model

    decoding = pytest.importorskip("minillama.kernels.decoding", reason="Numba is not installed: there is no kernel")
    monkeypatch.setattr(decoding, "LEAST_BYTES_TO_SHARE", 0)
    model = Model(Config(50, dim=32, layers=2, heads=2, context=16), threads=2)
    ids = rng.integers(0, 50, (4, 16))

    def decode():
        cache = model.new_cache()
        return np.array([model.next_logits(ids[:1, t : t + 1], cache) for t in range(16)])

    expected, gradients = decode(), model.loss_and_gradients(ids, ids)[1].flat.copy()
    trained, decoded = [], []

    def train():
        while len(trained) < 60 or len(decoded) < 3:  # until both have met often, however the system shares its time
            trained.append(np.array_equal(model.loss_and_gradients(ids, ids)[1].flat, gradients))

    trainer = Thread(target=train)
    trainer.start()
    while trainer.is_alive():
        decoded.append(np.array_equal(decode(), expected))
    trainer.join()
    assert all(trained) and all(decoded)


def test_models_may_be_used_from_several_python_threads(rng):
    from threading import Thread

    from minillama import Config, Model

    model = Model(Config(50, dim=32, layers=1, heads=2, context=16), threads=2)
    ids, results = rng.integers(0, 50, (4, 16)), []
    expected = model.logits(ids)
    trainer = Thread(target=lambda: [model.loss_and_gradients(ids, ids) for _ in range(100)])
    trainer.start()
    while trainer.is_alive():
        results.append(np.array_equal(model.logits(ids), expected))
    trainer.join()
    assert len(results) > 5 and all(results)


def test_lent_threads_stay_until_they_are_wanted():
    workers, begun, dismissed = Workers(3), [], threading.Event()

    def help():
        begun.append(threading.get_ident())
        dismissed.wait()

    with workers.alone():
        dismiss = dismissed.set
        for _ in range(3):
            workers.lend(help, dismiss)
        while len(begun) < 2:
            time.sleep(1e-3)
    assert len(set(begun)) == 2
    assert workers.run(lambda i, _: i, range(3)) == [0, 1, 2]  # two of them on the threads that were lent
    assert dismissed.is_set()


def test_help_that_fails_is_heard_of():
    workers, done = Workers(2), threading.Event()

    def help():
        done.set()
        raise ZeroDivisionError

    dismiss = done.set
    workers.lend(help, dismiss)
    done.wait()
    with pytest.raises(ZeroDivisionError):
        for _ in range(1000):
            workers.lend(help, dismiss)
            time.sleep(1e-3)


def test_workers_keep_order_and_pass_errors_on():
    workers = Workers(3)
    assert workers.run(lambda i, shard: (i, shard), "abc") == [(0, "a"), (1, "b"), (2, "c")]
    assert workers.split(7) == [slice(0, 2), slice(2, 4), slice(4, 7)]
    assert workers.split(2) == [slice(0, 1), slice(1, 2)]

    def fail(i, shard):
        if i == 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        workers.run(fail, "abc")
    with pytest.raises(ValueError, match="at least 1; received 0"):
        Workers(0)
