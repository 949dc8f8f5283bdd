"""Options that would change nothing are refused with the reason, and so are names that mean two things."""

import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minillama import Config, Model
from minillama.cli import ablate, idle, train
from minillama.config import SWITCHES

from .conftest import whole_parser

PARSER = whole_parser()
_SHAPE = dict(vocab_size=11, dim=32, layers=1, heads=2, context=64)
_FROM = {
    "tokenizer": "char", "family": "gpt2", "tied": None, "norm": "layernorm", "placement": "post", "position": "alibi",
    "rope_layout": "interleaved", "rope_scaling": "ntk", "feed_forward": "gelu", "mask": "bidirectional",
    "head": "masked_lm", "bias": "norm", "qk_norm": None, "embedding_norm": None,
}  # fmt: skip
_ABLATE = {
    "corpora": "stories", "tokenizer": "char", "equal": "compute", "shard": "1/2",
}  # fmt: skip

# (command, options behind it, the option that is refused, a part of the reason)
CASES = [
    ("train", "--tokenizer char --vocab-size 300", "--vocab-size", "char has a token for each different character"),
    *[
        ("train", f"--{with_} {option} {value}", option, f"the position is {position!r}")
        for option, value in [
            ("--rope-theta", 1e4), ("--rope-layout", "interleaved"), ("--rope-factor", 2),
            ("--rope-original-context", 9),
        ]
        for with_, position in [("family gpt2", "learned"), ("family bert", "learned"), ("position alibi", "alibi")]
    ],
    ("train", "--rope-factor 2", "--rope-factor", "it belongs to a --rope-scaling, one of linear, ntk, dynamic"),
    ("train", "--rope-original-context 64", "--rope-original-context", "and there is none"),
    ("train", "--rope-scaling ntk --rope-factor 2 --rope-original-context 9", "--rope-original-context", "the factor"),
    ("train", "--rope-scaling dynamic --rope-factor 2", "--rope-scaling", "none can be longer than the context, 256"),
    ("train", "--norm none --norm-eps 1e-6", "--norm-eps", "the norm is 'none'"),
    *[
        ("train", f"--from m {option} {_FROM.get(name, 4) or ''}", option, "goes on from m, which brings its own")
        for name in train.OF_A_MODEL
        for option in ["--" + name.replace("_", "-")]
    ],
    ("train", "--momentum 0.8", "--momentum", "it belongs to --optimizer sgd, and the optimizer is 'adamw'"),
    ("train", "--optimizer adam --momentum 0.8", "--momentum", "and the optimizer is 'adam'"),
    ("train", "--optimizer sgd --beta1 0.8", "--beta1", "it belongs to --optimizer adamw or adam"),
    ("train", "--optimizer sgd --beta2 0.8", "--beta2", "and the optimizer is 'sgd'"),
    ("train", "--schedule constant --lr-floor 0.2", "--lr-floor", "--schedule cosine or linear or wsd"),
    ("train", "--decay-share 0.2", "--decay-share", "it belongs to --schedule wsd, and the schedule is 'cosine'"),
    ("train", "--micro-batches 9", "--micro-batches", "a batch of 8 sequences cannot be computed in 9 parts"),
    ("train", "--micro-batches 3 --batch-size 2", "--micro-batches", "in 2 at most"),
    *[
        (command, f"x --top-k 1 {option} {value}", option, "the likeliest token is taken every time")
        for command in ("sample", "chat")
        for option, value in [("--temperature", 0.5), ("--top-p", 0.5), ("--seed", 3)]
    ],
    *[
        ("ablate", f"report x {option} {_ABLATE.get(name, 1)}", option, "trains nothing")
        for name in ablate._OF_TRAINING
        for option in ["--" + name.replace("_", "-")]
    ],
    ("ablate", "report x --out y", "--out", "the report is on the folders that are named"),
    ("ablate", "ladder --tokenizer char --vocab-size 300", "--vocab-size", "each different character"),
    ("ablate", "ladder --corpora a.txt a.txt --vocab-size 300", "--vocab-size", "single files are read by characters"),
    ("ablate", "ladder --shard 1/2 --figures f", "--figures", "minillama ablate report when all parts are done"),
    ("bench", "length elementwise --shapes char", "--shapes", "no part in length, elementwise"),
    ("bench", "decoding --shapes char long", "--shapes", "decoding is measured at stories260K, stories15M, 110M only"),
    ("bench", "matmul --no-torch", "--no-torch", "PyTorch has no part in matmul"),
]  # fmt: skip
TAKEN = [
    "train --from m --context 8 --dropout 0.1 --steps 5 --weight-decay 0", "train --optimizer sgd --momentum 0.8",
    "train --optimizer sgd --weight-decay 0.2", "train --schedule wsd --decay-share 0.2 --lr-floor 0",
    "train --vocab-size 300", "train --rope-theta 1e5 --rope-layout interleaved",
    "train --family gpt2 --rope-scaling none",
    "train --family gpt2 --position rope --rope-theta 1e5", "train --rope-scaling linear --rope-factor 2",
    "train --rope-scaling yarn --rope-factor 2 --rope-original-context 64", "train --norm-eps 1e-6",
    "train --rope-scaling dynamic --rope-factor 2 --rope-original-context 64", "train --micro-batches 8",
    "train --family bert --norm-eps 1e-6", "train --resume --family gpt2 --rope-theta 5", "sample x --top-k 2 --seed 3",
    "sample x --top-k 1", "chat x --top-k 1 --max-tokens 5", "ablate report", "ablate report --out x",
    "ablate --vocab-size 300", "ablate report x y --figures f", "ablate --corpora a.txt stories --vocab-size 300",
    "ablate ladder --shard 1/1 --figures f",
    "ablate --corpora a.txt --tokenizer bpe --vocab-size 300", "bench length matmul --shapes char", "bench --no-torch",
    "bench decoding training --shapes char", "bench decoding --shapes char stories15M",
]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("some text")
    return tmp_path


