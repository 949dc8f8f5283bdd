"""A model with more tokens than its tokenizer, and the reverse: what is drawn, what is shown, what is refused."""

import io
import sys
from dataclasses import replace

import numpy as np
import pytest

from minillama import Config, Model, save
from minillama.analysis.perplexity import perplexity, pseudo_perplexity
from minillama.analysis.trace import lens_table, token_labels, top_tokens, trace
from minillama.catalogue.presets import FAMILIES
from minillama.experiments.abilities import filled_text, gap_accuracy, written
from minillama.generation.chat import Conversation
from minillama.generation.generate import fill, generate, next_token_distribution
from minillama.tokenizers import END_OF_TEXT, MASK, BPETokenizer
from minillama.tokenizers.vocabulary import check_ids, check_tokenizer
from minillama.training import objectives
from minillama.weights.quantize import quantize

TEXT = "The cat sat on the mat, and the dog ran. What is a llama? A llama is a kind animal.\n" * 20
SPECIAL = (END_OF_TEXT, MASK, "<|im_start|>", "<|im_end|>")
PADDING = 37
each_family = pytest.mark.parametrize("family", FAMILIES)
each_writer = pytest.mark.parametrize("family", ["llama", "gpt2"])


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(TEXT, 280, SPECIAL)


def model_pair(tokenizer, family, **shape):
    """A model, and the same with rows for PADDING further ids, which are far likelier than any other."""
    shape = {"dim": 16, "layers": 2, "heads": 2, "context": 48, **FAMILIES[family], "tied": False, **shape}
    small = Model(Config(tokenizer.vocab_size, **shape), threads=1, init_std=0.4)
    padded = Model(replace(small.config, vocab_size=tokenizer.vocab_size + PADDING), threads=1, init_std=0.4)
    for name, array in small.parameters.items():
        padded.parameters[name][: len(array)] = array
    x = small.logits(np.arange(40)[None])
    assert np.ptp(x) > 1
    rows = padded.parameters["output"]
    rows[tokenizer.vocab_size :] = 40 * np.random.default_rng(1).standard_normal((PADDING, rows.shape[1]))
    return small, padded


class Corpus:
    """What a sample of a training, and compare, look at."""

    def __init__(self, tokenizer):
        self.tokenizer, self.validation = tokenizer, tokenizer.encode(f"{END_OF_TEXT}{TEXT}")


SETTINGS = [{"top_k": 1}, {"top_k": 4}, {"top_p": 0.6}, {"temperature": 1.5, "top_k": 300, "top_p": 0.9}, {}]


@each_writer
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_rows_without_a_token_are_not_drawn(settings, family, tokenizer, each_backend):
    small, padded = model_pair(tokenizer, family)
    V, prompt = tokenizer.vocab_size, [3, 9, 27]
    expected = list(generate(small, prompt, 40, seed=5, **settings))
    assert list(generate(padded, prompt, 40, seed=5, **settings, vocab_size=V)) == expected
    assert max(generate(padded, prompt, 40, seed=5, **settings)) >= V  # else this test says nothing
    few = list(generate(padded, prompt, 40, seed=5, temperature=50.0, vocab_size=7))
    assert set(few) == set(range(7))
    logits = padded.logits(np.array([prompt]))[0, -1, :V]
    p = next_token_distribution(logits, **settings)
    assert p.shape == (V,) and np.count_nonzero(p) <= settings.get("top_k", V)


def test_there_must_be_a_token_to_draw(tokenizer):
    with pytest.raises(ValueError, match="vocab_size must be at least 1"):
        generate(model_pair(tokenizer, "llama")[0], [1], 2, vocab_size=0)


def test_gaps_are_filled_with_tokens(tokenizer, each_backend):
    small, padded = model_pair(tokenizer, "bert")
    ids = tokenizer.encode(TEXT)[:30]
    ids[[2, 9, 10, 20]] = tokenizer.mask_token
    expected, probabilities = fill(small, ids, tokenizer.mask_token)
    filled, same = fill(padded, ids, tokenizer.mask_token, tokenizer.vocab_size)
    np.testing.assert_array_equal(filled, expected)
    np.testing.assert_allclose(same, probabilities, rtol=1e-5)
    assert fill(padded, ids, tokenizer.mask_token)[0].max() >= tokenizer.vocab_size


@each_family
def test_samples_of_a_training_and_comparisons_draw_tokens(family, tokenizer):
    small, padded = model_pair(tokenizer, family)
    corpus = Corpus(tokenizer)
    make = objectives.OBJECTIVES["masked" if family == "bert" else "next_token"].sample
    assert make(padded, corpus, 60, 3) == make(small, corpus, 60, 3)
    if family == "bert":
        assert filled_text(padded, corpus) == filled_text(small, corpus)
    else:
        assert list(written(padded, corpus, 2)) == list(written(small, corpus, 2))
    restored = gap_accuracy(small, corpus, 8)
    assert gap_accuracy(padded, corpus, 8) == restored and (family == "bert" or restored > 0)


@each_writer
def test_a_conversation_draws_tokens(family, tokenizer):
    answers = []
    for model in model_pair(tokenizer, family, context=256):
        conversation = Conversation(model, tokenizer, "chatml", max_tokens=40)
        conversation.ask("What is a llama?")
        answers.append("".join(conversation.answer()))
    assert answers[0] == answers[1] != ""


