"""python -m minillama.lessons.gradient_mistakes: what a training shows of a wrong backward (lesson 08).

The small LLaMA of `minillama.lessons.put_in` is trained with the right backward and with each mistake of a list, with
the same two seeds. A mistake is one formula of the whole backward; nothing else differs. Each training is a line of
JSON in the results; one that is there already is not done again. Seeds 1 and 2 were fixed before the runs; the list was
drawn up after a look at one training of each with seed 0, which is not among them.
"""

import json
import math
import sys
from pathlib import Path

from tqdm import tqdm

from ..cli.arguments import Parser
from ..files import append_text
from . import reference_llama
from .put_in import put_in, train

RIGHT = "none"
MISTAKES = {  # what reference_llama calls it -> in words
    "straight path dropped": "residuals: only what comes through the layers",
    "straight path around attention dropped": "the same, around attention alone",
    "straight path around feed-forward dropped": "the same, around the feed-forward alone",
    "layers' path dropped": "residuals: only what comes straight",
    "path through attention dropped": "nothing comes back through attention",
    "path through feed-forward dropped": "nothing comes back through the feed-forward",
    "assigned": "embedding: assigned, not added",
    "twice": "1 / N twice",
    "sum": "1 / N forgotten",
    "no final norm": "the final norm passed over",
    "norms passed over": "the blocks' norms passed over",
    "turned forwards": "dq and dk turned forwards",
    "not turned back": "dq and dk not turned back",
    "queries alone": "only the queries' part of three",
    "gate's path dropped": "only up's part of two",
}
SEEDS = (1, 2)


def training(mistake, seed):
    """The result of one training as a dictionary; loss: the validation loss, None where it ran into infinity."""

    def backward(p, ids, targets, config):
        return reference_llama.gradients(p, ids, targets, config, None if mistake == RIGHT else mistake)

    with put_in("llama_gradients", backward):
        loss = train(seed=seed).validation
    return {"mistake": mistake, "seed": seed, "loss": loss if math.isfinite(loss) else None}


def read(path):
    """The results in a file, a dictionary each; ValueError for a file that holds anything else."""
    results = []
    for line in Path(path).read_bytes().splitlines():
        try:
            result = json.loads(line)
        except ValueError:  # no JSON, or no text at all
            result = None
        if not isinstance(result, dict) or result.keys() != {"mistake", "seed", "loss"}:
            raise ValueError(f"{path} holds something else than results of this experiment. Nothing was changed")
        results.append(result)
    return results


def main(arguments=None):
    parser = Parser(prog="python -m minillama.lessons.gradient_mistakes", description=__doc__)
    parser.add_argument("--out", required=True, metavar="FILE", help="where results are added, a line of JSON each")
    options = parser.parse_args(arguments)
    try:
        done = {(r["mistake"], r["seed"]) for r in read(options.out)} if Path(options.out).exists() else set()
        ended = not done or Path(options.out).read_bytes().endswith(b"\n")
        # A folder that cannot be written to is said now, not after the first training.
        append_text(options.out, "" if ended else "\n")
    except (ValueError, OSError) as error:
        print(f"minillama.lessons.gradient_mistakes: error: {error}; give another file", file=sys.stderr)
        return 1
    jobs = [(mistake, seed) for seed in SEEDS for mistake in (RIGHT, *MISTAKES)]
    for mistake, seed in tqdm([job for job in jobs if job not in done], unit="training"):
        append_text(options.out, json.dumps(training(mistake, seed), allow_nan=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
