"""Every choice of an architecture, alone and combined: gradients, shards, causality, padding, cached decoding."""

import numpy as np
import pytest

from minillama import IGNORED, Config, Model, backend
from minillama.config import BIASES, SWITCHES
from minillama.gradcheck import directional_derivative, relative_error
from minillama.layers.blocks import PLACEMENTS

from .conftest import BACKENDS

TINY = dict(vocab_size=11, dim=12, layers=2, heads=3, kv_heads=1, ffn=10, context=8)
STRETCHED = {"rope_factor": 4.0, "rope_original_context": 4}
# Every row of every table, and the choices that have no table. What a name needs besides itself stands with it.
ALONE = {f"{field} {name}": {field: name} for field, table in SWITCHES.items() for name in table}
ALONE |= {
    f"rope_scaling {name}": {"rope_scaling": name, **STRETCHED} for name in SWITCHES["rope_scaling"] if name != "none"
}
ALONE |= {f"bias {place}": {"bias": (place,)} for place in BIASES}
ALONE |= {f"masked_lm, bias {place}": {"head": "masked_lm", "bias": (place,)} for place in ("norm", "head")}
ALONE |= {
    "qk_norm": {"qk_norm": True},
    "qk_norm with biases": {"qk_norm": True, "bias": BIASES},
    "qk_norm layernorm": {"qk_norm": True, "norm": "layernorm"},
    "embedding_norm": {"embedding_norm": True, "bias": ("norm",)},
    "token_types": {"token_types": 3},
    "tied": {"tied": True},
    "multi-head": {"kv_heads": 3},
    "grouped": {"dim": 16, "heads": 4, "kv_heads": 2},
    "dropout": {"dropout": 0.3},
    "GPT-2": {
        "norm": "layernorm",
        "position": "learned",
        "feed_forward": "gelu_tanh",
        "bias": ("qkv", "o", "ffn", "norm"),
        "tied": True,
        "kv_heads": 3,
    },
    "BERT": {
        "norm": "layernorm",
        "placement": "post",
        "position": "learned",
        "feed_forward": "gelu",
        "mask": "bidirectional",
        "head": "masked_lm",
        "bias": BIASES,
        "embedding_norm": True,
        "token_types": 2,
        "tied": True,
        "kv_heads": 3,
        "dropout": 0.2,
    },
}
CAUSAL = {name: choice for name, choice in ALONE.items() if SWITCHES["mask"][choice.get("mask", "causal")].causal}


def make(rng, dtype=np.float64, threads=1, batch=3, **changes):
    """A tiny model with weights large enough that every path through it matters, and a batch for it."""
    config = Config(**{**TINY, **changes})
    model = Model(config, seed=1, dtype=dtype, threads=threads)
    model.parameters.flat[:] = rng.standard_normal(model.parameters.flat.size) * 0.5
    ids = rng.integers(0, config.vocab_size, (batch, config.context))
    targets = rng.integers(0, config.vocab_size, ids.shape)
    lengths = rng.integers(2, config.context + 1, batch) if not config.causal else None
    if lengths is not None:
        targets[np.arange(config.context) >= lengths[:, None]] = IGNORED
    targets[0, 1] = IGNORED
    types = rng.integers(0, config.token_types, ids.shape) if config.token_types else None
    return model, (ids, targets), dict(types=types, lengths=lengths)


def check_gradient(rng, directions=4, **changes):
    model, batch, inputs = make(rng, **changes)
    seed = 5 if model.config.dropout else None

    def loss():
        return model.loss_and_gradients(*batch, noise_seed=seed, **inputs)[0]

    gradients = model.loss_and_gradients(*batch, noise_seed=seed, **inputs)[1].flat.copy()
    usual = np.linalg.norm(gradients) / gradients.size**0.5  # size of the derivative in a random direction
    for _ in range(directions):
        direction = rng.standard_normal(gradients.size)
        direction /= np.linalg.norm(direction)
        expected = directional_derivative(loss, model.parameters.flat, direction, 3e-5)
        assert abs(gradients @ direction - expected) < 1e-7 * usual, model.config
    if seed is None and not PLACEMENTS[model.config.placement].has_auxiliary:
        assert abs(model.loss(*batch, **inputs) / loss() - 1) < 1e-13


