"""The tools around the lessons: what the lint finds, which changes of an output count, what students get, grades."""

import csv
import io
import json
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

import minillama
from minillama.lessons import check, checks, claim, notebooks
from minillama.lessons.__main__ import main
from minillama.lessons.frames import PAGES, lesson_of
from minillama.lessons.grading import grade, handed_in, ungraded

HEADER = (
    "# 00 · Doubling\n\n**You will be able to**\n- double\n\n**You need** nothing\n\n**Time**: x\n\n**Papers**: none"
)
STUB = '''def doubled(x):
    """x (N,) -> y (N,)."""
    ...


check(doubled)'''
PREAMBLE = "import numpy as np\nimport matplotlib.pyplot as plt\nfrom minillama.lessons import check, claim, course_map"


@pytest.fixture(autouse=True)
def one_exercise(monkeypatch):
    """The course has one exercise, `doubled`."""
    monkeypatch.setattr(checks, "EXERCISES", {})
    monkeypatch.setattr(notebooks, "EXERCISES", checks.EXERCISES)
    monkeypatch.setattr("minillama.lessons.grading.EXERCISES", checks.EXERCISES)

    @checks.exercise("00", "Doubling", difficulty=1, minutes=5)
    def doubled(answer, trial):
        for _ in range(5):
            x = trial.rng.standard_normal(trial.rng.integers(2, 6))
            y = trial.call(answer, x, returns=[("y", x.shape)])
            trial.same("y is twice x", y, 2 * x, {"it squares": x**2})


def text(source, *tags):
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)})


def code(source, *tags, printed="", error="", image=False, alt="", count=1):
    outputs = [nbformat.v4.new_output("stream", name="stdout", text=printed)] if printed else []
    if error:
        outputs.append(nbformat.v4.new_output("stream", name="stderr", text=error))
    if image:
        outputs.append(nbformat.v4.new_output("display_data", data={"image/png": "aGk=", "text/plain": "<Figure>"}))
    metadata = {"tags": list(tags), **({"mystnb": {"image": {"alt": alt}}} if alt else {})}
    return nbformat.v4.new_code_cell(source, metadata=metadata, outputs=outputs, execution_count=count)


def hidden(source, *tags, **output):
    """Code whose output is out of sight until the reader asks for it."""
    cell = code(source, "hide-output", *tags, **output)
    cell.metadata["jupyter"] = {"outputs_hidden": True}
    return cell


def lesson(*cells):
    """A lesson without faults, with more cells before its exercises."""
    made = nbformat.v4.new_notebook(
        cells=[
            text(HEADER),
            code(PREAMBLE),
            code('course_map("00")'),
            text("## Sitting 1: sums\n\n## 1. One sum · core"),
            text("> **Predict.** What is 1 + 1?", "predict"),
            hidden("1 + 1"),
            text("<details><summary>What came out</summary>Two.</details>"),
            *cells,
            text("## The card on this subject"),
            text("## Exercises"),
            code(STUB, "exercise", printed="doubled: not started. Write the function"),
            text("<details><summary>Hint</summary>Add.</details>", "hint"),
            code("def doubled(x):\n    return x + x\n\n\ncheck(doubled)", "solution", printed="doubled: passed."),
            text("## Written questions"),
            *[text(f"**Question {n}** (5 points). Why?", "written") for n in (1, 2)],
            text("## Takeaways\n\n## Where this is in minillama"),
        ]
    )
    for n in (len(made.cells) - 1, len(made.cells) - 2):
        made.cells.insert(n, text("<details><summary>Rubric</summary>Because.</details>", "solution"))
    return made


def found_in(*cells):
    return notebooks.faults(lesson(*cells))


def test_a_lesson_with_the_whole_frame_has_no_faults():
    assert found_in() == []


