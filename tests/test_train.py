"""The training loop: it learns, it continues to the bit, it survives kills, and it stops when numbers go wrong."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import minillama
from minillama import Config, Model
from minillama.checkpoint.tensors import write_tensors
from minillama.data.corpora import encode_corpus
from minillama.files import InUse, replacing
from minillama.training import run as run_module
from minillama.training import trainer
from minillama.training.optimizers import OPTIMIZERS
from minillama.training.run import Run, read_metrics, read_state
from minillama.training.schedules import SCHEDULES, learning_rate
from minillama.training.trainer import NotFinite, Settings, Trainer, evaluate

KILLS = int(os.environ.get("MINILLAMA_KILLS", "3"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    words = random.Random(0).choices(["red", "green", "blue"], k=1500)
    path.write_text(" ".join(words))
    return encode_corpus(path, "char")


def make(folder, corpus, threads=2, **changes):
    config = Config(corpus.tokenizer.vocab_size, dim=16, layers=2, heads=2, kv_heads=1, context=16, dropout=0.1)
    settings = Settings(**{**dict(steps=12, batch_size=3, lr=0.01, warmup=3, eval_every=4, seed=7), **changes})
    return Run.start(folder, config, settings, corpus, threads)


def weights(folder):
    with safe_open(folder / run_module.STATE_FILE, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def test_it_learns_and_the_folder_has_what_was_learned(tmp_path, corpus):
    run = make(tmp_path / "run", corpus, steps=150, eval_every=50, batch_size=8)
    before = evaluate(run.model, corpus.validation, corpus.tokenizer)
    loss = run.train(quiet=True)
    assert before > 2.2 and loss < 0.7
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(10, 160, 10))
    rows = [row for row in rows if row["val_loss"] is not None]
    assert [row["step"] for row in rows] == [50, 100, 150]
    assert {"step", "train_loss", "val_loss", "seconds", "tokens_per_second"} <= rows[0].keys()
    assert rows[-1]["val_loss"] == loss and rows[0]["seconds"] < rows[1]["seconds"] < rows[2]["seconds"]
    model, tokenizer = minillama.load(tmp_path / "run")
    assert evaluate(model, corpus.validation, tokenizer) == pytest.approx(loss, rel=1e-6)
    assert tokenizer.vocab_size == corpus.tokenizer.vocab_size


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": "dynamic", "rope_factor": 2.0, "rope_original_context": 8},
        {"position": "alibi", "bias": ("qkv", "norm"), "dropout": 0.2},
        {"norm": "layernorm", "position": "learned", "feed_forward": "gelu_tanh", "bias": ("qkv", "o", "ffn", "norm")},
    ],
)
def test_every_architecture_samples_and_saves_at_each_evaluation(changes, tmp_path, corpus, capsys):
    config = Config(corpus.tokenizer.vocab_size, dim=16, layers=2, heads=2, context=16, **changes)
    run = Run.start(tmp_path, config, Settings(steps=4, batch_size=3, eval_every=2), corpus, 1)
    loss = run.train()
    model, tokenizer = minillama.load(tmp_path)
    assert model.config == config and evaluate(model, corpus.validation, tokenizer) == pytest.approx(loss, rel=1e-6)
    np.testing.assert_array_equal(model.parameters.flat, run.model.parameters.flat)


def test_evaluation_covers_the_whole_split(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "_EVALUATION_TOKENS", 3 * 16)  # three windows at a time; the fourth is short
    model = make(tmp_path / "run", corpus).model
    tokens = corpus.validation[: 3 * 16 + 6]  # three whole windows and five targets of a fourth
    losses = []
    for start in range(0, len(tokens) - 1, 16):
        window = tokens[start : start + 17]
        logits = model.logits(window[None, :-1])[0].astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        losses += [-np.log(p[i, target]) for i, target in enumerate(window[1:])]
    assert len(losses) == len(tokens) - 1
    assert evaluate(model, tokens, corpus.tokenizer) == pytest.approx(np.mean(losses), rel=1e-6)


STOPPED = [signal.SIGINT, *(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))]


@pytest.mark.parametrize("number", STOPPED)
@pytest.mark.parametrize("stop", [1, 4, 5, 11])
def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(tmp_path, corpus, stop, number, monkeypatch):
    whole = make(tmp_path / "whole", corpus).train(quiet=True)
    run, step, done = make(tmp_path / "parts", corpus), Run.step, []

    def interrupting_step(self):
        done.append(step(self))
        if len(done) == stop:
            signal.raise_signal(number)  # Ctrl-C, or what a batch system sends, in the middle of the loop
            if number != signal.SIGINT:
                signal.raise_signal(number)  # which may come twice
        return done[-1]

    monkeypatch.setattr(Run, "step", interrupting_step)
    assert run.train(quiet=True) is None and run.stopped_by == number
    assert read_state(tmp_path / "parts")["step"] == stop
    resumed = Run.resume(tmp_path / "parts", corpus, threads=2)
    assert resumed.train(quiet=True) == whole
    for name, array in weights(tmp_path / "whole").items():
        np.testing.assert_array_equal(weights(tmp_path / "parts")[name], array)
    first, second = (read_metrics(tmp_path / name) for name in ("whole", "parts"))
    for key in ("step", "train_loss", "val_loss", "learning_rate", "gradient_norm"):  # means of whole intervals
        assert [row[key] for row in first] == [row[key] for row in second]


@pytest.mark.parametrize("optimizer, schedule", [*zip(OPTIMIZERS, SCHEDULES, strict=False), ("sgd", "wsd")])
def test_a_run_of_any_optimizer_and_schedule_resumes_to_the_bit(tmp_path, corpus, optimizer, schedule):
    changes = dict(optimizer=optimizer, schedule=schedule, decay_share=0.4, momentum=0.8, clip=0.5, eval_every=12)
    whole, parts = (make(tmp_path / name, corpus, 1, **changes) for name in ("whole", "parts"))
    whole.train(quiet=True)
    for _ in range(5):
        parts.step()
    parts.save()
    resumed = Run.resume(tmp_path / "parts", corpus)
    assert resumed.settings == parts.settings and resumed.optimizer.state_names == parts.optimizer.state_names
    resumed.train(quiet=True)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert first.keys() == second.keys() == {"weights", *OPTIMIZERS[optimizer].state_names}
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)


def test_each_optimizer_and_schedule_trains_another_model_and_learns(tmp_path, corpus):
    found = set()
    for optimizer in OPTIMIZERS:
        for schedule in SCHEDULES:
            lr = 0.3 if optimizer == "sgd" else 0.01
            settings = Settings(steps=60, batch_size=8, lr=lr, optimizer=optimizer, schedule=schedule)
            config = Config(corpus.tokenizer.vocab_size, dim=16, layers=1, heads=2, context=16)
            alone = Trainer(Model(config, 0, threads=1, init_std=0.06), corpus, settings)
            before = alone.evaluate()
            while alone.optimizer.steps < settings.steps:
                alone.step()
            assert alone.evaluate() < before - 0.3, (optimizer, schedule)
            found.add(alone.model.parameters.flat.tobytes())
    assert len(found) == len(OPTIMIZERS) * len(SCHEDULES)


def test_windows_may_be_shorter_than_the_context_and_not_longer(corpus):
    config = Config(corpus.tokenizer.vocab_size, dim=16, layers=1, heads=2, context=16)
    model = Model(config, 0, threads=1, init_std=0.2)
    alone = Trainer(model, corpus, Settings(steps=3, window=8))
    assert alone.batches[0][0].shape == (8, 8)
    assert alone.evaluate() == evaluate(model, corpus.validation, corpus.tokenizer, window=8)
    assert alone.evaluate() != evaluate(model, corpus.validation, corpus.tokenizer)
    with pytest.raises(ValueError, match="a window of 17 tokens does not fit the context of 16"):
        Trainer(model, corpus, Settings(steps=3, window=17))


def test_a_finished_run_can_be_resumed_and_has_nothing_to_do(tmp_path, corpus):
    loss = make(tmp_path / "run", corpus).train(quiet=True)
    assert Run.resume(tmp_path / "run", corpus).train(quiet=True) == pytest.approx(loss)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path, corpus):
    make(tmp_path / "run", corpus)
    with pytest.raises(FileExistsError, match="already holds a run .*; continue it with --resume"):
        make(tmp_path / "run", corpus)


def test_resuming_on_other_data_is_refused(tmp_path, corpus):
    make(tmp_path / "run", corpus)
    (tmp_path / "other.txt").write_text("red green blue " * 50)
    with pytest.raises(ValueError, match="differ from those that the run .* was started with"):
        Run.resume(tmp_path / "run", encode_corpus(tmp_path / "other.txt", "char"))


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0{", "cut", "foreign"])
def test_a_state_that_is_truncated_or_foreign_is_refused(tmp_path, corpus, content):
    make(tmp_path / "run", corpus)
    path = tmp_path / "run" / run_module.STATE_FILE
    if content == "cut":
        content = path.read_bytes()[:-100]
    elif content == "foreign":
        content = (tmp_path / "run" / "model.safetensors").read_bytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match="truncated or was not written by minillama"):
        Run.resume(tmp_path / "run", corpus)
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        Run.resume(tmp_path / "nothing", corpus)


@pytest.mark.parametrize(
    "changed",
    [
        {"step": -1}, {"step": "x"}, {"step": 10**9}, {"threads": "x"}, {"seconds": None}, {"config": None},
        {"config": {"dim": 8}}, {"source": None}, {"source": {"data": 5}}, {"settings": {"lr": "1"}},
        {"settings": {"lr": float("nan")}}, {"settings": 3}, "mean",
    ],
    ids=str,
)  # fmt: skip
def test_a_state_that_no_run_has_saved_is_refused(tmp_path, corpus, changed):
    """Before any of it is used: not with a traceback, nor at a step beyond the last."""
    make(tmp_path / "run", corpus)
    path = tmp_path / "run" / run_module.STATE_FILE
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        state = json.loads(file.metadata()["run"])
    if changed == "mean":
        tensors["mean"] = tensors["mean"][:-1].copy()
    else:
        state |= changed
    save_file(tensors, path, metadata={"run": json.dumps(state)})
    with pytest.raises(ValueError, match="truncated or was not written by minillama"):
        read_state(tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, corpus, monkeypatch):
    run = make(tmp_path / "run", corpus, eval_every=5)
    step = Run.step

    def poisoned_step(self):
        if self.optimizer.steps == 7:
            self.model.parameters["blocks.0.w_q"][0, 0] = np.nan
        return step(self)

    monkeypatch.setattr(Run, "step", poisoned_step)
    with pytest.raises(NotFinite, match="step 8: loss nan, gradient norm nan, learning rate 0.00.*checkpoint"):
        run.train(quiet=True)
    assert read_state(tmp_path / "run")["step"] == 5
    assert all(np.isfinite(array).all() for array in weights(tmp_path / "run").values())


def test_weights_that_an_update_ruins_are_not_saved(tmp_path, corpus, monkeypatch):
    run = make(tmp_path / "run", corpus, eval_every=5)
    step = Run.step

    def ruinous_step(self):
        result = step(self)
        if self.optimizer.steps == 10:
            self.model.parameters["final_norm"][0] = np.nan
        return result

    monkeypatch.setattr(Run, "step", ruinous_step)
    with pytest.raises(NotFinite, match="after step 10: validation loss nan.*checkpoint in"):
        run.train(quiet=True)
    assert read_state(tmp_path / "run")["step"] == 5 and read_metrics(tmp_path / "run")[-1]["step"] == 5
    assert all(np.isfinite(array).all() for array in weights(tmp_path / "run").values())


def test_resuming_takes_the_threads_of_the_run(tmp_path, corpus):
    make(tmp_path / "run", corpus, threads=1)
    assert Run.resume(tmp_path / "run", corpus).model.workers.threads == 1
    assert Run.resume(tmp_path / "run", corpus, threads=2).model.workers.threads == 2


def test_a_model_from_elsewhere_stays_and_a_first_save_cut_short_can_be_resumed(tmp_path, corpus, monkeypatch):
    minillama.save(minillama.Model(Config(9), threads=1), tmp_path / "model")
    with pytest.raises(FileExistsError, match="config.json.*nothing was changed. Choose another folder"):
        make(tmp_path / "model", corpus)
    whole = make(tmp_path / "whole", corpus).train(quiet=True)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("minillama.checkpoint.huggingface.save", killed)
        make(tmp_path / "run", corpus)
    assert Run.resume(tmp_path / "run", corpus).train(quiet=True) == whole
    assert minillama.load(tmp_path / "run")[0].config.dim == 16


def test_overwrite_begins_anew_in_the_place_of_a_run(tmp_path, corpus):
    make(tmp_path / "run", corpus).train(quiet=True)
    for name in ("loss.png", "chat_template.jinja"):
        (tmp_path / "run" / name).write_bytes(b"of the run before")
    config = Config(corpus.tokenizer.vocab_size, dim=8, layers=1, heads=2, context=16)
    run = Run.start(tmp_path / "run", config, Settings(steps=2, batch_size=3), corpus, 1, overwrite=True)
    assert read_metrics(tmp_path / "run") == [] and read_state(tmp_path / "run")["step"] == 0
    assert not (tmp_path / "run" / "loss.png").exists() and not (tmp_path / "run" / "chat_template.jinja").exists()
    run.train(quiet=True)
    assert minillama.load(tmp_path / "run")[0].config == config
    (tmp_path / "run" / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(FileExistsError, match="index.json, which belong to another model"):
        Run.start(tmp_path / "run", config, Settings(), corpus, 1, overwrite=True)


def test_a_write_that_fails_keeps_the_last_checkpoint(tmp_path, corpus, monkeypatch):
    run = make(tmp_path / "run", corpus)
    before = weights(tmp_path / "run")

    def full(path, tensors, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "write_tensors", full)
    with pytest.raises(OSError, match="disk is full"):
        run.train(quiet=True)
    assert read_state(tmp_path / "run")["step"] == 0
    np.testing.assert_array_equal(weights(tmp_path / "run")["weights"], before["weights"])


def test_training_outside_the_main_thread_works(tmp_path, corpus):
    results = []
    thread = threading.Thread(target=lambda: results.append(make(tmp_path / "run", corpus).train(quiet=True)))
    thread.start()
    thread.join()
    assert results[0] > 0


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"steps": 0}, "steps must be at least 1; received 0"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be a finite number; received nan"),
        ({"beta2": 1.0}, r"beta2 must lie in \[0, 1\)"),
        ({"lr_floor": 2.0}, "share of the peak"),
        ({"init_std": float("inf")}, "init_std must be a finite number"),
        ({"warmup": -1}, "warmup must not be negative"),
        (
            {"steps": 20, "warmup": 20},
            "warmup 20 and steps 20. Choose a smaller warmup, or leave it out, which gives 2",
        ),
        ({"warmup": 601}, "warmup must be less than steps"),
        ({"clip": -1.0}, "clip must not be negative; received -1.0; 0 turns clipping off"),
        ({"clip": float("inf")}, "clip must be a finite number; received inf; 0 turns clipping off"),
        ({"optimizer": "adamx"}, "optimizer must be one of adamw, adam, sgd; received 'adamx'"),
        ({"schedule": None}, "schedule must be one of cosine, linear, constant, wsd; received None"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\); received 1.0"),
        ({"decay_share": 0.0}, r"decay_share is a share of the steps, in \(0, 1\]; received 0.0"),
        ({"window": 1}, "window must be at least 2, a token to read and one to predict; received 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Settings(**changes)


@pytest.mark.parametrize("steps, warmup", [(1, 0), (2, 1), (9, 1), (20, 2), (50, 5), (51, 50), (400, 50), (600, 50)])
def test_a_warm_up_that_is_not_given_is_shorter_than_the_training(steps, warmup):
    assert Settings(steps=steps).warmup == warmup < steps
    rates = [learning_rate(t + 1, steps, 1.0, warmup, 0.1) for t in range(steps)]
    assert steps == 1 or max(rates) == 1.0 and rates[-1] == pytest.approx(0.1)


def test_a_run_that_was_saved_with_a_longer_warm_up_goes_on_with_it(tmp_path, corpus, monkeypatch):
    with monkeypatch.context() as before:  # such Settings could be made
        before.setattr(Settings, "__post_init__", lambda self: None)
        run = make(tmp_path / "run", corpus, steps=6, warmup=50)
        whole = make(tmp_path / "whole", corpus, steps=6, warmup=50)
        run.step(), run.step(), run.save()
        whole.train(quiet=True)
    resumed = Run.resume(tmp_path / "run", corpus)
    assert resumed.settings.warmup == 50 and resumed.settings == whole.settings
    resumed.train(quiet=True)
    for name, array in weights(tmp_path / "whole").items():
        np.testing.assert_array_equal(weights(tmp_path / "run")[name], array)


def test_without_clipping_a_run_is_the_one_with_a_limit_that_is_never_reached(tmp_path, corpus):
    norms = {}
    for clip in (0.0, 1e30, 0.05):
        run = make(tmp_path / str(clip), corpus, clip=clip)
        norms[clip] = [run.step()[1] for _ in range(6)]
        run.save()
    off, large, tight = (weights(tmp_path / str(clip))["weights"] for clip in (0.0, 1e30, 0.05))
    np.testing.assert_array_equal(off, large)
    assert norms[0.0] == norms[1e30] and min(norms[0.0]) > 0.05 and (off != tight).any()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
@pytest.mark.slow
def test_kills_at_random_moments_leave_a_loadable_run_that_ends_with_the_same_bits(tmp_path, name):
    """MINILLAMA_KILLS processes are killed, at moments spread over everything that a run does."""
    number, codes = getattr(signal, name), []
    words = random.Random(0).choices(["red", "green", "blue"], k=3000)
    (tmp_path / "text.txt").write_text(" ".join(words))
    command = [sys.executable, "-m", "minillama", "train", "--threads", "2"]
    start = (
        f"--data {tmp_path / 'text.txt'} --tokenizer char --context 16 --dim 16 --layers 2 --heads 2 --dropout 0.1 "
        f"--batch-size 4 --steps {150 * KILLS} --eval-every 3 --seed 3"
    ).split()
    subprocess.run([*command, *start, "--out", tmp_path / "whole"], check=True, capture_output=True)

    out, clock, kills = tmp_path / "killed", random.Random(1), 0
    while True:
        resumable = (out / run_module.STATE_FILE).exists()
        arguments = ["--resume", "--out", out] if resumable else [*start, "--out", out]
        process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if kills < KILLS:
            # Wait for the checkpoint that this process writes, so that kills fall between and into later ones; of the
            # first SIGKILLs some come while the run begins.
            seen = _modified(out)
            while (resumable or name == "SIGTERM") and process.poll() is None and _modified(out) == seen:
                time.sleep(0.001)
            time.sleep(clock.uniform(0, 1.0))
            if process.poll() is None:
                before = read_state(out)["step"] if (out / run_module.STATE_FILE).exists() else None
                process.send_signal(number)
                codes.append(process.wait())
                kills += 1
                if codes[-1] == 128 + signal.SIGTERM:  # it said that it saved
                    assert read_state(out)["step"] >= before
                if (out / run_module.STATE_FILE).exists():
                    read_state(out)
                    if (out / "model.safetensors").exists() and (out / "config.json").exists():  # the state comes first
                        minillama.load(out)
                continue
        output = process.communicate()[0].decode()
        assert process.returncode == 0, output
        break
    # Before training and after it there is nothing to save, and SIGTERM ends a process at once.
    assert set(codes) <= {-number, 128 + number} and (name == "SIGKILL" or codes.count(128 + number) > KILLS / 2)
    assert kills == KILLS, f"the run ended after {kills} kills: it is too short for {KILLS}"
    for name, array in weights(tmp_path / "whole").items():
        np.testing.assert_array_equal(weights(out)[name], array)
    rows = [[(row["step"], row["val_loss"]) for row in read_metrics(f)] for f in (out, tmp_path / "whole")]
    assert rows[0] == rows[1]
    assert not list(out.glob(".*.new"))


def _modified(out):
    try:
        return (out / run_module.STATE_FILE).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def test_leftovers_of_a_killed_write_are_removed_on_resuming(tmp_path, corpus):
    make(tmp_path / "run", corpus)
    (tmp_path / "run" / ".trainer.safetensors.123.new").write_bytes(b"half")
    Run.resume(tmp_path / "run", corpus)
    assert not list((tmp_path / "run").glob(".*.new"))
    with replacing(tmp_path / "run" / "x") as new:
        new.write_bytes(b"")
        assert new.match(".*.new")


def test_metrics_of_steps_after_the_checkpoint_are_taken_back(tmp_path, corpus):
    make(tmp_path / "run", corpus).train(quiet=True)
    path = tmp_path / "run" / run_module.METRICS_FILE
    rows = read_metrics(tmp_path / "run")
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {**rows[-1], "step": 99}]) + '{"step": 1')
    Run.resume(tmp_path / "run", corpus)
    assert read_metrics(tmp_path / "run") == rows


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:40] + b"\0" * 200 + text[40:],  # as after a power cut
        lambda text: text.replace(b"{", b"\xff", 1),
        lambda text: b"[1, 2]\n" + text,
        lambda text: b'{"step": 1}\n' + text,
        lambda text: text + b"null\n",
    ],
)
def test_a_damaged_metrics_file_does_not_block_the_checkpoint_and_is_kept(tmp_path, corpus, damage, capsys):
    make(tmp_path / "run", corpus).train(quiet=True)
    path, state = tmp_path / "run" / run_module.METRICS_FILE, weights(tmp_path / "run")
    before = path.read_bytes()
    path.write_bytes(damage(before))
    with pytest.raises(ValueError, match="line . of .*metrics.jsonl is damaged"):
        read_metrics(tmp_path / "run")
    run = Run.resume(tmp_path / "run", corpus)
    assert "metrics.jsonl is damaged: the other rows go on" in capsys.readouterr().err
    assert (tmp_path / "run" / "metrics-damaged-1.jsonl").read_bytes() == damage(before)
    kept = [json.dumps(row) for row in read_metrics(tmp_path / "run")]
    assert len(kept) >= 2 and set(kept) <= set(before.decode().splitlines())
    np.testing.assert_array_equal(run.model.parameters.flat, state["weights"])
    path.write_bytes(b"other damage\n")
    Run.resume(tmp_path / "run", corpus)
    assert (tmp_path / "run" / "metrics-damaged-2.jsonl").read_bytes() == b"other damage\n"


HOLD = """
import sys
from minillama.files import alone
with alone(sys.argv[1], "at work"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", ["kill", "terminate", "leave"])
def test_one_process_trains_in_a_folder_and_another_is_refused_until_it_has_ended(tmp_path, corpus, end):
    make(tmp_path / "run", corpus)
    held = [sys.executable, "-c", HOLD, tmp_path / "run" / run_module.LOCK_FILE]
    other = subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline().strip() == b"held"
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(InUse, match="another process is training in .*run"):
        Run.resume(tmp_path / "run", corpus)
    with pytest.raises(InUse):
        config = Config(corpus.tokenizer.vocab_size, dim=8, layers=1, heads=2, context=16)
        Run.start(tmp_path / "run", config, Settings(), corpus, 1, overwrite=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    other.stdin.close() if end == "leave" else getattr(other, end)()
    other.wait()
    other.stdout.close()
    assert Run.resume(tmp_path / "run", corpus).train(quiet=True) > 0


def test_a_run_that_went_on_elsewhere_since_it_was_opened_is_not_set_back(tmp_path, corpus):
    first = make(tmp_path / "run", corpus)
    Run.resume(tmp_path / "run", corpus).train(quiet=True)
    with pytest.raises(InUse, match="has gone on since it was opened here"):
        first.train(quiet=True)
    assert read_state(tmp_path / "run")["step"] == 12


def test_a_setting_that_an_older_run_lacks_has_its_default(tmp_path, corpus, monkeypatch):
    run = make(tmp_path / "run", corpus)

    def as_before(path, tensors, metadata):
        state = json.loads(metadata["run"])
        for name in ("weight_decay", "init_std"):
            del state["settings"][name]
        for name in ("losses", "interval"):
            del state[name]
        write_tensors(path, tensors, {"run": json.dumps(state)})

    monkeypatch.setattr(run_module, "write_tensors", as_before)
    run.save()
    monkeypatch.undo()
    assert Run.resume(tmp_path / "run", corpus).settings == run.settings


@pytest.mark.parametrize("end", ["a reader that has gone", "a full disk", "a terminal that is closed"])
@pytest.mark.slow
def test_a_training_outlives_those_who_watch_it(tmp_path, end):
    (tmp_path / "text.txt").write_text("red green blue " * 200)
    command = (
        f"{sys.executable} -m minillama train --data {tmp_path / 'text.txt'} --out {tmp_path / 'run'} --threads 1 "
    )
    command += "--tokenizer char --context 16 --dim 16 --layers 1 --heads 2 --batch-size 2 --steps 400 --eval-every 100"
    if end == "a terminal that is closed":
        pty = pytest.importorskip("pty")
        master, slave = pty.openpty()
        script = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        script += "os.execv(sys.argv[1], sys.argv[1:])"
        words = command.replace("--steps 400", "--steps 1000000").replace("--eval-every 100", "--eval-every 1000000")
        process = subprocess.Popen(
            [sys.executable, "-c", script, *words.split()], stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        while not read_metrics(tmp_path / "run"):
            assert process.poll() is None  # a terminal without a size shows no bar, which would fill its buffer
            time.sleep(0.01)
        os.close(master)
        try:
            assert process.wait(60) == 128 + signal.SIGHUP
        finally:
            process.kill()
        assert read_state(tmp_path / "run")["step"] >= read_metrics(tmp_path / "run")[-1]["step"] >= 10
        return
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    shell = f"{command} 2>&1 | head -c 300" if end == "a reader that has gone" else f"{command} 2> /dev/full"
    subprocess.run(["bash", "-c", shell], capture_output=True)
    deadline = time.monotonic() + 60  # head does not wait for it
    while read_state(tmp_path / "run")["step"] < 400 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert read_state(tmp_path / "run")["step"] == 400


def test_steps_of_ones_own_before_train_are_no_other_process(tmp_path, corpus):
    run, whole = make(tmp_path / "run", corpus), make(tmp_path / "whole", corpus).train(quiet=True)
    run.step()
    assert run.train(quiet=True) == whole


def test_only_the_runs_own_leftovers_are_removed(tmp_path, corpus):
    make(tmp_path / "run", corpus)
    for name in (".notes.txt.draft.new", ".notes.txt.12.new", ".config.json.mine.new", ".config.json.12.new"):
        (tmp_path / "run" / name).write_text("x")
    (tmp_path / "run" / "notes.txt").write_text("x")
    Run.resume(tmp_path / "run", corpus)
    left = {path.name for path in (tmp_path / "run").glob(".*.new")}
    assert left == {".notes.txt.draft.new", ".notes.txt.12.new", ".config.json.mine.new"}


def test_damaged_metrics_survive_a_kill_while_they_are_mended(tmp_path, corpus, monkeypatch):
    make(tmp_path / "run", corpus).train(quiet=True)
    path = tmp_path / "run" / run_module.METRICS_FILE
    before = path.read_bytes()
    path.write_bytes(before + b"damage\n")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_module, "write_text", killed)
        Run.resume(tmp_path / "run", corpus)
    Run.resume(tmp_path / "run", corpus)
    assert path.read_bytes() == before


def test_a_trainer_is_a_run_without_a_folder(tmp_path, corpus, monkeypatch):
    """The same weights to the bit, and nothing is written."""
    run = make(tmp_path / "run", corpus, threads=1)
    run.train(quiet=True)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    settings, config = run.settings, run.model.config
    model = minillama.Model(config, settings.seed, threads=1, init_std=settings.init_std)
    alone = Trainer(model, corpus, settings)
    while alone.optimizer.steps < settings.steps:
        alone.step()
    np.testing.assert_array_equal(alone.model.parameters.flat, run.model.parameters.flat)
    assert alone.evaluate() == run.evaluate() and not list(tmp_path.glob("empty/*"))
