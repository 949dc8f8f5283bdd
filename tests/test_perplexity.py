"""Perplexity: every token once, with the context that its window gives, of files of any length."""

import io
import os
import random
import subprocess
import sys
import threading
from math import exp, isnan, log

import numpy as np
import pytest
from tqdm import tqdm

from minillama import IGNORED, Config, Model, save
from minillama.analysis.perplexity import (
    Score,
    perplexity,
    pseudo_perplexity,
    read_pieces,
    table,
    token_losses,
    token_parts,
    window_batches,
)
from minillama.gradcheck import relative_error
from minillama.tokenizers import END_OF_TEXT, GPT2_PATTERN, MASK, BPETokenizer, CharTokenizer, load_tokenizer
from minillama.weights.quantize import quantize

TEXT = "The cat sat on the mat, and the dog ran. naïve café ☕\n" * 20


@pytest.fixture
def model(rng):
    made = Model(Config(11, dim=12, layers=2, heads=3, context=8), dtype=np.float64)
    made.parameters.flat[:] = rng.standard_normal(made.parameters.flat.size) * 0.5
    return made


@pytest.fixture
def bpe():
    return BPETokenizer.train(TEXT, 290)


def one_by_one(model, ids, context, stride):
    """-log p of each token after the first, from a window of its own."""
    losses = []
    for i in range(1, len(ids)):
        window = max(0, -(-(i - context) // stride))  # the first that predicts token i
        logits = model.logits(ids[None, window * stride : i])[0, -1]
        losses.append(log(np.exp(logits).sum()) - logits[ids[i]])
    return np.array(losses)


@pytest.mark.parametrize("length", [2, 8, 9, 10, 17, 30])
@pytest.mark.parametrize("context, stride", [(8, 8), (8, 4), (8, 3), (8, 1), (5, 2), (1, 1)])
def test_every_token_is_scored_once_in_the_first_window_that_reaches_it(
    context, stride, length, model, each_backend, rng
):
    ids = rng.integers(0, 11, length)
    assert relative_error(token_losses(model, ids, context, stride), one_by_one(model, ids, context, stride)) < 1e-12


def test_a_stride_of_one_gives_every_token_its_own_window(model, each_backend, rng):
    ids = rng.integers(0, 11, 25)
    expected = [model.loss(ids[None, max(0, i - 8) : i], _last(ids[max(0, i - 8) + 1 : i + 1])) for i in range(1, 25)]
    assert relative_error(token_losses(model, ids, stride=1), np.array(expected)) < 1e-12


def _last(targets):
    return np.where(np.arange(len(targets)) == len(targets) - 1, targets, IGNORED)[None]


def test_a_stride_of_context_is_windows_side_by_side(model, each_backend, rng):
    ids = rng.integers(0, 11, 8 * 3 + 5)
    expected = [model.losses(ids[None, a : a + 8][:, : 28 - a], ids[None, a + 1 : a + 9])[0] for a in (0, 8, 16, 24)]
    assert [len(part) for part in expected] == [8, 8, 8, 4]
    assert relative_error(token_losses(model, ids, stride=8), np.concatenate(expected)) < 1e-12


def test_one_window_is_the_models_loss(model, each_backend, rng):
    ids = rng.integers(0, 11, (1, 9))
    loss = model.loss(ids[:, :-1], ids[:, 1:])
    assert abs(token_losses(model, ids[0]).mean() - loss) < 1e-14
    assert abs(loss - model.loss_and_gradients(ids[:, :-1], ids[:, 1:])[0]) < 1e-14


@pytest.mark.parametrize("at_a_time", [1, 16, 40, 10_000])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_sum_does_not_depend_on_batches(at_a_time, threads, model, rng, monkeypatch):
    ids = rng.integers(0, 11, 100)
    expected = token_losses(model, ids, stride=3)
    monkeypatch.setattr("minillama.analysis.perplexity._TOKENS_AT_A_TIME", at_a_time)
    other = Model(model.config, dtype=np.float64, threads=threads)
    other.parameters.flat[:] = model.parameters.flat
    assert relative_error(token_losses(other, ids, stride=3), expected) < 1e-12


def test_windows_do_not_depend_on_the_parts_of_the_stream(rng):
    ids = rng.integers(0, 11, 53)
    for stride in (1, 3, 8):
        (expected,) = [list(window_batches([ids], 8, stride, 4))]
        for _ in range(5):
            cuts = np.sort(rng.integers(0, 54, 6))
            received = list(window_batches(np.split(ids, cuts), 8, stride, 4))
            assert len(received) == len(expected)
            for pair, expected_pair in zip(received, expected, strict=True):
                for array, expected_array in zip(pair, expected_pair, strict=True):
                    np.testing.assert_array_equal(array, expected_array)


def test_a_rotation_that_depends_on_the_length_sees_the_length_of_the_text(rng):
    config = Config(11, dim=12, layers=1, heads=3, context=8, rope_scaling="dynamic", rope_original_context=4)
    model = Model(config, dtype=np.float64, init_std=0.5)
    ids = rng.integers(0, 11, 7)
    expected = model.losses(ids[None, :-1], ids[None, 1:])[0]
    np.testing.assert_allclose(token_losses(model, ids), expected, rtol=1e-13)
    long = rng.integers(0, 11, 8 + 8 + 4)
    expected = [model.losses(long[None, a:b], long[None, a + 1 : b + 1])[0] for a, b in ((0, 8), (8, 16), (16, 19))]
    np.testing.assert_allclose(token_losses(model, long, stride=8), np.concatenate(expected), rtol=1e-13)


@pytest.mark.parametrize("at_a_time", [1, 2**24])
def test_losses_of_some_targets_alone(at_a_time, model, each_backend, rng, monkeypatch):
    monkeypatch.setattr("minillama.model.LOGITS_AT_A_TIME", at_a_time)
    ids, targets = rng.integers(0, 11, (2, 3, 8))
    every = model.losses(ids, targets)
    assert every.shape == (3, 8) and every.dtype == np.float64
    assert abs(every.mean() - model.loss(ids, targets)) < 1e-14
    some = targets.copy()
    some[0, 2:], some[2] = IGNORED, IGNORED
    wanted = some != IGNORED
    assert relative_error(model.losses(ids, some)[wanted], every[wanted]) < 1e-13
    assert not model.losses(ids, some)[~wanted].any()
    assert abs(model.loss(ids, some) - every[wanted].mean()) < 1e-13


def test_score():
    score = Score(nats=6 * log(8), tokens=6, bytes=18)
    assert score.perplexity == pytest.approx(8) and score.byte_perplexity == pytest.approx(2)
    assert score.bits_per_byte == pytest.approx(1)
    assert Score(1e6, 2, 3).perplexity == float("inf")
    lines = table([("a", score), ("longer", Score(6 * log(2), 6, 6))]).split("\n")
    assert [line.split() for line in lines[1:]] == [
        ["a", "6", "18", "8.0000", "2.0000", "2.0794", "1.0000"],
        ["longer", "6", "6", "2.0000", "2.0000", "0.6931", "1.0000"],
        ["all", "12", "24", "4.0000", "2.0000", "1.3863", "1.0000"],
    ]
    assert len(table([("a", score)]).split("\n")) == 2
    assert [line.split()[1] for line in table([("a", score), ("a", score)]).split("\n")[1:]] == ["6", "6", "12"]


def test_the_token_before_a_text_makes_every_token_count(bpe):
    model = Model(Config(bpe.vocab_size, dim=12, layers=1, heads=3, context=16), dtype=np.float64, init_std=0.3)
    ids = np.array([bpe.end_of_text, *bpe.encode("naïve cats")])
    score = perplexity(model, bpe, "naïve cats")
    assert score.tokens == len(ids) - 1 and score.bytes == 11
    assert score.nats == pytest.approx(token_losses(model, ids).sum(), rel=1e-14)
    assert score.perplexity == pytest.approx(exp(model.loss(ids[None, :-1], ids[None, 1:])), rel=1e-13)
    reported = []
    assert perplexity(model, bpe, ["naïve", " cats"], report=lambda tokens: reported.extend(tokens)) == score
    assert reported == ids[1:].tolist()


def test_without_such_a_token_the_first_one_is_not_scored():
    characters = CharTokenizer.train("☕abc")
    model = Model(Config(4, dim=12, layers=1, heads=3, context=16))
    score = perplexity(model, characters, "☕abc")
    assert score.tokens == 3 and score.bytes == 3
    assert perplexity(model, characters, ["", "☕", "abc"]) == score
    with pytest.raises(ValueError, match="the text has 1, too few"):
        perplexity(model, characters, "a")


def test_a_special_token_in_a_text_is_text_but_the_mark_between_documents(bpe):
    model = Model(Config(bpe.vocab_size, dim=12, layers=1, heads=3, context=16), init_std=0.3)
    two = perplexity(model, bpe, f"the cat{END_OF_TEXT}the dog")
    ids = [bpe.end_of_text, *bpe.encode("the cat"), bpe.end_of_text, *bpe.encode("the dog")]
    assert two.tokens == len(ids) - 1 and two.bytes == 14
    assert two.nats == pytest.approx(float(token_losses(model, ids).sum()), rel=1e-6)
    other = CharTokenizer.train("<|endoftxmask>", ("<|mask|>",))
    small = Model(Config(other.vocab_size, dim=12, layers=1, heads=3, context=32))
    assert perplexity(small, other, f"{END_OF_TEXT}<|mask|>").tokens == 13 + 8 - 1


@pytest.mark.parametrize("size", [16, 64, 1000])
@pytest.mark.parametrize("pattern", [None, GPT2_PATTERN])
def test_a_file_in_pieces_has_the_tokens_of_the_whole(size, pattern, tmp_path):
    source = random.Random(size)
    words = ["the", "The", "cat's", "42", "7", "naïve", "☕", "don't", "...", "猫", "x=1;", '"', "café,", "I'll"]
    spaces = [" "] * 12 + ["\n"] * 3 + ["  ", "\n\n", "\t", " \n", "\n ", "\n  \n", "\u00a0"]
    text = "".join(source.choice(words) + source.choice(spaces) for _ in range(3000))
    kind = {} if pattern is None else {"pattern": pattern}
    tokenizer = BPETokenizer.train(text, 500, **kind)
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    pieces = list(read_pieces(path, size))
    assert "".join(pieces) == text and len(pieces) > len(text) / size / 3
    ids, sizes = zip(*token_parts(tokenizer, pieces), strict=True)
    np.testing.assert_array_equal(np.concatenate(ids), tokenizer.encode(text))
    assert sum(sizes) == len(text.encode())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_file_is_read_as_training_data_is(size, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbf\xef\xbb\xbfna\xc3\xafve\r\ncaf\xc3\xa9 \xe2\x98\x95\r\r\n\r")
    assert "".join(read_pieces(path, size)) == "\ufeffnaïve\ncafé ☕\r\n\r"


def test_files_that_cannot_be_read(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="text.txt is empty"):
        list(read_pieces(path))
    path.write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(ValueError, match="text.txt is empty"):
        list(read_pieces(path))
    for size in (1, 4, 1000):
        path.write_bytes("naïve ☕".encode() + b"\xff more")
        with pytest.raises(ValueError, match=r"not UTF-8: byte 0xff at position 10\. Save it as UTF-8"):
            list(read_pieces(path, size))
        path.write_bytes("naïve ☕".encode()[:-1])
        with pytest.raises(ValueError, match=r"not UTF-8: byte 0xe2 at position 7"):
            list(read_pieces(path, size))


def test_a_long_file_is_read_a_piece_at_a_time(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT * 2000, encoding="utf-8")
    pieces = read_pieces(path)
    assert len(next(pieces)) < 2**20 + 4 < path.stat().st_size / 2


def test_memory_does_not_grow_with_the_stream():
    """Of a stream without end, one part and one batch are held."""

    def parts():
        while True:
            yield np.zeros(1000, np.int32)

    batches = window_batches(parts(), 8, 4, 16)
    for _ in range(5000):
        ids, targets = next(batches)
    assert ids.shape == targets.shape == (16, 8)
    assert len(batches.gi_frame.f_locals["rest"]) < 1100
    assert batches.gi_frame.f_locals["rest"].base is None or batches.gi_frame.f_locals["rest"].base.size < 1100


@pytest.mark.parametrize(
    "windows, words",
    [
        (dict(context=0), r"context must lie in \[1, 8\].*received 0"),
        (dict(context=9), r"context must lie in \[1, 8\].*received 9"),
        (dict(stride=9), r"stride must lie in \[1, 8\].*received 9"),
        (dict(stride=0), r"stride must lie in \[1, 8\].*received 0"),
        (dict(context=4, stride=5), r"stride must lie in \[1, 4\].*received 5"),
    ],
)
def test_impossible_windows(windows, words, model):
    with pytest.raises(ValueError, match=words):
        token_losses(model, np.array([1, 2, 3]), **windows)


def test_a_model_that_reads_both_ways_has_no_perplexity(bpe):
    model = Model(Config(bpe.vocab_size, dim=12, layers=1, heads=3, context=16, mask="bidirectional"))
    with pytest.raises(ValueError, match="'bidirectional' reads what comes after a token too"):
        perplexity(model, bpe, "the cat")


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("at_a_time", [1, 10, 4096])
def test_pseudo_perplexity_hides_each_token_in_turn(begins, at_a_time, each_backend, monkeypatch):
    monkeypatch.setattr("minillama.analysis.perplexity._TOKENS_AT_A_TIME", at_a_time)
    special = (MASK, END_OF_TEXT) if begins else (MASK,)
    tokenizer = CharTokenizer.train("abcdé", special)
    config = Config(tokenizer.vocab_size, dim=12, layers=1, heads=3, context=6, mask="bidirectional", token_types=2)
    model = Model(config, dtype=np.float64, init_std=0.3)
    text, nats = "abcdébcdadcéba", 0.0
    for window in ["abcdé", "bcdad", "céba"] if begins else ["abcdéb", "cdadcé", "ba"]:
        ids = [*([tokenizer.end_of_text] if begins else []), *tokenizer.encode(window)]
        for i in range(begins, len(ids)):
            logits = model.logits(np.array([[*ids[:i], tokenizer.mask_token, *ids[i + 1 :]]]))[0, i]
            nats += log(np.exp(logits).sum()) - logits[ids[i]]
    reported = []
    score = pseudo_perplexity(model, tokenizer, [text[:4], text[4:]], report=lambda tokens: reported.extend(tokens))
    assert score.tokens == 14 and score.bytes == 16 and score.nats == pytest.approx(nats, rel=1e-12)
    assert reported == tokenizer.encode(text).tolist()


def test_pseudo_perplexity_is_of_models_that_fill_gaps(bpe):
    shape = dict(dim=12, layers=1, heads=3, context=16)
    with pytest.raises(ValueError, match="it has a perplexity"):
        pseudo_perplexity(Model(Config(bpe.vocab_size, **shape)), bpe, "the cat")
    model = Model(Config(bpe.vocab_size, **shape, mask="bidirectional"))
    with pytest.raises(ValueError, match="no token that marks a gap"):
        pseudo_perplexity(model, bpe, "the cat")
    masked = CharTokenizer.train("abc", (MASK, END_OF_TEXT))
    model = Model(Config(masked.vocab_size, **shape, mask="bidirectional"))
    with pytest.raises(ValueError, match="a context of 1 has no room"):
        pseudo_perplexity(model, masked, "abc", context=1)
    with pytest.raises(ValueError, match="no token to score"):
        pseudo_perplexity(model, masked, "")


def test_the_command(cli, bpe, tmp_path):
    model = Model(Config(bpe.vocab_size, dim=64, layers=1, heads=2, context=16), init_std=0.3)
    save(model, tmp_path / "model", bpe)
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    a.write_text(TEXT, encoding="utf-8")
    b.write_text("the cat", encoding="utf-8")
    code, out, _ = cli("perplexity", tmp_path / "model", a, b, "--context", 12, "--stride", 5)
    scores = [(str(path), perplexity(model, bpe, path.read_text(encoding="utf-8"), 12, 5)) for path in (a, b)]
    assert code == 0 and out.startswith(table(scores) + "\n\nwindows of 12 tokens, 5 apart: ")
    assert out.endswith("scored by up to 12 tokens before it, and by at least 8 after the first window\n")
    assert len(out.split("\n")) == 7
    code, out, _ = cli("perplexity", tmp_path / "model", b, b, "--context", 12, "--stride", 5)
    assert code == 0 and out.startswith(table([scores[1], scores[1]]) + "\n\n")  # once for each time it is named
    code, out, _ = cli("perplexity", tmp_path / "model", b, "--int8")
    expected = perplexity(quantize(model), bpe, "the cat", 16, 8)
    assert code == 0 and out.startswith(table([(str(b), expected)]))
    assert 1e-6 < abs(expected.nats / perplexity(model, bpe, "the cat").nats - 1) < 0.1

    b.write_bytes(b"")
    code, out, err = cli("perplexity", tmp_path / "model", a, b)
    assert code == 1 and "b.txt is empty" in err and "%|" not in err  # before a is scored
    b.write_bytes(b"abc\xff")
    assert "not UTF-8: byte 0xff at position 3" in cli("perplexity", tmp_path / "model", b)[2]
    code, _, err = cli("perplexity", tmp_path / "model", tmp_path / "missing.txt")
    assert code == 1 and err == f"minillama: error: there is no file {tmp_path / 'missing.txt'}\n"
    code, _, err = cli("perplexity", tmp_path / "model", tmp_path)
    assert code == 1 and err == f"minillama: error: {tmp_path} is a folder; name its files\n"
    code, _, err = cli("perplexity", tmp_path / "model", a, "--stride", 17)
    assert code == 1 and "stride must lie in [1, 16]" in err


@pytest.mark.parametrize("stride, fewest", [(16, 1), (8, 9), (1, 16)])
def test_the_command_tells_the_fewest_tokens_before_one(stride, fewest, cli, bpe, tmp_path, rng):
    save(Model(Config(bpe.vocab_size, dim=16, layers=1, heads=2, context=16)), tmp_path / "model", bpe)
    (tmp_path / "a.txt").write_text("the cat", encoding="utf-8")
    _, out, _ = cli("perplexity", tmp_path / "model", tmp_path / "a.txt", "--stride", stride)
    assert f"up to 16 tokens before it, and by at least {fewest} after the first window" in out
    windows = [targets[0] for _, targets in window_batches([rng.integers(0, 11, 60)], 16, stride, 1)]
    first, *others = (np.flatnonzero(targets != IGNORED)[0] + 1 for targets in windows)
    assert first == 1 and set(others) == {fewest}


def test_the_bar_ends_at_the_end_of_the_file(cli, tmp_path, monkeypatch):
    seen = []

    class Bar(tqdm):
        def update(self, n=1):
            super().update(n)
            seen.append(self.n)

    monkeypatch.setattr("tqdm.tqdm", Bar)
    words = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "a", ","]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path / "vocab.txt")
    save(Model(Config(tokenizer.vocab_size, dim=16, layers=1, heads=2, context=8)), tmp_path / "model", tokenizer)
    path = tmp_path / "a.txt"
    path.write_text("a,b," * 2000, encoding="utf-8")
    assert len(tokenizer.decode_bytes(tokenizer.encode("a,b,"))) > 4
    assert cli("perplexity", tmp_path / "model", path)[0] == 0
    assert 1 < len(seen) and seen == sorted(seen) and seen[-1] == path.stat().st_size


def test_the_command_for_a_model_that_fills_gaps(cli, tmp_path):
    tokenizer = BPETokenizer.train(TEXT, 290, (END_OF_TEXT, MASK))
    model = Model(Config(tokenizer.vocab_size, dim=16, layers=1, heads=2, context=16, mask="bidirectional"))
    save(model, tmp_path / "model", tokenizer)
    path = tmp_path / "a.txt"
    path.write_text("the cat sat on the mat", encoding="utf-8")
    code, _, err = cli("perplexity", tmp_path / "model", path)
    assert code == 1 and "pseudo-perplexity (--pseudo)" in err
    code, out, _ = cli("perplexity", tmp_path / "model", path, "--pseudo", "--context", 5)
    expected = pseudo_perplexity(model, tokenizer, "the cat sat on the mat", 5)
    assert code == 0 and out.startswith(table([(str(path), expected)]) + "\n\npseudo-perplexity")
    code, _, err = cli("perplexity", tmp_path / "model", path, "--pseudo", "--stride", 5)
    assert code == 1 and "leave --stride out" in err


# Inputs that can be read once


def reference(model, ids, context, stride):
    """nats of the tokens after the first: a LLaMA in float64, with none of minillama's functions"""
    w = {name: np.asarray(array, np.float64) for name, array in model.parameters.items()}
    H, C = model.config.heads, model.config.dim
    D = C // H
    frequencies = model.config.rope_theta ** (-np.arange(0, D, 2) / D)

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + model.config.norm_eps) * weight

    def rotated(x, positions):
        cos, sin = np.cos(positions[:, None] * frequencies)[:, None], np.sin(positions[:, None] * frequencies)[:, None]
        a, b = x[..., : D // 2], x[..., D // 2 :]
        return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)

    def last_logits(tokens):
        x, positions = w["embedding"][tokens], np.arange(len(tokens))
        future = np.triu(np.full((len(tokens), len(tokens)), -np.inf), 1)
        for i in range(model.config.layers):
            h = norm(x, w[f"blocks.{i}.attention_norm"])
            q, k, v = ((h @ w[f"blocks.{i}.w_{name}"].T).reshape(len(tokens), H, D) for name in "qkv")
            scores = np.einsum("qhd,khd->hqk", rotated(q, positions), rotated(k, positions)) / np.sqrt(D) + future
            p = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed = np.einsum("hqk,khd->qhd", p / p.sum(axis=-1, keepdims=True), v).reshape(len(tokens), C)
            x = x + mixed @ w[f"blocks.{i}.w_o"].T
            h = norm(x, w[f"blocks.{i}.ffn_norm"])
            gate = h @ w[f"blocks.{i}.w_gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w[f"blocks.{i}.w_up"].T)) @ w[f"blocks.{i}.w_down"].T
        return norm(x[-1], w["final_norm"]) @ w["output"].T

    nats = 0.0
    for i in range(1, len(ids)):
        first = max(0, -(-(i - context) // stride)) * stride
        logits = last_logits(ids[first:i])
        nats += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[ids[i]]
    return nats


@pytest.fixture
def scored(bpe, tmp_path):
    """A folder of a model, a text of several pieces, and the line of its score, from the sum by the reference."""
    model = Model(Config(bpe.vocab_size, dim=16, layers=2, heads=2, context=16), init_std=0.4, threads=1)
    save(model, tmp_path / "model", bpe)
    text = TEXT[:900]
    ids = np.array([bpe.begin_of_text, *bpe.encode(text, special=False)])
    nats = reference(model, ids, 16, 8)
    score = perplexity(model, bpe, text)
    assert score.tokens == len(ids) - 1 and score.bytes == len(text.encode()) and abs(score.nats / nats - 1) < 1e-6
    assert abs(score.perplexity / exp(nats / (len(ids) - 1)) - 1) < 1e-5
    return tmp_path / "model", text, score


def line(name, score):
    return table([(str(name), score)]) + "\n\n"


@pytest.fixture(autouse=True)
def small_pieces(request, monkeypatch):
    """A text of a few hundred bytes is read as a file of megabytes is, piece after piece."""
    if "scored" in request.fixturenames:
        monkeypatch.setattr(read_pieces, "__defaults__", (100,))


def feed(path, data):
    """Write to a pipe, as the other program does that a shell has started."""

    def write():
        with open(path, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_has_the_perplexity_of_its_text(cli, scored, tmp_path):
    folder, text, score = scored
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    assert cli("perplexity", folder, tmp_path / "a.txt")[1].startswith(line(tmp_path / "a.txt", score))
    pipes = [tmp_path / "one", tmp_path / "two"]
    for pipe in pipes:
        os.mkfifo(pipe)
    writers = [feed(pipe, text.encode()) for pipe in pipes]
    code, out, err = cli("perplexity", folder, pipes[0], tmp_path / "a.txt", pipes[1])
    names = [pipes[0], tmp_path / "a.txt", pipes[1]]
    assert code == 0 and out.startswith(table([(str(name), score) for name in names]) + "\n\n")
    for writer in writers:
        writer.join(30)
    writer = feed(pipes[0], b"")
    assert "one is empty" in cli("perplexity", folder, pipes[0])[2]
    writer.join(30)
    writer = feed(pipes[0], text.encode())
    code, _, err = cli("perplexity", folder, pipes[0], pipes[0])
    assert code == 1 and "one is no file but a pipe, which can be read once; it is named twice" in err
    writer.join(30)


def test_standard_input_has_the_perplexity_of_its_text(cli, scored, monkeypatch):
    folder, text, score = scored

    def stdin():
        return io.TextIOWrapper(io.BytesIO(text.encode()))

    monkeypatch.setattr(sys, "stdin", stdin())
    assert cli("perplexity", folder, "-")[1].startswith(line("-", score))
    assert not sys.stdin.buffer.closed
    monkeypatch.setattr(sys, "stdin", stdin())
    assert "- is no file but a pipe, which can be read once; it is named twice" in cli("perplexity", folder, *"--")[2]
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in cli("perplexity", folder, "-")[2]


@pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="there is no /dev/stdin")
@pytest.mark.parametrize("redirected", ["pipe", "file"])
def test_dev_stdin_of_a_process(scored, redirected, tmp_path):
    folder, text, _ = scored
    text *= 3000  # more than a piece, more than a pipe holds
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    command = [sys.executable, "-c", COUNT, "/dev/stdin"]
    with open(tmp_path / "a.txt", "rb") as file:
        given = {"stdin": file} if redirected == "file" else {"input": text.encode()}
        done = subprocess.run(command, capture_output=True, timeout=120, **given)
    assert done.stdout.split() == [str(len(text.encode())).encode()], done.stderr


COUNT = """
import sys
from minillama.analysis.perplexity import check_readable
for _, _, pieces in check_readable(sys.argv[1:]):
    print(sum(len(piece.encode()) for piece in pieces))
"""


def test_marks_alone_have_no_byte(cli, scored, tmp_path, bpe):
    folder, text, score = scored
    (tmp_path / "a.txt").write_text(END_OF_TEXT * 3, encoding="utf-8")
    (tmp_path / "b.txt").write_text(text, encoding="utf-8")
    code, out, _ = cli("perplexity", folder, tmp_path / "a.txt", tmp_path / "b.txt")
    marks, plain, both = (line.split()[1:] for line in out.split("\n")[1:4])
    assert code == 0 and marks[:2] == ["3", "0"] and marks[3] == marks[5] == "-" and "-" not in plain + both
    alone = Score(6.0, 3, 0)
    assert alone.perplexity == exp(2) and isnan(alone.byte_perplexity) and isnan(alone.bits_per_byte)
    assert int(both[1].replace(",", "")) == score.bytes and int(both[0].replace(",", "")) == score.tokens + 3
