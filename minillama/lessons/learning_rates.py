"""python -m minillama.lessons.learning_rates: how high a learning rate each norm and placement stands (lesson 03).

A small LLaMA of 2, 8 or 24 blocks is trained on the stories with every norm and placement, every learning rate of a
grid, with and without warm-up, and three seeds. Each training is a line of JSON in the results; one that is there
already is not done again, so that an interrupted run goes on where it stopped.

What counts as stable (`highest_stable`) and the grid by factors of 2 were fixed before the runs that are reported, with
one training of each variant at five rates and a seed, 1000, that is not among the reported ones. Three rates between
those of the grid were added after a first look at the reported runs, for all variants, warm-ups and seeds. All of that
was with 8 blocks; 2 and 24 were added later, on the same grid, with the same seeds and the same definition.

Results are added to a new file, or to one of results of this experiment; any other is refused, and stays as it is.
"""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..cli.arguments import Parser
from ..config import Config
from ..data.corpora import encode_corpus
from ..files import append_text, write_text
from ..model import Model
from ..training.trainer import NotFinite, Settings, Trainer, evaluate

VARIANTS = {  # name -> the choices of Config in which it differs from LLaMA
    "pre, RMSNorm": {"norm": "rmsnorm", "placement": "pre"},
    "pre, LayerNorm": {"norm": "layernorm", "placement": "pre"},
    "post, RMSNorm": {"norm": "rmsnorm", "placement": "post"},
    "post, LayerNorm": {"norm": "layernorm", "placement": "post"},
    "no norm": {"norm": "none"},
}
SHAPE = {"dim": 32, "heads": 4, "context": 32}
DEPTHS = (2, 8, 24)  # blocks
STEPS, BATCH_SIZE, INIT_STD, SEEDS = 200, 8, 0.06, (0, 1, 2)
WARMUPS = (0, 50)  # steps
# 0.002 to 0.256 by factors of 2; the three in between were added after a first look, to see the limits more closely
RATES = (0.002, 0.004, 0.008, 0.016, 0.0226, 0.032, 0.0453, 0.064, 0.0905, 0.128, 0.256)
VALIDATION_TOKENS = 8192
_FIELDS = {  # of a result -> the types that it may have
    "variant": str,
    "layers": int,
    "rate": float,
    "warmup": int,
    "seed": int,
    "loss": float | None,
    "first_loss": float,
    "worst_loss": float,
    "steps": int,
    "unigram_loss": float,
    "seconds": float,
}
SLACK = 0.2  # nats per token; the lesson shows what other values would give


def train(corpus, variant, layers, rate, warmup, seed, steps=STEPS):
    """Train once; returns the result as a dictionary, in which loss is None if the training ran into infinity."""
    config = Config(corpus.tokenizer.vocab_size, **SHAPE, layers=layers, **VARIANTS[variant])
    settings = Settings(steps=steps, batch_size=BATCH_SIZE, lr=rate, warmup=warmup, seed=seed, init_std=INIT_STD)
    trainer = Trainer(Model(config, seed, threads=1, init_std=INIT_STD), corpus, settings)
    losses, final, started = [], math.nan, time.perf_counter()
    with np.errstate(all="ignore"):  # what overflows is reported as a loss of None
        try:
            while trainer.optimizer.steps < steps:
                losses.append(trainer.step()[0])
            final = evaluate(trainer.model, corpus.validation[:VALIDATION_TOKENS], corpus.tokenizer)
        except NotFinite:
            pass
    return {
        "variant": variant,
        "layers": layers,
        "rate": rate,
        "warmup": warmup,
        "seed": seed,
        "loss": round(final, 5) if math.isfinite(final) else None,
        "first_loss": round(losses[0], 4),
        "worst_loss": round(max(losses), 4),
        "steps": len(losses),
        "unigram_loss": round(unigram_loss(corpus), 4),
        "seconds": round(time.perf_counter() - started, 2),
    }


def unigram_loss(corpus):
    """The loss of a model that knows how often each token occurs, and nothing of the context."""
    counts = 1 + np.bincount(corpus.train, minlength=corpus.tokenizer.vocab_size)
    return float(-np.mean(np.log(counts / counts.sum())[corpus.validation[1:VALIDATION_TOKENS]]))