@pytest.mark.parametrize(
    "cell, words",
    [
        (code("\n".join(["x = 1"] * 26)), "more than 25"),
        (code("x = 1", count=None), "was not executed"),
        (code("x = 1", error="RuntimeWarning: overflow"), "an error or a warning is kept"),
        (code("plt.plot([1])", image=True), "a figure without a description"),
        (text("$$\\mathrm{d}x = 2 x$$"), "not tagged gradient"),
        (text("$$\n\\frac{\\partial L}{\\partial x}\n$$"), "not tagged gradient"),
        (text("$$\\mathrm{d}x = 2 x$$", "gradient"), "none of the next three code cells"),
        (text("It doubles by adding.", "solution"), "not folded"),
        (text("The paper reports 1.24 nats.", "cited"), "links to no source"),
        (text("The loss is 2.45."), "2.45 was printed by no cell above"),
        (text("It keeps 1,024 numbers."), "1,024 was printed by no cell above"),
        (text("It saves 30 % of them."), "30 was printed by no cell above"),
        (code("check(doubled)", "exercise", printed="doubled: not started."), "no hint follows"),
        (code("check(other)", "exercise"), "checks no known exercise"),
    ],
)
def test_the_lint_finds_what_is_missing(cell, words):
    assert any(words in fault for fault in found_in(cell)), found_in(cell)


@pytest.mark.parametrize(
    "cells",
    [
        [code("f()", printed="loss 2.4512"), text("The loss is 2.45, no less than that.")],
        [code("f()", printed="share 0.3"), text("It saves 30 % of them.")],
        [code("n = 1_024"), text("It keeps 1,024 numbers.")],
        [text("The paper reports 1.24 nats in [table 3](https://example.org).", "cited")],
        [text("See [2.45](https://example.org) and `2.45` and $2.45$; in version 3.10.2, in 2017, equation 12.")],
        [code("plt.plot([1])", image=True, alt="a line")],
        [
            text("$$\\mathrm{d}x = 2 x$$", "gradient"),
            code("x = 1"),
            code("relative_error(dx, numerical_gradient(f, x))"),
        ],
    ],
)
def test_the_lint_accepts_what_is_there(cells):
    assert found_in(*cells) == []


@pytest.mark.parametrize(
    "words", ["**Papers**", "# 00 · ", "## Takeaways", "## Exercises", "Predict", "doubled: passed"]
)
def test_the_lint_misses_each_part_of_the_frame(words):
    made = lesson()
    for cell in made.cells:
        cell.source = cell.source.replace(words, "gone")
        for output in cell.get("outputs", ()):
            output.text = output.text.replace(words, "gone")
        cell.metadata.tags = [tag for tag in cell.metadata.tags if not (words == "Predict" and tag == "predict")]
    assert notebooks.faults(made)


def tour(*cells):
    """A tour without faults, with more cells before its end: a title without a number, and no exercises."""
    return nbformat.v4.new_notebook(
        cells=[
            text(HEADER.replace("# 00 · Doubling", "# The tour · Doubling")),
            text("> **Predict.** What is 1 + 1?", "predict"),
            *cells,
            text("## Takeaways\n\n## Where to go next"),
        ]
    )


def test_the_tour_has_a_frame_of_its_own():
    assert notebooks.faults(tour()) == []
    assert any("2.45 was printed by no cell" in fault for fault in notebooks.faults(tour(text("The loss is 2.45."))))
    for words in ("**Papers**", "## Takeaways", "## Where to go next"):
        made = tour()
        for cell in made.cells:
            cell.source = cell.source.replace(words, "gone")
        assert any(words in fault for fault in notebooks.faults(made)), words
    lines = code("\n".join(["x = 1"] * 40), "whole")
    assert notebooks.faults(tour(lines)) == []
    lines.source += "\nx = 1"
    assert any("more than 40" in fault for fault in notebooks.faults(tour(lines)))
    assert notebooks.time_line(tour(), 12.3, "it") == "**Time**: 5 minutes to read, 12 s to run on it."


PAGE, PAGE_TITLE = next(iter(PAGES.items()))


def page(*cells):
    """A page without faults: a title of its own, and no exercises."""
    made = tour(*cells)
    made.cells[0].source = made.cells[0].source.replace("# The tour · Doubling", f"# {PAGE_TITLE}")
    made.cells[-1].source = "## Takeaways\n\n## Where this is in minillama"
    return made


def test_a_page_has_a_frame_of_its_own():
    assert lesson_of(page()) == PAGE and notebooks.faults(page()) == []
    for words in ("**Papers**", "## Takeaways", "## Where this is in minillama"):
        made = page()
        for cell in made.cells:
            cell.source = cell.source.replace(words, "gone")
        assert any(words in fault for fault in notebooks.faults(made)), words
    other = page()
    other.cells[0].source = other.cells[0].source.replace(PAGE_TITLE, "Another title")
    assert lesson_of(other) is None and any("does not begin with" in fault for fault in notebooks.faults(other))


