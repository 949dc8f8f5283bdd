"""How lessons are cut: the lint of sittings, and the minutes of their reading."""

import nbformat
import pytest

from minillama.lessons import notebooks
from minillama.lessons.__main__ import main
from minillama.lessons.frames import PAGES
from minillama.lessons.sittings import faults, minutes, pieces, sittings
from tests.test_lesson_tools import HEADER, code, hidden, lesson, one_exercise, text  # noqa: F401 (a fixture)


def without(words, tag=None, metadata=None):
    """The lesson without faults, less one of its parts."""
    made = lesson()
    for cell in made.cells:
        cell.source = cell.source.replace(words, "gone") if words else cell.source
        cell.metadata["tags"] = [t for t in cell.metadata.get("tags", ()) if t != tag]
        cell.metadata.pop(metadata, None)
    return made


@pytest.mark.parametrize(
    "made, words",
    [
        (without('course_map("00")'), "draws the map of the course"),
        (without("## Sitting 1: sums"), "are numbered []"),
        (without("Sitting 1:"), "are numbered []"),
        (without(" · core"), "does not say at its end whether it is"),
        (without("", "hide-output"), "does not hide its output"),
        (without("", None, "jupyter"), "is not collapsed in JupyterLab"),
        (without("<details><summary>What came out"), "is not folded"),
        (without("", "written"), "0 written questions"),
        (without("", "solution"), "no rubric"),
    ],
)
def test_the_lint_misses_each_part_of_the_cut(made, words):
    assert any(words in fault for fault in faults(made)), list(faults(made))


def test_a_written_question_at_the_very_end_has_no_rubric():
    made = lesson()
    made.cells.append(text("**Question 3** (5 points). Why?", "written"))
    assert [fault for fault in faults(made) if "no rubric" in fault] == [
        "'**Question 3** (5 points). Why?': no rubric (tag solution) follows the written question"
    ]


def xs(count):
    return [text("x") for _ in range(count)]


@pytest.mark.parametrize(
    "cells, words",
    [
        (xs(60), "more than 60"),
        ([text("## Sitting 3: products")], "are numbered [1, 3]"),
        ([text("## Sitting 2: products")], "0 of its sittings say what runs at their end"),
        ([text("## 2. Another sum")], "'2. Another sum' does not say"),
        ([text("> **Predict.** What is 2 + 2?", "predict")], "does not hide its output"),
        ([text("> **Predict.** 2 + 2?", "predict"), hidden("2 + 2"), text("It is four.")], "is not folded"),
    ],
)
def test_the_lint_finds_a_fault_of_the_cut(cells, words):
    assert any(words in fault for fault in notebooks.faults(lesson(*cells))), notebooks.faults(lesson(*cells))


def test_a_lesson_of_two_sittings_has_no_faults():
    end = text("*End of the first sitting. What runs: sums.*")
    assert notebooks.faults(lesson(*xs(45), end, text("## Sitting 2: products"), *xs(45))) == []


def test_a_question_in_front_of_lesson_two_needs_no_place_in_the_model():
    made = lesson()
    for number, expected in (("01", False), ("02", True), ("08", True), ("09", False)):
        made.cells[0].source = HEADER.replace("00", number)
        assert any("(tag put-in)" in fault for fault in faults(made)) is expected
    made.cells[0].source = HEADER.replace("00", "02")
    made.cells.insert(-3, code("train_with(doubled)", "put-in"))
    assert not any("(tag put-in)" in fault for fault in faults(made))


def many(words):
    return "word " * words


def test_minutes_of_core_and_deeper_parts():
    """200 words a minute, 12 lines of code; subsections are what their section is unless they say otherwise."""
    made = nbformat.v4.new_notebook(
        cells=[
            text("# 03 · Sums"),
            text("## Sitting 1: first\n\n## 1. One · core\n" + many(2000)),
            text("### A part · deeper\n" + many(1000) + "\n### Another\n" + many(400)),
            code("\n".join(["x = 1"] * 24)),
            code("\n".join(["x = 1"] * 240), image=True, alt="a figure is read, not its code"),
            text("## Sitting 2: second\n\n## 2. Two · deeper\n" + many(600) + "\n### A part\n" + many(200)),
            text("### A last part · core\n" + many(1000)),
            text("### Exercise 1: add (★, 5 minutes)\n" + many(800)),
            text("### After it · core\n" + many(0)),
            text("solved " * 5000, "solution"),
            text("## Exercises\n" + many(3000) + "\n### Exercise 1\n" + many(2000)),
            text("## Takeaways\n" + many(200)),
        ]
    )
    first, second = sittings(made)
    assert (first.title, first.cells) == ("Sitting 1: first", 5) and (second.title, second.cells) == (
        "Sitting 2: second",
        6,
    )
    assert first.core == pytest.approx((2000 + 400) / 200 + 24 / 12, abs=0.2)
    assert first.deeper == pytest.approx(1000 / 200, abs=0.1)
    assert second.core == pytest.approx((1000 + 200) / 200, abs=0.1)
    assert second.deeper == pytest.approx((600 + 200) / 200, abs=0.1)
    assert minutes(made) == (30, 20)


def test_a_comment_in_a_fence_is_no_heading():
    commands = "## 1. One · deeper\n```sh\n# Install it\nls\n```\n### A part\nand a word"
    found = list(pieces(nbformat.v4.new_notebook(cells=[text("# 03 · Sums"), text(commands), text("more")])))
    assert [(p.heading, p.depth) for p in found] == [
        ("03 · Sums", "core"), ("1. One", "deeper"), ("A part", "deeper"), ("A part", "deeper"),
    ]  # fmt: skip


def test_the_time_of_a_lesson_names_its_core(monkeypatch):
    made = lesson(text("## 2. More · deeper\n" + many(4000)), code("x = 1\n" * 120))
    assert notebooks.time_line(made, 12.3, "it") == (
        "**Time**: 30 minutes to read, of these 5 the core, 5 for the exercises, 12 s to run on it."
    )


def test_the_plan_lists_sittings_and_adds_up_the_core(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    for number in ("00", "01"):
        made = lesson(text(many(6000)))
        made.cells[0].source = HEADER.replace("00", number)
        notebooks.write(made, tmp_path / f"{number}-doubling.ipynb")
    notebooks.write(made, tmp_path / f"{next(iter(PAGES))}.ipynb")  # a page is no part of the core, nor is the tour
    assert main(["plan"]) is None
    printed = capsys.readouterr().out
    assert "00-doubling  Sitting 1: sums" in printed and "01-doubling  Sitting 1: sums" in printed
    assert "core of the lessons: 61 minutes, 1.0 hours" in printed
