"""The problems for pen and paper: their points add up, and every number of the solutions is one that was computed."""

import contextlib
import io
import re

import pytest

from minillama.lessons.notebooks import FOLDER

SMALL = range(5)  # whole numbers that count steps, stand in a formula or name a part, and need no computing
PROBLEMS, SOLUTIONS = (
    (FOLDER / f"{name}.md").read_text(encoding="utf-8") for name in ("problem-set", "problem-set-solutions")
)
_HEADING = re.compile(r"^## Problem (\d+): (.+)$", re.M)
_POINTS = re.compile(r"\((\d+) points?")
_NUMBER = re.compile(r"(?<![\w.^])\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?", re.I)


def sections(page):
    """{number of a problem: (its heading, its text)}"""
    found = list(_HEADING.finditer(page))
    ends = [match.start() for match in found[1:]] + [len(page)]
    return {int(m[1]): (m[2], page[m.end() : end]) for m, end in zip(found, ends, strict=True)}


def parts(text):
    """The numbered parts of a problem or a solution, without its code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    text = re.split(r"^A wrong answer often given", text, flags=re.M)[0]
    return re.split(r"^\d\. ", text, flags=re.M)[1:]


ASKED, SOLVED = sections(PROBLEMS), sections(SOLUTIONS)


def stated(number):
    """(title, stars, points, minutes) of a problem."""
    return re.fullmatch(r"(.+) \((★{1,3}), (\d+) points, (\d+) minutes\)", ASKED[number][0]).groups()


def test_every_problem_has_its_solution_and_no_solution_stands_on_its_page():
    assert list(ASKED) == list(SOLVED) == list(range(1, len(ASKED) + 1)) and 12 <= len(ASKED) <= 15
    assert [stated(number)[0] for number in ASKED] == [SOLVED[number][0] for number in SOLVED]
    assert "<details" not in PROBLEMS and "```python" not in PROBLEMS and "olution" not in PROBLEMS
    for number, (_, text) in SOLVED.items():
        assert text.count('<details class="solution"><summary>') == text.count("</details>") == 1, number
        assert text.strip().endswith("</details>") and "A wrong answer often given" in text, number


@pytest.mark.parametrize("number", ASKED)
def test_points_add_up(number):
    asked = ASKED[number][1]
    each = re.search(r"\((\d+) points each\)", asked)  # the lines of code of problem 6
    points = [int(each[1])] * asked.count("# ") if each else [int(_POINTS.findall(part)[0]) for part in parts(asked)]
    assert sum(points) == int(stated(number)[2])
    rubric = parts(SOLVED[number][1])
    assert len(rubric) == len(points)
    if each:
        assert f"({each[1]} points: 1 for the mistake, 1 for" in SOLVED[number][1]
        return
    assert [int(_POINTS.findall(part)[0]) for part in rubric] == points
    for part, given in zip(rubric, points, strict=True):
        details = [int(n) for n in re.findall(r"(\d) for ", part[part.index("point") :])]
        assert "for each" in part or not details or sum(details) == given, part


def test_the_table_adds_up_and_lecturers_are_told_the_sums():
    total = [0, 0]
    for first, last, points, minutes in re.findall(
        r"^\| (\d+) to (\d+) \| [^|]+ \| (\d+) \| (\d+) \|$", PROBLEMS, re.M
    ):
        of = [stated(number) for number in range(int(first), int(last) + 1)]
        sums = sum(int(s[2]) for s in of), sum(int(s[3]) for s in of)
        assert sums == (int(points), int(minutes))
        total = [a + b for a, b in zip(total, sums, strict=True)]
    assert total == [sum(int(stated(number)[i]) for number in ASKED) for i in (2, 3)]
    told = (FOLDER / "lecturers.md").read_text(encoding="utf-8")
    assert f"{len(ASKED)} problems" in told and f"{total[0]} points" in told and f"{total[1]} minutes" in told


def fences(number):
    """The code of a solution, and what the page says that it prints."""
    found = re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", SOLVED[number][1], re.S | re.M)
    assert len(found) == 1 and SOLVED[number][1].count("```") == 4, number
    return found[0]


@pytest.mark.parametrize("number", SOLVED)
def test_the_code_of_a_solution_prints_what_the_page_says(number):
    code, shown = fences(number)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, f"solution {number}", "exec"), {})
    assert printed.getvalue() == shown


def numbers(text):
    """[(as it is written, value, decimals)], also of TeX's 10{,}000 and 4.8 \\cdot 10^{-6}."""
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac \1 \2 ", text.replace("{,}", ","))
    text = re.sub(r"(\d) \\cdot 10\^\{?(-?\d+)\}?", r"\1e\2", text)
    text = re.sub(r"(?<![\d.])10\^\{?(-?\d+)\}?", r"1e\1", text)
    found = []
    for written in _NUMBER.findall(text):
        mantissa, _, exponent = written.rstrip(",").replace(",", "").lower().partition("e")
        decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
        found.append((written, float(f"{mantissa}e{exponent or 0}"), decimals))
    return found


def prose(number):
    """What a solution says, without its code and the points."""
    text = re.sub(r"^```.*?^```$", "", SOLVED[number][1], flags=re.S | re.M)
    return re.sub(r"\d+ points?|\d for |^\d\. ", "", text, flags=re.M)


@pytest.mark.parametrize("number", SOLVED)
def test_every_number_of_a_solution_was_printed_or_is_given(number):
    """To the digits that it is written with; one in the problem counts as given."""
    known = [value for _, value, _ in numbers(fences(number)[1]) + numbers(ASKED[number][1])]
    for written, value, decimals in numbers(prose(number)):
        near = any(abs(value - other * scale) <= 0.501 * 10.0**-decimals for other in known for scale in (1, 100))
        exact = decimals > 0 or any(abs(value - other * scale) <= 1e-9 * value for other in known for scale in (1, 100))
        assert (near and exact) or value in SMALL, f"{written} was printed by no code and is not given"


@pytest.mark.parametrize(
    "number, right, wrong",
    [
        (1, "8.166", "8.266"),
        (3, "44 bytes", "45 bytes"),
        (5, r"4.8 \cdot", r"4.7 \cdot"),
        (8, "54{,}410", "54{,}411"),
        (11, "122,533", "122,523"),
        (13, "6,738,415,616", "6,738,415,617"),
        (15, "0.642", "0.652"),
    ],
)
def test_a_wrong_number_is_found(number, right, wrong, monkeypatch):
    title, text = SOLVED[number]
    said, code = text.split("```python", 1)
    assert right in said
    monkeypatch.setitem(SOLVED, number, (title, f"{said.replace(right, wrong)}```python{code}"))
    with pytest.raises(AssertionError, match="printed by no code"):
        test_every_number_of_a_solution_was_printed_or_is_given(number)
