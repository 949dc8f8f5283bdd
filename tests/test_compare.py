"""LLaMA, GPT and BERT side by side: what is measured is what it says."""

import numpy as np
import pytest

from minillama import Config, Model, compare, stories
from minillama.corpora import EncodedCorpus
from minillama.tokenizers import END_OF_TEXT, MASK, CharTokenizer


class Oracle:
    """A model of a text in which every letter is followed by the next one of the alphabet."""

    def __init__(self, causal, letters):
        self.config, self.letters = Config(letters + 2, mask="causal" if causal else "bidirectional"), letters

    def logits(self, ids):
        logits = np.zeros((*ids.shape, self.config.vocab_size), np.float32)
        if self.config.causal:
            guess = (ids + 1) % self.letters
        else:  # from the right-hand neighbour alone, which a causal model does not see
            guess = (np.roll(ids, -1, axis=1) - 1) % self.letters
        np.put_along_axis(logits, guess[..., None], 1, axis=-1)
        logits[..., -1] = 2  # the mask token is never the answer
        return logits


@pytest.mark.parametrize("causal", [True, False])
def test_gaps_are_filled_from_the_side_that_a_model_sees(causal):
    tokenizer = CharTokenizer.train("abcdefgh", (END_OF_TEXT, MASK))
    validation = np.arange(500, dtype=np.int32) % 8
    corpus = EncodedCorpus(tokenizer, validation, validation, 500, None, "", {"data": "text"})
    share = compare.gap_accuracy(Oracle(causal, 8), corpus, 8)
    last = 1 / 7  # of the gaps stand last in their window; what follows them is not seen
    assert share == 1 if causal else abs(share - (1 - last)) < 0.05


def test_characters_without_mistake():
    text, _ = stories.tell_story(np.random.Generator(np.random.PCG64(5)))
    assert compare.characters_without_mistake(text) == len(text)
    assert compare.characters_without_mistake(text[:100]) > 60
    assert compare.characters_without_mistake(text[:100] + "#" + text[101:]) <= 100
    assert compare.characters_without_mistake("no story") == 0


def test_three_families_side_by_side(tmp_path, monkeypatch, capsys):
    from minillama.__main__ import main

    monkeypatch.setattr(compare, "GAPS", 50)
    monkeypatch.setattr(compare, "WINDOWS", (4, 8))
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 400, encoding="utf-8")
    options = ["--seeds", "2", "--steps", "2", "--context", "16", "--json", str(tmp_path / "rows.json")]
    assert main(["compare", str(tmp_path / "text.txt"), *options]) == 0
    out = capsys.readouterr().out
    assert "| 2 seeds | LLaMA | GPT-2 | BERT |" in out and "[" in out.split("bert:")[1]
    row = next(line for line in out.splitlines() if line.startswith("| next token"))
    assert row.endswith("| cannot |")
    parameters = [Model(compare.tiny(family, 300, 16)).parameters.flat.size for family in compare.FAMILIES]
    assert max(parameters) / min(parameters) < 1.01
