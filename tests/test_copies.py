"""Copies of models and layers: by copy, by pickle, and in other processes."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest

from minillama import Config, LayerAlone, Model
from minillama.runtime.memory import Store
from minillama.weights.packed import PackedWeights

CONFIG = Config(vocab_size=50, dim=16, layers=2, heads=2, context=16)
IDS = np.arange(8)[None]
WAYS = {"deepcopy": copy.deepcopy, "pickle": lambda one: pickle.loads(pickle.dumps(one))}


def loss_of(model):
    return model.loss(IDS, IDS)


def every_weight_matters(model):
    """What the loss is after each parameter in turn was made a little larger."""
    found = []
    for array in model.parameters.values():
        array += 0.01
        found.append((loss_of(model), float(model.loss_and_gradients(IDS, IDS)[0])))
    return found


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_copy_of_a_model_is_a_model_of_its_own(way, dtype, threads):
    model = Model(CONFIG, seed=1, dtype=dtype, threads=threads)
    before = loss_of(model)
    other = way(model)
    assert loss_of(other) == before and other.workers.threads == threads and other.dtype == dtype
    changed = every_weight_matters(other)
    assert loss_of(model) == before
    assert changed == every_weight_matters(model)
    assert len(set(changed)) == len(changed)


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "int8"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_copy_of_packed_weights_has_arrays_of_its_own(way, kind):
    model = Model(CONFIG, seed=1)
    weights = PackedWeights(CONFIG, kind)
    weights.pack(model.weights)
    model = model.with_weights(weights)
    before, other = loss_of(model), way(model)
    assert loss_of(other) == before and other.weights.kind == kind
    for store in (*other.weights.stores, other.weights.vectors):
        store.flat[:] = 0
    assert loss_of(other) == pytest.approx(np.log(CONFIG.vocab_size)) and loss_of(model) == before


@pytest.mark.parametrize("way", multiprocessing.get_all_start_methods())
def test_another_process_computes_with_a_model_that_is_sent_to_it(way):
    model = Model(CONFIG, seed=1, threads=2)
    before = loss_of(model)
    with multiprocessing.get_context(way).Pool(1) as pool:
        assert pool.apply_async(loss_of, (model,)).get(120) == before


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_parameters_of_a_copied_layer_are_those_that_it_computes_with(way):
    layer, x = LayerAlone("attention", CONFIG), np.random.default_rng(0).normal(size=(1, 4, 16)).astype(np.float32)
    other, before = way(layer), layer.forward(x)[0]
    np.testing.assert_array_equal(other.forward(x)[0], before)
    for array in other.parameters.values():
        array[...] = 0
    assert not other.forward(x)[0].any()
    np.testing.assert_array_equal(layer.forward(x)[0], before)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_copied_store_has_one_buffer_and_begins_a_cache_line(way):
    store = Store({"a": (2, 3), "b": (3,)})
    store.flat[:] = np.arange(9)
    other = way(store)
    other["a"][:], other["b"][:] = 7, 8
    assert other.flat.tolist() == [7] * 6 + [8] * 3 and other.flat.ctypes.data % 64 == 0
    assert store.flat.tolist() == list(range(9))