@pytest.mark.parametrize("choice", ALONE)
def test_gradient_of_each_choice_alone(choice, each_backend, rng):
    check_gradient(rng, **ALONE[choice])


@pytest.mark.parametrize("choice", ALONE)
def test_every_parameter_matters_and_has_a_gradient(choice, each_backend, rng):
    """A parameter that the forward forgets has the gradient 0, which finite differences would confirm."""
    model, batch, inputs = make(rng, **ALONE[choice])
    gradients = model.loss_and_gradients(*batch, **inputs)[1]
    for name, gradient in gradients.items():
        # A bias of the keys adds the same number to every score of a query, which the softmax takes out; rotation
        # alone makes it matter.
        unseen = name.endswith("b_k") and model.tables.rotation is None and not model.config.qk_norm
        assert unseen or np.abs(gradient).max() > 1e-9, name


@pytest.mark.parametrize("choice", ALONE)
@pytest.mark.parametrize("batch", [3, 4])
def test_shards_equal_the_whole_batch(choice, batch, each_backend, rng, monkeypatch):
    monkeypatch.setattr("minillama.runtime.shards.ROWS_WORTH_CUTTING", 4)  # 3 sequences are cut inside
    whole, tokens, inputs = make(rng, batch=batch, **ALONE[choice])
    parts = Model(whole.config, dtype=np.float64, threads=2)
    parts.parameters.flat[:] = whole.parameters.flat
    loss, expected = whole.loss_and_gradients(*tokens, noise_seed=3, **inputs)
    for micro_batches in (1, 2):
        received_loss, received = parts.loss_and_gradients(*tokens, None, micro_batches, noise_seed=3, **inputs)
        assert abs(loss - received_loss) < 1e-13 * max(1, loss)
        assert relative_error(received.flat, expected.flat) < 1e-12
    logits = whole.logits(tokens[0], **inputs)
    assert relative_error(parts.logits(tokens[0], **inputs), logits) < 1e-12


@pytest.mark.parametrize("choice", CAUSAL)
def test_nothing_leaks_from_the_future(choice, each_backend, rng):
    model, (ids, _), inputs = make(rng, **CAUSAL[choice])
    logits = model.logits(ids, **inputs)
    ids[:, 4] = (ids[:, 4] + 1) % 11
    changed = model.logits(ids, **inputs)
    np.testing.assert_array_equal(changed[:, :4], logits[:, :4])
    assert np.abs(changed[:, 4:] - logits[:, 4:]).max(axis=-1).min() > 0


def test_a_bidirectional_model_reads_the_future(each_backend, rng):
    model, (ids, _), _ = make(rng, mask="bidirectional")
    logits = model.logits(ids)
    ids[:, -1] = (ids[:, -1] + 1) % 11
    assert np.abs(model.logits(ids) - logits).max(axis=-1).min() > 0


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("choice", CAUSAL)
def test_decoding_with_a_cache_equals_decoding_without(choice, dtype, tolerance, each_backend, rng):
    model, (ids, _), _ = make(rng, dtype, batch=1, **CAUSAL[choice])
    if SWITCHES["rope_scaling"][model.config.rope_scaling].by_length:
        cache = model.new_cache()
        model.next_logits(ids[:, :4], cache)
        with pytest.raises(ValueError, match="turns all earlier keys anew.*choose 'ntk'"):
            model.next_logits(ids[:, 4:5], cache)
        ids = ids[:, :4]
    expected, cache = model.logits(ids)[0], model.new_cache()
    parts = [model.next_logits(ids[:, :2], cache), *(model.next_logits(ids[:, [t]], cache) for t in range(2, ids.size))]
    assert parts[0].dtype == dtype and cache.length == ids.size
    assert relative_error(np.concatenate(parts), expected[1:]) < tolerance


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("choice", CAUSAL)
def test_a_batch_is_decoded_as_each_of_its_texts_alone(choice, dtype, tolerance, each_backend, rng):
    model, (ids, _), _ = make(rng, dtype, batch=3, **CAUSAL[choice])
    ids = ids[:, :4]  # as far as a scaling by length lets a cache reach

    def decoded(ids):
        cache = model.new_cache(len(ids))
        parts = [model.next_logits(ids[:, :2], cache), *(model.next_logits(ids[:, [t]], cache) for t in range(2, 4))]
        return np.stack(parts, axis=1)

    together, alone = decoded(ids), np.concatenate([decoded(ids[[b]]) for b in range(3)])
    assert together.shape == (3, 3, 11) and relative_error(together, alone) < tolerance


