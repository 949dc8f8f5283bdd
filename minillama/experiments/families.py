"""LLaMA, GPT and BERT trained on the same text at the same size, and what each of them can do: the card's comparison,
measured.

All three read the same tokens, have equal parameters (`presets.tiny`) and take as many steps, each family with the
learning rate that suits it, chosen as `minillama.experiments.jobs` chooses it. Two of them write, so their loss is that
of the next token; the third fills gaps. What all can be asked for is a token that is missing: BERT reads what stands on
both sides of the gap, the others what stands before it.
"""

import math
import time
from dataclasses import dataclass, replace
from statistics import mean

import numpy as np
import threadpoolctl

from ..catalogue.presets import tiny
from ..catalogue.sizes import parameter_count
from ..catalogue.stated import CORRECTIONS, STATED
from ..config import Config
from ..data.corpora import encode_corpus
from ..files import append_text
from ..model import Model
from ..ops.loss import IGNORED
from ..ops.masks import MASKS
from ..ops.positions import POSITIONS
from ..training.objectives.masked import MASKED_SHARE
from ..training.trainer import NotFinite, Settings, Trainer
from . import abilities, jobs
from .results import Results
from .scheduler import process_pool, run_jobs, sources
from .statistics import CONFIDENCE, estimate
from .variants import name_of

TITLES = {"llama": "LLaMA", "gpt2": "GPT-2", "bert": "BERT"}  # the families that are compared, and their names
WINDOWS = (8, 32, 128)  # tokens around a gap, itself included
_BATCHES_COUNTED = 20  # batches that the number of predicted tokens a step is the mean of


@dataclass(frozen=True)
class Terms(jobs.Protocol):
    """What all rows that are compared have in common. The shape is that of presets.tiny; settings.lr is the middle of
    the grid of learning rates, and settings.seed is not used."""

    dim: int = 128
    context: int = 256
    settings: Settings = Settings(steps=400)

    def __post_init__(self):
        super().__post_init__()
        if self.context < min(WINDOWS):
            raise ValueError(
                f"the context must hold the smallest window around a gap, {min(WINDOWS)} tokens; received "
                f"{self.context}. Choose a larger --context"
            )

    def base(self, vocab_size):
        return tiny("llama", vocab_size, self.context)

    def plan(self, changes, vocab_size):
        """Config and number of steps of a family."""
        return tiny(changes["family"], vocab_size, self.context), self.settings.steps

    def to_dict(self):
        """All of it, for JSON."""
        return {**super().to_dict(), "windows": list(WINDOWS), "gaps": abilities.GAPS, "stories": abilities.STORIES}

    @property
    def windows(self):
        """The sizes of windows that the context can hold."""
        return [width for width in WINDOWS if width <= self.context]


