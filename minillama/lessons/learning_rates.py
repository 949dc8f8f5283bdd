"""python -m minillama.lessons.learning_rates: how high a learning rate each norm and placement stands (lesson 03).

A small, deep LLaMA is trained on the stories with every norm and placement, every learning rate of a grid, with and
without warm-up, and three seeds. Each training is a line of JSON in the results; one that is there already is not done
again, so that an interrupted run goes on where it stopped.

What counts as stable (`highest_stable`) and the grid by factors of 2 were fixed before the runs that are reported, with
one training of each variant at five rates and a seed, 1000, that is not among the reported ones. Three rates between
those of the grid were added after a first look at the reported runs, for all variants, warm-ups and seeds.
"""

import json
import math
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..arguments import Parser
from ..config import Config
from ..corpora import Batches, encode_corpus
from ..files import append_text, write_text
from ..model import Model
from ..optim import AdamW, learning_rate
from ..train import evaluate

VARIANTS = {  # name -> the choices of Config in which it differs from LLaMA
    "pre, RMSNorm": {"norm": "rmsnorm", "placement": "pre"},
    "pre, LayerNorm": {"norm": "layernorm", "placement": "pre"},
    "post, RMSNorm": {"norm": "rmsnorm", "placement": "post"},
    "post, LayerNorm": {"norm": "layernorm", "placement": "post"},
    "no norm": {"norm": "none"},
}
SHAPE = {"dim": 32, "layers": 8, "heads": 4, "context": 32}
STEPS, BATCH_SIZE, INIT_STD, SEEDS = 200, 8, 0.06, (0, 1, 2)
WARMUPS = (0, 50)  # steps
# 0.002 to 0.256 by factors of 2; the three in between were added after a first look, to see the limits more closely
RATES = (0.002, 0.004, 0.008, 0.016, 0.0226, 0.032, 0.0453, 0.064, 0.0905, 0.128, 0.256)
VALIDATION_TOKENS = 8192
SLACK = 0.2  # nats a token; the lesson shows what other values would give


def train(corpus, variant, rate, warmup, seed, steps=STEPS):
    """Train once; returns the result as a dictionary, in which loss is None if the training ran into infinity."""
    config = Config(corpus.tokenizer.vocab_size, **SHAPE, **VARIANTS[variant])
    model = Model(config, seed, threads=1, init_std=INIT_STD)
    optimizer = AdamW(model.parameters, (0.9, 0.95), 1e-8, 0.1, 1.0)
    batches = Batches(corpus.train, config.context, BATCH_SIZE, seed, corpus.tokenizer.end_of_text)
    losses, final, started = [], math.nan, time.perf_counter()
    with np.errstate(all="ignore"):  # what overflows is reported as a loss of None
        for step in range(steps):
            loss, gradients = model.loss_and_gradients(*batches[step])
            norm = optimizer.gradient_norm(gradients, model.workers)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                break
            losses.append(loss)
            optimizer.step(gradients, norm, learning_rate(step + 1, steps, rate, warmup, 0.1), model.workers)
        if len(losses) == steps:
            final = evaluate(model, corpus.validation[:VALIDATION_TOKENS], corpus.tokenizer)
    return {
        "variant": variant,
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


def highest_stable(results, variant, warmup, seed, slack=SLACK):
    """The highest rate of the grid up to which the training is stable with this seed; None if it never is

    A training is stable if its final validation loss is at most slack above the least that this variant, warm-up and
    seed reach at any rate. Counted upwards from the best rate, up to the first one that is not stable.
    """
    losses = {
        r["rate"]: math.inf if r["loss"] is None else r["loss"]
        for r in results
        if (r["variant"], r["warmup"], r["seed"]) == (variant, warmup, seed)
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
    """The results in a file, a list of dictionaries; none if there is no such file."""
    path = Path(path)
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    return [json.loads(line) for line in lines[:-1]]


def _remove_cut_line(path):
    """Take away what an interrupted run left behind the last line end: the next result would become part of it."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text and not text.endswith("\n"):
        write_text(path, text[: text.rfind("\n") + 1])


def main(arguments=None):
    parser = Parser(prog="python -m minillama.lessons.learning_rates", description=__doc__)
    parser.add_argument("--out", required=True, metavar="FILE", help="where results are added, a line of JSON each")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args(arguments)
    done = {(r["variant"], r["rate"], r["warmup"], r["seed"]) for r in read(options.out)}
    jobs = [
        (variant, rate, warmup, seed)
        for seed in options.seeds
        for warmup in WARMUPS
        for variant in VARIANTS
        for rate in RATES
    ]
    jobs = [job for job in jobs if job not in done]
    _remove_cut_line(Path(options.out))
    corpus = encode_corpus("stories")
    for variant, rate, warmup, seed in tqdm(jobs, unit="training"):
        result = train(corpus, variant, rate, warmup, seed, options.steps)
        append_text(options.out, json.dumps(result, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