def test_the_tour_comes_before_the_lessons_a_page_behind_them_and_both_go_to_students(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    for name, made in (("00-a", lesson()), ("tour", tour()), (PAGE, page()), ("01-b", lesson())):
        notebooks.write(made, tmp_path / f"{name}.ipynb")
    assert [path.stem for path in notebooks.paths()] == ["tour", "00-a", "01-b", PAGE]
    assert [path.stem for path in notebooks.paths([PAGE, "01", "tour"])] == ["tour", "01-b", PAGE]
    made = [path.stem for path in notebooks.build_student_set(tmp_path / "set")]
    assert (made[0], made[-1]) == ("tour", PAGE)


@pytest.mark.parametrize(
    "kept, fresh, tags, same",
    [
        ("loss 2.4512", "loss 2.4512", (), True),
        ("loss 2.4512", "loss 2.4513", (), True),  # one in the last digit: another BLAS
        ("loss 2.4512", "loss 2.4612", (), False),
        ("loss 2.4512", "loss 2.4612", ("measured",), True),
        ("took 3.1e-07 s", "took 4.5e-12 s", ("measured",), True),
        ("took 3.1e-07 s", "took 4.5e-12 s", (), False),
        ("shape (6, 4)", "shape (6, 5)", (), False),
        ("shape (6, 4)", "shape (6, 4, 1)", ("measured",), False),
        ("True", "False", ("measured",), False),
        ("12 tokens", "12 words", (), False),
        ("1,024 bytes", "1,024 bytes", (), True),
        ("1,024 bytes", "1,030 bytes", (), False),
        ("857,216 parameters", "857,217 parameters", (), False),  # a count is exact
        ("seed 4096", "seed 4097", (), False),
        ("float64", "float32", ("measured",), False),
        ("nan", "0.5", ("measured",), False),
        ("nan", "nan", (), True),
        ("-inf", "inf", (), False),
        ("-inf", "inf", ("measured",), False),
        ("(0.5+2j)", "(0.5-2j)", (), False),
        ("(0.5+2j)", "(0.5-2j)", ("measured",), True),
        ("dx = -dy", "dx = +dy", (), False),
        ("-0.5", "0.5", (), False),
        ("-0.0", "0.0", (), True),
        ("[-0.  1.]", "[0. 1.]", (), True),
        ("[ 0. -1.]", "[-0. -1.]", (), True),
        ("[ inf -1.]", "[inf -1.]", (), True),
        ("[1. 0.5]", "[1.0000001 0.5]", (), True),
        ("[1. 2.]", "[1. 3.]", (), False),
        ("[1.e-05 2.e+00]", "[1.e-05 3.e+00]", (), False),
        ("[1.e-05]", "[1.1e-07]", ("measured",), True),
        ("[ 1.2e-16 -3.e-17]", "[-1.2e-16  3.1e-17]", ("measured",), True),
        ("1e-05", "0.00001", (), True),
        ("0.00001", "1e-05", (), True),
        ("1e+00", "9e-01", (), True),
        ("9e-01", "1e+00", (), True),
        ("1e-05", "1e-03", (), False),
        ("[0.1 0.2\n 0.3]", "[0.1\n 0.2 0.3]", (), True),
        ("|  9.50| s", "|10.25| s", ("measured",), True),
        ("|  9.50| s", "|10.25| s", (), False),
        ("shape (3,)", "shape (3)", (), False),
        ("(1,2,3)", "(12,3)", (), False),
        ("(1,2,3)", "(1, 2, 3)", (), True),
        ("step 1,2", "step 12", (), False),
        ("NumPy 2.0.1", "NumPy 2.0.2", (), False),
        ("Anna had 2 plums", "Tom slept", ("drawn",), True),
        ("Anna had 2 plums", "\n", ("drawn",), False),
    ],
)
def test_which_changes_of_an_output_count(kept, fresh, tags, same):
    before, after = (lesson(code("f()", *tags, printed=printed)) for printed in (kept, fresh))
    assert (notebooks.differences(before, after) == []) is same


def test_a_claim_outside_its_band_counts_even_where_numbers_may_differ(capsys):
    claim("speed-up", 0.5, 2, 10, "x")
    outside = capsys.readouterr().out
    claim("speed-up", 3, 2, 10, "x")
    inside = capsys.readouterr().out
    assert inside == "speed-up: 3 x (expected 2 to 10)\n"
    measured = [lesson(code("claim()", "measured", printed=printed)) for printed in (inside, outside)]
    assert notebooks.differences(measured[0], measured[0]) == []
    assert any("OUTSIDE" in difference for difference in notebooks.differences(measured[1], measured[1]))


@pytest.mark.parametrize(
    "later, borrowed",
    [
        ("print(share)", True),
        ("share = 1\nprint(share)", False),
        ("print(share)\nshare = 1", True),
        ("share += 1", True),
        ("def f(share):\n    return share", False),
        ("[share for share in range(3)]", False),
        ("def f():\n    return share", True),
        ("def f():\n    share = 1\n    share += 1\n    return share", False),
        ("f = lambda share=share: share", True),
        ("xml.dom", True),
        ("import xml.dom\nxml.dom", False),
    ],
)
def test_the_lint_knows_what_a_cell_takes_from_a_solution(later, borrowed):
    solved = code("import xml.dom\n\nshare = 2", "solution")
    faults = [fault for fault in found_in(solved, code(later)) if "students have no solutions" in fault]
    assert bool(faults) is borrowed, faults


def test_a_cell_that_puts_an_exercise_into_the_model_may_read_it():
    """Its stub defines it too; nothing else of a solution may be read there."""
    solved = code("def doubled(x):\n    return helper * x\n\n\nhelper = 2", "solution")

    def borrowed(*later):
        return [fault for fault in found_in(solved, *later) if "students have no solutions" in fault]

    assert borrowed(code("train_with(doubled)", "put-in")) == []
    assert borrowed(code("train_with(doubled)"))
    assert borrowed(code("train_with(helper)", "put-in"))
    assert borrowed(code("train_with(doubled)", "put-in"), code("doubled(3)"))


def test_the_lint_names_a_cell_that_is_no_python():
    assert any("is not plain Python" in fault for fault in found_in(code("%timeit f()")))


def test_a_figure_that_is_gone_counts():
    assert notebooks.differences(lesson(code("f()", image=True, alt="a")), lesson(code("f()")))


def test_students_get_no_solution_and_no_output(tmp_path, monkeypatch):
    (tmp_path / "course" / "data").mkdir(parents=True)
    (tmp_path / "course" / "data" / "text.txt").write_text("To be", encoding="utf-8")
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path / "course")
    notebooks.write(lesson(), tmp_path / "course" / "00-doubling.ipynb")
    assert main(["student", str(tmp_path / "student")]) is None
    made = notebooks.read(tmp_path / "student" / "00-doubling.ipynb")
    assert len(made.cells) == len(lesson().cells) - 3  # a solution and two rubrics
    assert "x + x" not in nbformat.writes(made) and STUB in [cell.source for cell in made.cells]
    assert all(cell.outputs == [] for cell in made.cells if cell.cell_type == "code")
    assert (tmp_path / "student" / "data" / "text.txt").read_text(encoding="utf-8") == "To be"
    before = (tmp_path / "course" / "00-doubling.ipynb").read_bytes()
    assert main(["student", str(tmp_path / "student" / ".." / "course")]) == 1
    assert (tmp_path / "course" / "00-doubling.ipynb").read_bytes() == before


