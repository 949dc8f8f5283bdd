"""The card's model table, filled in by a reader's function, beside what is stated and what `minillama table` says."""

from collections.abc import Callable
from typing import NamedTuple

from ..catalogue.presets import PRESETS
from ..catalogue.table import model_rows
from ..messages import unknown
from .checks import check

# The rows of the card: LLaMA 1, 2 and 3. It lists 405B under 3; that came with 3.1.
CARD = (
    "llama-7b",
    "llama-13b",
    "llama-33b",
    "llama-65b",
    "llama-2-7b",
    "llama-2-13b",
    "llama-2-70b",
    "llama-3-8b",
    "llama-3-70b",
    "llama-3.1-405b",
)
OFF_CARD = tuple(name for name in PRESETS if "llama-" in name and "tiny" not in name and name not in CARD)


class FilledColumn(NamedTuple):
    """What the answer to an exercise computes of each model."""

    arguments: Callable  # arguments(config, row) -> those of the answer
    expected: Callable  # expected(row) -> what minillama table has
    heads: tuple[str, ...]
    cells: Callable  # cells(row, number) -> the texts under the heads


def shape(config):
    """V, C, L, H, K, F of a Config."""
    return config.vocab_size, config.dim, config.layers, config.heads, config.kv_heads, config.ffn


def _size(row, number):
    stated = row.stated_parameters
    return f"{stated / 1e9:g}B", f"{number:,}", f"{number / 1e9:.2f}B", f"{number / stated - 1:+.1%}"


def _training(row, number):
    six, total = row.training_flops_6nd, number * row.tokens
    utilisation = "-" if row.mfu is None else f"{row.mfu / row.training_flops * total:.1%}"
    return (
        f"{row.tokens / 1e12:g}T",
        f"{row.sequence:,}",
        f"{six:.2e}",
        f"{total:.2e}",
        f"{total / six - 1:+.1%}",
        utilisation,
    )


COLUMNS = {  # exercise -> its FilledColumn
    "count_parameters": FilledColumn(
        lambda config, row: (*shape(config), config.tied),
        lambda row: row.parameters,
        ("stated", "yours", "", "off"),
        _size,
    ),
    "training_flops": FilledColumn(
        lambda config, row: (*shape(config), row.sequence),
        lambda row: row.training_flops / row.tokens,
        ("tokens", "sequence", "6 N D", "yours", "more", "of the peak"),
        _training,
    ),
}


def fill_table(answer):
    """Call the answer to an exercise for each model of the card, if it passes, and print what it gives

    Beside it stands what is stated, and whether `minillama table` has the same number. Then the same, in one line, of
    the LLaMAs that the card leaves out. ValueError for an exercise that computes no column of the table.
    """
    name = getattr(answer, "__name__", None)
    if name not in COLUMNS:
        raise ValueError(unknown("exercise that fills a column of the table", str(name), COLUMNS))
    report = check(answer)
    if not report.passed:
        print(f"{report}\nWhen it passes, it fills the table here.")
        return
    column, lines, same = COLUMNS[name], [], {}
    for row in model_rows((*CARD, *OFF_CARD)):
        number = answer(*column.arguments(PRESETS[row.name], row))
        same[row.name] = number == column.expected(row)
        if row.name in CARD:
            lines.append((row.model, *column.cells(row, number), "yes" if same[row.name] else "NO"))
    lines.insert(0, ("", *column.heads, "equal to minillama table"))
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for first, *rest in lines:
        print("  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]))
    print(f"models of the card: {len(CARD)}, equal to the last digit: {sum(same[n] for n in CARD)}")
    print(f"other LLaMAs and Code Llamas: {len(OFF_CARD)}, equal to the last digit: {sum(same[n] for n in OFF_CARD)}")
