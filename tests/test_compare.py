"""LLaMA, GPT and BERT side by side: what is measured is what it says."""

import json
from itertools import pairwise

import numpy as np
import pytest

from minillama import Config, Model
from minillama.__main__ import main
from minillama.catalogue.presets import FAMILIES, tiny
from minillama.data import stories
from minillama.data.corpora import EncodedCorpus
from minillama.experiments import abilities, families, jobs
from minillama.tokenizers import END_OF_TEXT, MASK, CharTokenizer
from minillama.training.trainer import NotFinite, Trainer

TEXT = "to be or not to be, that is the question. " * 400


class Oracle:
    """A model of a text in which every letter is followed by the next one of the alphabet."""

    def __init__(self, causal, letters, special=2.0):
        mask = "causal" if causal else "bidirectional"
        self.config, self.letters, self.special = Config(letters + 2, context=100, mask=mask), letters, special

    def logits(self, ids):
        logits = np.zeros((*ids.shape, self.config.vocab_size), np.float32)
        if self.config.causal:
            guess = (ids + 1) % self.letters
        else:  # from the right-hand neighbour alone, which a causal model does not see
            guess = (np.roll(ids, -1, axis=1) - 1) % self.letters
        np.put_along_axis(logits, guess[..., None], 1, axis=-1)
        logits[..., self.letters :] = self.special  # of which none is the answer
        return logits


def alphabet(tokens):
    tokenizer = CharTokenizer.train("abcdefgh", (END_OF_TEXT, MASK))
    tokens = np.asarray(tokens, np.int32)
    return EncodedCorpus(tokenizer, tokens, tokens, len(tokens), None, "", {"data": "text"})


@pytest.mark.parametrize("causal", [True, False])
def test_gaps_are_filled_from_the_side_that_a_model_sees(causal):
    share = abilities.gap_accuracy(Oracle(causal, 8), alphabet(np.arange(500) % 8), 6)
    last = 1 / 5  # of the gaps stand last in their window; what follows them is not seen
    assert share == 1 if causal else abs(share - (1 - last)) < 0.03


def test_gaps_stand_at_ordinary_tokens_only(monkeypatch):
    monkeypatch.setattr(abilities, "GAPS", 200)
    corpus = alphabet(np.where(np.arange(100) % 5 == 0, 8, np.arange(100) % 8))  # a text ends before every fourth token
    seen = []

    class Watcher(Oracle):
        def logits(self, ids):
            seen.append((np.count_nonzero(ids == 9, axis=1), np.count_nonzero(ids == 8, axis=1)))
            return super().logits(ids)

    for width in (2, 5, 100):
        seen.clear()
        abilities.gap_accuracy(Watcher(False, 8), corpus, width)
        gaps, ends = (np.concatenate(counts) for counts in zip(*seen, strict=True))
        assert len(gaps) == 200 and (gaps == 1).all()  # a gap in every window
        if width >= 5:
            assert (ends == width // 5).all()  # and none in the place of an end


@pytest.mark.parametrize("tokens", [[8, 0, 1, 2, 8, 3, 4, 8], [0, 1, 8, 2], [8, 5]])
def test_gaps_of_a_short_text_are_shown_at_ordinary_tokens(tokens):
    shown = abilities.filled_text(Oracle(False, 8, special=0.0), alphabet(tokens))
    ordinary = sum(token < 8 for token in tokens)
    assert shown.count("[") == shown.count("]") == min(6, ordinary)
    assert f"[{END_OF_TEXT}" not in shown and MASK not in shown
    assert shown.count(END_OF_TEXT) == sum(token == 8 for token in tokens[tokens[0] == 8 :])


def story(seed=5):
    return stories.tell_story(np.random.Generator(np.random.PCG64(seed)))[0]


def test_characters_told_end_at_the_first_mistake():
    text = story()
    assert abilities.characters_told(text) == (len(text), False)
    assert abilities.characters_told("no story") == (0, True)
    characters, mistake = abilities.characters_told(text[:100] + "#" + text[101:])
    assert mistake and 60 < characters <= 100
    assert abilities.characters_told(text + " The end.") == (len(text), True)


def test_an_early_end_is_a_mistake_of_the_writer_but_not_of_the_context():
    text = story()
    for length in range(0, len(text), 7):
        characters, mistake = abilities.characters_told(text[:length], ended=True)
        assert mistake and characters <= length
        assert abilities.characters_told(text[:length], ended=False) == (length, False)
    wrong = text[:100] + "#"
    assert abilities.characters_told(wrong, ended=False) == abilities.characters_told(wrong)


def test_stories_are_judged_by_their_mistakes():
    good, other = story(5), story(6)
    wrong = good[:100] + "#" + good[101:]
    before, _ = abilities.characters_told(wrong)
    judged = abilities.judge([(good, True), (other, True), (wrong, True), (good[:50], False)])
    assert judged == {
        "count": 4,
        "complete": 2,
        "mistakes": 1,
        "characters": len(good) + len(other) + before + 50,
    }
    # Fewer mistakes never look worse, however short the stories are.
    worse = [wrong, wrong, wrong]
    scores = []
    for i in range(3):
        found = abilities.judge([(text, True) for text in [good] * i + worse[i:]])
        scores.append(found["characters"] / found["mistakes"])
    assert all(low < high for low, high in pairwise(scores))


def row(family, seed, told, loss=0.5):
    """A row of the table with made-up results."""
    config = tiny(family, 300, 16)
    facts = {"family": family, "seed": seed, "lr": 1e-3, "parameters": 1000, "predicted_tokens_a_step": 128}
    facts |= {"config": json.loads(json.dumps(config.to_dict())), "floor_per_character": None, "loss": loss}
    if loss is None:
        return facts
    return facts | {
        "loss_per_character": loss if config.causal else None,
        "gaps": {"8": 0.25},
        "seconds": 1.0,
        "stories": dict(zip(("count", "complete", "mistakes", "characters"), told, strict=True)) if told else None,
    }


def cells(rows):
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in families.table(rows).splitlines()]
    return {line[0]: line[1:] for line in lines}