def test_a_figure_that_was_never_drawn_is_said_to_be_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    cell = code("plt.show()")
    cell.metadata["figure"] = "pairs"
    notebooks.write(lesson(cell), tmp_path / "00-doubling.ipynb")
    assert main(["figures", str(tmp_path / "figures")]) == 1
    assert "plt.show" in capsys.readouterr().err


def test_a_console_without_greek_letters_is_no_error(monkeypatch):
    exercise = checks.Exercise("04", "turned", "θ to 2³¹", 1, 5, None)
    monkeypatch.setattr("minillama.lessons.__main__.EXERCISES", {"turned": exercise})
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["exercises"]) is None
    sys.stdout.flush()
    assert "θ to 2³¹" in written.getvalue().decode("utf-8")


def test_running_keeps_outputs_and_writes_the_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    path = tmp_path / "00-doubling.ipynb"
    long = "import matplotlib.pyplot as plt\n\n" + "\n".join([f"plt.plot([{n}])" for n in range(8)]) + "\nplt.show()"
    bare = nbformat.v4.new_notebook(cells=[text(HEADER), code("print(6 * 7)", count=None), code(long, count=None)])
    notebooks.write(bare, path)
    assert main(["run", "--machine", r"a \slow one"]) is None
    made = notebooks.read(path)
    assert notebooks.text_of(made.cells[1]) == "42\n"
    assert "**Time**: 5 minutes to read, 5 for the exercises, " in made.cells[0].source
    assert made.cells[0].source.count(r"on a \slow one.") == 1
    assert "hide-input" not in notebooks.tags(made.cells[1]) and "hide-input" in notebooks.tags(made.cells[2])
    with pytest.raises(ValueError, match="no lesson 07"):
        notebooks.paths(["07"])
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path / "elsewhere")
    assert main(["lint"]) == 1
    assert "Run this in a clone of the repository" in capsys.readouterr().err


