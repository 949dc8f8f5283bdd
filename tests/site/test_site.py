"""The course as a web site, opened in a real browser without a network, at the width of a desk and of a phone."""

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

from minillama.lessons import EXERCISES, frames
from minillama.lessons.notebooks import FOLDER, name_of, paths, read, tags

from .browsing import WIDTHS, opened

pytest.importorskip("myst_nb", reason='the extra "site" is not installed')
pytest.importorskip("playwright.sync_api", reason='the extra "site" is not installed')
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]  # built once
LESSONS = [path.stem for path in paths()]
REFERENCE = [f"api/{path.stem}" for path in sorted((FOLDER / "api").glob("*.rst"))]
GUIDE = [f"guide/{path.stem}" for path in sorted((FOLDER / "guide").glob("*.md"))]
PLAIN = [path.stem for path in sorted(FOLDER.glob("*.md"))]  # the index, notation, what lecturers need
PAGES = [*PLAIN, *GUIDE, *LESSONS, *REFERENCE]
INSIDE = {"kernels", "runtime", "bench", "experiments", "lessons", "cli"}  # rooms that nobody else calls from Python


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_everything(site, browser, name, width):
    with opened(browser, site, name, width) as page:
        _has_everything(page, name)


def _has_everything(page, name):
    formulas = page.locator(".math").count()
    assert page.locator("mjx-container").count() >= formulas and page.locator("mjx-merror").count() == 0
    assert name not in LESSONS or name in frames.PAGES or formulas > 0
    for image in page.locator("article img").all():
        image.scroll_into_view_if_needed()
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        description = image.get_attribute("alt") or ""
        assert len(description) > 20 and "_images/" not in description, f"{image.get_attribute('src')}: {description!r}"
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, "the page scrolls sideways"
    if name not in REFERENCE:  # where formulas are plain text, and a dollar is a dollar
        assert not page.locator("article p:text-matches('\\\\$\\\\S')").count(), "a formula is shown as its source"
    links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
    for link in {link.split("#")[0] for link in links if link.startswith("file:")}:
        assert Path(link.removeprefix("file://")).is_file(), f"it links to {link}"
    assert page.locator("article details[open]").count() == 0, "a hint or a solution is not folded"
    if name in LESSONS:
        folded = {"hint", "solution", "hide-output"}
        asked = sum(bool(folded & tags(cell)) for cell in read(FOLDER / f"{name}.ipynb").cells)
        assert page.locator("article details").count() >= asked > 0


def test_folded_solutions_are_printed(site, browser):
    page = browser.new_page()
    page.goto((site / "problem-set-solutions.html").as_uri())
    text = page.locator("details.solution li p").first
    assert not text.is_visible()
    page.emulate_media(media="print")
    assert text.is_visible()
    page.close()


@pytest.fixture(scope="module")
def reference():
    """The extension that makes the reference pages."""
    sys.path.insert(0, str(FOLDER / "_extensions"))
    yield importlib.import_module("reference")
    sys.path.remove(str(FOLDER / "_extensions"))


def surface(reference):
    """{name: (page, object)} of all functions, classes and constants that the reference pages are to show."""
    found = {}
    for name in REFERENCE:
        text = (FOLDER / f"{name}.rst").read_text(encoding="utf-8")
        for package in re.findall(r"^\.\. exports:: (\S+)$", text, re.M):
            found |= {f"{package}.{key}": (name, value) for key, value in reference.exports(package).items()}
        for room, skipped in re.findall(r"^\.\. room:: (\S+)\n(?:   :skip: (.*)\n)?", text, re.M):
            for module in reference.modules(room, skipped.split()):
                found |= {f"{module}.{key}": (name, value) for key, value in reference.members(module).items()}
                found |= {f"{module}.{key}": (name, value) for key, (value, _) in reference.tables(module).items()}
    return found


