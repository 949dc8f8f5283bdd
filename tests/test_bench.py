"""The benchmark measures what it says; the numbers themselves are the machine's."""

import importlib
import json
import sys
from contextlib import closing

import numpy as np
import pytest

from minillama import Config, __main__

pytest.importorskip("numba", reason="Numba is not installed: the benchmark measures its kernels")

from minillama.bench import contestants, machine, ours, parts, plots, report, shapes  # noqa: E402
from minillama.bench.contestants import Contestant, Unavailable  # noqa: E402
from minillama.bench.shapes import Shape  # noqa: E402

pytestmark = pytest.mark.alone
TINY = Shape(Config(32, dim=16, layers=1, heads=2, ffn=24, context=8), 2, prompt=6, decoded=5)


@pytest.mark.slow
def test_the_command_prints_tables_and_writes_json_and_figures(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shapes, "SHAPES", {"tiny": TINY})
    words = ["bench", "training", "elementwise", "--rounds", "1", "--threads", "1", "--no-torch"]
    assert __main__.main([*words, "--json", str(tmp_path / "b.json"), "--figures", str(tmp_path / "new")]) == 0
    out = capsys.readouterr().out
    assert "Training step" in out and "tiny" in out and "PyTorch" not in out and "GB/s" in out and "adamw" in out
    measured = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    row = measured["rows"][0]
    assert 0 < row["min"] <= row["median"] <= row["first"] and row["threads"] == measured["machine"]["threads"] == 1
    assert (row["flops"], row["tokens"]) == (TINY.training_flops, 16)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"bench.png", "roofline.png"}


class InThisProcess:
    """A contestant without a process of its own, which takes a second to begin; its steps are made, and run once."""

    def __init__(self, name, module, maker, *arguments):
        self.name, self._make = name, (module, maker, arguments)

    def await_ready(self):
        module, maker, arguments = self._make
        jobs = getattr(importlib.import_module(module, parts.__package__), maker)(*arguments)
        for job in jobs.values():
            job()
        self.first, self.jobs = dict.fromkeys(jobs, 3.0), tuple(jobs)

    def turn(self, job, seconds=0):
        return [1.0, 2.0, 4.0]

    def memory(self):
        return 10**6

    def close(self):
        pass


@pytest.mark.slow
def test_every_part_has_a_table_and_runs(monkeypatch):
    monkeypatch.setattr(parts, "LENGTHS", (8,))
    monkeypatch.setattr(parts, "CHECKPOINT", TINY)
    monkeypatch.setattr(parts, "matmul_shapes", lambda _: {"tiny": (8, 8, 8)})
    monkeypatch.setattr(parts, "Contestant", InThisProcess)
    bench = parts.Bench({"tiny": TINY}, threads=2, rounds=1, torch=False)
    assert set(report._TABLES) == set(parts.PARTS)
    rows = bench.run(parts.PARTS)
    assert not [row["unavailable"] for row in rows if "unavailable" in row]
    assert all((row["min"], row["median"], row["steps"]) == (1, 2, 3) for row in rows)
    text = report.table(rows, bench.machine)
    assert all(title in text for title, _, _ in report._TABLES.values())
    assert plots.length_curves(rows, bench.machine).axes


def test_training_flops_by_hand():
    matrices = 4 * 16 * 16 + 3 * 16 * 24 + 32 * 16  # q, k, v, o; gate, up, down; output
    attention = 4 * 16 * 4  # scores and weighted sum over half of 8 positions
    assert TINY.training_flops == 3 * 16 * (2 * matrices + attention) == 6 * 16 * matrices + 3 * 16 * attention


def test_prefill_and_decoding_costs_by_hand():
    block = 4 * 16 * 16 + 3 * 16 * 24
    assert TINY.prefill_flops == 6 * (2 * block + 4 * 16 * 3) + 2 * 32 * 16
    assert TINY.weights_a_token == block + 32 * 16 + 16 + 3 * 16  # output, one row of the embedding, norms
    tied = Shape(Config(32, dim=16, layers=1, heads=2, ffn=24, context=8, tied=True), 1)
    assert tied.weights_a_token == block + 32 * 16 + 3 * 16
    assert parts.decoding_costs(TINY, "minillama")[1:] == (5 * 4 * TINY.weights_a_token, 5)
    assert parts.decoding_costs(TINY, "minillama int8")[1] == 5 * TINY.weights_a_token


def test_checkpoint_costs_by_hand():
    assert parts.checkpoint_costs("decode", TINY, 2 * TINY.weights_a_token) == (5 * 2 * TINY.weights_a_token, 5)
    assert parts.checkpoint_costs("open", TINY, 1) == (None, None)


def test_attention_costs_against_a_count():
    config, T = Config(8, dim=12, heads=3, kv_heads=1, context=400), 400
    pairs = sum(i + 1 for i in range(T))  # of a query and a key that it may read
    forward, backward = shapes.attention_flops(config, 2, T)
    assert forward == pytest.approx(2 * 3 * pairs * 4 * 4, rel=3 / T) and backward == 2.5 * forward
    assert shapes.attention_bytes(config, 2, T) == (4 * 2 * T * 32, 4 * 2 * T * 64)