ASKS = (
    "from minillama.lessons import checks\n\n\n"
    "@checks.exercise('99', 'Doubling', 1, 5)\n"
    "def doubled(answer, trial):\n"
    "    trial.same('y is twice x', trial.call(answer, 3.0, returns=[('y', float)]), 6.0, {'it squares': 9.0})"
)


@pytest.fixture
def hand_in(tmp_path):
    """Write what students hand in of lesson 99, which their kernels know only from their first cell."""
    checks.EXERCISES["doubled"] = checks.Exercise("99", "doubled", "", 1, 5, None)

    def write(name, *answers, title="# 99 · Doubling"):
        cells = [text("Anna"), text(title), code(ASKS), code("del doubled"), *map(code, answers)]
        path = tmp_path / "handed-in" / f"{name}.ipynb"
        notebooks.write(nbformat.v4.new_notebook(cells=cells), path)
        return path

    return write


def test_grades_of_what_students_hand_in(tmp_path, hand_in, capsys):
    hand_in("1/right", "open('data/shakespeare.txt').close()", "def doubled(x):\n    return x + x")
    hand_in("2/wrong", "1 / 0", "def doubled(x):\n    return x * x")
    hand_in("3/no-syntax", "def doubled(x)\n    return x + x")
    hand_in("4/other", title="# My holiday")
    (tmp_path / "handed-in" / "5.ipynb").write_text('{"cells": [', encoding="utf-8")
    (tmp_path / "handed-in" / "6.ipynb").write_text('{"a": 1}', encoding="utf-8")
    hand_in(".ipynb_checkpoints/right", "")
    assert main(["grade", str(tmp_path / "handed-in"), "--out", str(tmp_path / "grades.csv")]) is True
    assert "3 of 6 notebooks could not be checked" in capsys.readouterr().err
    with open(tmp_path / "grades.csv", encoding="utf-8", newline="") as file:
        rows = {"/".join(row["notebook"].split("/")[-2:]): row for row in csv.DictReader(file)}
    expected = {
        "handed-in/5.ipynb": ("not checked", "no notebook that can be read"),
        "handed-in/6.ipynb": ("not checked", "no notebook that can be read"),
        "1/right.ipynb": ("passed", ""),
        "2/wrong.ipynb": ("wrong", "it squares"),
        "3/no-syntax.ipynb": ("missing", "stops with SyntaxError"),
        "4/other.ipynb": ("not checked", "put its title back"),
    }
    assert set(rows) == set(expected)
    for name, (status, words) in expected.items():
        assert rows[name]["status"] == status and words in rows[name]["hint"], rows[name]
    assert "is there an" not in str(rows)


def test_grades_for_a_program(tmp_path, hand_in, monkeypatch, capsys):
    """--json holds what --out holds, with its sums; --fail-on-wrong is the exit status of continuous integration."""
    folder, out = tmp_path / "handed-in", tmp_path / "grades.json"
    right = hand_in("1/right", "def doubled(x):\n    return x + x")
    assert main(["grade", str(right), "--fail-on-wrong"]) is False
    hand_in("2/wrong", "def doubled(x):\n    return x * x")
    assert main(["grade", str(folder)]) is False, "a wrong answer is a grade, and no failure of the command"
    arguments = ["grade", str(folder), "--seed", "7", "--json", str(out), "--out", str(tmp_path / "grades.csv")]
    capsys.readouterr()
    assert main([*arguments, "--fail-on-wrong"]) is True
    assert "--fail-on-wrong: 1 of 2 exercises passed" in capsys.readouterr().err
    made = json.loads(out.read_text(encoding="utf-8"))
    assert {key: made[key] for key in ("minillama", "seed", "timeout", "sums")} == {
        "minillama": minillama.__version__, "seed": 7, "timeout": 60, "sums": {"passed": 1, "wrong": 1},
    }  # fmt: skip
    with open(tmp_path / "grades.csv", encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{key: str(value) for key, value in row.items()} for row in made["rows"]]
    assert [row["hint"] for row in made["rows"]] == ["", "it squares"]
    monkeypatch.setattr("minillama.lessons.grading.grade", lambda *_: pytest.fail("a notebook was run"))
    assert main(arguments) == 1 and json.loads(out.read_text(encoding="utf-8")) == made
    twice = ["--out", str(tmp_path / "one"), "--json", str(tmp_path / "one")]
    assert main(["grade", str(folder), *twice]) == 1 and not (tmp_path / "one").exists()