def test_the_table_has_means_with_intervals_and_says_what_a_model_is_not_asked_for():
    rows = [row("llama", 0, (40, 30, 10, 8000), 0.5), row("llama", 1, (40, 20, 20, 8000), 0.7)]
    rows += [row("gpt2", 0, (40, 40, 0, 9000)), row("gpt2", 1, (40, 39, 1, 9000), None)]
    rows += [row("bert", 0, None, 2.0), row("bert", 1, None, 2.0)]
    found = cells(rows)
    assert found["2 seeds"] == ["LLaMA", "GPT-2", "BERT"]
    assert found["reads"] == ["what comes before", "what comes before", "both sides"]
    assert found["is trained to predict"] == ["the next token", "the next token", "hidden tokens, 15%"]
    assert found["writes text"] == ["yes", "yes", "no"]
    assert found["fills a gap from both sides"] == ["no", "no", "yes"]
    assert found["trainings that did not diverge"] == ["2 of 2", "1 of 2", "2 of 2"]
    # 12.706, Student's quantile for one degree of freedom, times 0.1414 / sqrt(2)
    assert found["next token, nats per character"] == ["0.6000 (-0.6706 to 1.8706)", "0.5000", "-"]
    assert found["hidden token, nats per token"] == ["-", "-", "2.0000 (2.0000 to 2.0000)"]
    told = found["characters told for each mistake"]
    assert told[0].startswith("600 (") and told[1:] == ["no mistake in 40 stories", "-"]
    assert found["stories complete and without a mistake"][1:] == ["100.0%", "-"]
    beyond = found["beyond it"]
    assert beyond[0].startswith("reads on") and beyond[1] == beyond[2] and beyond[1].startswith("refused")


def test_the_table_of_a_family_that_diverged_and_of_a_text_that_is_no_story():
    rows = [row("llama", 0, None), row("gpt2", 0, None, None), row("bert", 0, None)]
    found = cells(rows)
    assert found["next token, nats per character"] == ["0.5000", "diverged", "-"]
    assert not [title for title in found if "stories" in title or "mistake" in title]


