"""The experiment of lesson 08 on first values that are divided by sqrt(2 L)."""

from pathlib import Path

import numpy as np
import pytest

from minillama.config import Config
from minillama.data.corpora import encode_corpus
from minillama.lessons import first_values
from minillama.model import Model

KEPT = Path(__file__).parents[1] / "notebooks" / "results" / "08-first-values.jsonl"


def test_only_what_writes_to_the_stream_is_divided():
    config = Config(50, dim=16, layers=3, heads=2, context=8)
    divided, not_divided = (first_values.first_model(config, on, seed=1).parameters for on in (True, False))
    library = Model(config, 1, threads=1).parameters
    for name, array in divided.items():
        assert np.array_equal(array, library[name])
        factor = np.sqrt(6) if name.split(".")[-1] in ("w_o", "w_down") else 1
        np.testing.assert_allclose(not_divided[name], factor * array, rtol=1e-6)
    assert not_divided["blocks.0.w_o"].std() == pytest.approx(0.02, rel=0.2)


def test_the_kept_results_are_all_there_is():
    losses = first_values.read(KEPT)
    assert len(losses) == len(first_values.LAYERS) * 2 * len(first_values.RATES)
    assert all(len(found) == len(first_values.SEEDS) for found in losses.values())


def test_a_kept_training_can_be_done_again():
    again = first_values.train(encode_corpus("stories", vocab_size=512), 2, True, 0.01, 0)
    assert again["loss"] == pytest.approx(first_values.read(KEPT)[2, True, 0.01][0], abs=0.05)


def test_a_training_that_runs_into_infinity_is_told(tmp_path, monkeypatch):
    corpus = encode_corpus("stories", vocab_size=512)
    assert first_values.train(corpus, 2, False, 1e30, 0, steps=3)["loss"] is None
    (tmp_path / "a.jsonl").write_text(
        '{"layers": 2, "divided": true, "rate": 0.01, "seed": 0, "steps": 3, "loss": null}\n', encoding="utf-8"
    )
    assert first_values.read(tmp_path / "a.jsonl")[2, True, 0.01].tolist() == [np.inf]


def test_a_loss_behind_the_last_step_that_is_not_finite_is_none(monkeypatch):
    corpus = encode_corpus("stories", vocab_size=512)
    for loss in (np.nan, np.inf):
        monkeypatch.setattr(first_values, "evaluate", lambda *_, loss=loss: loss)
        assert first_values.train(corpus, 2, True, 0.01, 0, steps=2)["loss"] is None


def test_a_folder_that_cannot_be_written_to_is_said_before_the_first_training(tmp_path, monkeypatch, capsys):
    def replacing(path):
        raise OSError(f"cannot write {path}")

    monkeypatch.setattr(first_values, "replacing", replacing)
    monkeypatch.setattr(first_values, "train", lambda *job: pytest.fail("a training was begun"))
    assert first_values.main(["--out", str(tmp_path / "a.jsonl")]) == 1
    assert "cannot write" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_refused_before_the_first_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(first_values, "train", lambda *job: pytest.fail("a training was begun"))
    (tmp_path / "a.jsonl").write_text("mine", encoding="utf-8")
    assert first_values.main(["--out", str(tmp_path / "a.jsonl")]) == 1
    assert "a.jsonl" in capsys.readouterr().err
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == "mine"
