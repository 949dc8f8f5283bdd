"""Texts with a word in a known place, and what is measured of the heads that may read it."""

from types import SimpleNamespace

import numpy as np
import pytest

import minillama
from minillama import Config, Model
from minillama.analysis.trace import prompt_ids, trace
from minillama.lessons import trained_heads
from minillama.lessons.notebooks import FOLDER

KINDS = tuple(trained_heads.SOUGHT)


@pytest.fixture(scope="module")
def loaded():
    return minillama.load(FOLDER / "data" / "stories260K.bin", dtype="float64")


@pytest.fixture
def untaught(loaded):
    """A model of the same vocabulary whose queries are 0: every head reads all tokens alike."""
    config = Config(loaded[0].config.vocab_size, dim=16, layers=2, heads=2, context=128)
    model = Model(config, seed=0, dtype=np.float64, threads=1)
    for i in range(config.layers):
        model.parameters[f"blocks.{i}.w_q"][:] = 0
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_word_stands_where_it_is_said_to(loaded, kind):
    model, tokenizer = loaded
    words = trained_heads.SOUGHT[kind][1]
    found = trained_heads.texts(model, tokenizer, kind, words, seed=3, each=2)
    assert len(found) == 2 * len(words)
    for word, (ids, at) in zip(np.repeat(words, 2), found, strict=True):
        assert tokenizer.decode(ids[at]).strip() == word
        assert tokenizer.decode(ids).split().count(word) + tokenizer.decode(ids).count(f"{word}.") == 1
        assert at.stop < len(ids) - 5  # not just read


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_a_seed_are_always_the_same_and_others_differ(loaded, kind):
    words = trained_heads.word_groups(kind)[0]
    first, again, other = (
        [t.ids.tolist() for t in trained_heads.texts(*loaded, kind, words, seed)] for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize("kind", KINDS)
def test_no_word_chooses_and_judges(kind):
    words, (sought, judging) = trained_heads.SOUGHT[kind][1], trained_heads.word_groups(kind)
    assert not set(sought) & set(judging) and sorted(sought + judging) == sorted(words)
    assert abs(len(sought) - len(judging)) <= 1


def test_girls_and_boys_choose_and_judge():
    for group in trained_heads.word_groups("name"):
        assert len(set(group) & set(trained_heads._GIRLS)) == len(set(group) & set(trained_heads._BOYS)) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_heads_that_read_all_alike_are_at_the_level_of_chance(loaded, untaught, kind):
    words = trained_heads.word_groups(kind)[0]
    shares = trained_heads.word_shares(untaught, loaded[1], kind, words, each=2)
    assert shares.shape == (len(words), 2, 2)
    even = trained_heads.even_share(untaught, loaded[1], kind, words, each=2)
    np.testing.assert_allclose(shares.mean(axis=0), even, rtol=1e-12)
    assert 0.03 < even < 0.2


def test_the_first_token_gets_its_even_share_of_heads_that_read_all_alike(loaded, untaught):
    ids = prompt_ids(untaught, loaded[1], "Once upon a time there was a cat")
    for start in (0, 1, 5):
        even = trained_heads.even_first_share(len(ids), start)
        np.testing.assert_allclose(trained_heads.first_token_shares(untaught, ids, start), even, rtol=1e-12)
    assert trained_heads.even_first_share(3, 1) == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_a_share_is_what_the_last_token_reads_of_the_word(loaded):
    model, tokenizer = loaded
    found = trained_heads.texts(model, tokenizer, "colour", ["blue", "red"], seed=5, each=3)
    shares = trained_heads.word_shares(model, tokenizer, "colour", ["blue", "red"], seed=5, each=3)
    blue = [trace(model, t.ids).attention[4, 2, -1, t.at.start : t.at.stop].sum() for t in found[:3]]
    assert shares[0, 4, 2] == pytest.approx(np.mean(blue), rel=1e-12)


def test_the_best_head_is_that_of_the_largest_mean():
    shares = np.zeros((3, 2, 4))
    shares[:, 1, 2], shares[0, 0, 3] = 0.5, 0.9
    assert trained_heads.best_head(shares) == (1, 2)


def test_texts_side_by_side_have_the_probabilities_of_each_alone(loaded):
    model, tokenizer = loaded
    words = ["red", "yellow"]
    together = trained_heads.word_probabilities(model, tokenizer, "colour", words, seed=2, each=3)
    alone = []
    for ids, at in trained_heads.texts(model, tokenizer, "colour", words, seed=2, each=3):
        logits = model.logits(ids[None])[0, -1]
        alone.append(np.exp(logits[ids[at.start]]) / np.exp(logits).sum())
    np.testing.assert_allclose(together, np.reshape(alone, (2, 3)).mean(axis=1), rtol=1e-10)


def test_a_head_that_is_taken_away_comes_back_whatever_happens(loaded):
    model, tokenizer = loaded
    ids = prompt_ids(model, tokenizer, "Once upon a time")
    before, w_o = model.logits(ids[None]).copy(), model.parameters["blocks.4.w_o"].copy()
    with pytest.raises(KeyError), trained_heads.without(model, 4, 3):
        changed = model.parameters["blocks.4.w_o"]
        assert not changed[:, 24:32].any()
        np.testing.assert_array_equal(np.delete(changed, range(24, 32), axis=1), np.delete(w_o, range(24, 32), axis=1))
        assert np.abs(model.logits(ids[None]) - before).max() > 1e-3
        raise KeyError
    np.testing.assert_array_equal(model.logits(ids[None]), before)


def test_what_a_head_does_not_write_is_not_missed(loaded, untaught):
    """Taking a head away is not taking its values away from other heads of its group."""
    model, tokenizer = loaded
    ids = prompt_ids(model, tokenizer, "Once upon a time")
    maps = trace(model, ids).attention[0].copy()
    with trained_heads.without(model, 0, 0):
        np.testing.assert_array_equal(trace(model, ids).attention[0], maps)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model, tokenizer: trained_heads.word_groups("colors"), "colour"),
        (lambda *loaded: trained_heads.word_shares(*loaded, "colour", ["mauve"]), "mauve"),
        (lambda model, tokenizer: trained_heads.first_token_shares(model, [1, 2, 3], 3), "queries 0 to 2"),
        (lambda model, tokenizer: trained_heads.even_first_share(3, -1), "received start -1"),
        (lambda model, tokenizer: trained_heads.without(model, 0, 8).__enter__(), "heads 0 to 7; .* head 8"),
        (lambda model, tokenizer: trained_heads.without(model, 0, -1).__enter__(), "heads 0 to 7; .* head -1"),
        (lambda model, tokenizer: trained_heads.without(model, 5, 0).__enter__(), "layers are 0 to 4 .* layer 5"),
    ],
)
def test_what_cannot_be_is_said(loaded, call, words):
    with pytest.raises(ValueError, match=words):
        call(*loaded)


def test_a_tokenizer_that_joins_words_is_refused(loaded):
    whole = SimpleNamespace(begin_of_text=None, end_of_text=None, vocab_size=512, encode=lambda text: [len(text)])
    with pytest.raises(ValueError, match="has no place of its own"):
        trained_heads.texts(loaded[0], whole, "name", ["Lily"], each=1)
