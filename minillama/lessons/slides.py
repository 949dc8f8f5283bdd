"""Slides for a lecture: `python -m minillama.lessons slides DIR` makes a deck of each lesson, as HTML and as PDF.

A deck holds, in the lesson's order, its figures, the question to predict before each, and the formulas that its core
displays. A figure's description is in the speaker's notes (key S). Sphinx makes the HTML with sphinx-revealjs, which
brings reveal.js along, and with the site's MathJax; Chromium prints it. Nothing asks the network.
"""

import base64
import copy
import html
import io
import re
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from ..files import require_free
from ..messages import needs
from .notebooks import paths, read, write_all
from .sittings import pieces, tags

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
INSTEAD = "give another folder"
_LINES = 4  # of formulas on a slide, unless a single one has more
_STYLE = Path(__file__).with_suffix(".css")
_SETTINGS = {
    "project": "minillama",
    "language": "en",
    "extensions": ["myst_parser", "sphinx_revealjs", "sphinx-mathjax-offline"],
    "source_suffix": {".md": "markdown"},  # said, as the site's extension changes Sphinx' default for its whole process
    "myst_enable_extensions": ["dollarmath", "amsmath"],
    "smartquotes": False,
    "revealjs_html_theme": "revealjs-simple",
    "revealjs_style_theme": "white",
    "revealjs_static_path": ["_static"],
    "revealjs_css_files": [_STYLE.name],
    "revealjs_script_plugins": [{"src": "revealjs/plugin/notes/notes.js", "name": "RevealNotes"}],
    "revealjs_script_conf": {
        "width": 1280, "height": 720, "margin": 0.03, "hash": True, "slideNumber": "c/t", "transition": "none",
        "pdfMaxPagesPerSlide": 1, "center": False,
    },
    "html_copy_source": False,
    "html_show_sourcelink": False,
}  # fmt: skip
_DISPLAYED = re.compile(r"\$\$(.+?)\$\$", re.S)
_PAGES = "count => document.querySelectorAll('.pdf-page').length === count"
_DRAWN = """async () => {
    if (window.MathJax) await MathJax.startup.promise;  // a deck without formulas has none
    await document.fonts.ready;
    await Promise.all([...document.images].map(image => image.decode()))
}"""


class Slide(NamedTuple):
    """What a slide shows and what the lecturer sees beside it."""

    heading: str
    body: str = ""  # in Markdown
    notes: tuple[str, ...] = ()
    images: dict[str, bytes] = {}  # PNG files that the body names


def build_slides(folder, overwrite=False, pdf=True):
    """Write the decks of the tour and all lessons, and index.html which lists them; returns their paths

    pdf: print each too, for which Chromium must be there. FileExistsError, before anything is made, if a deck is there;
    overwrite: replace it.
    """
    with needs("site", "making slides"):
        import sphinx_revealjs  # noqa: F401  (Sphinx imports it by its name)
        from sphinx.application import Sphinx
        from sphinx.util.docutils import docutils_namespace

    folder = Path(folder)
    found = paths()
    names = ["index", *(path.stem for path in found)]
    made = [folder / f"{name}.html" for name in names] + [folder / f"{path.stem}.pdf" for path in found if pdf]
    require_free(made, overwrite, INSTEAD)
    browser = _browser() if pdf else None
    said = io.StringIO()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        source, out = Path(work, "source"), Path(work, "out")
        (source / "_static").mkdir(parents=True)
        shutil.copy(_STYLE, source / "_static")
        decks = {path.stem: slides(read(path)) for path in found}
        for name, made_of_it in decks.items():
            (source / f"{name}.md").write_text(_deck(made_of_it, name, source), encoding="utf-8")
        (source / "index.md").write_text(_index(found, pdf), encoding="utf-8")
        settings = copy.deepcopy(_SETTINGS)  # the builder adds to them
        with docutils_namespace():  # so that it can be done twice in a process
            Sphinx(source, None, out, Path(work, "doctrees"), "revealjs", settings, status=None, warning=said).build()
        if said.getvalue():
            raise ValueError(f"Sphinx warns, and no slides were written: {said.getvalue()[:500]}")
        if pdf:
            _print(browser, out, {name: len(made_of_it) for name, made_of_it in decks.items()})
        written = [path for path in sorted(out.rglob("*")) if path.is_file() and path.parts[-1] != ".buildinfo"]
        write_all({folder / path.relative_to(out): path.read_bytes() for path in written}, overwrite)
    return made