@pytest.mark.parametrize("answer", ["", "def doubled(x):\n    ...", "import os\nos._exit(1)"])
def test_what_is_missing_not_started_or_not_checked_is_no_pass(answer, hand_in):
    assert main(["grade", str(hand_in("one", answer)), "--fail-on-wrong"]) is True


def test_an_error_that_is_no_text_is_graded_too(tmp_path, hand_in):
    answer = hand_in("one", "def doubled(x):\n    raise ValueError('half a character: \\ud83d')")
    csv_file, json_file = tmp_path / "a.csv", tmp_path / "a.json"
    assert main(["grade", str(answer), "--out", str(csv_file), "--json", str(json_file)]) is False
    assert all("half a character: ?" in file.read_text(encoding="utf-8") for file in (csv_file, json_file))
    row = ungraded(Path("M\udcfcller.ipynb"), ValueError("M\udcfcller"))  # as an archive of Windows leaves it on Linux
    assert (row["notebook"], row["hint"]) == ("M?ller.ipynb", "M?ller")


def test_nothing_to_check_is_no_pass(tmp_path):
    notebooks.write(tour(), tmp_path / "handed-in" / "tour.ipynb")
    assert main(["grade", str(tmp_path / "handed-in")]) is False
    assert main(["grade", str(tmp_path / "handed-in"), "--fail-on-wrong"]) is True


@pytest.mark.slow
def test_a_notebook_that_does_not_end_or_dies_gets_a_line(hand_in, monkeypatch):
    forever = "def doubled(x):\n    while True:\n        pass"
    (row,) = grade(hand_in("endless", forever), timeout=2)
    assert row["status"] == "wrong" and "did not end within 2 s" in row["hint"]
    (row,) = grade(hand_in("dies", "import os", "os._exit(1)"))
    assert row["status"] == "not checked" and "os._exit(1)" in row["hint"]
    stubborn = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(600)"
    monkeypatch.setattr("minillama.lessons.grading._ENDLESS_CELLS", 1)
    (row,) = grade(hand_in("stubborn", stubborn, *["1"] * 9), timeout=1)
    assert row["status"] == "not checked" and "2 cells did not end" in row["hint"]


def test_what_is_handed_in_by_file_folder_and_pattern(tmp_path, hand_in):
    one, two = hand_in("a/one", ""), hand_in("b/two", "")
    folder = tmp_path / "handed-in"
    assert handed_in([one, folder / "b"]) == handed_in([folder]) == handed_in([f"{folder}/*/*.ipynb"]) == [one, two]
    for hidden_one in (".venv/share/example", "a/._one"):  # as environments and the archives of macOS have them
        hand_in(hidden_one, "")
    assert handed_in([folder]) == [one, two]
    numbered, other = hand_in("a/[12]", ""), hand_in("a/1", "")
    assert handed_in([numbered]) == [numbered] and handed_in([other]) == [other]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no notebooks"):
        handed_in([tmp_path / "empty"])
    assert main(["grade", str(tmp_path / "nothing.ipynb")]) is True


@pytest.mark.parametrize("name, made", [("tour", tour), (PAGE, page)])
def test_a_tour_or_page_among_what_is_handed_in_is_not_run(name, made, tmp_path, hand_in, capsys, monkeypatch):
    notebooks.write(made(code("1 / 0")), tmp_path / "handed-in" / f"{name}.ipynb")
    with monkeypatch.context() as no_kernel:
        no_kernel.setattr("minillama.lessons.grading._execute", lambda *_: pytest.fail(f"{name} was run"))
        assert grade(tmp_path / "handed-in" / f"{name}.ipynb") == []
    hand_in("wrong", "def doubled(x):\n    return x * x")
    assert main(["grade", str(tmp_path / "handed-in")]) is False
    assert f"{name}.ipynb" not in capsys.readouterr().out


