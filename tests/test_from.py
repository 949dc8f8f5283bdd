"""`train --from MODEL`: what is kept of a model in any format, where its training begins, and how it resumes."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import minillama
from minillama import Config, Model
from minillama.analysis.perplexity import perplexity
from minillama.catalogue.presets import FAMILIES
from minillama.checkpoint import llama2c
from minillama.checkpoint.open import read_generation
from minillama.cli.continuing import Begun, corpus_of_run
from minillama.config import ffn_width
from minillama.data.corpora import encode_corpus, read_corpus
from minillama.tokenizers import END_OF_TEXT, MASK, BPETokenizer, CharTokenizer, SentencePieceTokenizer, load_tokenizer
from minillama.tokenizers.added import AddedToken
from minillama.tokenizers.wordpiece import WordPieceTokenizer
from minillama.training.objectives import objective_of
from minillama.training.run import STATE_FILE, Run, read_metrics, read_state
from minillama.training.trainer import Settings

from .test_formats import write_meta

TEXT = "The cat sat on the mat, and the dog ran. What is a llama? A llama is a kind animal.\n" * 40
SHAPE = dict(dim=16, layers=2, heads=2, context=24)
STEPS = ["--steps", 6, "--batch-size", 3, "--eval-every", 3, "--threads", 1, "--lr", 1e-3]


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train(TEXT, 280, (END_OF_TEXT, MASK))


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "text.txt"


def make(tokenizer, **changes):
    model = Model(Config(tokenizer.vocab_size, **{**SHAPE, **changes}), 3, threads=1, init_std=0.2)
    rng = np.random.default_rng(1)  # norms and biases too
    model.parameters.flat[:] += rng.standard_normal(model.parameters.flat.size).astype(np.float32) * 0.02
    return model


def huggingface(tokenizer, folder, **changes):
    model = make(tokenizer, **changes)
    minillama.save(model, folder, tokenizer)
    return folder, model


def of_llama2c(tokenizer, folder):
    model = make(tokenizer, rope_layout="interleaved", kv_heads=1, tied=True)
    folder.mkdir()
    llama2c.save(folder / "model.bin", model, None)
    tokenizer.save(folder)
    return folder / "model.bin", model


def of_meta(tokenizer, folder):
    model = make(tokenizer, rope_layout="interleaved", dim=32, heads=4, ffn=ffn_width(32, 8), context=2048)
    write_meta(folder, model)
    tokenizer.save(folder)
    return folder, model


def of_float64(tokenizer, folder):
    model = make(tokenizer)
    wide = Model(model.config, dtype=np.float64, threads=1)
    wide.parameters.flat[:] = model.parameters.flat
    minillama.save(wide, folder, tokenizer)
    return folder, model


def of_more_rows(tokenizer, folder):
    """A model with rows for ids that its tokenizer does not have."""
    model = make(tokenizer)
    wide = Model(replace(model.config, vocab_size=tokenizer.vocab_size + 9), 1, threads=1, init_std=0.1)
    minillama.save(wide, folder, tokenizer)
    return folder, wide


SOURCES = {
    "llama": huggingface,
    "gpt2": lambda *where: huggingface(*where, **FAMILIES["gpt2"]),
    "bert": lambda *where: huggingface(*where, **FAMILIES["bert"]),
    "stretched": lambda *where: huggingface(*where, rope_scaling="yarn", rope_factor=2.0, rope_original_context=12),
    "own": lambda *where: huggingface(
        *where, norm="layernorm", placement="post", position="alibi", bias=("qkv", "norm")
    ),
    "llama2c": of_llama2c,
    "meta": of_meta,
    "float64": of_float64,
    "more rows": of_more_rows,
}
each_source = pytest.mark.parametrize("kind", SOURCES)


def start(source, folder, text, **given):
    settings = {name: given.pop(name) for name in list(given) if name in Settings.__dataclass_fields__}
    settings = Settings(**{**dict(steps=6, batch_size=3, eval_every=3, lr=1e-3), **settings})
    return Begun({"from": str(source), "context": 24, **given}, folder, settings, False).start(text, 1)


@each_source
def test_weights_shape_and_tokenizer_are_kept_in_float32(kind, tokenizer, tmp_path, text):
    source, model = SOURCES[kind](tokenizer, tmp_path / "source")
    run = start(source, tmp_path / "run", text)
    assert run.optimizer.steps == 0 and not any(array.any() for array in run.optimizer.state.values())
    assert run.model.dtype == np.float32 and run.model.config == minillama.load(source)[0].config
    ids = np.random.default_rng(0).integers(0, tokenizer.vocab_size, (2, 24))
    np.testing.assert_allclose(run.model.logits(ids), model.logits(ids), rtol=0, atol=1e-5)
    opened, kept = minillama.load(tmp_path / "run")
    assert kept.to_json() == tokenizer.to_json() == run.corpus.tokenizer.to_json()
    np.testing.assert_allclose(opened.logits(ids), model.logits(ids), rtol=0, atol=1e-5)
    assert read_state(tmp_path / "run")["origin"] == str(source.resolve())


@each_source
def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(kind, tokenizer, tmp_path, text, cli):
    source, _ = SOURCES[kind](tokenizer, tmp_path / "source")
    options = ["--data", text, *STEPS, "--dropout", 0.1, "--context", 20]
    code, out, err = cli("train", "--from", source, "--out", tmp_path / "whole", *options)
    assert code == 0 and "going on from" in out, err
    run = start(source, tmp_path / "parts", text, dropout=0.1, context=20)
    assert (
        run.batches[0][0].shape == (3, 20)
        and run.model.config.context in (24, 2048)
        and run.model.config.dropout == 0.1
    )
    run.step(), run.step(), run.save()
    shutil.rmtree(tmp_path / "source")  # the folder of the run has all that it takes
    code, _, err = cli("train", "--out", tmp_path / "parts", "--resume")
    assert code == 0, err
    whole, parts = (load_file(tmp_path / name / STATE_FILE) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() == {"weights", "mean", "square"}
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])
    assert read_metrics(tmp_path / "whole")[-1]["val_loss"] == read_metrics(tmp_path / "parts")[-1]["val_loss"]


@pytest.mark.parametrize("kind", [kind for kind in SOURCES if kind != "bert"])
def test_the_first_loss_is_the_one_that_perplexity_finds(kind, tokenizer, tmp_path, text):
    source, _ = SOURCES[kind](tokenizer, tmp_path / "source")
    run = start(source, tmp_path / "run", text)
    (held_out,) = read_corpus(text).validation
    score = perplexity(run.model, tokenizer, held_out + END_OF_TEXT, 24, 24)  # the mark is the last token of the stream
    assert score.tokens == run.corpus.predicted_tokens
    assert run.evaluate() == pytest.approx(score.nats / score.tokens, rel=1e-6)


def test_the_first_loss_is_the_one_that_the_command_prints(tmp_path, text, cli):
    tokenizer = CharTokenizer.train(TEXT)
    source, _ = huggingface(tokenizer, tmp_path / "source")
    _, out, _ = cli("train", "--from", source, "--out", tmp_path / "run", "--data", text, *STEPS)
    first = re.search(r"before the first step (\d+\.\d{4}) nats a token", out)[1]
    (tmp_path / "held out.txt").write_text(*read_corpus(text).validation, encoding="utf-8")
    _, out, _ = cli("perplexity", source, tmp_path / "held out.txt", "--context", 24, "--stride", 24)
    assert out.splitlines()[1].split()[-2] == first


@pytest.mark.parametrize("objective", ["next_token", "masked"])
def test_the_objective_is_that_of_the_models_mask(objective, tokenizer, tmp_path, text):
    kind = "bert" if objective == "masked" else "llama"
    source, model = SOURCES[kind](tokenizer, tmp_path / "source")
    run = start(source, tmp_path / "run", text, steps=80, lr=1e-2)
    assert run.objective == objective_of(model.config)
    before = run.evaluate()
    assert run.train(quiet=True) < before - 0.5


def test_two_tokens_stand_around_each_document(assets, tmp_path):
    tokenizer = load_tokenizer(assets / "models/stories260K/tok512.bin")
    assert isinstance(tokenizer, SentencePieceTokenizer)
    (tmp_path / "a.txt").write_text(f"One day{END_OF_TEXT}Two\n" * 60, encoding="utf-8")
    corpus = encode_corpus(tmp_path / "a.txt", tokenizer)
    begins, ends = (np.flatnonzero(corpus.train == token) for token in (1, 2))
    assert len(begins) == len(ends) and begins[0] == 0 and ends[-1] == len(corpus.train) - 1
    np.testing.assert_array_equal(begins[1:], ends[:-1] + 1)
    one = tokenizer.encode("One day", special=False)
    np.testing.assert_array_equal(corpus.train[1 : 1 + len(one)], one)


def test_what_a_kept_tokenizer_made_is_kept_by_its_tokens_and_its_text(tokenizer, text, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MINILLAMA_CACHE", str(tmp_path / "cache"))
    other = BPETokenizer.train(TEXT, 300, (END_OF_TEXT, MASK))
    first, second = encode_corpus(text, tokenizer), encode_corpus(text, other)
    assert len(list((tmp_path / "cache").iterdir())) == 2 and len(first.train) != len(second.train)
    monkeypatch.setattr(BPETokenizer, "encode", lambda *_, **__: pytest.fail("encoded again"))
    for made, expected in ((tokenizer, first), (other, second)):
        again = encode_corpus(text, made)
        np.testing.assert_array_equal(again.train, expected.train)
        assert again.fingerprint == expected.fingerprint and again.source == {"data": str(text)}
    assert not capsys.readouterr().err


def test_stories260K_goes_on(assets, tmp_path, text, cli):
    source = assets / "models/stories260K/stories260K.bin"
    options = ["--data", text, *STEPS, "--context", 32]
    code, out, err = cli("train", "--from", source, "--out", tmp_path / "run", *options)
    first = float(re.search(r"before the first step (\S+) nats a token", out)[1])
    model, tokenizer = minillama.load(source)
    (held_out,) = read_corpus(text).validation
    score = perplexity(model, tokenizer, held_out, 32, 32)
    corpus = encode_corpus(text, tokenizer)
    assert corpus.validation[-1] == tokenizer.end_of_text and score.tokens == corpus.predicted_tokens - 1
    place = (len(corpus.validation) - 2) // 32 * 32  # of the window that ends the stream, whose last target is </s>
    end = model.losses(corpus.validation[None, place:-1], corpus.validation[None, place + 1 :])[0, -1]
    assert code == 0 and first == pytest.approx((score.nats + end) / corpus.predicted_tokens, abs=1e-4), err
    assert minillama.load(tmp_path / "run")[0].config.context == 512
    code, out, _ = cli("sample", tmp_path / "run", "--prompt", "Once", "--max-tokens", 5)
    assert code == 0 and out.startswith("Once")


def test_the_chat_template_and_the_way_to_draw_go_along(tokenizer, tmp_path, text):
    source, _ = huggingface(tokenizer, tmp_path / "source")
    (source / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    (source / "generation_config.json").write_text('{"temperature": 0.5, "do_sample": true}', encoding="utf-8")
    start(source, tmp_path / "run", text).train(quiet=True)
    for name in ("chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "run" / name).read_bytes() == (source / name).read_bytes()


def test_the_tokens_that_config_json_names_go_along(tokenizer, tmp_path, text):
    """Of a model without generation_config.json, which may end a text with more tokens than its tokenizer knows of."""
    source, _ = huggingface(tokenizer, tmp_path / "source")
    start(source, tmp_path / "plain", text)
    assert not (tmp_path / "plain" / "generation_config.json").exists()  # the tokenizer's own are said anyway
    values = json.loads((source / "config.json").read_text(encoding="utf-8"))
    values |= {"bos_token_id": 7, "eos_token_id": [0, 5], "do_sample": False}
    (source / "config.json").write_text(json.dumps(values), encoding="utf-8")
    start(source, tmp_path / "run", text).train(quiet=True)
    said = read_generation(tmp_path / "run", tokenizer.vocab_size)
    assert said == read_generation(source, tokenizer.vocab_size) and said.begin == 7 and said.end == (0, 5)


def test_a_run_that_is_killed_as_it_begins_can_be_resumed(tokenizer, tmp_path, text, monkeypatch):
    source, model = huggingface(tokenizer, tmp_path / "source")
    (source / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("minillama.checkpoint.huggingface.save", killed)  # the first writing after that of the state
        start(source, tmp_path / "run", text)
    shutil.rmtree(source)
    run = Run.resume(tmp_path / "run", corpus_of_run(tmp_path / "run", read_state(tmp_path / "run"), text))
    np.testing.assert_array_equal(run.model.parameters.flat, model.parameters.flat)
    assert (tmp_path / "run" / "chat_template.jinja").read_text(encoding="utf-8") == "{{ messages }}"


def of_whole_words():
    """A tokenizer such as BERT's, of a few words."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", MASK]
    words = {word: 5 + i for i, word in enumerate("the cat sat on mat".split())}
    return WordPieceTokenizer(words, [AddedToken(name, i) for i, name in enumerate(names)])


