"""The course as a web site, opened in a real browser without a network, at the width of a desk and of a phone."""

import re
import shutil
from pathlib import Path

import pytest

from minillama.lessons import EXERCISES
from minillama.lessons.notebooks import FOLDER, paths, read, tags

pytest.importorskip("myst_nb", reason='the extra "site" is not installed')
sync_api = pytest.importorskip("playwright.sync_api", reason='the extra "site" is not installed')
pytestmark = pytest.mark.slow
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
PAGES = ["index", "lecturers", *(path.stem for path in paths())]
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
RENDERED = "async () => { if (window.MathJax) await MathJax.startup.promise }"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    from sphinx.cmd.build import build_main

    made = tmp_path_factory.mktemp("site")
    doctrees = tmp_path_factory.mktemp("doctrees")
    assert build_main(["-q", "-W", "--keep-going", "-d", str(doctrees), str(FOLDER), str(made)]) == 0
    return made


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on the path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_everything(site, browser, name, width):
    page = browser.new_page(viewport=dict(zip(("width", "height"), WIDTHS[width], strict=True)))
    said, asked, failed = [], [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.goto((site / f"{name}.html").as_uri())
    page.evaluate(RENDERED)
    assert said == [] and failed == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == [], "it asks the network for something"
    formulas = page.locator(".math").count()
    assert page.locator("mjx-container").count() >= formulas and page.locator("mjx-merror").count() == 0
    assert name in ("index", "lecturers") or formulas > 0
    for image in page.locator("article img").all():
        image.scroll_into_view_if_needed()
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        description = image.get_attribute("alt") or ""
        assert len(description) > 20 and "_images/" not in description, f"{image.get_attribute('src')}: {description!r}"
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, "the page scrolls sideways"
    assert not page.locator("article p:text-matches('\\\\$\\\\S')").count(), "a formula is shown as its source"
    links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
    for link in {link.split("#")[0] for link in links if link.startswith("file:")}:
        assert Path(link.removeprefix("file://")).is_file(), f"it links to {link}"
    assert page.locator("article details[open]").count() == 0, "a hint or a solution is not folded"
    if name not in ("index", "lecturers"):
        asked = sum(bool({"hint", "solution"} & tags(cell)) for cell in read(FOLDER / f"{name}.ipynb").cells)
        assert page.locator("article details").count() >= asked > 0
    page.close()


def test_lecturers_are_told_what_the_lessons_say():
    """The plan's minutes and points, and the sections where a belief is contradicted."""
    told = (FOLDER / "lecturers.md").read_text(encoding="utf-8")
    for path in paths():
        notebook = read(path)
        minutes = re.search(r"\*\*Time\*\*: (\d+) minutes to read, (\d+) for", notebook.cells[0].source).groups()
        points = sum(e.difficulty for e in EXERCISES.values() if e.lesson == path.name[:2])
        row = next(line for line in told.splitlines() if line.startswith("| ") and f"({path.name})" in line)
        assert tuple(cell.strip() for cell in row.split("|")[-4:-1]) == (*minutes, str(points)), f"{path.name}: {row}"
    assert f"{sum(e.difficulty for e in EXERCISES.values())} in all" in told
    beliefs = [line.split("|")[2] for line in told.split("| belief |")[1].split("\n\n")[0].splitlines()[2:]]
    for shown in beliefs:
        named = re.findall(r"(?:(\d\d), |; )\*([^*]+)\*", shown)
        assert named, shown
        for lesson, section in named:
            (path,) = paths([lesson or named[0][0]])
            headings = re.findall(r"^#+ (.*)$", "\n".join(c.source for c in read(path).cells), re.M)
            assert section in headings, f"{path.name} has no section {section!r}"