def test_the_reference_has_every_public_name_with_its_source(site, reference):
    import minillama

    shown = surface(reference)
    assert {f"minillama.{name}" for name in minillama.__all__} <= set(shown)
    rooms = {path.parent.name for path in Path(minillama.__file__).parent.glob("*/__init__.py")}
    assert rooms - INSIDE == {name.split(".")[1] for name in shown} & rooms, "a room has no page"
    pages = {page: (site / f"{page}.html").read_text(encoding="utf-8") for page in REFERENCE}
    for name, (page, obj) in shown.items():
        assert f'id="{name}"' in pages[page], f"{page} has no entry for {name}"
        if callable(obj):
            entry = pages[page].split(f'id="{name}"', 1)[1].split("</dt>", 1)[0]
            assert "../_modules/" in entry, f"{name} has no link to its source"
    assert "The norm as a network calls it" in pages["api/ops"]  # a method's docstring


def test_everything_public_has_a_docstring(reference):
    """A backward may lean on the forward above it, the functions of a table's rows on what the table says of them."""
    shown = surface(reference)
    rows = {
        value
        for _, table in shown.values()
        if isinstance(table, dict)
        for row in table.values()
        if isinstance(row, tuple)
        for value in row
        if inspect.isfunction(value)
    }
    silent = []
    for name, (_, obj) in shown.items():
        if not callable(obj):
            continue
        forward = shown.get(name.removesuffix("_backward"), (None, None))[1]
        leans = obj in rows or (name.endswith("_backward") and reference.described(forward))
        if not (reference.described(obj) or leans):
            silent.append(name)
        if inspect.isclass(obj):
            own = {key: value for key, value in vars(obj).items() if not key.startswith("_")}
            silent += [
                f"{name}.{key}"
                for key, value in own.items()
                if inspect.isfunction(getattr(value, "__func__", value)) or isinstance(value, property)
                if not inspect.getdoc(getattr(obj, key))
            ]
    assert silent == []


@pytest.mark.parametrize(
    "text, expected",
    [
        ("y = a * b\n\nx (N, C) -> y |x|.", [".. code-block:: text", "   :class: formula", "", "   y = a * b"]),
        ("As it is:\n\n    a  b\n      c", ["As it is:", "", ".. code-block:: text", "   :class: literal"]),
        ("Two `names` of x_, 2 * 3.", [r"Two \ :py:obj:`names`\  of x\_, 2 \* 3."]),
        ("a: one\n    that goes on\nb: two", ["* a: one that goes on", "* b: two"]),
        ("1. is no list,\n- nor this", [r"\1. is no list, - nor this"]),
        ("A sentence.\nx (N, C) -> y.", ["A sentence.", "", "x (N, C) -> y."]),
        ("See arXiv 1910.07467.", ["See `arXiv 1910.07467 <https://arxiv.org/abs/1910.07467>`__."]),
    ],
)
def test_a_plain_docstring_is_shown_as_it_was_meant(text, expected, reference):
    assert reference.as_rst(text)[: len(expected)] == expected


def test_lecturers_are_told_what_the_lessons_say():
    """The plan's minutes and points, and the sections where a belief is contradicted."""
    told = (FOLDER / "lecturers.md").read_text(encoding="utf-8")
    for path in paths():
        if name_of(path) in (frames.TOUR, *frames.PAGES):
            assert f"({path.name})" in told
            continue
        notebook = read(path)
        time = r"\*\*Time\*\*: (\d+) minutes to read,(?: of these (\d+) the core,)? (\d+) for"
        read_in, core, exercises = re.search(time, notebook.cells[0].source).groups()
        points = sum(e.difficulty for e in EXERCISES.values() if e.lesson == name_of(path))
        row = next(line for line in told.splitlines() if line.startswith("| ") and f"({path.name})" in line)
        expected = (read_in, core or read_in, exercises, str(points))
        assert tuple(cell.strip() for cell in row.split("|")[-5:-1]) == expected, f"{path.name}: {row}"
    assert f"{sum(e.difficulty for e in EXERCISES.values())} in all" in told
    beliefs = [line.split("|")[2] for line in told.split("| belief |")[1].split("\n\n")[0].splitlines()[2:]]
    for shown in beliefs:
        named = re.findall(rf"(?:({'|'.join([r'[0-9][0-9]', *frames.PAGES])}), |; )\*([^*]+)\*", shown)
        assert named, shown
        for lesson, section in named:
            (path,) = paths([lesson or named[0][0]])
            headings = re.findall(r"^#+ (.*)$", "\n".join(c.source for c in read(path).cells), re.M)
            assert section in headings, f"{path.name} has no section {section!r}"
