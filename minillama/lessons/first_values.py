"""python -m minillama.lessons.first_values: what the division of first values by sqrt(2 L) is worth (lesson 08).

A narrow LLaMA of 2, 8 and 24 blocks is trained on the stories, with first values that are divided, as the library's
are, and with others that are not, at three learning rates, with seeds 0 to 4. The rates and the number of steps were
chosen after trials at two of the rates with a seed, 1000, that is not among these. Each training is a line of JSON in
the results.
"""

import json
import math
import sys
from itertools import product
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..cli.arguments import Parser
from ..config import Config
from ..data.corpora import encode_corpus
from ..files import replacing, require_free
from ..model import Model
from ..training.trainer import NotFinite, Settings, Trainer, evaluate

LAYERS, RATES, SEEDS = (2, 8, 24), (0.003, 0.01, 0.03), (0, 1, 2, 3, 4)
VOCABULARY, SHAPE = 512, {"dim": 32, "heads": 4, "context": 32}
STEPS, WARMUP, BATCH_SIZE, INIT_STD = 150, 20, 8, 0.02
VALIDATION_TOKENS = 8192


def first_model(config, divided, seed, threads=1):
    """A model with its first values, of standard deviation 0.02; divided: those of w_o and w_down by sqrt(2 L)."""
    model = Model(config, seed, threads=threads, init_std=INIT_STD)
    for name, array in model.parameters.items():
        if name.endswith((".w_o", ".w_down")) and not divided:
            array *= math.sqrt(2 * config.layers)  # undo the library's division
    return model


def train(corpus, layers, divided, rate, seed, steps=STEPS):
    """Train once; returns the result as a dictionary, in which loss is None if the training ran into infinity."""
    model = first_model(Config(corpus.tokenizer.vocab_size, layers=layers, **SHAPE), divided, seed)
    settings = Settings(steps=steps, warmup=min(WARMUP, steps - 1), batch_size=BATCH_SIZE, lr=rate, seed=seed)
    trainer, loss = Trainer(model, corpus, settings), math.nan
    with np.errstate(all="ignore"):  # what overflows is reported as a loss of None
        try:
            for _ in range(steps):
                trainer.step()
            loss = evaluate(model, corpus.validation[:VALIDATION_TOKENS], corpus.tokenizer)
        except NotFinite:
            pass
    loss = round(loss, 5) if math.isfinite(loss) else None  # the last step can be one too many
    return {"layers": layers, "divided": divided, "rate": rate, "seed": seed, "steps": steps, "loss": loss}


def read(path):
    """{(layers, divided, rate): losses in the order of the seeds, inf for a training that ran into infinity}"""
    losses = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        result = json.loads(line)
        key = result["layers"], result["divided"], result["rate"]
        losses.setdefault(key, []).append(math.inf if result["loss"] is None else result["loss"])
    return {key: np.array(found) for key, found in losses.items()}


def main(arguments=None):
    parser = Parser(prog="python -m minillama.lessons.first_values", description=__doc__)
    parser.add_argument("--out", required=True, metavar="FILE", help="a new file for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    options = parser.parse_args(arguments)
    try:
        require_free([Path(options.out)], options.overwrite, "give another file to --out")
        corpus = encode_corpus("stories", vocab_size=VOCABULARY)
        jobs = list(product(LAYERS, (False, True), RATES, options.seeds))
        with replacing(options.out) as new:  # a folder that cannot be written to is said now, not after the trainings
            results = [train(corpus, *job) for job in tqdm(jobs, unit="training")]
            lines = (json.dumps(result, allow_nan=False) + "\n" for result in results)
            new.write_bytes("".join(lines).encode("utf-8"))
    except (ValueError, OSError) as error:
        print(f"minillama.lessons.first_values: error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
