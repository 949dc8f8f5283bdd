"""Looking inside: what is shown is what the model computed, for every choice of an architecture."""

from dataclasses import replace

import numpy as np
import pytest

from minillama import Config, Model, save
from minillama.analysis.plots import _drawable
from minillama.analysis.trace import (
    draw,
    lens_table,
    logit_lens,
    place_names,
    prompt_ids,
    token_labels,
    top_tokens,
    trace,
)
from minillama.gradcheck import relative_error
from minillama.layers.attention import attention_maps
from minillama.ops.positions.rope import rope_tables
from minillama.tokenizers import END_OF_TEXT, MASK, BPETokenizer, CharTokenizer
from minillama.weights.quantize import quantize

from .conftest import each_precision
from .test_narrow import halved
from .test_switches import ALONE, make

TEXT = "The cat sat on the mat, and the dog ran. naïve café ☕\n" * 20
PNG = b"\x89PNG"
each_choice = pytest.mark.parametrize("choice", ALONE)


def traced(rng, choice, **changes):
    """A model, one text (T,) for it, its kinds of tokens or None, and the Trace."""
    model, (ids, _), inputs = make(rng, **{**ALONE[choice], **changes})
    types = None if inputs["types"] is None else inputs["types"][0]
    return model, ids[0], types, trace(model, ids[0], types)


