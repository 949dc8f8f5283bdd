"""What came out, as Markdown tables that also read as text: each row of a study with its difference and a verdict."""

from math import isnan
from statistics import mean, median
from typing import NamedTuple

from ..config import Config
from ..ops.positions import POSITIONS
from .extrapolation import BINS, STRETCH, stretched_by
from .jobs import RUN, TIME, tuning_losses
from .statistics import CONFIDENCE, Estimate, estimate, holm, p_value, paired, verdict
from .variants import STUDIES, Variant, close_ups, config_of, extrapolation, name_of


class Outcome(NamedTuple):
    """A row of a study with its results on one corpus, and the difference from what the row is compared with."""

    row: Variant
    runs: list  # results, by seed
    losses: list  # of the runs that `difference` is about, or of all that did not diverge where there is none
    difference: Estimate | None  # of losses, the variant's less the other's, paired by seed; None without any
    verdict: str  # on the difference
    diverged: str  # how many seeds did, in words; their pairs are left out
    at_an_end: set  # the learning rates that are the least or the greatest of those that were tried


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
            tried = tuning_losses(results, name_of(row.changes), corpus)
            at_an_end = {min(tried), max(tried)} if tried else set()
            found.append(Outcome(row, list(runs.values()), *_compared(runs, others), at_an_end))
    return found


def base_of(results):
    """The Config of LLaMA that the results are about; its vocabulary is that of none of the corpora."""
    protocol = next(iter(results.values()))["protocol"]
    return Config(1, **{name: protocol[name] for name in ("dim", "layers", "heads", "context")})


def _compared(runs, others):
    losses, other_losses = ({s: r["loss"] for s, r in side.items() if r["loss"] is not None} for side in (runs, others))
    diverged = []
    if len(losses) < len(runs):
        diverged.append(f"diverged with {len(runs) - len(losses)} of {len(runs)} seeds")
    if len(other_losses) < len(others):
        diverged.append(f"the other diverged with {len(others) - len(other_losses)} of {len(others)} seeds")
    differences = paired(losses, other_losses)
    if not differences:
        return list(losses.values()), None, "", "; ".join(diverged)
    difference = estimate(differences)
    pairs = [loss for seed, loss in losses.items() if seed in other_losses]
    return pairs, difference, verdict(difference), "; ".join(diverged)


def corpora_of(results):
    """The names of the corpora, in the order of the results."""
    return list(dict.fromkeys(result["corpus"] for result in results.values()))


def tables_of(results, studies=tuple(STUDIES)):
    """{(study, corpus): its Outcomes} of those studies that are of losses, where something can be compared."""
    found = {}
    for name in studies:
        for corpus in corpora_of(results) if STUDIES[name].against is not None else ():
            rows = outcomes(results, name, corpus)
            if any(row.difference for row in rows):
                found[name, corpus] = rows
    return found


def report(results, studies=tuple(STUDIES)):
    """All tables of these studies, for every corpus, and how to read them."""
    protocol, tables = next(iter(results.values()))["protocol"], tables_of(results, studies)
    lines, adjusted = [_terms(protocol)], adjusted_for_all(results, studies)
    for (study, corpus), rows in tables.items():
        lines += ["", f"## {STUDIES[study].title}: {corpus}", "", *_table(rows, adjusted)]
    for corpus in corpora_of(results) if "extrapolation" in studies else ():
        if position_losses(results, corpus):
            title = STUDIES["extrapolation"].title
            table = _beyond(results, corpus, protocol["context"], adjusted)
            lines += ["", f"## {title}: {corpus}", "", *table]
    lines += _times(results, studies)
    outcomes_shown = [row for rows in tables.values() for row in rows]
    marked = any(run["lr"] in outcome.at_an_end for outcome in outcomes_shown for run in outcome.runs)
    return "\n".join([*lines, "", *_legend(compared(results, studies), adjusted, marked)]) + "\n"


def compared(results, studies=tuple(STUDIES)):
    """The Estimates of all comparisons that a report of these studies makes, as far as they have an interval."""
    found = [row.difference for rows in tables_of(results, studies).values() for row in rows if row.difference]
    for corpus in corpora_of(results) if "extrapolation" in studies else ():
        found += [change for change in _changes(results, corpus).values() if change]
    return [difference for difference in found if not isnan(difference.low)]


def adjusted_for_all(results, studies=tuple(STUDIES)):
    """{Estimate: its p value, adjusted by Holm's method for all comparisons of the report}"""
    found = compared(results, studies)
    return dict(zip(found, holm([p_value(difference) for difference in found]), strict=True))


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
    "learning rate": lambda o: _rates(o),
    "seeds": lambda o: f"{len(o.losses)}",
    "loss": lambda o: f"{mean(o.losses):.4f}" if o.losses else "",
    "difference": lambda o: "" if o.difference is None else f"{o.difference.mean:+.4f}",
    f"{CONFIDENCE:.0%} interval": lambda o: _interval(o.difference),
    "verdict": lambda o: "; ".join(part for part in (o.verdict, o.diverged) if part),
}
_ADJUSTED = "p (Holm)"  # the last column but one
_AT_AN_END = " *"  # behind a learning rate


def _table(found, adjusted):
    *headings, verdict_heading = _COLUMNS
    rows = [[*headings, _ADJUSTED, verdict_heading]]
    for o in found:
        *cells, words = (column(o) for column in _COLUMNS.values())
        rows.append([*cells, _probability(adjusted.get(o.difference)), words])
    return _markdown(rows, 2)