def highest_stable(results, variant, layers, warmup, seed, slack=SLACK):
    """The highest rate of the grid up to which the training is stable with this seed; None if it never is

    A training is stable if its final validation loss is at most slack above the least that this variant, depth,
    warm-up and seed reach at any rate. Counted upwards from the best rate, up to the first one that is not stable.
    """
    losses = {
        r["rate"]: math.inf if r["loss"] is None else r["loss"]
        for r in results
        if (r["variant"], r["layers"], r["warmup"], r["seed"]) == (variant, layers, warmup, seed)
    }
    best = min(losses, key=losses.get)
    if not math.isfinite(losses[best]):
        return None
    stable = best
    for rate in sorted(rate for rate in losses if rate > best):
        if losses[rate] > losses[best] + slack:
            break
        stable = rate
    return stable


def read(path):
    """The results in a file, a list of dictionaries; none if there is no such file

    A last line that has no end, as an interrupted run leaves behind, is left out. ValueError, naming the line, if the
    file holds anything else than results of this experiment.
    """
    return _read(path)[0]


def _read(path):
    """The results, and what stands behind the last line end: the beginning of another, or nothing."""
    path = Path(path)
    if not path.exists():
        return [], ""
    try:
        *lines, rest = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} does not hold results of this experiment: {error}. {_NOTHING_CHANGED}") from None
    results = [_result(line, f"line {number} of {path}") for number, line in enumerate(lines, 1)]
    beginnings = [json.dumps({"variant": variant, "layers": 0})[:-2] for variant in VARIANTS]
    begins = any(rest[: len(text)] == text[: len(rest)] for text in beginnings)
    if not begins or (rest and not results and not rest.startswith('{"variant"')):
        what = f"the end of {path}, {rest[:40]!r}, is no result of this experiment that was cut off"
        raise ValueError(f"{what}. {_NOTHING_CHANGED}")
    return results, rest


_NOTHING_CHANGED = "Nothing was changed: give another file to --out"


def _result(line, where):
    try:
        result = json.loads(line)
    except json.JSONDecodeError:
        result = None
    if not isinstance(result, dict) or result.keys() != _FIELDS.keys() or result["variant"] not in VARIANTS:
        raise ValueError(f"{where} is no result of this experiment: {line[:60]!r}. {_NOTHING_CHANGED}")
    for name, kind in _FIELDS.items():
        if not isinstance(result[name], kind):
            raise ValueError(f"{where} has {name} = {result[name]!r}, expected {kind}. {_NOTHING_CHANGED}")
    return result


def _results_to_add_to(path, steps):
    """The results in a file that is going to be added to; what an interrupted run left behind them is taken away."""
    results, rest = _read(path)
    others = sorted({r["steps"] for r in results if r["loss"] is not None} - {steps})
    if others:
        raise ValueError(
            f"{path} holds trainings of {others[0]} steps, and these would have {steps}. {_NOTHING_CHANGED}, or "
            f"--steps {others[0]}"
        )
    if rest:  # the next result would become part of it
        text = Path(path).read_bytes().decode("utf-8")
        write_text(path, text[: len(text) - len(rest)])
    append_text(path, "")  # a folder that cannot be written to is said now, not after the first training
    return results


def main(arguments=None):
    parser = Parser(prog="python -m minillama.lessons.learning_rates", description=__doc__)
    parser.add_argument("--out", required=True, metavar="FILE", help="where results are added, a line of JSON each")
    parser.add_argument(
        "--layers", type=int, nargs="+", default=DEPTHS, help="numbers of blocks (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args(arguments)
    try:
        if options.steps <= max(WARMUPS):
            raise ValueError(f"--steps must be more than the longest warm-up, {max(WARMUPS)}; received {options.steps}")
        if min(options.layers) < 1:
            raise ValueError(f"--layers must be 1 or more; received {min(options.layers)}")
        results = _results_to_add_to(options.out, options.steps)
    except (ValueError, OSError) as error:
        print(f"minillama.lessons.learning_rates: error: {error}", file=sys.stderr)
        return 1
    done = {(r["variant"], r["layers"], r["rate"], r["warmup"], r["seed"]) for r in results}
    jobs = [
        (variant, layers, rate, warmup, seed)
        for layers in options.layers
        for seed in options.seeds
        for warmup in WARMUPS
        for variant in VARIANTS
        for rate in RATES
    ]
    jobs = [job for job in jobs if job not in done]
    corpus = encode_corpus("stories")
    for job in tqdm(jobs, unit="training"):
        result = train(corpus, *job, options.steps)
        append_text(options.out, json.dumps(result, allow_nan=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