@each_choice
def test_maps_times_values_are_what_attention_gave(choice, each_backend, rng):
    model, (ids, _), inputs = make(rng, **ALONE[choice])
    seen = []

    def see(op, shard, i, x, saved):
        if saved is None:
            return
        attended = saved.attention.attended
        for (task, p), (q, _, v, o, *_) in zip(attention_maps(op, shard, saved.attention), attended, strict=True):
            assert p.shape == (3, model.config.heads, 8, 8) and task.sequences == slice(0, 3)
            v = np.repeat(v, q.shape[2] // v.shape[2], axis=2)
            assert relative_error(np.einsum("bhts,bshd->bthd", p, v), o) < 1e-12
            assert np.abs(p.sum(axis=-1) - 1).max() < 1e-12
            unread = np.broadcast_to(np.triu(np.full((8, 8), model.config.causal), 1), p.shape)
            if inputs["lengths"] is not None:
                unread = unread | (np.arange(8) >= inputs["lengths"][:, None, None, None])
            assert not p[unread].any()
            assert p[~unread].all() or model.config.norm == "none"  # whose scores are so large that shares vanish
            seen.append(i)

    model.observe(see, ids, **inputs)
    assert seen == [0, 1]


@each_choice
@each_precision
def test_the_last_row_of_the_lens_is_the_models_logits(choice, dtype, tolerance, each_backend, rng):
    model, ids, types, seen = traced(rng, choice, dtype=dtype)
    lens = logit_lens(model, seen)
    expected = model.logits(ids[None], types=None if types is None else types[None])[0]
    np.testing.assert_array_equal(lens[-1], expected)
    assert lens.shape == (3, 8, 11) and lens.dtype == seen.streams.dtype == seen.attention.dtype == dtype
    assert seen.streams.shape == (5, 8, model.config.dim) and seen.attention.shape == (2, model.config.heads, 8, 8)
    if model.config.norm != "none":  # whose scores are so large that float32 rounds them by more than that
        assert np.abs(seen.attention.sum(axis=-1) - 1).max() < tolerance
    if model.config.causal:
        assert not np.triu(seen.attention, 1).any()


@each_choice
def test_a_row_of_the_lens_is_the_logits_of_a_model_that_stops_there(choice, each_backend, rng):
    model, ids, types, seen = traced(rng, choice)
    shorter = Model(replace(model.config, layers=1), dtype=np.float64)
    for name, array in shorter.parameters.items():
        array[:] = model.parameters[name]
    expected = shorter.logits(ids[None], types=None if types is None else types[None])[0]
    assert relative_error(logit_lens(model, seen)[1], expected) < 1e-12


def test_streams_and_norms_of_a_llama_step_by_step(each_backend, rng):
    model, ids, _, seen = traced(rng, "grouped")
    config, p = model.config, model.parameters
    cos, sin = rope_tables(config, 8, np.float64)

    def norm(x, weight):
        return weight * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + config.norm_eps)

    def heads(x, weight):
        return (x @ weight.T).reshape(8, -1, 4).transpose(1, 0, 2)

    def turned(x):
        a, b = x[..., :2], x[..., 2:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    x = p["embedding"][ids]
    streams, maps = [x], []
    for i in range(2):
        w = {name.removeprefix(f"blocks.{i}."): array for name, array in p.items()}
        h = norm(x, w["attention_norm"])
        q, k, v = (heads(h, w[f"w_{name}"]) for name in "qkv")
        q, k, v = turned(q), np.repeat(turned(k), 2, axis=0), np.repeat(v, 2, axis=0)
        scores = np.where(np.tri(8, dtype=bool), q @ k.swapaxes(1, 2) / 2, -np.inf)
        share = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
        x = x + (share @ v).transpose(1, 0, 2).reshape(8, -1) @ w["w_o"].T
        streams.append(x)
        h = norm(x, w["ffn_norm"])
        gate, up = h @ w["w_gate"].T, h @ w["w_up"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w["w_down"].T
        streams.append(x)
        maps.append(share)
    assert relative_error(seen.streams, np.array(streams)) < 1e-12
    assert relative_error(seen.attention, np.array(maps)) < 1e-12
    assert relative_error(seen.norms, np.linalg.norm(streams, axis=-1)) < 1e-12
    assert place_names(config) == ["embedding", "0 attention", "0 feed-forward", "1 attention", "1 feed-forward"]
    np.testing.assert_array_equal(seen.after_blocks, seen.streams[[0, 2, 4]])


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_the_stream_between_attention_and_feed_forward(placement, each_backend, rng):
    """A feed-forward layer that adds nothing leaves it as it is, or normalised once more."""
    model, (ids, _), _ = make(rng, placement=placement)
    model.parameters["blocks.1.w_down"][:] = 0
    *_, between, after = trace(model, ids[0]).streams
    if placement == "post":
        size = np.sqrt(np.mean(between**2, axis=-1, keepdims=True) + model.config.norm_eps)
        between = model.parameters["blocks.1.ffn_norm"] * between / size
    assert relative_error(after, between) < 1e-14


def test_norms_of_large_float32_numbers_do_not_overflow():
    model = Model(Config(5, dim=4, layers=1, heads=1, context=4))
    model.parameters["embedding"][:] = 1e30
    assert trace(model, [1, 2]).norms[0] == pytest.approx([2e30, 2e30])


@each_choice
def test_a_text_that_is_cut_among_workers(choice, each_backend, rng, monkeypatch):
    monkeypatch.setattr("minillama.runtime.shards.ROWS_WORTH_CUTTING", 4)
    model, ids, types, expected = traced(rng, choice)
    parts = Model(model.config, dtype=np.float64, threads=2)
    parts.parameters.flat[:] = model.parameters.flat
    seen = trace(parts, ids, types)
    assert relative_error(seen.streams, expected.streams) < 1e-12
    assert relative_error(seen.attention, expected.attention) < 1e-12
    logits = parts.logits(ids[None], types=None if types is None else types[None])[0]
    np.testing.assert_array_equal(logit_lens(parts, seen)[-1], logits)


def test_looking_changes_nothing(each_backend, rng):
    model, ids, _, seen = traced(rng, "GPT-2")
    before = model.logits(ids[None])
    again = trace(model, ids)
    np.testing.assert_array_equal(again.streams, seen.streams)
    np.testing.assert_array_equal(model.logits(ids[None]), before)


def test_some_layers_alone(rng):
    model, ids, types, seen = traced(rng, "BERT")
    some = trace(model, ids, types, layers=[1])
    np.testing.assert_array_equal(some.attention, seen.attention[1:])
    assert some.layers == (1,) and seen.layers == (0, 1)
    backwards = trace(model, ids, types, layers=[1, 0])
    np.testing.assert_array_equal(backwards.attention, seen.attention[::-1])
    assert trace(model, ids, layers=[]).attention.shape == (0, 3, 8, 8)
    with pytest.raises(ValueError, match="layers 0 to 1; received 2"):
        trace(model, ids, layers=[2])
    with pytest.raises(ValueError, match="layers 0 to 1; received -1"):
        trace(model, ids, layers=[-1])
    with pytest.raises(ValueError, match=r"one text, \(T,\); received the shape \(1, 8\)"):
        trace(model, ids[None])
    with pytest.raises(ValueError, match="9 positions do not fit"):
        trace(model, [1] * 9)


def test_top_tokens_are_sorted_probabilities_of_the_lens(rng):
    model, _, _, seen = traced(rng, "grouped")
    tokens, probabilities = top_tokens(model, seen, 11)
    lens = logit_lens(model, seen)
    p = np.exp(lens) / np.exp(lens).sum(axis=-1, keepdims=True)
    np.testing.assert_array_equal(tokens, np.argsort(-p, axis=-1))
    assert relative_error(probabilities, -np.sort(-p, axis=-1)) < 1e-12
    few, shares = top_tokens(model, seen, 3)
    np.testing.assert_array_equal(few, tokens[..., :3])
    np.testing.assert_array_equal(shares, probabilities[..., :3])
    for count in (0, 12):
        with pytest.raises(ValueError, match=rf"\[1, 11\], the tokens that there are; received {count}"):
            top_tokens(model, seen, count)


def test_the_stream_that_is_read_must_fit_the_model(rng):
    model, *_ = traced(rng, "grouped")
    with pytest.raises(ValueError, match=r"\(B, T, 16\); received \(8, 16\)"):
        model.logits_of_stream(np.zeros((8, 16)))
    with pytest.raises(ValueError, match=r"\(B, T, 16\); received \(1, 8, 15\)"):
        model.logits_of_stream(np.zeros((1, 8, 15)))


def test_an_int8_model(rng):
    model = Model(Config(32, dim=32, layers=2, heads=2, context=8), init_std=0.3)
    small = quantize(model)
    ids = rng.integers(0, 32, 8)
    seen = trace(small, ids)
    np.testing.assert_array_equal(logit_lens(small, seen)[-1], small.logits(ids[None])[0])
    assert 0 < relative_error(seen.streams, trace(model, ids).streams) < 0.1


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_a_model_of_halves(kind, each_backend, rng):
    half, wide = halved(Model(Config(32, dim=64, layers=2, heads=2, context=8), init_std=0.3), kind)
    ids = rng.integers(0, 32, 8)
    seen = trace(half, ids)
    np.testing.assert_array_equal(logit_lens(half, seen)[-1], half.logits(ids[None])[0])
    assert relative_error(seen.streams, trace(wide, ids).streams) < 1e-5


def test_labels_show_every_token():
    tokenizer = BPETokenizer.train(TEXT, 290)
    ids = [*tokenizer.encode(" \n\t\rx$^_"), tokenizer.end_of_text, *tokenizer.encode("☕")]
    assert "".join(token_labels(tokenizer, ids)).startswith("␣↵→←x$^_<|endoftext|>")
    assert token_labels(tokenizer, [tokenizer.end_of_text], longest=9) == ["<|endoft…"]
    assert token_labels(tokenizer, [tokenizer.vocab[b"\xe2"]]) == ["\\xe2"]
    assert token_labels(tokenizer, [tokenizer.vocab[b"\x07"]]) == ["\\u0007"]
    assert _drawable(["a☕", "猫"]) == ["a☕", "\\u732b"]


def test_a_prompt_begins_as_texts_of_the_training(rng):
    model = Model(Config(400, dim=8, layers=1, heads=1, context=8))
    tokenizer = BPETokenizer.train(TEXT, 290)
    assert prompt_ids(model, tokenizer, "").tolist() == [tokenizer.end_of_text]
    assert prompt_ids(model, tokenizer, "a").tolist() == [tokenizer.end_of_text, *tokenizer.encode("a")]
    with pytest.raises(ValueError, match="a prompt of 9 tokens does not fit this model's context of 8"):
        prompt_ids(model, tokenizer, "zzzzzzzz")
    with pytest.raises(ValueError, match="the prompt is empty"):
        prompt_ids(model, CharTokenizer.train("abc"), "")
    masked = CharTokenizer.train("abc", (MASK,))
    assert prompt_ids(model, masked, f"a{MASK}c").tolist() == [0, masked.mask_token, 2]


@pytest.mark.parametrize("choice", ["grouped", "BERT", "position alibi"])
def test_figures(choice, rng, tmp_path):
    tokenizer = CharTokenizer.train("$_^{}猫 \n\\#", ())
    model, _, types, _ = traced(rng, choice, vocab_size=tokenizer.vocab_size)
    seen = trace(model, tokenizer.encode("$_^{猫 \n\\"), types)
    paths = draw(model, tokenizer, seen, tmp_path / "new", positions=5)
    assert [path.name for path in paths] == [
        "logit-lens.png", "stream-norms.png", "attention-layer-0.png", "attention-layer-1.png"
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(PNG) for path in paths)
    lines = lens_table(model, tokenizer, seen, 7, 2).split("\n")
    assert lines[0] == "the likeliest tokens at \\, position 7, after"
    assert [line.split("  ")[0].strip() for line in lines[1:]] == ["embedding", "layer 0", "layer 1"]
    assert all(line.count("%") == 2 for line in lines[1:])
    model.parameters["embedding"][1] = 0  # its length has no logarithm
    one = trace(model, [1], None if types is None else types[:1])
    assert all(path.read_bytes().startswith(PNG) for path in draw(model, tokenizer, one, tmp_path / "one"))


@pytest.mark.parametrize("mask", ["causal", "bidirectional"])
def test_the_command(mask, cli, tmp_path):
    tokenizer = BPETokenizer.train(TEXT, 290, (END_OF_TEXT, MASK))
    model = Model(Config(tokenizer.vocab_size, dim=16, layers=2, heads=2, context=16, mask=mask))
    save(model, tmp_path / "model", tokenizer)
    prompt = "the cat" if mask == "causal" else f"the{MASK} sat"
    code, out, _ = cli("inspect", tmp_path / "model", "--prompt", prompt, "--out", tmp_path / "figures", "--top", 3)
    lines = out.split("\n")
    assert code == 0 and lines[1].startswith("embedding") and lines[3].startswith("layer 1")
    assert lines[0].startswith("the likeliest tokens at " + ("<|mask|>" if mask == "bidirectional" else "")), lines[0]
    assert lines[4:] == [str(tmp_path / "figures" / name) for name in (
        "logit-lens.png", "stream-norms.png", "attention-layer-0.png", "attention-layer-1.png"
    )] + [""]  # fmt: skip
    code, out, _ = cli("inspect", tmp_path / "model", "--prompt", "x", "--out", tmp_path / "one", "--layer", 1)
    assert code == 0 and {path.name for path in (tmp_path / "one").iterdir()} == {
        "logit-lens.png", "stream-norms.png", "attention-layer-1.png"
    }  # fmt: skip
    code, _, err = cli("inspect", tmp_path / "model", "--prompt", "x", "--out", tmp_path / "three", "--layer", 2)
    assert code == 1 and "layers 0 to 1; received 2" in err
    V = tokenizer.vocab_size
    for top in (0, V + 1):
        code, _, err = cli("inspect", tmp_path / "model", "--prompt", "x", "--out", tmp_path / "two", "--top", top)
        assert code == 1 and f"--top must lie in [1, {V}], the tokens that there are; received {top}" in err
    assert not (tmp_path / "two").exists()
    (tmp_path / "model" / "tokenizer.json").unlink()
    code, _, err = cli("inspect", tmp_path / "model", "--prompt", "x", "--out", tmp_path / "one")
    assert code == 1 and "comes without a tokenizer" in err