@each_family
def test_what_has_no_text_is_shown_by_its_number(family, tokenizer):
    _, padded = model_pair(tokenizer, family)
    seen = trace(padded, tokenizer.encode("The cat"))
    best = int(top_tokens(padded, seen, 1)[0][-1, -1, 0])
    assert best >= tokenizer.vocab_size
    assert f"  id {best} " in lens_table(padded, tokenizer, seen, len(seen.ids) - 1, 2).split("\n")[-1]
    last = tokenizer.vocab_size - 1
    assert token_labels(tokenizer, [last + 1, last])[0] == f"id {last + 1}"
    assert not token_labels(tokenizer, [last])[0].startswith("id ")


@pytest.mark.parametrize("options", [[], ["--int8"]])
@each_writer
def test_commands_that_write(family, options, tokenizer, tmp_path, cli, monkeypatch):
    outputs = []
    for name, model in zip(("small", "padded"), model_pair(tokenizer, family, dim=64, context=256), strict=True):
        save(model, tmp_path / name, tokenizer)
        told = cli("sample", tmp_path / name, "--prompt", "The cat", "--max-tokens", 60, *options)
        monkeypatch.setattr(sys, "stdin", io.StringIO("What is a llama?\n"))
        outputs.append([told, cli("chat", tmp_path / name, "--max-tokens", 60, *options)])
    assert outputs[0] == outputs[1] and all(code == 0 for code, _, _ in outputs[0])


@each_family
@pytest.mark.slow
def test_commands_that_read(family, tokenizer, tmp_path, cli):
    small, padded = model_pair(tokenizer, family)
    save(padded, tmp_path / "padded", tokenizer)
    save(small, tmp_path / "small", tokenizer)
    prompt = f"The{MASK} sat" if family == "bert" else "The cat sat"
    code, out, _ = cli("inspect", tmp_path / "padded", "--prompt", prompt, "--out", tmp_path / "figures")
    assert code == 0 and "  id 3" in out
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    if family == "bert":
        code, out, _ = cli("fill", tmp_path / "padded", "The ___ sat")
        assert code == 0 and out == cli("fill", tmp_path / "small", "The ___ sat")[1]
        assert cli("perplexity", tmp_path / "padded", tmp_path / "a.txt", "--pseudo", "--context", 8)[0] == 0
    else:
        assert cli("perplexity", tmp_path / "padded", tmp_path / "a.txt")[0] == 0


# The reverse: a tokenizer with more tokens


@each_family
def test_another_models_tokenizer_is_refused_by_every_command(family, tokenizer, tmp_path, cli):
    larger = BPETokenizer.train(TEXT, 320, SPECIAL)
    save(model_pair(tokenizer, family)[0], tmp_path / "m", larger)
    (tmp_path / "a.txt").write_text("The cat", encoding="utf-8")
    commands = [
        ["inspect", tmp_path / "m", "--prompt", "x", "--out", tmp_path / "figures"],
        ["perplexity", tmp_path / "m", tmp_path / "a.txt"],
        ["fill", tmp_path / "m", "The ___ sat"],
        ["sample", tmp_path / "m"],
        ["chat", tmp_path / "m"],
        ["convert", tmp_path / "m", tmp_path / "new"],
    ]
    assert larger.vocab_size > tokenizer.vocab_size
    for command in commands:
        code, _, err = cli(*command)
        assert code == 1, command
        assert f"the tokenizer has {larger.vocab_size} tokens and the model {tokenizer.vocab_size}" in err, command
    assert not (tmp_path / "figures").exists() and not (tmp_path / "new").exists()


def with_a_further_token(tokenizer, text):
    data = tokenizer.to_json()
    i = tokenizer.vocab_size
    data["added_tokens"].append({**data["added_tokens"][0], "id": i, "content": text})
    return type(tokenizer).from_json(data)


@each_family
def test_a_further_special_token_is_refused_only_where_it_is_used(family, tokenizer):
    further = with_a_further_token(tokenizer, "<pad>")
    assert further.vocab_size == tokenizer.vocab_size + 1
    model, _ = model_pair(tokenizer, family)
    check_tokenizer(further, model.config.vocab_size)
    sizes = (
        f"'<pad>' with the id {tokenizer.vocab_size}.* {further.vocab_size} tokens and the model {tokenizer.vocab_size}"
    )
    with pytest.raises(ValueError, match=sizes):
        check_ids(further.encode("a<pad>"), further, model.config.vocab_size)
    ids = check_ids(further.encode("a cat"), further, model.config.vocab_size)
    if family == "bert":
        assert pseudo_perplexity(model, further, "a cat").tokens == len(ids)
    else:
        assert perplexity(model, further, "a cat<pad>").tokens > 2  # text of a file is plain
        assert len(list(generate(model, ids, 5, vocab_size=further.vocab_size))) == 5


def test_a_mark_of_the_format_that_the_model_does_not_have(tokenizer):
    base = BPETokenizer.train(TEXT, 300, ("<|im_start|>", END_OF_TEXT))
    further = with_a_further_token(base, "<|im_end|>")
    model, _ = model_pair(base, "llama", context=256)
    with pytest.raises(ValueError, match=r"'<\|im_end\|>' with the id .* for which the model has no row"):
        Conversation(model, further, "chatml", max_tokens=3)  # at once, as marks stand in every conversation


def test_int8_weights_too(tokenizer):
    small, padded = (quantize(model) for model in model_pair(tokenizer, "llama", dim=64))
    expected = list(generate(small, [3], 20, top_k=1))
    assert list(generate(padded, [3], 20, top_k=1, vocab_size=tokenizer.vocab_size)) == expected
