"""nbgrader takes the assignments that are made of the lessons, makes the students' version of them, and grades it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from minillama.lessons import notebooks
from minillama.lessons.assignments import assignment, build_assignments

pytest.importorskip("nbgrader", reason='the extra "parity" is not installed')
from nbgrader.api import Gradebook  # noqa: E402
from nbgrader.nbgraderformat import MetadataValidator  # noqa: E402

LESSONS = [path for path in notebooks.paths() if notebooks.name_of(path).isdigit()]
ROOT = notebooks.FOLDER.parent
NAME = "00-small"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_has_metadata_that_nbgrader_accepts(path):
    MetadataValidator().validate_nb(assignment(notebooks.read(path)))


def text(source, *tags):
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)})


def small_lesson():
    """Lesson 00's exercises and a written question, with the imports that their solutions need."""
    kept = notebooks.read(notebooks.FOLDER / "00-next-token-prediction.ipynb")
    exercises = [cell for cell in kept.cells if {"exercise", "solution"} & set(cell.metadata.get("tags", ()))]
    imports = nbformat.v4.new_code_cell("import numpy as np\nfrom minillama.lessons import check")
    exercises = [cell for cell in exercises if cell.cell_type == "code"]
    question = text("**Question 1** (5 points). Why?", "written")
    rubric = text("<details><summary>Rubric, for the lecturer</summary>SECRET</details>", "solution")
    return nbformat.v4.new_notebook(
        cells=[text("# 00 · Small"), imports, *exercises, question, rubric],
        metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    )


def nbgrader(course, *arguments):
    """Its command line, which calls programs that were installed beside it."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": programs, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(words, cwd=course, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_nbgrader_makes_the_students_version_and_gives_the_points(tmp_path, monkeypatch):
    lessons, course = tmp_path / "lessons", tmp_path / "course"
    notebooks.write(small_lesson(), lessons / f"{NAME}.ipynb")
    with monkeypatch.context() as context:
        context.setattr(notebooks, "FOLDER", lessons)
        (source,) = build_assignments(course)
    nbgrader(course, "generate_assignment", NAME, "--create")
    released = notebooks.read(course / "release" / NAME / f"{NAME}.ipynb")
    for secret in ("BEGIN", "SECRET", "seed=", "logaddexp", "reshape"):
        assert secret not in nbformat.writes(released), secret
    answers = {c.metadata.nbgrader.grade_id: c.source for c in notebooks.read(source).cells if is_answer(c)}
    assert "    ...\n" in "".join(f"{cell.source}\n" for cell in released.cells if is_answer(cell))
    submit(course, "right", released, answers)
    submit(course, "wrong", released, {n: s.replace("return ", "return 2 * ", 1) for n, s in answers.items()})
    submit(course, "empty", released, {})
    submit(course, "cheats", released, {}, test="report = None")
    nbgrader(course, "autograde", NAME, "--create")
    with Gradebook(f"sqlite:///{(course / 'gradebook.db').as_posix()}") as gradebook:
        found = gradebook.find_assignment(NAME)
        assert (found.max_code_score, found.max_written_score) == (6, 5)
        scores = {s.student.id: s.code_score for s in gradebook.assignment_submissions(NAME)}
    assert scores == {"right": 6, "wrong": 0, "empty": 0, "cheats": 0}


def is_answer(cell):
    return cell.cell_type == "code" and cell.metadata.nbgrader.solution


def submit(course, student, released, answers, test=None):
    """The released notebook with these answers, and this in the place of its tests."""
    made = nbformat.from_dict(released)
    made.cells = [nbformat.from_dict(cell) for cell in made.cells]
    for cell in made.cells:
        if is_answer(cell):
            cell.source = answers.get(cell.metadata.nbgrader.grade_id, cell.source)
        elif test and cell.metadata.nbgrader.grade:
            cell.source = test
    folder = course / "submitted" / student / NAME
    shutil.copytree(course / "release" / NAME, folder)
    notebooks.write(made, folder / f"{NAME}.ipynb")
