"""The slides of the lessons, opened in a real browser without a network, and printed."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest

from minillama.lessons import notebooks
from minillama.lessons.__main__ import main

sync_api = pytest.importorskip("playwright.sync_api", reason='the extra "site" is not installed')
pytest.importorskip("sphinx_revealjs", reason='the extra "site" is not installed')

from minillama.lessons.slides import CHROMIUM, Slide, build_slides, slides  # noqa: E402

BROWSER = next(filter(None, map(shutil.which, CHROMIUM)), None)
LESSONS = notebooks.paths()
needs_chromium = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on the path")
WIDTH, HEIGHT = 1280, 720
PICTURE = (  # a PNG of one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def text(source, *tags):
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)})


def drawn(alt, pictures=1):
    outputs = [nbformat.v4.new_output("display_data", data={"image/png": PICTURE}) for _ in range(pictures)]
    return nbformat.v4.new_code_cell("plt.show()", metadata={"mystnb": {"image": {"alt": alt}}}, outputs=outputs)


def lesson(*cells):
    return nbformat.v4.new_notebook(cells=[text("# 00 · Doubling\n\n**You need** nothing"), *cells])


def found_in(*cells):
    return [slide._replace(images=len(slide.images)) for slide in slides(lesson(*cells))]


def test_a_deck_has_figures_formulas_and_the_questions_before_them():
    found = found_in(
        text("## Sitting 1: to double"),
        text("## 1. Twice · core\n\nAs in [01](01-a.ipynb), with **x** a number:\n\n$$y = 2 x, \\qquad z = 3 x$$"),
        text("> **Predict.** Up or down?", "predict"),
        nbformat.v4.new_code_cell("print(2)"),
        drawn("a line\nthat *rises*", pictures=2),
        text("### Exercise 1: guess\n\n$$answer = 7$$"),
        text("## 2. Thrice · deeper\n\n$$w = 3 x$$"),
        text("> **Predict.** No figure follows.", "predict"),
        text("## Sitting 2: to solve"),
        text("## Exercises\n\n$$v = 4 x$$"),
        text("$$u = 5 x$$", "solution"),
    )
    assert found == [
        Slide("00 · Doubling", images=0),
        Slide("Sitting 1: to double", images=0),
        Slide("1. Twice", "$$\ny = 2 x\n$$\n\n$$\nz = 3 x\n$$", ("As in 01, with x a number:",), 0),
        Slide("1. Twice", "> **Predict.** Up or down?", ("Ask for an answer before the next slide.",), 0),
        Slide("1. Twice", "![a line that \\*rises\\*](005-0.png)\n![a line that \\*rises\\*](005-1.png)",
              ("a line\nthat *rises*",), 2),
    ]  # fmt: skip


def test_many_formulas_are_spread_over_slides():
    body = "\n\n".join(f"$$x = {number}$$" for number in range(9))
    assert [slide.body.count("$$") // 2 for slide in found_in(text(f"## 1. Many · core\n\n{body}"))] == [
        0,
        4,
        4,
        1,
    ]
    aligned = "$$\\begin{aligned} x &= 1 \\qquad a \\\\ y &= 2 \\end{aligned}$$"
    assert found_in(text(aligned))[1].body.count("$$") == 2, "an environment is not cut"


@pytest.fixture
def course(tmp_path, monkeypatch):
    folder = tmp_path / "course"
    notebooks.write(lesson(text("## 1. Twice · core"), drawn("a line that rises")), folder / "00-doubling.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", folder)
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_foreign_files_stay_to_the_byte(course, tmp_path, capsys):
    made = tmp_path / "made"
    assert not main(["slides", str(made), "--no-pdf"])
    assert {"index.html", "00-doubling.html"} <= {path.name for path in made.iterdir()}
    for name in ("index.html", "00-doubling.html", "_static/slides.css"):
        folder = tmp_path / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"what somebody else wrote")
        before = contents(folder)
        assert main(["slides", str(folder), "--no-pdf"]) == 1
        assert contents(folder) == before and name in capsys.readouterr().err
        assert not main(["slides", str(folder), "--no-pdf", "--overwrite"])
        assert contents(folder).keys() == contents(made).keys()


def test_without_chromium_it_says_what_to_do_and_writes_nothing(course, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("minillama.lessons.slides.shutil.which", lambda name: None)
    assert main(["slides", str(tmp_path / "made")]) == 1
    assert "--no-pdf" in capsys.readouterr().err and not (tmp_path / "made").exists()


@pytest.mark.slow
def test_a_formula_that_sphinx_warns_of_is_an_error(course, tmp_path, monkeypatch, capsys):
    bad = lesson(text("> **Predict.** Which of {nothing}`these`?", "predict"), drawn("a line that rises"))
    notebooks.write(bad, course / "00-doubling.ipynb")
    assert main(["slides", str(tmp_path / "made"), "--no-pdf"]) == 1
    assert "Sphinx warns" in capsys.readouterr().err and not (tmp_path / "made").exists()


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    build_slides(folder)
    return folder


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


SHOWN = """async () => {
    if (window.MathJax) await MathJax.startup.promise;
    await document.fonts.ready;
    await Promise.all([...document.images].map(image => image.decode()));
}"""
LARGER = """([width, height]) => {  // the slides that hold more than a screen, by their headings
    const found = [];
    for (const slide of document.querySelectorAll(".slides section")) {
        if (slide.querySelector("section")) continue;
        const stack = slide.parentElement, before = [slide.style.display, stack.style.display];
        slide.style.display = stack.style.display = "block";
        if (slide.scrollWidth > width || slide.scrollHeight > height) {
            found.push([slide.innerText.slice(0, 60), slide.scrollWidth, slide.scrollHeight]);
        }
        [slide.style.display, stack.style.display] = before;
    }
    return found;
}"""


@needs_chromium
@pytest.mark.slow
@pytest.mark.xdist_group("slides")  # built once
@pytest.mark.parametrize("name", ["index", *(path.stem for path in LESSONS)])
def test_a_deck_shows_everything_offline_and_is_printed_whole(decks, browser, name):
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: said.append(request.url))
    page.goto((decks / f"{name}.html").as_uri())
    page.evaluate(SHOWN)
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == [], "it asks the network for something"
    assert page.locator("mjx-merror").count() == 0 and page.evaluate(LARGER, [WIDTH, HEIGHT]) == []
    if name == "index":
        links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
        listed = {Path(link.removeprefix("file://")).name for link in links if link.startswith("file:")}
        assert {f"{path.stem}.{kind}" for path in LESSONS for kind in ("html", "pdf")} <= listed
        return
    (path,) = (path for path in LESSONS if path.stem == name)
    expected = slides(notebooks.read(path))
    assert page.evaluate("Reveal.getTotalSlides()") == len(expected)
    assert page.locator(".slides img").count() == sum(len(slide.images) for slide in expected) > 0
    assert page.locator("mjx-container[display=true]").count() == sum(s.body.count("$$") // 2 for s in expected)
    assert page.locator("aside.notes").count() == sum(any(slide.notes) for slide in expected)
    assert all(image.get_attribute("alt") for image in page.locator(".slides img").all())
    page.close()
    printed = (decks / f"{name}.pdf").read_bytes()
    assert printed.startswith(b"%PDF-") and len(re.findall(rb"/Type\s*/Page\b", printed)) == len(expected)
    boxes = set(re.findall(rb"/MediaBox\s*\[([^]]*)\]", printed))
    assert len(boxes) == 1, boxes
    _, _, width, height = map(float, boxes.pop().split())
    assert abs(width / height - WIDTH / HEIGHT) < 0.02
