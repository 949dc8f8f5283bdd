"""The commands as a user types them: what they print, what they leave, and what they say when something is wrong."""

import argparse
import json
import os
import signal
import subprocess
import sys

import pytest

import minillama
from minillama import PRESETS, Config, Model, __main__, backend
from minillama.generation.chat import CHAT_COMMANDS
from minillama.generation.generate import generate
from minillama.tokenizers import BPETokenizer, CharTokenizer
from minillama.training.run import read_metrics

from .conftest import needs_kernels, whole_parser

TINY = "--tokenizer char --context 16 --dim 16 --layers 1 --heads 2 --batch-size 2 --steps 6 --eval-every 3 --threads 1"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "my.txt"
    path.write_text("the cat sat on the mat. naïve café ☕\n" * 60, encoding="utf-8")
    return path


@pytest.fixture
def run_folder(cli, text, tmp_path):
    assert cli("train", "--data", text, "--out", tmp_path / "run", *TINY.split())[0] == 0
    return tmp_path / "run"


def test_train_then_sample_then_info(cli, text, tmp_path):
    code, out, _ = cli("train", "--data", text, "--out", tmp_path / "run", *TINY.split())
    assert code == 0 and "validation loss" in out and "minillama sample" in out
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "trainer.safetensors", "metrics.jsonl", "loss.png", ".train.lock",
    }  # fmt: skip
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert read_metrics(tmp_path / "run")[-1]["step"] == 6

    code, out, _ = cli("sample", tmp_path / "run", "--prompt", "the c", "--max-tokens", 8)
    assert code == 0 and out.startswith("the c") and len(out) == len("the c") + 8 + 1
    assert cli("sample", tmp_path / "run", "--prompt", "the c", "--max-tokens", 8)[1] == out
    assert cli("sample", tmp_path / "run", "--prompt", "the c", "--max-tokens", 8, "--seed", 1)[1] != out
    code, out, _ = cli("sample", tmp_path / "run", "--max-tokens", 60, "--sliding-window")
    assert code == 0 and len(out) == 61

    code, out, _ = cli("info", tmp_path / "run")
    assert code == 0 and "heads                   2" in out and "total parameters" in out


@pytest.fixture
def endless(tmp_path):
    """A folder, tokenizer and context of a model that seldom ends a text."""
    tokenizer = BPETokenizer.train("the cat sat on the mat. " * 9, 270)
    model = Model(Config(tokenizer.vocab_size, dim=16, layers=1, heads=2, context=32), threads=1, init_std=0.5)
    minillama.save(model, tmp_path / "model", tokenizer)
    return tmp_path / "model", tokenizer, 32


def test_a_sample_that_fills_the_context_says_so(cli, endless):
    folder, tokenizer, context = endless
    full = "[the context of 32 tokens is full; --sliding-window goes on beyond it]\n"
    for length in (1, 20, context - 2):  # with the token that begins a text there is room for 30, 11, 1
        prompt = "\x00" * length  # a token each
        code, out, err = cli("sample", folder, "--prompt", prompt, "--top-k", 1)
        assert code == 0 and err == full, length
        room = context - 1 - length
        assert cli("sample", folder, "--prompt", prompt, "--top-k", 1, "--max-tokens", room) == (0, out, "")
    code, out, err = cli("sample", folder, "--prompt", "\x00" * (context - 1))
    assert code == 1 and "a prompt of 32 tokens and an answer of 1 do not fit" in err


def test_a_sliding_window_goes_on_until_the_text_ends(cli, endless, tmp_path):
    folder, tokenizer, context = endless
    lengths = []
    for prompt in ("the", "\x00" * 30, "\x00" * 31, "\x00" * 70):
        code, out, err = cli("sample", folder, "--prompt", prompt, "--sliding-window", "--temperature", 2, "--top-p", 1)
        # Until the token that ends a text is drawn; another seed or another model would end it elsewhere.
        expected = [tokenizer.end_of_text, *tokenizer.encode(prompt)]
        model, _ = minillama.load(folder)
        written = list(generate(
            model, expected, 10_000, 2.0, seed=0, stop={tokenizer.end_of_text}, sliding_window=True
        ))  # fmt: skip
        assert code == 0 and err == "" and written[-1] == tokenizer.end_of_text
        lengths.append(len(written))
        assert out == tokenizer.decode([*expected[1:], *written[:-1]]) + "\n"
    assert context < max(lengths) < 10_000
    characters = CharTokenizer.train("the cat sat\n")
    minillama.save(
        Model(Config(characters.vocab_size, dim=16, layers=1, heads=2, context=32), threads=1),
        tmp_path / "c",
        characters,
    )
    code, out, err = cli("sample", tmp_path / "c", "--sliding-window")
    assert code == 1 and "here no token ends a text; say how many tokens to write with max_tokens (--max-tokens)" in err
    assert cli("sample", tmp_path / "c", "--sliding-window", "--max-tokens", 50)[0] == 0


