"""How a lesson is cut: sittings, core and deeper parts, questions whose answer is out of sight; and how long it takes.

A heading `## Sitting 2: ...` begins a sitting. A section says in its heading what it is, `## 3. The gate · core` or
`· deeper`; so may a subsection, and one that does not is what its section is. Exercises, wherever they stand, and
written questions have minutes of their own and count for neither; the sections that close a lesson are core.
"""

import re
from typing import NamedTuple

from .frames import SECTIONS_APART, lesson_of

CELLS = 60  # of a sitting, at most; solutions are not counted
PUT_IN = ("02", "08")  # from which lesson to which the reader's function comes into the model
_WORDS_A_SECOND, _SECONDS_A_LINE = 200 / 60, 5  # of text, and of code
_HEADING = re.compile(r"^(#{1,3}) (.+)$", re.M)
_FENCE = re.compile(r"^```.*?(?:^```|\Z)", re.M | re.S)
_SITTING = re.compile(r"Sitting (\d+): .")
_END = "*End of the "  # how the last line of a sitting begins


class Sitting(NamedTuple):
    """A part of a lesson that is read in one go; minutes of reading, without exercises and written questions."""

    title: str
    cells: int
    words: int
    core: float
    deeper: float


class Piece(NamedTuple):
    """A cell, or of its text what stands under one heading."""

    cell: int  # its number
    sitting: str  # its title
    heading: str  # what stands above it, without its depth
    depth: str  # core, deeper, apart
    words: int
    seconds: float
    text: str


def tags(cell):
    return set(cell.metadata.get("tags", ()))


def has_figure(cell):
    return any({"image/png", "image/svg+xml"} & set(output.get("data", {})) for output in cell.get("outputs", ()))


def sittings(notebook):
    """The sittings of a notebook; a notebook without any is one, without a title."""
    all_pieces = list(pieces(notebook))
    found = []
    for title in dict.fromkeys(piece.sitting for piece in all_pieces):
        of = [piece for piece in all_pieces if piece.sitting == title]
        core, deeper = (sum(p.seconds for p in of if p.depth == depth) / 60 for depth in ("core", "deeper"))
        found.append(Sitting(title, len({p.cell for p in of}), sum(p.words for p in of), core, deeper))
    return found


def minutes(notebook):
    """Minutes of reading, all of it and its core alone, in steps of five and five at least

    200 words a minute and 5 seconds a line of code. Code that draws a figure is not counted: the figure is read.
    """
    found = sittings(notebook)
    core = sum(sitting.core for sitting in found)
    return tuple(5 * max(1, round(value / 5)) for value in (core + sum(sitting.deeper for sitting in found), core))


def pieces(notebook):
    """The pieces of a notebook in order, without solutions. What stands before the first sitting belongs to it."""
    titles = [title for cell in notebook.cells for _, title in _headings(cell) if _SITTING.match(title)]
    sitting, section = titles[0] if titles else "", "core"
    depth, heading = section, ""
    for number, cell in enumerate(notebook.cells):
        if "solution" in tags(cell):
            continue
        if cell.cell_type == "code":
            lines = 0 if has_figure(cell) else len(cell.source.splitlines())
            yield Piece(number, sitting, heading, depth, 0, lines * _SECONDS_A_LINE, cell.source)
            continue
        starts = [0, *(match.start() for match in _found_headings(cell.source)), len(cell.source)]
        for start, end in zip(starts, starts[1:], strict=False):
            text = cell.source[start:end]
            if match := _HEADING.match(text):
                level, title = len(match[1]), match[2].strip()
                own = next((mark for mark in ("core", "deeper") if title.endswith(f"· {mark}")), None)
                own = "apart" if title.startswith("Exercise ") else own
                if level < 3:
                    sitting = title if _SITTING.match(title) else sitting
                    section = own or ("apart" if title in SECTIONS_APART else "core")
                depth, heading = own or section, title.removesuffix(f" · {own}")
            if text.strip():
                words = len(text.split())
                yield Piece(number, sitting, heading, depth, words, words / _WORDS_A_SECOND, text)


def _headings(cell):
    """(level, title) of the headings in a cell of text."""
    if cell.cell_type == "code":
        return []
    return [(len(match[1]), match[2].strip()) for match in _found_headings(cell.source)]


def _found_headings(source):
    """The matches of _HEADING outside of fences, where a line that begins with # is a comment."""
    fences = [match.span() for match in _FENCE.finditer(source)]
    found = _HEADING.finditer(source)
    return [match for match in found if not any(start < match.start() < end for start, end in fences)]


def faults(notebook):
    """What a lesson lacks of its cut, a message each."""
    cells, lesson = notebook.cells, lesson_of(notebook)
    if not any(f'course_map("{lesson}")' in cell.source for cell in cells[:4]):
        yield f'none of the first cells draws the map of the course, course_map("{lesson}")'
    yield from _faults_of_sittings(notebook)
    for cell in cells:
        for level, title in _headings(cell):
            if level == 2 and re.match(r"\d+\. ", title) and not re.search(r" · (core|deeper)$", title):
                yield f"section {title!r} does not say at its end whether it is · core or · deeper"
    for number, cell in enumerate(cells):
        if "predict" in tags(cell):
            yield from _faults_of_a_question(cell, cells[number + 1 :])
    if PUT_IN[0] <= lesson <= PUT_IN[1] and not any("put-in" in tags(cell) for cell in cells):
        yield "no cell puts the reader's function into the model (tag put-in)"
    written = [number for number, cell in enumerate(cells) if "written" in tags(cell)]
    if len(written) not in (2, 3):
        yield f"{len(written)} written questions (tag written), expected two or three"
    for number in written:
        if not any("solution" in tags(cell) for cell in cells[number + 1 : number + 2]):
            yield f"{cells[number].source[:60]!r}: no rubric (tag solution) follows the written question"


def _faults_of_sittings(notebook):
    found = sittings(notebook)
    numbers = [int(match[1]) for sitting in found if (match := _SITTING.match(sitting.title))]
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        yield f"its sittings, headings '## Sitting 1: ...', are numbered {numbers}"
    for sitting in found:
        if sitting.cells > CELLS:
            yield f"{sitting.title!r} has {sitting.cells} cells, more than {CELLS}"
    ends = sum(_END in cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    if ends < len(numbers) - 1:
        yield f"{ends} of its sittings say what runs at their end ('{_END}first sitting. What runs: ...*')"


def _faults_of_a_question(question, after):
    """The answer is out of sight until the reader asks for it."""
    name = question.source[:60]
    code = next((number for number, cell in enumerate(after) if cell.cell_type == "code"), None)
    if code is None or not tags(after[code]) & {"hide-output", "hide-cell"}:
        yield f"{name!r}: the cell that answers it does not hide its output (tag hide-output or hide-cell)"
    elif not after[code].metadata.get("jupyter", {}).get("outputs_hidden"):
        yield f"{name!r}: the output that answers it is not collapsed in JupyterLab (metadata jupyter.outputs_hidden)"
    said = next((cell for cell in after[code or 0 :] if cell.cell_type == "markdown"), None)
    if said is None or not said.source.lstrip().startswith("<details>"):
        yield f"{name!r}: what is said of its answer is not folded (<details>) in the next cell of text"
