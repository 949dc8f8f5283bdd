"""What came out, as Markdown tables that also read as text: each row of a study with its difference and a verdict."""

from math import isnan
from statistics import mean, median
from typing import NamedTuple

from ..config import Config
from .extrapolation import BINS, STRETCH
from .jobs import RUN, TIME
from .statistics import CONFIDENCE, Estimate, estimate, paired, verdict
from .variants import BASE, STUDIES, Row, name_of

COMPARED = ("ladder", "leave-one-out")  # the studies of losses; extrapolation has a table of its own


class Outcome(NamedTuple):
    """A row of a study with its results on one corpus, and the difference from what the row is compared with."""

    row: Row
    runs: list  # results, by seed
    difference: Estimate | None  # of losses, the variant's less the other's, paired by seed; None without any
    verdict: str


def times_of(results, changes, corpus):
    """{"min", "median"} seconds of a variant's step, measured in turn with others; None if it was not."""
    result = results.get((TIME, name_of(changes), corpus, 0, None))
    return result and result["step_seconds"]


def runs_of(results, changes, corpus):
    """{seed: result} of a variant's runs."""
    name = name_of(changes)
    found = [r for r in results.values() if (r["kind"], r["variant"], r["corpus"]) == (RUN, name, corpus)]
    return {result["seed"]: result for result in sorted(found, key=lambda result: result["seed"])}


def outcomes(results, study, corpus):
    """The Outcomes of a study's rows that have results."""
    found = []
    for row in STUDIES[study].rows(base_of(results)):
        runs = runs_of(results, row.changes, corpus)
        if runs:
            others = {} if row.against is None else runs_of(results, row.against, corpus)
            found.append(Outcome(row, list(runs.values()), *_compared(runs, others)))
    return found


def base_of(results):
    """The Config of LLaMA that the results are about; its vocabulary is that of none of the corpora."""
    protocol = next(iter(results.values()))["protocol"]
    return Config(1, **{name: protocol[name] for name in ("dim", "layers", "heads", "context")})


def _compared(runs, others):
    losses, other_losses = ({s: r["loss"] for s, r in side.items() if r["loss"] is not None} for side in (runs, others))
    if len(losses) < len(runs):
        return None, f"diverged with {len(runs) - len(losses)} of {len(runs)} seeds"
    differences = paired(losses, other_losses)
    if not differences:
        return None, ""
    difference = estimate(differences)
    return difference, verdict(difference)


def corpora_of(results):
    """The names of the corpora, in the order of the results."""
    return list(dict.fromkeys(result["corpus"] for result in results.values()))


def tables_of(results):
    """{(study, corpus): its Outcomes} of the studies of which something can be compared."""
    found = {(study, corpus): outcomes(results, study, corpus) for study in COMPARED for corpus in corpora_of(results)}
    return {key: rows for key, rows in found.items() if any(row.difference for row in rows)}


def report(results):
    """All tables, for every study and corpus, and how to read them."""
    protocol, tables = next(iter(results.values()))["protocol"], tables_of(results)
    lines = [_terms(protocol)]
    for (study, corpus), rows in tables.items():
        lines += ["", f"## {STUDIES[study].title}: {corpus}", "", *_table(rows)]
    for corpus in corpora_of(results):
        if position_losses(results, corpus):
            title = STUDIES["extrapolation"].title
            lines += ["", f"## {title}: {corpus}", "", *_beyond(results, corpus, protocol["context"])]
    lines += _times(results)
    comparisons = sum(row.difference is not None for rows in tables.values() for row in rows)
    return "\n".join([*lines, "", *_legend(comparisons)]) + "\n"


def _terms(protocol):
    settings = protocol["settings"]
    equal = {
        "parameters": "at equal parameters: the feed-forward width is adjusted",
        "compute": "at equal compute: the number of steps is adjusted",
    }[protocol["equal"]]
    return (
        f"LLaMA with dim {protocol['dim']}, {protocol['layers']} layers, {protocol['heads']} heads, context "
        f"{protocol['context']}; {settings['steps']} steps of {settings['batch_size']} sequences; {equal}."
    )