@pytest.mark.parametrize("command, words, option, reason", CASES)
def test_an_option_without_effect_is_refused_with_the_reason(command, words, option, reason, here, cli):
    code, out, err = cli(command, *words.split())
    assert (
        code == 1 and not out and err.startswith(f"minillama: error: {option} has no effect here: ") and reason in err
    ), err
    assert err.endswith(". Leave it out\n") and sorted(here.iterdir()) == [here / "a.txt"]


@pytest.mark.parametrize("words", TAKEN)
def test_an_option_with_an_effect_is_taken(words, here):
    idle.refuse(PARSER.parse_args(words.split()))


def test_every_option_of_the_table_has_a_case_and_exists():
    seen = {(command, option) for command, _, option, _ in CASES}
    listed = set()
    for command, parser in PARSER._inner().choices.items():
        rows = getattr(parser.get_default("command"), "IDLE", ())
        for name in (name for names, _ in rows for name in names):
            option = "--no-torch" if name == "torch" else "--" + name.replace("_", "-")
            listed.add((command, option))
            assert option in parser._option_string_actions, (command, option)
    assert listed == seen


def test_what_is_refused_of_the_model_s_options_is_what_changes_no_logit(here):
    """Over every position, scaling and norm: an option is refused just where all of its values give the same model."""
    others = {"rope_layout": ["interleaved"], "rope_theta": [100.0], "rope_factor": [3.0], "norm_eps": [0.1]}
    others["rope_original_context"] = [16, 48]
    ids = np.random.default_rng(0).integers(0, 11, (1, 64))
    counts = {True: 0, False: 0}
    for position, scaling, norm in itertools.product(
        *(SWITCHES[name] for name in ("position", "rope_scaling", "norm"))
    ):
        chosen = {"position": position, "rope_scaling": scaling, "norm": norm}
        base = {**chosen, **({} if scaling == "none" else {"rope_factor": 2.0})}
        base |= {"rope_original_context": 24} if scaling == "dynamic" else {}
        try:
            config = Config(**_SHAPE, **base)
        except ValueError:  # Config itself refuses this combination
            continue
        plain = Model(config, 0, init_std=0.5).logits(ids)
        for name, values in others.items():
            changed = False
            for value in values:
                try:
                    changed |= (Model(replace(config, **{name: value}), 0, init_std=0.5).logits(ids) != plain).any()
                except ValueError:  # so that there is no such model
                    assert name in ("rope_factor", "rope_original_context")
            given = {**base, name: values[0]}
            words = [word for field, value in given.items() for word in (f"--{field.replace('_', '-')}", str(value))]
            options = PARSER.parse_args(["train", "--context", "64", *words])
            options = type(options)(**{**vars(options), "given": frozenset([name])})
            try:
                idle.refuse(options)
                refused = False
            except ValueError as error:
                assert "has no effect here" in str(error)
                refused = True
            assert refused != changed, (given, name)
            counts[bool(changed)] += 1
    assert counts[True] > 30 and counts[False] > 30