@pytest.mark.parametrize("choice", ["BERT", "mask bidirectional", "token_types"])
def test_padding_changes_nothing(choice, each_backend, rng):
    changes = {**ALONE[choice], "mask": "bidirectional", "dropout": 0.0}
    model, (ids, targets), inputs = make(rng, **changes)
    lengths, types = inputs["lengths"], inputs["types"]
    logits = model.logits(ids, **inputs)
    for b, length in enumerate(lengths):
        alone = model.logits(ids[[b], :length], types=None if types is None else types[[b], :length])
        assert relative_error(logits[b, :length], alone[0]) < 1e-13
    ids[np.arange(8) >= lengths[:, None]] = 7
    again = model.logits(ids, **inputs)
    for b, length in enumerate(lengths):
        np.testing.assert_array_equal(again[b, :length], logits[b, :length])


@pytest.mark.parametrize(
    "inputs, words",
    [
        (dict(lengths=[3, 9, 1]), r"lengths must lie in \[1, 8\].*1 to 9"),
        (dict(lengths=[3, 0, 1]), r"lengths must lie in \[1, 8\].*0 to 3"),
        (dict(lengths=[3, 3]), "for each of the 3 sequences"),
        (dict(types=np.full((3, 8), 2)), r"types must lie in \[0, 2\)"),
        (dict(types=np.zeros((3, 7), int)), "types must be whole numbers of the shape of ids"),
    ],
)
def test_wrong_inputs_are_refused_with_a_reason(inputs, words, rng):
    model, (ids, targets), _ = make(rng, **ALONE["BERT"])
    with pytest.raises(ValueError, match=words):
        model.logits(ids, **inputs)
    with pytest.raises(ValueError, match=words):
        model.loss_and_gradients(ids, targets, **inputs)


def test_types_for_a_model_without_are_refused(rng):
    model, (ids, _), _ = make(rng)
    with pytest.raises(ValueError, match="no token types"):
        model.logits(ids, types=np.zeros_like(ids))


def test_a_bidirectional_model_writes_no_text(rng):
    model, (ids, _), _ = make(rng, mask="bidirectional")
    for write in (model.new_cache, lambda: model.next_logits(ids)):
        with pytest.raises(ValueError, match="fills gaps"):
            write()


def test_targets_in_the_padding_and_lengths_with_a_cache_are_refused(rng):
    model, (ids, targets), inputs = make(rng, **ALONE["BERT"])
    targets = np.where(targets == IGNORED, 0, targets)
    for compute in (model.loss, model.loss_and_gradients):
        with pytest.raises(ValueError, match="padding: its targets must be -100"):
            compute(ids, targets, **inputs)
    model, (ids, _), _ = make(rng)
    with pytest.raises(ValueError, match="leave lengths out"):
        model.logits(ids, model.new_cache(3), lengths=[8, 8, 8])


def test_gradient_of_combinations_of_choices(rng):
    """A random sample of all combinations; those that make no sense are refused before anything is computed."""
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    choices = {field: st.sampled_from(list(table)) for field, table in SWITCHES.items() if field != "rope_scaling"}
    scalings = [ALONE[f"rope_scaling {name}"] for name in SWITCHES["rope_scaling"]]
    choices |= dict(
        bias=st.lists(st.sampled_from(BIASES), unique=True).map(tuple),
        qk_norm=st.booleans(),
        embedding_norm=st.booleans(),
        token_types=st.sampled_from([0, 2]),
        tied=st.booleans(),
        kv_heads=st.sampled_from([1, 3]),
        dropout=st.sampled_from([0.0, 0.2]),
    )
    tried = []

    @hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @hypothesis.given(
        st.fixed_dictionaries(choices), st.sampled_from(scalings), st.sampled_from(BACKENDS), st.integers(0, 2**31)
    )
    def check(changes, scaling, backend_name, seed):
        changes = {**changes, **(scaling if SWITCHES["position"][changes["position"]].rotation else {})}
        try:
            Config(**{**TINY, **changes})
        except ValueError:
            hypothesis.reject()
        tried.append(changes)
        with backend.use(backend_name):
            check_gradient(np.random.default_rng(seed), directions=2, **changes)

    check()
    assert len(tried) >= 30