def test_a_sample_with_gaps_keeps_its_words_apart(tmp_path):
    source, _ = huggingface(of_whole_words(), tmp_path / "source", **FAMILIES["bert"])
    (tmp_path / "text.txt").write_text("the cat sat on the mat " * 200, encoding="utf-8")
    sample = start(source, tmp_path / "run", tmp_path / "text.txt").sample()
    words = [word.strip("[]") for word in sample.split(" ")]
    assert len(words) == 24 and set(words) <= {*"the cat sat on mat PAD UNK CLS SEP MASK".split()}, sample
    assert 1 <= sum(word.startswith("[") for word in sample.split(" ")) < 12


@pytest.mark.parametrize("unknown", ["all", "training"])
def test_a_text_that_the_tokenizer_does_not_know_has_nothing_to_hide(unknown, tmp_path):
    source, _ = huggingface(of_whole_words(), tmp_path / "source", **FAMILIES["bert"])
    (tmp_path / "text.txt").write_text("мир " * 1800 + ("мир " if unknown == "all" else "cat ") * 200, encoding="utf-8")
    run = start(source, tmp_path / "run", tmp_path / "text.txt", batch_size=1)
    with pytest.raises(ValueError, match="special tokens only.* use a text in the language"):
        run.evaluate() if unknown == "all" else run.step()