@pytest.mark.parametrize(
    "command, words, instead",
    [
        ("train", "--data stories", "for the source leave --data out"),
        ("compare", "stories", "for the source leave it out"),
        ("ablate", "ladder --corpora stories", "for the source leave --corpora out"),
        ("tokenizer train", "stories --out t", "for the source give the command in another folder"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_stories_that_are_here_too_are_not_passed_over(command, words, instead, kind, here, cli):
    Path("stories").mkdir() if kind == "folder" else Path("stories").write_text("my own stories")
    code, out, err = cli(*command.split(), *words.split())
    assert (
        code == 1 and f"there is a {kind} of that name here. Write ./stories for the {kind}" in err and instead in err
    )


def test_without_a_name_the_built_in_stories_are_meant(here):
    Path("stories").mkdir()
    for words in ("train", "compare", "ablate ladder", "train --data ./stories", "tokenizer train ./stories --out t"):
        idle.refuse(PARSER.parse_args(words.split()))


def test_a_folder_that_is_called_like_a_published_model(here, cli):
    assert cli("info", "tiny-llama")[0] == 0
    Path("tiny-llama").mkdir()
    code, _, err = cli("info", "tiny-llama")
    assert code == 1 and "there is a folder of that name here. Write ./tiny-llama for the folder" in err
    assert "there is no model at tiny-llama" in cli("info", "./tiny-llama")[2]


def test_a_folder_of_results_that_is_called_report(here, cli):
    Path("report").mkdir()
    assert "no file or folder results" in cli("ablate", "report")[2]
    Path("report/results.jsonl").write_text("")
    code, _, err = cli("ablate", "report")
    assert code == 1 and "Write minillama ablate report report" in err
    assert "there are no results in report" in cli("ablate", "report", "report")[2]


def test_resume_alone_names_the_runs_that_there_are(here, cli, monkeypatch):
    code, _, err = cli("train", "--resume")
    assert code == 1 and "holds no run to resume" in err and "Start one without --resume" in err
    tiny = "--data a.txt --tokenizer char --context 16 --dim 16 --layers 1 --heads 2 --batch-size 2 --threads 1".split()
    Path("a.txt").write_text("the cat sat on the mat. " * 60)
    for age, name in enumerate(("new one", "old")):
        assert cli("train", *tiny, "--out", f"runs/{name}", "--steps", 3 + age)[0] == 0
        os.utime(f"runs/{name}/trainer.safetensors", (1e9 - age, 1e9 - age))
    Path("runs/broken").mkdir()
    Path("runs/broken/trainer.safetensors").write_text("x")
    os.utime("runs/broken/trainer.safetensors", (1, 1))
    for words in (["--resume"], ["--resume", "--out", "runs"], ["--resume", "--out", "runs/other"]):
        code, _, err = cli("train", *words)
        first, *lines = err.splitlines()
        assert code == 1 and "the newest first:" in first and ("Name the folder" in first) == (words == ["--resume"])
        assert [line.split("    ")[-1] for line in lines] == [
            "step 3 of 3",
            "step 4 of 4",
            "trainer.safetensors is damaged",
        ]
        assert "--out" in lines[0] and "new one" in lines[0] and lines[0].endswith("--resume    step 3 of 3")
    monkeypatch.chdir("runs/old")
    assert "minillama train --out . --resume    step 4 of 4" in cli("train", "--resume")[2]


def test_short_trainings_work_without_a_warm_up_of_their_own(here, cli):
    Path("a.txt").write_text("the cat sat on the mat. " * 60)
    tiny = "--data a.txt --tokenizer char --context 16 --dim 16 --layers 1 --heads 2 --batch-size 2 --threads 1".split()
    assert cli("train", *tiny, "--out", "a", "--steps", 3, "--clip", 0)[0] == 0
    code, _, err = cli("train", *tiny, "--out", "b", "--steps", 3, "--warmup", 3)
    assert code == 1 and "warmup must be less than steps" in err and not Path("b").exists()
    shape = "--dim 8 --layers 1 --heads 2 --context 8 --batch-size 2 --seeds 1 --jobs 1 --steps 3".split()
    code, _, err = cli("ablate", "ladder", "--corpora", "a.txt", *shape, "--warmup", 3)
    assert code == 1 and "warmup must be less than steps" in err