def test_characters_a_mistake_of_all_seeds_together_where_one_has_no_mistake():
    rows = [row("llama", 0, (40, 40, 0, 9000)), row("llama", 1, (40, 38, 2, 8000))]
    rows += [row(family, seed, None) for family in ("gpt2", "bert") for seed in (0, 1)]
    assert cells(rows)["characters told for each mistake"][0].startswith("8500 (2 of 80 stories")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The command line on a small text with few gaps; returns the exit code."""
    monkeypatch.setattr(abilities, "GAPS", 50)
    monkeypatch.setattr(families, "WINDOWS", (4, 8))
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")

    def run(*options, data="text.txt"):
        fixed = ["--steps", "2", "--context", "16", "--threads", "1", "--out", str(tmp_path / "rows.jsonl")]
        return main(["compare", str(tmp_path / data), *fixed, *options])

    return run


def read_rows(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]


def test_three_families_side_by_side(small, tmp_path, capsys, monkeypatch):
    assert small("--seeds", "2") == 0
    out = capsys.readouterr().out
    assert "| 2 seeds | LLaMA | GPT-2 | BERT |" in out and "4K-128K" in out
    rows = read_rows(tmp_path)
    runs = [row for row in rows if row["kind"] == jobs.RUN]
    assert [(row["family"], row["seed"]) for row in runs] == [(f, s) for f in families.TITLES for s in (0, 1)]
    for row in runs:
        tried = {r["lr"]: r["loss"] for r in rows if r["kind"] == jobs.TUNING and r["family"] == row["family"]}
        assert len(tried) >= 3 and row["lr"] == min(tried, key=tried.get)
        assert {r["seed"] for r in rows if r["kind"] == jobs.TUNING} == {jobs.TUNING_SEED}
        assert row["gaps"].keys() == {"4", "8"} and all(0 <= share <= 1 for share in row["gaps"].values())
        assert 0 < row["loss"] < 8 and row["seconds"] > 0 and row["steps"] == 2 and row["stories"] is None
        config, tokens = row["config"], 8 * 16
        causal = config["mask"] == "causal"
        assert causal == (row["loss_per_character"] is not None)
        assert row["predicted_tokens_a_step"] == tokens if causal else 0 < row["predicted_tokens_a_step"] < tokens / 3
        assert row["parameters"] == Model(Config.from_dict(config)).parameters.flat.size
        assert row["text"] if causal else row["text"].count("[") == 6
    parameters = [row["parameters"] for row in runs]
    assert max(parameters) / min(parameters) < 1.01

    # What is there is not done again, also where the last line was cut off; another seed is added.
    file = tmp_path / "rows.jsonl"
    file.write_text(file.read_text(encoding="utf-8") + '{"kind": "ru', encoding="utf-8")
    monkeypatch.setattr(Trainer, "step", None)  # no step can be made
    assert small("--seeds", "2") == 0 and read_rows(tmp_path) == rows
    assert "| 2 seeds |" in capsys.readouterr().out
    assert small("--seeds", "1") == 0
    assert "| 1 seeds |" in capsys.readouterr().out

    # Nothing is added to rows that were made on other terms or with another text.
    assert small("--steps", "3") == 1
    assert "steps 2, not 3" in capsys.readouterr().err
    (tmp_path / "text.txt").write_text(TEXT + "another", encoding="utf-8")
    assert small() == 1
    assert "another text" in capsys.readouterr().err
    assert read_rows(tmp_path) == rows


def test_one_learning_rate_for_all(small, tmp_path, capsys):
    assert small("--seeds", "1", "--untuned", "--lr", "0.002") == 0
    rows = read_rows(tmp_path)
    assert [(row["kind"], row["lr"]) for row in rows] == [(jobs.RUN, 0.002)] * 3
    assert "Learning rate: 0.002 for all, not tuned." in capsys.readouterr().out
    assert small("--seeds", "1") == 1  # rows of other terms
    assert "rates [1.0], not [0.5, 1.0, 2.0]" in capsys.readouterr().err


def test_what_cannot_be_done_is_said_before_anything_is_trained(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Trainer, "step", None)

    def refused(*options, **rest):
        assert small(*options, **rest) == 1
        return capsys.readouterr().err

    assert "seeds must be at least 1; received 0" in refused("--seeds", "0")
    assert "smallest window around a gap, 4 tokens; received 3" in refused("--context", "3")
    (tmp_path / "short.txt").write_text("a bee sees a tree. " * 20, encoding="utf-8")
    assert "use more text or a smaller --context" in refused("--context", "64", data="short.txt")
    assert "is a folder, and the rows go to a file" in refused("--out", str(tmp_path))
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_training_that_diverges_is_a_row_without_measurements(monkeypatch):
    def diverge(run):
        raise NotFinite("step 1")

    monkeypatch.setattr(Trainer, "step", diverge)
    corpus = alphabet(np.arange(500) % 8)
    settings = families.Terms.settings
    row = families.train_and_measure(tiny("llama", 10, 16), settings, corpus, (4,))
    assert row == {"loss": None, "predicted_tokens_a_step": 8 * 16}


def test_every_family_has_a_title():
    assert families.TITLES.keys() == FAMILIES.keys()