def refused(cli, *words):
    code, _, err = cli("train", *words)
    assert code == 1 and err.startswith("minillama: error: "), err
    return err


def test_what_cannot_be_gone_on_from_is_refused_before_anything_is_written(tokenizer, tmp_path, text, cli):
    source, model = huggingface(tokenizer, tmp_path / "source")
    out, data = ["--out", tmp_path / "run"], ["--data", text]
    assert "there is no model at" in refused(cli, "--from", tmp_path / "none", *out)
    assert "--context 25 is more than the 24 tokens" in refused(cli, "--from", source, "--context", 25, *out)
    assert "--context must be at least 2" in refused(cli, "--from", source, "--context", 1, *out)
    assert "written over itself" in refused(cli, "--from", source, "--out", source, *data, "--overwrite")
    minillama.save(model, tmp_path / "bare")
    assert "comes without a tokenizer" in refused(cli, "--from", tmp_path / "bare", *out)
    minillama.save(model, tmp_path / "other", BPETokenizer.train(TEXT, 300, (END_OF_TEXT,)))
    assert "so it is another model's" in refused(cli, "--from", tmp_path / "other", *out)
    plain = BPETokenizer.train(TEXT, 280, (END_OF_TEXT,))
    huggingface(plain, tmp_path / "no gaps", **FAMILIES["bert"])
    assert "no special token that marks one" in refused(cli, "--from", tmp_path / "no gaps", *out)
    few = CharTokenizer.train("The cat")
    huggingface(few, tmp_path / "few")
    assert "is not among the" in refused(cli, "--from", tmp_path / "few", *out, *data)
    assert not (tmp_path / "run").exists()