def slides(notebook):
    """The slides of a notebook: its title, its sittings' names, its figures, formulas, and questions before them."""
    cells = notebook.cells
    title = re.match(r"# (.+)", cells[0].source)[1]
    found, sitting, heading, question = [Slide(title)], "", "", None
    for piece in pieces(notebook):
        cell = cells[piece.cell]
        if piece.heading == piece.sitting != sitting:
            sitting = piece.sitting
            found.append(Slide(sitting))
        if piece.heading != heading:
            heading, question = piece.heading, None
        shown = "What this lesson is about" if heading == title else heading
        if "predict" in tags(cell):
            asked = "\n".join(line for line in piece.text.splitlines() if line.startswith(">"))
            question = (
                Slide(shown, _without_links(asked), ("Ask for an answer before the next slide.",)) if asked else None
            )
            continue
        new = []
        if cell.cell_type == "code":
            new = _figure(shown, cell, piece.cell)
        elif piece.depth == "core":
            new = _formulas(shown, piece.text)
        if new and question:
            found.append(question)
            question = None
        found += new
    alone = [not any(slide.body for slide in found[i + 1 : i + 2]) for i in range(len(found))]
    return [
        slide for i, slide in enumerate(found) if i == 0 or slide.body or not alone[i]
    ]  # no sitting without content


def _figure(heading, cell, number):
    """The slide with the figures of a cell, which stand beside each other, or none."""
    pictures = [o.data["image/png"] for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    if not pictures:
        return []
    images = {f"{number:03d}-{i}.png": base64.b64decode(data) for i, data in enumerate(pictures)}
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    return [Slide(heading, "\n".join(f"![{_escaped(alt)}]({name})" for name in images), (alt,), images)]


def _formulas(heading, text):
    """Slides with the formulas that a text displays; their notes are the paragraphs in front of them."""
    found, lines = [], _LINES
    for match in _DISPLAYED.finditer(text):
        parts = _parts(match[1])
        before = _spoken(text[: match.start()]).strip().split("\n\n")[-1]
        lines += sum(1 + part.count("\\\\") for part in parts)
        if lines > _LINES:
            found.append(Slide(heading))
            lines = sum(1 + part.count("\\\\") for part in parts)
        body = "\n\n".join(f"$$\n{part}\n$$" for part in parts)
        found[-1] = found[-1]._replace(body=f"{found[-1].body}\n\n{body}".strip(), notes=(*found[-1].notes, before))
    return found


def _parts(formula):
    """A displayed formula, cut where it leaves a wide gap: a line of a slide holds less than one of a page."""
    if "\\begin" in formula:
        return [formula.strip()]
    parts = (part.strip().rstrip(",") for part in re.split(r"\\qquad", formula))
    return [part for part in parts if part]


def _spoken(text):
    """A text without headings, folds and formulas, for the speaker's notes."""
    text = re.sub(r"<summary>.*?</summary>|</?details>|^#+ .*$", "", text, flags=re.M)
    return _DISPLAYED.sub("(formula)", _without_links(text)).replace("**", "")


def _without_links(text):
    """Links to other notebooks and pages of the course as their text: a deck stands alone."""
    return re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)


def _escaped(text):
    """A description as Markdown reads it."""
    return re.sub(r"([\\\[\]`*_$<>])", r"\\\1", " ".join(text.split()))


def _deck(made, name, source):
    """The Markdown of a deck, whose images are written to source/name."""
    (source / name).mkdir()
    parts = []
    for number, (heading, body, notes, images) in enumerate(made):
        for image, content in images.items():
            (source / name / image).write_bytes(content)
            body = body.replace(f"]({image})", f"]({name}/{image})")
        spoken = html.escape("<br>".join(" ".join(note.split()) for note in notes)).replace("&lt;br&gt;", "<br>")
        kind = "#" if number == 0 else "##"
        parts += [f"{kind} {heading or 'The course'}", body] + (
            [f'<aside class="notes">{spoken}</aside>'] if spoken else []
        )
        if number == 0:
            parts.append("minillama: LLaMA in NumPy. Text and figures: CC BY 4.0, the minillama authors.")
    return "---\norphan: true\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _index(found, pdf):
    """The page that lists the decks."""
    lines = ["# Slides of minillama's course", "", "Space: on. S: speaker's notes. F: full screen. O: overview.", ""]
    for path in found:
        title = read(path).cells[0].source.split("\n")[0].removeprefix("# ")
        printed = f', <a href="{path.stem}.pdf">PDF</a>' if pdf else ""
        lines.append(f'- <a href="{path.stem}.html">{html.escape(title)}</a>{printed}')
    return "\n".join(lines) + "\n"


def _browser():
    """The path of a Chromium, or ValueError."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        raise ValueError(
            f"printing slides needs Chromium or Chrome, and none of {', '.join(CHROMIUM)} is on the path; "
            f"install one, or give --no-pdf for the HTML alone"
        )
    return found


def _print(browser, out, decks):
    """Print decks, {name: its number of slides}, to PDF files beside them, a slide on each page."""
    with needs("site", "printing slides"):
        from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for name, count in decks.items():
            page = opened.new_page()
            page.goto((out / f"{name}.html").as_uri() + "?print-pdf")
            page.wait_for_function(_PAGES, arg=count)
            page.evaluate(_DRAWN)
            page.pdf(path=out / f"{name}.pdf", prefer_css_page_size=True, print_background=True)
            page.close()
        opened.close()