@pytest.mark.parametrize(
    "arguments, kind, name, near",
    [
        (["info"], "model", "llama-2-7B", "llama-2-7b"),
        (["info"], "model", "LLAMA-65B", "llama-65b"),
        (["info"], "model", "meta-llama/Llama-2-7b-hf", "llama-2-7b"),
        (["info"], "model", "gpt2", "gpt2-small, gpt2-medium, gpt2-large, gpt2-xl"),
        (["table"], "model", "Bert-Base", "bert-base"),
        (["download"], "download", "Stories15m", "stories15M"),
        (["download"], "download", "tinyshakespear", "tinyshakespeare"),
        (["ablate"], "study", "Ladder", "ladder"),
        (["ablate"], "study", "leave_one_out", "leave-one-out"),
        (["ablate"], "study", "reprot", "report"),
        pytest.param(["bench", "matmul"], "part", "Decode", "decoding", marks=needs_kernels),
        pytest.param(["bench", "--shapes"], "shape", "stories260k", "stories260K", marks=needs_kernels),
    ],
)
def test_a_name_that_there_is_not_is_met_with_the_near_ones(arguments, kind, name, near, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(*arguments, name)
    assert code == 1 and f"there is no {kind} {name!r}; did you mean {near}? There are " in err
    code, _, err = cli(*arguments, "xxxxxxxx")
    assert code == 1 and f"there is no {kind} 'xxxxxxxx'; choose among " in err and not list(tmp_path.iterdir())


def test_a_repository_is_downloaded_as_one(cli):
    code, _, err = cli("download", "HuggingFaceTB/SmolLM2-135M")
    assert code == 1 and err.endswith("Did you mean hf:HuggingFaceTB/SmolLM2-135M?\n")


@pytest.mark.parametrize(
    "command",
    [
        ["ablate", "ladder", "--jobs"],
        ["compare", "--threads"],
        pytest.param(["bench", "--threads"], marks=needs_kernels),
        ["sample", "RUN", "--threads"],
    ],
)
@pytest.mark.parametrize("number", [0, -2])
def test_a_number_of_processors_is_called_what_was_typed(number, command, cli, endless, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(*(str(endless[0]) if part == "RUN" else part for part in command), number)
    words = f"minillama: error: {command[-1]} must be a whole number of at least 1; received {number}\n"
    assert code == 1 and err == words


def test_info_of_a_model_of_the_card(cli):
    code, out, _ = cli("info", "llama-7b")
    assert code == 0 and "6,738,415,616" in out and "100.0%" in out
    assert "each block.w_gate               11,008 x 4,096\n" in out
    assert "final_norm                      4,096\n" in out
    assert "rope_theta              10000.0\n" in out and "rope_original_context" not in out
    code, out, _ = cli("info", "bert-base")
    assert code == 0 and "109,514,298" in out and "bias                    qkv, o, ffn, norm, head\n" in out
    assert "rope" not in out and "cache" not in out and "each block.attention_norm_bias  768\n" in out
    code, _, err = cli("info", "llama-8b")
    assert code == 1 and all(name in err for name in PRESETS)


def test_resume_takes_the_saved_settings_and_refuses_others(cli, run_folder):
    code, out, _ = cli("train", "--out", run_folder, "--resume")
    assert code == 0 and "at step 6 of 6" in out
    assert cli("train", "--out", run_folder, "--resume", "--tokenizer", "char", "--vocab-size", 1024)[0] == 0
    code, out, _ = cli("train", "--out", run_folder, "--resume", "--threads", 2)
    assert code == 0 and "with 2 threads, not 1 as before" in out
    code, _, err = cli("train", "--out", run_folder, "--resume", "--lr", 0.5)
    assert code == 1 and "was started with --lr 0.0015, not 0.5" in err and "Leave --lr out" in err
    code, _, err = cli("train", "--out", run_folder, "--resume", "--kv-heads", 1)
    assert code == 1 and "--kv-heads 2, not 1" in err
    assert cli("train", "--out", run_folder, "--resume", "--lr", 0.0015, "--threads", 1)[0] == 0


def test_ctrl_c_saves_and_says_how_to_go_on(cli, text, tmp_path, monkeypatch):
    from minillama.training.run import Run

    step = Run.step

    def interrupting_step(self):
        if self.optimizer.steps == 3:
            signal.raise_signal(signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Run, "step", interrupting_step)
    code, out, err = cli("train", "--data", text, "--out", tmp_path / "run", *TINY.split())
    assert code == 130 and f"minillama train --out {tmp_path / 'run'} --resume" in out
    assert "finishing the step, then saving" in err
    assert (tmp_path / "run" / "loss.png").exists()  # step 3 was evaluated before the interrupt
    monkeypatch.setattr(Run, "step", step)
    code, out, _ = cli("train", "--out", tmp_path / "run", "--resume")
    assert code == 0 and "at step 4 of 6" in out


def test_a_second_ctrl_c_stops_at_once_and_says_so(cli, text, tmp_path, monkeypatch):
    from minillama.training.run import Run

    def impatient_step(self):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "step", impatient_step)
    code, _, err = cli("train", "--data", text, "--out", tmp_path / "run", *TINY.split())
    assert code == 130 and "stopped without saving; the last checkpoint is in" in err


def test_a_text_without_line_breaks_needs_a_prompt(cli, tmp_path):
    (tmp_path / "a.txt").write_text("abc " * 100)
    assert cli("train", "--data", tmp_path / "a.txt", "--out", tmp_path / "run", *TINY.split())[0] == 0
    code, _, err = cli("sample", tmp_path / "run")
    assert code == 1 and "--prompt" in err
    assert cli("sample", tmp_path / "run", "--prompt", "a")[0] == 0


def test_importing_compiles_nothing_and_leaves_the_large_libraries_alone():
    code = "import sys, minillama; print(sorted({'numba', 'matplotlib', 'safetensors', 'tqdm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"


def test_tokenizer_train_encode_decode(cli, text, tmp_path):
    code, out, _ = cli("tokenizer", "train", text, "--vocab-size", 280, "--out", tmp_path / "t")
    assert code == 0 and out.startswith("280 tokens")
    code, out, _ = cli("tokenizer", "encode", tmp_path / "t", "naïve ☕ cat")
    assert code == 0
    assert cli("tokenizer", "decode", tmp_path / "t", *out.split())[1] == "naïve ☕ cat\n"
    code, _, err = cli("tokenizer", "decode", tmp_path / "t", 9999)
    assert code == 1 and "9999" in err
    code, _, err = cli("tokenizer", "decode", tmp_path / "t", "x1")
    assert code == 1 and "whole numbers; received 'x1'" in err


def test_output_is_utf_8_whatever_the_console_says(run_folder):
    command = [
        sys.executable,
        "-m",
        "minillama",
        "sample",
        run_folder,
        "--prompt",
        "naïve café ☕",
        "--max-tokens",
        "3",
    ]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.stdout.decode("utf-8").startswith("naïve café ☕")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train", "--data", "missing.txt"], "no file or folder missing.txt"),
        (["train", "--dim", "100", "--heads", "3"], "heads must divide dim"),
        (["train", "--dim", "12", "--heads", "4"], "must be even"),
        (["train", "--threads", "0", "--steps", "1"], "threads must be a whole number of at least 1; received 0"),
        (["train", "--steps", "0"], "steps must be at least 1; received 0"),
        (["train", "--tokenizer", "words"], "tokenizer must be one of bpe, char"),
        (["train", "--resume", "--out", "nowhere"], "nowhere holds no run to resume"),
        (["sample", "nowhere"], "expected the folder of a run"),
        (["tokenizer", "encode", "nowhere", "text"], "nowhere"),
    ],
)
def test_mistakes_are_explained_and_the_exit_code_is_1(arguments, words, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minillama.data.corpora.STORIES_CHARACTERS", 20_000)
    code, out, err = cli(*arguments)
    assert code == 1 and words in err and err.startswith("minillama: error: ") and "Traceback" not in err


HUGE = 2**59  # numbers; no computer has the memory, whatever it promises to a process that asks


@pytest.mark.parametrize(
    "option, value",
    [("--batch-size", HUGE), ("--batch-size", 10**26), ("--ffn", HUGE), ("--ffn", 2**62), ("--context", 10**17)],
)
def test_what_does_not_fit_into_memory_is_explained(option, value, cli, text, tmp_path):
    code, _, err = cli("train", "--data", text, "--tokenizer", "char", "--out", tmp_path / "run", "--dim", 8, "--heads",
                       2, "--layers", 1, "--context", 8, "--steps", 1, "--threads", 1, option, value)  # fmt: skip
    if option == "--context":  # which the text is too short for
        assert code == 1 and "use more text or a smaller --context" in err or "more memory than there is" in err
    else:
        assert code == 1 and "needs more memory than there is" in err and "Traceback" not in err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--temperature", "0"], "above 0; received 0"),
        (["--temperature", "-1"], "above 0; received -1"),
        (["--top-p", "0"], "(0, 1]"),
        (["--top-p", "1.1"], "(0, 1]"),
        (["--prompt", "the cat sat on the mat. the cat"], "do not fit this model's context of 16"),
        (["--max-tokens", "100"], "sliding window"),
        (["--max-tokens", "0"], "--max-tokens must be at least 1; received 0"),
        (["--prompt", "XYZ"], "X"),
    ],
)
def test_wrong_sampling_is_explained(arguments, words, cli, run_folder):
    code, out, err = cli("sample", run_folder, *arguments)
    assert code == 1 and words in err, err