def test_a_run_that_went_on_cannot_become_another(tokenizer, tmp_path, text, cli):
    source, _ = huggingface(tokenizer, tmp_path / "source")
    start(source, tmp_path / "run", text, context=16)
    resume = ["--out", tmp_path / "run", "--resume"]
    assert "--from" in refused(cli, *resume, "--from", tmp_path / "else")
    assert "started with --tokenizer of its model, not char" in refused(cli, *resume, "--tokenizer", "char")
    assert "started with --context 16, not 24" in refused(cli, *resume, "--context", 24)
    assert "started with --dim 16, not 8" in refused(cli, *resume, "--dim", 8)
    code, out, _ = cli("train", *resume, "--from", source, "--context", 16)
    assert code == 0 and "at step 0 of 6" in out
    corpus = encode_corpus(text, "char")
    Run.start(tmp_path / "new", Config(corpus.tokenizer.vocab_size, **SHAPE), Settings(steps=2), corpus, 1)
    assert "started with --from nothing" in refused(cli, "--out", tmp_path / "new", "--resume", "--from", source)


def test_a_training_goes_on_from_a_training(tokenizer, tmp_path, text, cli):
    """From a run as from any folder: its weights, a new schedule."""
    source, _ = huggingface(tokenizer, tmp_path / "source")
    first = start(source, tmp_path / "first", text)
    first.train(quiet=True)
    second = start(tmp_path / "first", tmp_path / "second", text, schedule="linear", optimizer="sgd", lr=0.1, warmup=0)
    np.testing.assert_array_equal(second.model.parameters.flat, first.model.parameters.flat)
    assert list(second.optimizer.state) == ["velocity"] and second.step()[2] == pytest.approx(0.1 * (1 - 0.9 / 6))
    second.save()
    assert load_file(tmp_path / "second" / STATE_FILE).keys() == {"weights", "velocity"}
    assert Path(read_state(tmp_path / "second")["origin"]) == (tmp_path / "first").resolve()
