"""The plan of thirteen weeks: it has every sitting of every lesson once, in order, and its hours add up."""

import re

import pytest

from minillama.lessons import notebooks
from minillama.lessons.checks import EXERCISES
from minillama.lessons.put_in import PLACES
from minillama.lessons.sittings import sittings

PLAN = (notebooks.FOLDER / "thirteen-weeks.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PLAN.splitlines() if re.match(r"\| \d+ \|", line)]


def numbers(text):
    """The numbers of `1, 2` and of `1 to 4`."""
    first, last = re.fullmatch(r"(\d+)(?:(?:, | to )(\d+))?", text).groups()
    return list(range(int(first), int(last or first) + 1))


def read_in(week):
    """(lesson, numbers of its sittings) that a week reads."""
    lesson, _, of = ROWS[week][1].partition(": ")
    return lesson, numbers(of) if of else []


def test_there_are_thirteen_weeks_and_their_hours_add_up():
    assert [int(row[0]) for row in ROWS] == list(range(1, 14)) and {len(row) for row in ROWS} == {7}
    home, project = (sum(float(row[column]) for row in ROWS) for column in (5, 6))
    assert f"At home {home:g} hours, and {project:g} for the project" in PLAN
    meetings, exam = 13 * 2 * 1.5, 9
    assert f"{meetings:g} hours, and {exam} to prepare" in PLAN
    assert f"that is {home + project + meetings + exam:g} hours" in PLAN
    told = (notebooks.FOLDER / "lecturers.md").read_text(encoding="utf-8")
    assert "(thirteen-weeks.md)" in told and f"{home + project + meetings + exam:g} hours in all" in told


def test_lessons_are_read_in_order_and_no_sitting_twice():
    assert read_in(0)[0] == "tour"
    found = [(lesson, number) for week in range(1, 13) for lesson, of in [read_in(week)] for number in of]
    assert found == sorted(set(found)) and {lesson for lesson, _ in found} == {f"{n:02d}" for n in range(9)}


@pytest.mark.parametrize("path", notebooks.paths(), ids=lambda path: path.stem)
def test_every_sitting_of_a_lesson_has_its_week(path):
    titles = [sitting.title for sitting in sittings(notebooks.read(path)) if sitting.title]
    name = notebooks.name_of(path)
    planned = [number for lesson, of in map(read_in, range(13)) if lesson == name for number in of]
    if titles:
        assert planned == list(range(1, len(titles) + 1)), f"{path.name} has the sittings {titles}"


def test_what_is_put_into_the_model_belongs_to_the_lesson_of_the_week():
    with_place = {EXERCISES[name].lesson for name in PLACES}
    assert with_place <= {read_in(week)[0] for week in range(13) if "*put-in*" in ROWS[week][3]}


def test_every_problem_is_handed_in_once():
    given = [n for row in ROWS for of in re.findall(r"problems (\d+ to \d+)", row[4]) for n in numbers(of)]
    problems = (notebooks.FOLDER / "problem-set.md").read_text(encoding="utf-8")
    assert given == [int(n) for n in re.findall(r"^## Problem (\d+)", problems, re.M)]