def _named(name, function):
    function.__name__ = name
    return function


@pytest.mark.parametrize(
    "answer, words",
    [
        (lambda x: x**2, "it squares"),
        (lambda x: x + 1, "y is twice x does not hold"),
        (lambda x: (2 * x).tolist(), "must be a NumPy array"),
        (lambda x: (2 * x)[:1], "must have shape"),
        (lambda x: (2 * x).astype(np.float32), "must have the dtype of the input"),
        (lambda x: x / 0, "not finite"),
        (lambda x: np.multiply(x, 2, out=x), "changed an array"),
        (lambda x: x @ x.nothing, "stopped with AttributeError"),
        (lambda x: (x, x), "must be a NumPy array"),
        (lambda x: np.float64(0) + 2, "must be"),
        (lambda x: 2 * x + 0j, "must hold real numbers"),
        (lambda x: (2 * x).astype(str), "must hold real numbers"),
        (lambda x: np.full(x.shape, None), "must hold real numbers"),
    ],
)
def test_what_is_wrong_with_any_answer_is_said(answer, words):
    report = check(_named("doubled", answer))
    assert report.status == "wrong" and words in report.hint, report


@pytest.mark.parametrize("value", [np.nan, np.inf, np.float64(np.nan), np.array(np.inf)])
def test_a_number_that_is_not_finite_is_said_to_be_that(value):
    trial = checks.Trial(0)
    with pytest.raises(checks.Wrong, match="loss is (nan|inf): is there a division by 0"):
        trial.call(lambda: value, returns=[("loss", float)], finite="a finite loss")
    with pytest.raises(checks.Wrong, match="take the logarithm of a sum") as wrong:
        trial.call(lambda: value, returns=[("loss", float)], not_finite="take the logarithm of a sum")
    assert "loss is" in wrong.value.evidence
    assert trial.counts["a finite loss"] == 0
    for right in (1, 1.0, np.float32(1), np.array(1.0)):
        assert trial.call(lambda right=right: right, returns=[("loss", float)], finite="a finite loss") == 1
    assert trial.counts["a finite loss"] == 4


@pytest.mark.parametrize("late", [None, ..., NotImplementedError("not yet")])
def test_what_returned_something_before_is_started(late):
    """A way through without a return is a mistake, not a stub."""
    called = []

    def doubled(x):
        called.append(x)
        if len(called) == 1:
            return 2 * x
        if isinstance(late, Exception):
            raise late
        return late

    report = check(doubled)
    assert report.status == "wrong" and len(called) == 2
    assert ("NotImplementedError" if isinstance(late, Exception) else "without a return") in report.hint


@pytest.mark.parametrize("function, argument", [(json.loads, "{"), (minillama.load, "nowhere")])
def test_the_line_that_failed_is_the_readers_not_a_librarys(function, argument):
    def doubled(x):
        return function(argument)

    assert check(doubled).hint.endswith("of doubled: return function(argument))")


def test_reports_in_words_and_colour():
    passed, stub = check(_named("doubled", lambda x: 2 * x)), check(_named("doubled", lambda x: None))
    assert repr(passed) == "doubled: passed. Tested: y is twice x: 5."
    assert stub.status == "not started" and "run this cell again" in repr(stub)
    assert "✓" in passed._repr_html_() and "#009E73" in passed._repr_html_()
    assert check(_named("doubled", lambda x: x.missing))._repr_html_().count("<br>") == 1
    with pytest.raises(ValueError, match="there is no exercise 'trebled'.*doubled"):
        check(_named("trebled", lambda x: 3 * x))


def test_equal_names_the_mistake_that_gives_the_same():
    trial = checks.Trial(0)
    trial.equal("sorted", [1, 2], [1, 2], "[2, 1]")
    for got, hint in ([2, 1], "it goes down"), ([1], "compare"), ([np.array([1, 2]), 2], "compare"):
        with pytest.raises(checks.Wrong) as wrong:
            trial.equal("sorted", got, [1, 2], "[2, 1]", {"it goes down": [2, 1]}, "compare")
        assert wrong.value.hint == hint
        assert wrong.value.evidence == f"[2, 1]: expected [1, 2], got {got}"
    assert trial.counts["sorted"] == 4