# Heading of a column: Outcome -> text.
_COLUMNS = {
    "variant": lambda o: o.row.label,
    "what differs": lambda o: o.row.words,
    "FFN": lambda o: f"{o.runs[0]['config']['ffn']}",
    "parameters": lambda o: f"{o.runs[0]['parameters']:,}",
    "steps": lambda o: f"{o.runs[0]['steps']}",
    "MFLOP a token": lambda o: f"{o.runs[0]['training_flops_per_token'] / 1e6:.2f}",
    "ms a step": lambda o: _milliseconds(o.runs),
    "learning rate": lambda o: ", ".join(sorted({f"{run['lr']:.2g}" for run in o.runs})),
    "seeds": lambda o: f"{len(o.runs)}",
    "loss": lambda o: _loss(o.runs),
    "difference": lambda o: "" if o.difference is None else f"{o.difference.mean:+.4f}",
    f"{CONFIDENCE:.0%} interval": lambda o: _interval(o.difference),
    "verdict": lambda o: o.verdict,
}


def _table(found):
    return _markdown([list(_COLUMNS), *([column(o) for column in _COLUMNS.values()] for o in found)], 2)


def _milliseconds(runs):
    times = [run["step_seconds"] for run in runs if "step_seconds" in run]
    if not times:
        return ""
    return f"{1e3 * min(time['min'] for time in times):.1f} / {1e3 * median(time['median'] for time in times):.1f}"


def _loss(runs):
    losses = [run["loss"] for run in runs if run["loss"] is not None]
    return f"{mean(losses):.4f}" if losses else ""


def _interval(difference):
    if difference is None or isnan(difference.low):
        return ""
    return f"{difference.low:+.4f} to {difference.high:+.4f}"


def position_losses(results, corpus):
    """{(label, RoPE scaling): {seed: losses by bin}} of the variants whose loss was measured beyond their context."""
    found = {}
    for row in STUDIES["extrapolation"].rows(base_of(results)):
        for seed, run in runs_of(results, row.changes, corpus).items():
            for scaling, losses in run.get("by_position", {}).items():
                found.setdefault((row.label, scaling), {})[seed] = losses
    return found


def _beyond(results, corpus, context):
    """The loss in parts of the window, and whether it is another at the farthest positions than within the context."""
    inside, farthest = slice(BINS // 2, BINS), slice(2 * BINS, STRETCH * BINS)
    spans = {
        f"{context // 2 + 1}-{context}": inside,
        f"{context + 1}-{2 * context}": slice(BINS, 2 * BINS),
        f"{2 * context + 1}-{STRETCH * context}": farthest,
    }
    rows = [["positions", *spans, "farthest less first", f"{CONFIDENCE:.0%} interval", "beyond the context"]]
    for (label, scaling), by_seed in position_losses(results, corpus).items():
        name = label if label != BASE else f"position: rope, scaling {scaling}"
        parts = [[mean(losses[span]) for losses in by_seed.values() if losses[span]] for span in spans.values()]
        cells = [f"{mean(part):.4f}" if part else "-" for part in parts]
        if parts[-1]:
            change = estimate([far - near for near, far in zip(parts[0], parts[-1], strict=True)])
            rows.append([name, *cells, f"{change.mean:+.4f}", _interval(change), verdict(change)])
        else:
            rows.append([name, *cells, "", "", f"there are no vectors beyond {context}"])
    return _markdown(rows, 1)


def _times(results):
    """The time of a step of the variants that are looked at closely."""
    rows = [
        [
            result["corpus"],
            result["variant"],
            *(f"{1e3 * result['step_seconds'][key]:.2f}" for key in ("min", "median")),
        ]
        for result in results.values()
        if result["kind"] == TIME
    ]
    if not rows:
        return []
    return ["", "## Time of a step", "", *_markdown([["corpus", "variant", "min ms", "median ms"], *rows], 2)]


def _legend(comparisons):
    return (
        "loss: mean over seeds of the loss on the whole validation split, in nats a token (a character where the text "
        "is read by characters). difference: the variant's less the other's, paired by seed (same batches, and same "
        "initial weights where shapes agree); the interval is Student's.",
        "",
        f"verdict: better or worse where the interval does not contain 0. Of {comparisons} comparisons without any "
        f"true difference {comparisons * (1 - CONFIDENCE):.1f} would still show one, on average. The interval covers "
        f"the seeds; it does not cover the choice of the learning rate, made with one seed, nor the validation text.",
        "",
        "MFLOP a token: of training, forward and backward. ms a step: minimum / median, on one thread while other "
        "processes computed beside it; time of a step: on one thread, the variants in turn, which is fair.",
    )


def _markdown(rows, names):
    """A Markdown table with aligned columns: the first `names` to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rule = ["-" * width if i < names else "-" * (width - 1) + ":" for i, width in enumerate(widths)]

    def line(row):
        cells = [
            cell.ljust(w) if i < names else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"

    return [line(rows[0]), line(rule), *map(line, rows[1:])]
