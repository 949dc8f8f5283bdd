"""What the notebooks of one kind have in common: the lessons; the tour and the pages, without exercises or number."""

import re
from typing import NamedTuple

TOUR = "tour"  # what the tour is called where lessons are numbers, and the name of its file
PAGES = {"decoding-and-memory": "What the machine does while it decodes"}  # the same of each page -> its title
HEADER = ("**You will be able to**", "**You need**", "**Time**", "**Papers**")  # of every first cell


class Frame(NamedTuple):
    """A kind of notebook."""

    title: str  # how the first cell begins
    sections: tuple[str, ...]
    seconds: int  # that it runs, at most


SECTIONS_APART = ("Exercises", "Written questions")  # whose minutes are those of their tasks, not of reading
LESSON_FRAME = Frame(
    "# NN · title",
    (
        "## The card on this subject",
        *(f"## {title}" for title in SECTIONS_APART),
        "## Takeaways",
        "## Where this is in minillama",
    ),
    90,
)
TOUR_FRAME = Frame("# The tour · title", ("## Takeaways", "## Where to go next"), 60)
PAGE_FRAME = Frame("# title, one of PAGES", ("## Takeaways", "## Where this is in minillama"), 60)


def name_of(path):
    """What a notebook is called where lessons are named, from its file: "03", "tour", or the name of a page."""
    return path.stem if path.stem in (TOUR, *PAGES) else path.name[:2]


def lesson_of_title(source):
    """The same, from the cell with its title; None where that is the title of none."""
    title = re.match(r"# (?:(\d\d)|The tour) · ", source)
    if title:
        return title[1] or TOUR
    return next((name for name, page in PAGES.items() if source.partition("\n")[0] == f"# {page}"), None)


def lesson_of(notebook):
    """The same, from the first cell of a notebook."""
    return lesson_of_title(notebook.cells[0].source) if notebook.cells else None


def frame_of(notebook):
    """Its Frame: the tour's, that of the pages, or that of the lessons."""
    return {TOUR: TOUR_FRAME, **dict.fromkeys(PAGES, PAGE_FRAME)}.get(lesson_of(notebook), LESSON_FRAME)