def test_rates_by_hand():
    matmul = {"matmul": [2.0, 1.0, 3.0], "matmul, one thread": [2.0]}
    rates = machine.rates({**matmul, "read": [0.1, 0.2, 0.4], "update": [0.4, 0.4, 0.4]})
    assert rates == {
        "matmul_gflops": 2e-9 * 1024**3,
        "matmul_one_gflops": 1e-9 * 1024**3,
        "read_gb": 0.256 / 0.2,
        "update_gb": 2 * 0.256 / 0.4,
    }


def test_the_step_trains():
    step = ours.training(TINY, 1)["step"]
    first = step()
    for _ in range(50):
        last = step()
    assert np.isfinite(first) and last < first - 0.1


def test_attention_does_what_the_model_does(rng, monkeypatch):
    calls = []
    op = ours.backend.active()
    monkeypatch.setattr(op, "attention", lambda q, k, v, true=op.attention: calls.append(q.shape) or true(q, k, v))
    ours.attention(Config(8, dim=256, heads=4, kv_heads=2, context=512), 1, 512, 2)
    assert calls == [(1, 512, 2, 64)] * 2  # two workers, a group of query heads each


def test_a_turn_counts_only_what_follows_the_settling(monkeypatch):
    clock, steps = [0.0], []
    monkeypatch.setattr(contestants.time, "perf_counter", lambda: clock[0])

    def job(seconds):
        def step():
            steps.append(seconds)
            clock[0] += seconds

        return step

    assert contestants._turn(job(0.02), 0.1) == pytest.approx([0.02] * 5) and len(steps) == 3 + 5
    assert contestants._turn(job(0.3), 0.1) == pytest.approx([0.3]) and len(steps) == 8 + 2
    assert contestants._turn(job(2.0), 0.1) == pytest.approx([2.0]) and len(steps) == 10 + 1


def test_a_contestant_times_its_own_process():
    with closing(Contestant("sleeper", "tests.bench_contestants", "sleeper", 0.03)) as contestant:
        contestant.await_ready()
        assert contestant.jobs == ("sleep",) and contestant.first["sleep"] >= 0.03
        assert all(0.03 <= seconds < 0.3 for seconds in contestant.turn("sleep", 0.05))
    assert not contestant._process.is_alive()


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_memory_is_the_growth_at_the_peak_of_the_steps():
    with closing(Contestant("hungry", "tests.bench_contestants", "hungry", 60)) as contestant:
        contestant.await_ready()
        contestant.turn("step")
        assert contestant.memory() == pytest.approx(2 * 60e6, rel=0.05)  # what is kept, and twice that


def test_who_cannot_take_part_is_in_the_table_with_the_reason(monkeypatch):
    monkeypatch.setattr(contestants, "TURN", 0.01)
    bench = parts.Bench({}, threads=1, rounds=2, torch=False)
    bench.referee = type(
        "Referee", (), {"jobs": ("matmul", "matmul, one thread", "read", "update"), "turn": lambda *_: [1.0]}
    )()
    makers = [("present", "sleeper", 0.01), ("absent", "failing"), ("late", "dying_later")]
    entries = [(name, "tests.bench_contestants", *making) for name, *making in makers]
    rows = {row["contestant"]: row for row in bench.contest("training", "tiny", entries)}
    assert rows["present"]["steps"] >= 2 and rows["absent"]["unavailable"] == "RuntimeError: no compiler in many lines"
    assert rows["late"]["unavailable"] == "its process ended with exit code 3"
    parts.with_costs(list(rows.values()), lambda _: (1, 1, 1))
    lines = [" ".join(line.split()) for line in report.table(list(rows.values()), bench.machine).splitlines()]
    assert "tiny absent not available: RuntimeError: no compiler in many lines" in lines


def test_a_maker_that_does_not_exist_is_an_error_with_its_name():
    with closing(Contestant("x", ".ours", "no_such_part")) as contestant:
        with pytest.raises(Unavailable, match="AttributeError.*no_such_part"):
            contestant.await_ready()


def test_help_names_every_part_and_shape(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        __main__.main(["bench", "--help"])
    text = capsys.readouterr().out
    assert f"what to measure: {', '.join(parts.PARTS)} (default: all but {', '.join(parts.ON_REQUEST)}," in text
    assert f"models to measure: {', '.join(shapes.SHAPES)} (default: all)" in text


@pytest.mark.parametrize(
    "words, message",
    [
        (["training", "--shapes", "giant"], "no shape 'giant'.*choose among char, stories260K"),
        (["speed"], "no part 'speed'.*choose among training, prefill"),
        (["training", "--rounds", "0"], "rounds must be at least 1; received 0"),
        (["training", "--threads", "0"], "threads must be a whole number of at least 1"),
    ],
)
def test_wrong_requests_are_refused(words, message, capsys):
    import re

    assert __main__.main(["bench", *words]) == 1
    assert re.search(message, capsys.readouterr().err)
