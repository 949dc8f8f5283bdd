"""The benchmark measures what it says; the numbers themselves are the machine's."""

import json

import numpy as np
import pytest

from minillama import Config, __main__, bench
from minillama.bench import Shape


@pytest.fixture
def tiny(monkeypatch):
    shape = Shape(Config(32, dim=16, layers=1, heads=2, ffn=24, context=8), 2)
    monkeypatch.setattr(bench, "SHAPES", {"tiny": shape})
    return shape


def test_the_command_prints_a_table_and_writes_json(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)  # as if PyTorch were not installed
    assert __main__.main(["bench", "tiny", "--rounds", "3", "--threads", "1", "--json", str(tmp_path / "b.json")]) == 0
    out = capsys.readouterr().out
    assert "tiny" in out and "minillama" in out and "PyTorch" not in out and "GB/s" in out
    (measurement,) = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    row = measurement["training"]["minillama"]
    assert 0 < row["min"] <= row["median"] and measurement["threads"] == 1 and measurement["rounds"] == 3
    assert row["gflops"] == pytest.approx(tiny.training_flops / row["min"] / 1e6)


def test_training_flops_by_hand(tiny):
    matrices = 4 * 16 * 16 + 3 * 16 * 24 + 32 * 16  # q, k, v, o; gate, up, down; output
    attention = 4 * 16 * 4  # scores and weighted sum over half of 8 positions
    assert tiny.training_flops == 3 * 16 * (2 * matrices + attention)


def test_the_step_trains(tiny):
    step = bench.our_step(tiny, 1)
    first = step()
    for _ in range(50):
        last = step()
    assert np.isfinite(first) and last < first - 0.1


def test_unknown_shapes_and_rounds_are_refused(capsys):
    assert __main__.main(["bench", "giant"]) == 1 and "choose among char, stories260K" in capsys.readouterr().err
    assert __main__.main(["bench", "char", "--rounds", "0"]) == 1 and "at least 1" in capsys.readouterr().err
