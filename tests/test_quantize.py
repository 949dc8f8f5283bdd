"""int8 weights: the error of rounding, the model that they make, and what it refuses."""

import numpy as np
import pytest

from minillama import Config, Model, save
from minillama.__main__ import main
from minillama.generation.generate import generate
from minillama.ops.weights.int8 import GROUP, pack_int8, widen_int8
from minillama.tokenizers import CharTokenizer
from minillama.weights.quantize import quantize

from .test_decoding import random_model, sharing, token_by_token  # noqa: F401


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 128, 144, 172, 288, 344])
def test_a_weight_moves_by_half_a_step_at_most(columns, rng):
    weight = rng.standard_normal((7, columns)).astype(np.float32) * 10.0 ** rng.integers(-6, 6, (7, 1))
    weight[3] = 0
    q, scales = pack_int8(weight)
    assert q.dtype == np.int8 and scales.dtype == np.float32 and scales.shape == (7, -(-columns // GROUP))
    assert abs(q.astype(int)).max() == 127
    for group in range(scales.shape[1]):
        part = slice(group * GROUP, (group + 1) * GROUP)
        error = abs(widen_int8(q, scales)[:, part] - weight[:, part])
        assert (error <= scales[:, group, None] * 0.5001).all()  # the rounding of float32 itself comes on top
        np.testing.assert_allclose(scales[:, group], abs(weight[:, part]).max(axis=1) / 127, rtol=1e-6)


def test_rounding_by_hand():
    weight = np.array([[127.0, -63.4, 0.6, 1.5]], np.float32)
    q, scales = pack_int8(weight)
    np.testing.assert_array_equal(q, [[127, -63, 1, 2]])
    np.testing.assert_array_equal(scales, [[1]])


def test_damaged_weights_are_not_rounded(rng):
    model = random_model(rng)
    model.parameters["blocks.0.w_o"][1, 2] = np.inf
    with pytest.raises(ValueError, match="not all finite"):
        quantize(model)


@pytest.mark.parametrize("shape", [{"dim": 64, "ffn": 172}, {"dim": 144, "heads": 3, "ffn": 344, "tied": True}, {}])
def test_a_token_of_int8_weights_equals_the_forward_of_their_values(shape, each_backend, sharing, rng):  # noqa: F811
    model = random_model(rng, **shape)
    small = quantize(model)
    rounded = Model(model.config, threads=2)
    for name, weight in model.parameters.items():
        rounded.parameters[name][:] = widen_int8(*pack_int8(weight)) if weight.ndim == 2 else weight
    ids = rng.integers(0, 50, (1, 12))
    expected = rounded.logits(ids)
    np.testing.assert_allclose(token_by_token(small, ids), expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(small.logits(ids), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(small.next_logits(ids), expected[:, -1], rtol=1e-5, atol=1e-5)
    assert small.loss(ids[:, :-1], ids[:, 1:]) == pytest.approx(rounded.loss(ids[:, :-1], ids[:, 1:]), rel=1e-6)


def test_logits_stay_near_and_memory_falls_to_a_quarter(rng):
    model = Model(Config(200, dim=128, layers=3, heads=4), threads=1)
    small = quantize(model)
    ids = rng.integers(0, 200, (2, 32))
    a, b = model.logits(ids), small.logits(ids)
    assert 0 < abs(a - b).max() < 0.1 * a.std()
    assert 0.25 < small.nbytes / model.nbytes < 0.28
    assert small.dtype == np.float32


def test_text_from_int8_weights(rng):
    small = quantize(random_model(rng, context=20))
    tokens = list(generate(small, [3], 19, top_k=1))
    text = [3]
    for _ in range(19):
        text.append(int(small.logits(np.array([text]))[0, -1].argmax()))
    assert tokens == text[1:]


def test_int8_weights_do_not_train_and_are_not_saved(rng, tmp_path):
    small = quantize(random_model(rng))
    ids = np.array([[1, 2, 3]])
    with pytest.raises(TypeError, match="cannot be trained"):
        small.loss_and_gradients(ids, ids)
    with pytest.raises(TypeError, match="save the model that they were made from"):
        save(small, tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        small.parameters["embedding"][:] = 0


def test_the_command_line_samples_with_int8_weights(tmp_path, capsys):
    tokenizer = CharTokenizer.train("abc\n")
    save(Model(Config(tokenizer.vocab_size, dim=16, layers=1, heads=2, context=16), threads=1), tmp_path, tokenizer)
    assert main(["sample", str(tmp_path), "--prompt", "ab", "--int8", "--max-tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("ab")