def compare(data, seeds, terms, path, vocab_size=1024, processes=1, quiet=False):
    """One row a family and seed, in the order of the families, ready for JSON: see `train_and_measure`

    seeds: how many; they are 0, 1, ... Each training is a line of the file at `path` as soon as it is done, those that
    only served to choose a learning rate too, and what stands there already is not done again. ValueError, before
    anything is trained, if these rows were made on other terms, or the text is too short.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1; received {seeds}")
    (name, source), *_ = sources([data], "bpe", vocab_size).items()
    source["mask_token"] = True
    results = Results(path.parent, path.name, terms.to_dict(), only_file=True)
    corpus = encode_corpus(**source)
    _check_length(corpus, terms)
    results.check_data(name, corpus.fingerprint)
    groups = [({"family": family}, name) for family in TITLES]
    for changes, _ in groups:
        terms.plan(changes, corpus.tokenizer.vocab_size)  # what cannot be done is an error before all else
    with results.adding(), process_pool(processes) as pool:
        append_text(path, "")  # a file that cannot be written is one too
        run_jobs(terms, groups, {name: source}, range(seeds), results, processes, pool, quiet, compute)
    rows = [row for row in results.by_key.values() if row["kind"] == jobs.RUN and row["corpus"] == name]
    order = list(TITLES)
    return sorted((row for row in rows if row["seed"] < seeds), key=lambda r: (order.index(r["family"]), r["seed"]))


def _check_length(corpus, terms):
    """ValueError for a text that is too short to train on, to choose a learning rate with, or to measure with."""
    held_out = len(corpus.train) - int(len(corpus.train) * (1 - jobs.TUNING_SHARE))
    parts = {
        "the validation split, a tenth of the text,": len(corpus.validation),
        f"the last {jobs.TUNING_SHARE:.0%} of the training split, which the learning rate is chosen with,": held_out,
    }
    for part, length in parts.items():
        if length < terms.context + 1:
            raise ValueError(
                f"{part} has {length} tokens, and a window of context {terms.context} with the token that follows it "
                f"needs {terms.context + 1}; use more text or a smaller --context"
            )


def compute(terms, source, job):
    """Do a job of `ablate.jobs`: for the learning rate as there, for the result `train_and_measure`. One thread."""
    family = {"family": job.changes["family"]}
    if job.kind == jobs.TUNING:
        return jobs.compute(terms, source, job) | family
    corpus = encode_corpus(**source)
    config, steps = terms.plan(job.changes, corpus.tokenizer.vocab_size)
    settings = replace(terms.settings, steps=steps, lr=job.rate, seed=job.seed)
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        measured = train_and_measure(config, settings, corpus, terms.windows)
    return {
        "kind": job.kind,
        "variant": name_of(job.changes),
        **family,
        "corpus": job.corpus,
        "seed": job.seed,
        "lr": job.rate,
        **measured,
        "steps": steps,
        "parameters": parameter_count(config)["total"],
        "config": config.to_dict(),
        "floor_per_character": None if corpus.floor is None else corpus.per_character(corpus.floor),
        "data": corpus.fingerprint,
        "protocol": terms.to_dict(),
    }


def train_and_measure(config, settings, corpus, windows):
    """Seconds of the training, and what the model can do then (`abilities.measure`); loss None if it diverged."""
    trainer = Trainer(Model(config, settings.seed, threads=1, init_std=settings.init_std), corpus, settings)
    row = {"loss": None, "predicted_tokens_a_step": predicted_tokens(trainer)}
    start = time.process_time()  # of this process, which computes on one thread: others on the machine do not count
    try:
        while trainer.optimizer.steps < settings.steps:
            trainer.step()
    except NotFinite:
        return row
    row["seconds"] = round(time.process_time() - start, 2)
    measured = abilities.measure(trainer.model, corpus, windows)
    return row | measured if math.isfinite(measured["loss"]) else row


def predicted_tokens(trainer):
    """How many targets a batch has, on average."""
    counts = []
    for t in range(min(trainer.settings.steps, _BATCHES_COUNTED)):
        rng = np.random.default_rng([trainer.settings.seed, t])
        _, targets = trainer.objective.examples(trainer.corpus.tokenizer, *trainer.batches[t], rng)
        counts.append(int(np.count_nonzero(targets != IGNORED)))
    return float(mean(counts))


_PREDICTED = {"next_token": "the next token", "masked": f"hidden tokens, {MASKED_SHARE:.0%}"}  # by objective


def table(rows):
    """The comparison as Markdown: facts of the models, and measurements as the mean over seeds with its interval."""
    columns = {family: [row for row in rows if row["family"] == family] for family in TITLES}
    configs = {family: Config.from_dict(found[0]["config"]) for family, found in columns.items()}
    trained = {family: [row for row in found if row["loss"] is not None] for family, found in columns.items()}

    def fact(title, say):
        return [title, *(say(configs[family]) for family in TITLES)]

    def measured(title, value, form):
        cells = [_interval([value(row) for row in found], form) if found else "diverged" for found in trained.values()]
        return [title, *cells]

    def one(title, say):
        return [title, *(say(found[0]) for found in columns.values())]

    lines = [
        [f"{len(columns['llama'])} seeds", *TITLES.values()],
        ["---"] * (1 + len(TITLES)),
        one("parameters", lambda row: f"{row['parameters']:,}"),
        fact("reads", lambda config: "what comes before" if config.causal else "both sides"),
        fact("is trained to predict", lambda config: _PREDICTED[MASKS[config.mask].objective]),
        one("predicted tokens a step", lambda row: f"{row['predicted_tokens_a_step']:,.0f}"),
        one("learning rate", lambda row: f"{row['lr']:.2g}"),
        ["trainings that did not diverge", *(f"{len(trained[f])} of {len(columns[f])}" for f in TITLES)],
        measured("next token, nats per character", lambda row: row["loss_per_character"], "{:.4f}"),
        measured("hidden token, nats per token", lambda row: None if writes(row) else row["loss"], "{:.4f}"),
        fact("writes text", lambda config: "yes" if config.causal else "no"),
        fact("fills a gap from both sides", lambda config: "no" if config.causal else "yes"),
    ]
    if any(row["stories"] for found in trained.values() for row in found):
        lines.append(measured("stories complete and without a mistake", _complete, "{:.1%}"))
        lines.append(["characters told for each mistake", *(_characters_a_mistake(trained[f]) for f in TITLES)])
    for width in next((row["gaps"] for found in trained.values() for row in found), ()):
        title = f"a missing token restored, in {width} tokens"
        lines.append(measured(title, lambda row, width=width: row["gaps"][width], "{:.1%}"))
    lines += [
        fact("trained context, tokens", lambda config: f"{config.context:,}"),
        fact("beyond it", _beyond),
        measured("training, seconds of one processor", lambda row: row["seconds"], "{:.0f}"),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def writes(row):
    """Whether the model of a row writes text."""
    return MASKS[row["config"]["mask"]].causal


def _complete(row):
    return row["stories"] and row["stories"]["complete"] / row["stories"]["count"]


def _characters_a_mistake(rows):
    """Mean over seeds; of all stories together where a seed made no mistake, for then it has no value of its own."""
    judged = [row["stories"] for row in rows if row["stories"]]
    if not judged:
        return "diverged" if not rows else "-"
    if all(found["mistakes"] for found in judged):
        return _interval([found["characters"] / found["mistakes"] for found in judged], "{:.0f}")
    count, mistakes = sum(found["count"] for found in judged), sum(found["mistakes"] for found in judged)
    if not mistakes:
        return f"no mistake in {count} stories"
    told = sum(found["characters"] for found in judged)
    return f"{told / mistakes:.0f} ({mistakes} of {count} stories have a mistake; one seed or more has none)"


def _beyond(config):
    if POSITIONS[config.position].learned:
        return "refused: later positions have no vector"
    return "reads on, untrained: see ablate extrapolation"


def _interval(values, form):
    """The mean and its interval, which a single value does not have; "-" for what the model is not asked for."""
    if None in values:
        return "-"
    found = estimate(values)
    spread = "" if found.count < 2 else f" ({form.format(found.low)} to {form.format(found.high)})"
    return form.format(found.mean) + spread


def _chosen(terms):
    if "tuning_seed" not in terms:
        return f"{terms['settings']['lr']:g} for all, not tuned"
    return (
        f"the best for each family on the end of the training split, with seed {terms['tuning_seed']}, which is not in "
        f"the table"
    )


def notes(rows):
    """How to read the table."""
    terms, floor = rows[0]["protocol"], rows[0]["floor_per_character"]
    settings = terms["settings"]
    lines = [
        f"Each model: {settings['steps']} steps of {settings['batch_size']} sequences of {terms['context']} tokens, "
        f"the same for all. Learning rate: {_chosen(terms)}.",
        f"In brackets: Student's {CONFIDENCE:.0%} interval of the mean over seeds. It does not cover the choice of "
        "the learning rate, nor the validation text.",
        f"A missing token: {terms['gaps']:,} gaps with windows of each size, the same for all models, none at a "
        "special token. The causal models read only what stands before the gap.",
    ]
    if floor is not None:
        lines.append(
            f"The true entropy of the source is {floor:.4f} nats a character: no model does better on average."
        )
    if any(row.get("stories") for row in rows):
        lines.append(
            f"Stories: {terms['stories']} by each model. Characters up to the first mistake, or of the whole story, "
            "are added up and divided by the number of stories with a mistake."
        )
    lines += [
        f"The card, {c.claim}: {c.correction} ({c.source})." for c in CORRECTIONS if c.claim.startswith("Context")
    ]
    bert = STATED["bert-base"]
    lines.append(f"{bert.label} has a context of {bert.sequence} ({bert.source}).")
    return "\n".join(lines)