def _probability(p):
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _milliseconds(runs):
    times = [run["step_seconds"] for run in runs if "step_seconds" in run]
    if not times:
        return ""
    return f"{1e3 * min(time['min'] for time in times):.1f} / {1e3 * median(time['median'] for time in times):.1f}"


def _rates(outcome):
    rates = sorted({run["lr"] for run in outcome.runs})
    return ", ".join(f"{rate:.2g}{_AT_AN_END if rate in outcome.at_an_end else ''}" for rate in rates)


def _interval(difference):
    if difference is None or isnan(difference.low):
        return ""
    return f"{difference.low:+.4f} to {difference.high:+.4f}"


def position_losses(results, corpus):
    """{(position, RoPE scaling): {seed: losses by bin}} of variants whose loss was measured beyond their context."""
    found, base = {}, base_of(results)
    for row in extrapolation(base):
        position = config_of(row.changes, base).position
        for seed, run in runs_of(results, row.changes, corpus).items():
            for scaling, losses in run.get("by_position", {}).items():
                found.setdefault((position, scaling), {})[seed] = losses
    return found


_SPANS = slice(BINS // 2, BINS), slice(BINS, 2 * BINS), slice(2 * BINS, STRETCH * BINS)  # inside, beyond, farthest


def _changes(results, corpus):
    """{(position, RoPE scaling): the Estimate of the loss farthest beyond the context less that within it, or None}"""
    found = {}
    for scheme, by_seed in position_losses(results, corpus).items():
        inside, _, farthest = _parts(by_seed)
        pairs = zip(inside, farthest, strict=True) if farthest else ()
        found[scheme] = estimate([far - near for near, far in pairs]) if farthest else None
    return found


def _parts(by_seed):
    """The mean losses of the seeds in each of the spans; none in a span that the positions do not reach."""
    return [[mean(losses[span]) for losses in by_seed.values() if losses[span]] for span in _SPANS]


def _beyond(results, corpus, context, adjusted):
    """The loss in parts of the window, and whether it is another at the farthest positions than within the context."""
    spans = (f"{low * context // 2 + 1}-{high * context // 2}" for low, high in ((1, 2), (2, 4), (4, 2 * STRETCH)))
    rows = [["positions", *spans, "farthest less first", f"{CONFIDENCE:.0%} interval", _ADJUSTED, "beyond the context"]]
    changes = _changes(results, corpus)
    for (position, scaling), by_seed in position_losses(results, corpus).items():
        name, change = f"position: {position}", changes[position, scaling]
        if POSITIONS[position].rotation is not None:
            name += f", scaling {scaling}, {stretched_by(scaling)}"
        cells = [f"{mean(part):.4f}" if part else "-" for part in _parts(by_seed)]
        if change:
            probability = _probability(adjusted.get(change))
            rows.append([name, *cells, f"{change.mean:+.4f}", _interval(change), probability, verdict(change)])
        else:
            rows.append([name, *cells, "", "", "", f"there are no vectors beyond {context}"])
    return _markdown(rows, 1)


def _times(results, studies):
    """The time of a step of the variants of these studies that are looked at closely."""
    sides = [side for _, pair in close_ups(studies, base_of(results)).values() for side in pair.values()]
    names = set(map(name_of, sides))
    rows = [
        [
            result["corpus"],
            result["variant"],
            *(f"{1e3 * result['step_seconds'][key]:.2f}" for key in ("min", "median")),
        ]
        for result in results.values()
        if result["kind"] == TIME and result["variant"] in names
    ]
    if not rows:
        return []
    return ["", "## Time of a step", "", *_markdown([["corpus", "variant", "min ms", "median ms"], *rows], 2)]


def _legend(found, adjusted, marked):
    comparisons, shown = len(found), [difference for difference in found if difference.low > 0 or difference.high < 0]
    kept = sum(adjusted[difference] < 1 - CONFIDENCE for difference in shown)
    lines = [
        "loss: mean over seeds of the loss on the whole validation split, in nats a token (a character where the text "
        "is read by characters). difference: the variant's less the other's, paired by seed (same batches, and same "
        "initial weights where shapes agree); the interval is Student's. Where one of the two diverged with a seed, "
        "that seed is left out of loss and difference.",
        "",
        f"verdict: better or worse where the interval does not contain 0. Of {comparisons} comparisons without any "
        f"true difference {comparisons * (1 - CONFIDENCE):.1f} would still show one, on average. The interval covers "
        f"the seeds; it does not cover the choice of the learning rate, made with one seed, nor the validation text.",
        "",
        f"{_ADJUSTED}: the p value of a comparison, adjusted for all {comparisons} by Holm's method. Of {len(shown)} "
        f"comparisons called better or worse, {kept} are below {1 - CONFIDENCE:.2f}, and the probability that any of "
        f"these is false is {1 - CONFIDENCE:.2f} at most; each of the others may be one of those by chance.",
        "",
        "MFLOP a token: of training, forward and backward. ms a step: minimum / median, on one thread while other "
        "processes computed beside it; time of a step: on one thread, the variants in turn, which is fair.",
    ]
    if marked:
        lines += [
            "",
            f"learning rate:{_AT_AN_END} means that the best was the least or the greatest of those that were tried; "
            "a better one may lie beyond.",
        ]
    return lines


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
