"""What moves and opens on the site: sliders, figures, panels, answers, contents; by mouse, keyboard and finger."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from minillama.lessons.notebooks import paths, read, tags
from minillama.lessons.sliders import SLIDERS, WIDTH

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


class Moved:
    """A slider on a page, beside what Python says of its values."""

    def __init__(self, page, name):
        self.slider = SLIDERS[name]()
        self.figure = page.locator(f'figure.slider[data-slider="{name}"]')
        self.inputs = {
            c.name: self.figure.get_by_role("slider", name=c.label, exact=True) for c in self.slider.controls
        }

    def values(self):
        indices = {name: int(each.input_value()) for name, each in self.inputs.items()}
        return {c.name: c.options[indices[c.name]][1] for c in self.slider.controls}

    def set(self, **indices):
        for name, index in indices.items():
            self.inputs[name].evaluate(
                "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')) }", index
            )

    def picture(self):
        return self.figure.locator("svg").evaluate("svg => svg.outerHTML")

    def require_python(self):
        """The picture, shape by shape, the words, and what stands beside the sliders, as Python has them."""
        values = self.values()
        drawn, expected = (list(ElementTree.fromstring(s)) for s in (self.picture(), self.slider.svg(values)))
        assert len(drawn) == len(expected) > 5
        for ours, theirs in zip(drawn, expected, strict=True):
            assert (ours.tag, ours.text, sorted(ours.attrib)) == (theirs.tag, theirs.text, sorted(theirs.attrib)), (
                values
            )
            for key, value in theirs.attrib.items():
                assert same(ours.attrib[key], value), (values, theirs.tag, key, ours.attrib[key], value)
        assert self.figure.locator("output").inner_text() == self.slider.words(values)
        for control in self.slider.controls:
            shown = next(text for text, value in control.options if value == values[control.name])
            assert self.inputs[control.name].get_attribute("aria-valuetext") == shown
            assert self.figure.locator("label", has=self.inputs[control.name]).inner_text().endswith(shown)


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
        assert moved.values() == moved.slider.start()
        moved.require_python()
        for control in moved.slider.controls:
            handle = moved.inputs[control.name]
            for key, index in (("Home", 0), ("ArrowRight", 1), ("End", len(control.options) - 1)):
                before = moved.picture()
                handle.press(key)
                assert handle.input_value() == str(index) and moved.picture() != before, (control.name, key)
                moved.require_python()
            box, before = handle.bounding_box(), moved.picture()
            place = {"x": 0.3 * box["width"], "y": box["height"] / 2}
            handle.tap(position=place) if width == "phone" else handle.click(position=place)
            assert moved.picture() != before and 0 < int(handle.input_value()) < len(control.options) - 1
            moved.require_python()


@pytest.mark.parametrize("name", SLIDING)
def test_a_slider_draws_what_python_draws(site, browser, name):
    rng = np.random.default_rng(0)
    with opened(browser, site, SLIDING[name], "desktop") as page:
        moved = Moved(page, name)
        for _ in range(25):
            moved.set(**{c.name: int(rng.integers(len(c.options))) for c in moved.slider.controls})
            moved.require_python()
        for label, values in moved.slider.presets:
            moved.figure.get_by_label("shape of").select_option(label)
            assert values.items() <= moved.values().items()
            moved.require_python()


@pytest.mark.parametrize("name", SLIDING)
def test_a_slider_is_of_use_on_a_phone(site, browser, name):
    with opened(browser, site, SLIDING[name], "phone") as page:
        moved = Moved(page, name)
        figure = moved.figure.bounding_box()
        assert 0 <= figure["x"] and figure["x"] + figure["width"] <= WIDTHS["phone"][0]
        for handle in moved.inputs.values():
            assert handle.bounding_box()["width"] > 200 and handle.bounding_box()["height"] >= 24  # WCAG 2.2, 2.5.8
        letters = 13 * moved.figure.locator("svg").bounding_box()["width"] / WIDTH
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
