"""The sliders of the lessons: their pictures say what the library computes, and a file keeps the first of them."""

import json
import re
from xml.etree import ElementTree

import nbformat
import numpy as np
import pytest

from minillama.catalogue.presets import PRESETS
from minillama.catalogue.sizes import cache_bytes_per_token
from minillama.lessons import figures, notebooks, sliders
from minillama.lessons.sliders import SLIDERS


def controls(widget):
    """{label: the control} of a slider in a notebook, and its picture."""
    *handles, picture = widget.children
    return {handle.description: handle for handle in handles}, picture


@pytest.mark.parametrize("name", SLIDERS)
def test_what_a_file_keeps_is_the_same_every_time(name):
    first, again = (SLIDERS[name]()._repr_mimebundle_() for _ in range(2))
    assert set(first) == {"text/plain", "image/svg+xml", "application/vnd.jupyter.widget-view+json"}
    kept = [{key: data for key, data in each.items() if "widget" not in key} for each in (first, again)]
    assert kept[0] == kept[1] and json.dumps(kept[0])
    assert ElementTree.fromstring(kept[0]["image/svg+xml"]).tag.endswith("svg")


@pytest.mark.parametrize("name", SLIDERS)
def test_the_widget_follows_its_sliders(name):
    slider = SLIDERS[name]()
    handles, picture = controls(slider.widget())
    values = slider.start()
    for control in slider.controls:
        for _, value in (control.options[0], control.options[-1]):
            handles[control.label].value = value
            values[control.name] = value
            assert slider.svg(values) in picture.value and slider.words(values) in picture.value
    for label, chosen in slider.presets[::-1]:
        handles["shape of"].value = label
        values |= chosen
        assert slider.svg(values) in picture.value and handles["shape of"].value == label
        control = next(c for c in slider.controls if c.name in chosen)
        other = next(value for _, value in control.options if value != values[control.name])
        handles[control.label].value = other  # the menu no longer says what is not so, and can be chosen from again
        assert handles["shape of"].value == sliders.OWN
        handles["shape of"].value = label
        assert slider.svg(values) in picture.value


def test_the_words_of_a_slider_are_what_the_library_computes():
    temperature = SLIDERS["softmax_temperature"]()
    e = np.exp(np.array([2.5, 2, 1, 0, -1.5]) / 2)
    assert f"mat has the probability {e[0] / e.sum():.3f}, moon {e[4] / e.sum():.3f}" in temperature.words(
        {"temperature": 2.0}
    )
    clocks = SLIDERS["rope_clocks"]()
    words = clocks.words({"base": 10_000, "position": 10, "pair": 2})
    assert "ω = 0.100000 radians" in words and "once in 62.8 positions" in words and "by 1.0000 radians" in words
    eps = SLIDERS["norm_eps"]()
    assert eps.words({"eps": 1e-4, "size": 0.01}).endswith(f"a y of size {0.5**0.5:.4f}.")
    assert eps.words({"eps": 0.0, "size": 1e-8}).endswith("a y of size 1.0000.")
    cache = SLIDERS["cache_bytes"]()
    for key, (_, shape) in zip(("llama-2-7b", "llama-2-70b"), cache.presets, strict=False):
        words = cache.words({**cache.start(), **shape, "bytes": 2})
        assert f"= {cache_bytes_per_token(PRESETS[key], 2):,} bytes." in words


def test_the_colours_are_those_of_the_figures_here_and_on_the_site():
    palette = {**figures.COLOURS, "pale": figures.PALE["blue"]}
    script = (notebooks.FOLDER / "_static" / "sliders.js").read_text(encoding="utf-8")
    written = dict(re.findall(r'(\w+): "(#\w{6})"', script))
    assert sliders._COLOURS == written and written.items() <= palette.items()


def test_a_lesson_keeps_the_picture_and_no_widget(tmp_path):
    cell = nbformat.v4.new_code_cell("from minillama.lessons import sliders\n\nsliders.norm_eps()")
    cell.metadata["tags"] = ["slider"]
    path, kept = tmp_path / "00-a.ipynb", []
    for _ in range(2):
        title = nbformat.v4.new_markdown_cell("# 00 · A slider\n\n**Time**: x")
        notebooks.write(nbformat.v4.new_notebook(cells=[title, cell]), path)
        notebooks.run(path, "it")
        kept.append(re.sub(r"\*\*Time\*\*.*", "", path.read_text(encoding="utf-8")))
    assert kept[0] == kept[1] and "image/svg+xml" in kept[0] and "widget" not in kept[0] and "stderr" not in kept[0]
    slider = SLIDERS["norm_eps"]()
    assert notebooks.text_of(notebooks.read(path).cells[1]) == slider.words(slider.start())


def test_the_lint_knows_a_widget_and_a_slider_without_a_picture():
    data = SLIDERS["norm_eps"]()._repr_mimebundle_()
    output = nbformat.v4.new_output("execute_result", data=data, execution_count=1)
    cell = nbformat.v4.new_code_cell("sliders.norm_eps()", outputs=[output], execution_count=1)
    cell.metadata.update({"tags": ["slider"], "mystnb": {"image": {"alt": "a curve"}}})
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 00 · A slider"), cell])

    def said(words):
        return any(words in fault for fault in notebooks.faults(made))

    assert said("keeps a widget") and not said("keeps no picture")
    sliders.without_widgets(made)
    assert not said("keeps a widget") and not said("keeps no picture")
    cell.outputs = []
    assert said("keeps no picture")