def test_links_that_lead_in_a_circle_are_no_file(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
    except OSError:
        pytest.skip("this system makes no links")
    code, _, err = cli("train", "--data", "a")
    assert code == 1 and "there is no file or folder a" in err


def test_text_that_is_too_short_is_explained(cli, tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    code, _, err = cli("train", "--data", tmp_path / "short.txt", "--tokenizer", "char", "--out", tmp_path / "run")
    assert code == 1 and "one window of context 256 needs 257" in err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_explained(cli, text, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, err = cli("train", "--data", text, "--out", tmp_path / "file" / "run", *TINY.split())
    assert code == 1 and "file is a file and no folder, so" in err


def test_a_run_that_is_there_is_not_overwritten(cli, text, run_folder):
    code, _, err = cli("train", "--data", text, "--out", run_folder, *TINY.split())
    assert code == 1 and "already holds a run" in err


def test_help_shows_every_default(capsys):
    with pytest.raises(SystemExit) as stop:
        __main__.main(["train", "--help"])
    assert stop.value.code == 0
    descriptions = " ".join(capsys.readouterr().out.split("options:")[1].split()).split(" --")[1:]
    without = [text.split()[0].strip(",") for text in descriptions if "(default:" not in text]
    switches = ["tied", "qk-norm", "embedding-norm"]  # told with --no-tied and so on
    assert len(descriptions) > 25 and without == ["help", "resume", "overwrite", *switches]


def parsers(parser):
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers(inner)


def test_every_command_is_described_and_every_value_has_a_name_in_capitals():
    every = list(parsers(whole_parser()))
    assert len(every) > 16 and all(parser.description for parser in every)
    for action in (action for parser in every for action in parser._actions):
        if action.nargs != 0 and not action.choices and action.metavar != "i/n":
            assert action.metavar and action.metavar.isupper(), action


@pytest.fixture
def shown_help(capsys, monkeypatch):
    """The help of a command, as one line."""
    monkeypatch.setenv("COLUMNS", "1000")  # so that no word is broken

    def show(*command):
        with pytest.raises(SystemExit) as stop:
            __main__.main([*command, "--help"])
        assert stop.value.code == 0
        return " ".join(capsys.readouterr().out.split())

    return show


@pytest.mark.parametrize("command", ["sample", "chat", "fill", "inspect", "perplexity"])
def test_help_says_what_a_model_can_be(command, shown_help):
    known = "MODEL folder of a run, of Hugging Face or of Meta's layout, or a file of llama2.c"
    assert known in shown_help(command)


def test_help_of_some_options(shown_help):
    assert f"MODEL|NAME a model as for sample, or one of: {next(iter(PRESETS))}, " in shown_help("info")
    chat = shown_help("chat")
    assert "--max-tokens N tokens of an answer, at most (default: what fits the context)" in chat
    assert "--max-tokens N tokens to write (default: what fits the context)" in shown_help("sample")
    assert all(f"{name} {text}" in chat for name, text in CHAT_COMMANDS.items()) and "/quit" in chat
    assert "TEXT the text; special tokens in it count (default:" in shown_help("tokenizer", "encode")
    assert "<|endoftext|> in a file stands between documents, where" in shown_help("perplexity")


def test_the_settings_of_a_run_are_the_ones_given(run_folder):
    config = json.loads((run_folder / "config.json").read_text())
    assert config["hidden_size"] == 16 and config["num_hidden_layers"] == 1 and config["max_position_embeddings"] == 16


def test_bench_without_numba_says_what_is_missing(capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        reason = backend.missing_kernels.__wrapped__()
    monkeypatch.setattr("minillama.cli.bench.missing_kernels", lambda: reason)
    assert __main__.main(["bench"]) != 0
    assert "pip install numba" in capsys.readouterr().err
