"""LLaMA, GPT and BERT trained on the same text at the same size, and what each of them can do: the card's comparison,
measured.

All three read the same tokens and have equal parameters (`presets.tiny`). Two of them write, so their loss is that of
the next token; the third fills gaps. What all can be asked for is a token that is missing: BERT reads what stands on
both sides of the gap, the others what stands before it.
"""

import time
from statistics import mean

import numpy as np

from . import stories
from .corpora import encode_corpus
from .generate import fill, generate
from .presets import tiny
from .train import Run, Settings, evaluate

FAMILIES = {"llama": "LLaMA", "gpt2": "GPT-2", "bert": "BERT"}
WINDOWS = (8, 32, 128)  # tokens around a gap, itself included
GAPS = 1000  # a window's size
STORIES = 20  # that each model writes
_DRAWS = 0  # seed of the gaps and of the stories, the same for every model


def compare(data, seeds, settings, context=256, vocab_size=1024, threads=None, log=print):
    """[{family, seed, parameters, loss, gap accuracies by window, ...}]: one row a family and seed, ready for JSON"""
    corpus = encode_corpus(data, "bpe", vocab_size, mask_token=True)
    rows = []
    for seed in seeds:
        for family in FAMILIES:
            config = tiny(family, corpus.tokenizer.vocab_size, context)
            run = Run("", config, Settings(**settings, seed=seed), corpus, threads)  # nothing is saved
            start = time.perf_counter()
            for _ in range(run.settings.steps):
                run.step()
            row = {
                "family": family,
                "seed": seed,
                "steps": run.settings.steps,
                "parameters": run.model.parameters.flat.size,
                "seconds": time.perf_counter() - start,
                **measure(run.model, corpus),
            }
            log(f"{FAMILIES[family]}, seed {seed}: {describe(row)}")
            rows.append(row)
    return rows


def measure(model, corpus):
    """What the model can do on the validation text."""

    context = model.config.context
    row = {
        "loss": evaluate(model, corpus.validation, corpus.tokenizer),  # of its own objective, nats a token
        "gaps": {width: gap_accuracy(model, corpus, width) for width in WINDOWS if width <= context},
        "story": None,
        "text": "",
    }
    if not model.config.causal:
        return row | {"text": filled_text(model, corpus)}
    row["loss_per_character"] = corpus.per_character(row["loss"])
    row["text"] = next(written(model, corpus, 1))
    if corpus.source["data"] == "stories":
        row["story"] = mean(characters_without_mistake(text) for text in written(model, corpus, STORIES))
    return row


def gap_accuracy(model, corpus, width):
    """The share of single missing tokens that the model's first guess restores, in windows of `width` tokens

    A bidirectional model reads the whole window, a causal one what stands before the gap. The windows and gaps are the
    same for every model.
    """
    rng = np.random.default_rng([_DRAWS, width])
    tokens, mask_token = corpus.validation, corpus.tokenizer.mask_token
    starts = rng.integers(0, len(tokens) - width, GAPS)
    gaps = rng.integers(1, width, GAPS)
    windows = tokens[starts[:, None] + np.arange(width)]
    expected = windows[np.arange(GAPS), gaps]
    right = 0
    for first in range(0, GAPS, 100):
        part, gap = windows[first : first + 100].copy(), gaps[first : first + 100]
        rows = np.arange(len(part))
        if model.config.causal:
            logits = model.logits(part)[rows, gap - 1]
        else:
            part[rows, gap] = mask_token
            logits = model.logits(part)[rows, gap]
        logits[:, mask_token] = -np.inf
        right += np.count_nonzero(logits.argmax(axis=1) == expected[first : first + 100])
    return right / GAPS


def written(model, corpus, count):
    """Texts that a causal model writes, as far as its context reaches."""
    tokenizer, end = corpus.tokenizer, corpus.tokenizer.end_of_text
    for seed in range(_DRAWS, _DRAWS + count):
        tokens = list(generate(model, [end], seed=seed, stop=end))
        yield tokenizer.decode([token for token in tokens if token != end])


def characters_without_mistake(text):
    """How far a text is one that the source of the stories could have told."""
    reader = stories.Reader(text)
    try:
        stories.tell(reader)
    except ValueError:
        pass
    return reader.position


def filled_text(model, corpus, gaps=6):
    """The beginning of the validation text with what the model puts in some gaps, in [brackets]."""
    tokenizer = corpus.tokenizer
    ids = corpus.validation[1 : min(model.config.context, 64)].copy()
    places = np.sort(np.random.default_rng(_DRAWS).choice(len(ids), gaps, replace=False))
    ids[places] = tokenizer.mask_token
    filled, _ = fill(model, ids, tokenizer.mask_token)
    shown = [tokenizer.decode([token]) for token in filled]
    for place in places:
        shown[place] = f"[{shown[place]}]"
    return "".join(shown)


def describe(row):
    """A row in a line."""
    parts = [f"{row['parameters']:,} parameters", f"loss {row['loss']:.4f}", f"{row['seconds']:.0f} s"]
    parts += [f"gaps in {width}: {share:.1%}" for width, share in row["gaps"].items()]
    if row["story"] is not None:
        parts.append(f"{row['story']:.0f} characters without a mistake")
    return ", ".join(parts)


def table(rows):
    """The comparison as Markdown: mean over the seeds, and in brackets the smallest and the largest."""
    columns = {family: [row for row in rows if row["family"] == family] for family in FAMILIES}
    widths = list(rows[0]["gaps"])

    def line(title, cell):
        return f"| {title} | " + " | ".join(cell(columns[family]) for family in FAMILIES) + " |"

    def spread(value, form):
        def cell(rows):
            values = [value(row) for row in rows]
            if values[0] is None:
                return "cannot"
            low, high = min(values), max(values)
            return f"{form.format(mean(values))} ({form.format(low)} to {form.format(high)})"

        return cell

    lines = [
        f"| {len(columns['llama'])} seeds | " + " | ".join(FAMILIES.values()) + " |",
        "| --- |" + " --- |" * len(FAMILIES),
        line("parameters", lambda rows: f"{rows[0]['parameters']:,}"),
        line("next token, nats a character", spread(lambda row: row.get("loss_per_character"), "{:.4f}")),
        line("own stories: characters before the first mistake", spread(lambda row: row["story"], "{:.0f}")),
    ]
    for width in widths:
        cell = spread(lambda row, width=width: row["gaps"][width], "{:.1%}")
        lines.append(line(f"a missing token, {width} tokens around it: restored", cell))
    lines.append(line("training, seconds", spread(lambda row: row["seconds"], "{:.0f}")))
    return "\n".join(lines)
