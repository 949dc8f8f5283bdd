"""What moves and opens on the site: sliders, figures, panels, answers, contents; by mouse, keyboard and finger."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from minillama.lessons.notebooks import paths, read, tags
from minillama.lessons.sliders import OWN, SLIDERS

from .browsing import WIDTHS, opened

pytest.importorskip("myst_nb", reason='the extra "site" is not installed')
pytest.importorskip("playwright.sync_api", reason='the extra "site" is not installed')
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]  # built once
LESSONS = {path.stem: read(path).cells for path in paths()}
PAGE = next(name for name in LESSONS if name.startswith("07"))  # with figures, answers, hints and solutions


def tagged(tag):
    """{page: cells with this tag}, of the lessons that have any."""
    found = {name: [cell for cell in cells if tag in tags(cell)] for name, cells in LESSONS.items()}
    return {name: cells for name, cells in found.items() if cells}


SLIDING = {
    re.search(r"sliders\.(\w+)\(", cell.source)[1]: name for name, cells in tagged("slider").items() for cell in cells
}


def test_every_slider_stands_in_a_lesson():
    assert set(SLIDING) == set(SLIDERS)


# Sliders


SEEN = """figure => ({
    picture: new XMLSerializer().serializeToString(figure.querySelector("svg")),
    words: figure.querySelector("output").innerText,
    inputs: [...figure.querySelectorAll("input")].map(input => ({
        name: input.name, index: Number(input.value), text: input.getAttribute("aria-valuetext"),
        beside: input.parentElement.innerText,
    })),
})"""
SET = """(figure, indices) => Object.entries(indices).forEach(([name, index]) => {
    const input = figure.querySelector(`input[name=${name}]`);
    input.value = index;
    input.dispatchEvent(new Event("input"));
})"""


class Moved:
    """A slider on a page, beside what Python says of its values."""

    def __init__(self, page, name):
        self.slider = SLIDERS[name]()
        self.figure = page.locator(f'figure.slider[data-slider="{name}"]')
        self.inputs = {
            c.name: self.figure.get_by_role("slider", name=c.label, exact=True) for c in self.slider.controls
        }

    def set(self, **indices):
        self.figure.evaluate(SET, indices)

    def require_python(self):
        """The picture, shape by shape, the words, and what stands beside the sliders, as Python has them

        -> {name: the option's number}, and the picture.
        """
        seen = self.figure.evaluate(SEEN)
        values = {}
        for control, input_ in zip(self.slider.controls, seen["inputs"], strict=True):
            text, values[control.name] = control.options[input_["index"]]
            assert (input_["name"], input_["text"]) == (control.name, text) and input_["beside"].endswith(text)
        drawn, expected = (list(ElementTree.fromstring(svg)) for svg in (seen["picture"], self.slider.svg(values)))
        assert len(drawn) == len(expected) > 5
        for ours, theirs in zip(drawn, expected, strict=True):
            assert (ours.tag, ours.text, sorted(ours.attrib)) == (theirs.tag, theirs.text, sorted(theirs.attrib)), (
                values
            )
            for key, value in theirs.attrib.items():
                assert same(ours.attrib[key], value), (values, theirs.tag, key, ours.attrib[key], value)
        assert seen["words"] == self.slider.words(values)
        return {each["name"]: each["index"] for each in seen["inputs"]}, seen["picture"]


def same(ours, theirs):
    """Two attributes: numbers differ by one in their last digit at most."""
    numbers = [re.findall(r"-?\d+\.\d\d", each) for each in (ours, theirs)]
    apart = [re.sub(r"-?\d+\.\d\d", "", each) for each in (ours, theirs)]
    close = len(numbers[0]) == len(numbers[1]) and np.allclose(
        *(np.array(n, float) for n in numbers), rtol=0, atol=0.011
    )
    return apart[0] == apart[1] and close


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SLIDING)
def test_a_slider_moves_by_keyboard_mouse_and_finger(site, browser, name, width):
    with opened(browser, site, SLIDING[name], width) as page:
        moved = Moved(page, name)
        indices, picture = moved.require_python()
        assert {c.name: c.options[indices[c.name]][1] for c in moved.slider.controls} == moved.slider.start()
        for control in moved.slider.controls:
            handle, last = moved.inputs[control.name], len(control.options) - 1
            for way, expected in (("End", {last}), ("Home", {0}), ("ArrowRight", {1}), (width, range(2, last + 1))):
                _move(handle, way)
                indices, changed = moved.require_python()
                assert indices[control.name] in expected and changed != picture, (control.name, indices)
                picture = changed


def _move(handle, way):
    """By a key, or by a mouse or finger at nine tenths of its way."""
    if way not in WIDTHS:
        handle.press(way)
        return
    box = handle.bounding_box()
    (handle.tap if way == "phone" else handle.click)(position={"x": 0.9 * box["width"], "y": box["height"] / 2})


@pytest.mark.parametrize("name", SLIDING)
def test_a_slider_draws_what_python_draws(site, browser, name):
    rng = np.random.default_rng(0)
    with opened(browser, site, SLIDING[name], "desktop") as page:
        moved = Moved(page, name)
        for _ in range(25):
            indices = {c.name: int(rng.integers(len(c.options))) for c in moved.slider.controls}
            moved.set(**indices)
            assert moved.require_python()[0] == indices
        for label, values in moved.slider.presets:
            menu = moved.figure.get_by_label("shape of")
            menu.select_option(label)
            indices = moved.require_python()[0]
            assert menu.evaluate("menu => menu.value") == label
            control = next(c for c in moved.slider.controls if c.name in values)
            moved.set(**{control.name: (indices[control.name] + 1) % len(control.options)})
            assert menu.evaluate("menu => menu.value") == OWN
            menu.select_option(label)
            indices = moved.require_python()[0]
            assert values.items() <= {c.name: c.options[indices[c.name]][1] for c in moved.slider.controls}.items()


@pytest.mark.parametrize("name", SLIDING)
def test_a_slider_is_of_use_on_a_phone(site, browser, name):
    with opened(browser, site, SLIDING[name], "phone") as page:
        moved = Moved(page, name)
        figure = moved.figure.bounding_box()
        assert 0 <= figure["x"] and figure["x"] + figure["width"] <= WIDTHS["phone"][0]
        for handle in moved.inputs.values():
            assert handle.bounding_box()["width"] > 200 and handle.bounding_box()["height"] >= 24  # WCAG 2.2, 2.5.8
        units = moved.figure.locator("svg").evaluate("svg => svg.viewBox.baseVal.width")
        letters = 13 * moved.figure.locator("svg").bounding_box()["width"] / units
        assert letters >= 11, "the letters of the picture are too small"
        for text in moved.figure.locator("svg text").all():
            box = text.bounding_box()
            assert box["x"] >= figure["x"] and box["x"] + box["width"] <= figure["x"] + figure["width"] + 0.5


# Figures


@pytest.mark.parametrize("width", WIDTHS)
def test_a_figure_opens_large(site, browser, width):
    with opened(browser, site, PAGE, width) as page:
        images, buttons = page.locator("article img"), page.locator("article button.figure-open")
        assert images.count() == buttons.count() > 5
        button = buttons.nth(0)
        dialog, large = page.locator("dialog.figure-large"), page.locator("dialog.figure-large img")
        ways_in = [button.tap if width == "phone" else button.click, lambda: button.press("Enter")]
        ways_out = [
            lambda: page.keyboard.press("Escape"),
            dialog.get_by_role("button", name="Close").click,
            large.click,
        ]
        for way_in, way_out in [(a, b) for a in ways_in for b in ways_out]:
            assert not dialog.is_visible()
            way_in()
            assert dialog.is_visible() and large.get_attribute("alt") == button.locator("img").get_attribute("alt")
            shown, small = large.bounding_box()["width"], button.locator("img").bounding_box()["width"]
            natural = large.evaluate("image => image.naturalWidth")
            assert shown > 1.1 * small and shown >= natural - 1, (shown, small, natural)
            assert dialog.bounding_box()["width"] <= WIDTHS[width][0]
            way_out()
            assert not dialog.is_visible()
            assert button.evaluate("button => button === document.activeElement"), "the focus is lost"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", tagged("panels"))
def test_panels_stand_side_by_side_at_a_desk_and_stacked_on_a_phone(site, browser, name, width):
    with opened(browser, site, name, width) as page:
        page.eval_on_selector_all("article details", "all => all.forEach(details => { details.open = true })")
        cells = page.locator(".cell.tag_panels").all()
        assert len(cells) == len(tagged("panels")[name])
        for cell in cells:
            first, second = (image.bounding_box() for image in cell.locator(".cell_output img").all()[:2])
            if width == "phone":
                assert second["y"] >= first["y"] + first["height"] and second["x"] == first["x"]
                assert first["width"] > 300
            else:
                assert abs(second["y"] - first["y"]) < 2 and second["x"] >= first["x"] + first["width"]


# Answers, contents


KINDS = (
    "details:not(.hide)",
    ".tag_hide-output details.hide",
    ".tag_hide-cell details.hide",
    ".tag_hide-input details.hide",
)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_folded_opens_by_click_and_keyboard(site, browser, kind, width):
    with opened(browser, site, PAGE, width) as page:
        folded = page.locator(f"article {kind}").first
        summary, inside = folded.locator("summary"), folded.locator("> :not(summary)").first
        assert summary.bounding_box()["height"] >= 24
        assert not inside.is_visible()
        summary.tap() if width == "phone" else summary.click()
        assert inside.is_visible()
        for _ in range(2):
            before = inside.is_visible()
            summary.press("Enter")
            assert inside.is_visible() != before


@pytest.mark.parametrize("name", LESSONS)
def test_the_contents_of_a_page_stand_beside_it_at_a_desk(site, browser, name):
    with opened(browser, site, name, "desktop") as page:
        contents, article = (page.locator(each).bounding_box() for each in (".toc-tree", "article"))
        assert article["x"] + article["width"] <= contents["x"]
        assert contents["x"] + contents["width"] <= WIDTHS["desktop"][0] and contents["width"] > 150
        assert article["width"] > 700
