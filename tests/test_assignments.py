"""The lessons as assignments for nbgrader, by its rules; tests/parity/test_nbgrader.py asks nbgrader itself."""

import ast
import re

import nbformat
import pytest

from minillama.lessons import EXERCISES, assignments, checks, notebooks
from minillama.lessons.__main__ import main
from minillama.lessons.assignments import SEED, assignment
from minillama.lessons.sittings import tags

STUB = '''def doubled(x):
    """x (N,) -> y (N,)."""
    ...


check(doubled)'''
SOLUTION = "def doubled(x):\n    # Add it to itself.\n    return x + x\n\n\ncheck(doubled)"
LESSONS = [path for path in notebooks.paths() if notebooks.name_of(path).isdigit()]


def text(source, *tags):
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)})


def code(source, *tags):
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})


def lesson(*more, stub=STUB, solution=SOLUTION):
    return nbformat.v4.new_notebook(
        cells=[
            text("# 00 · Doubling"),
            code("from minillama.lessons import check"),
            text("### Exercise 1"),
            code(stub, "exercise"),
            text("<details><summary>Hint</summary>Add.</details>", "hint"),
            code(solution, "solution", "hide-cell"),
            text("<details><summary>About the solution</summary>SECRET</details>", "solution"),
            *more,
            text("## Takeaways"),
        ]
    )


@pytest.fixture
def doubling(monkeypatch):
    monkeypatch.setattr(checks, "EXERCISES", {})
    monkeypatch.setattr(assignments, "EXERCISES", checks.EXERCISES)

    @checks.exercise("00", "Doubling", difficulty=2, minutes=5)
    def doubled(answer, trial):
        trial.same("y is twice x", trial.call(answer, 3.0, returns=[("y", float)]), 6.0)


def kinds(made):
    """[(grade_id, what nbgrader takes the cell for)]"""
    names = {(False, False, True): "read-only", (False, True, False): "answer", (True, False, True): "test",
             (True, True, False): "by hand"}  # fmt: skip
    found = [cell.metadata["nbgrader"] for cell in made.cells]
    return [(m["grade_id"], names[m["grade"], m["solution"], m["locked"]]) for m in found]


def test_an_exercise_is_an_answer_and_a_test_and_the_rest_is_read_only(doubling):
    made = assignment(lesson())
    assert kinds(made) == [
        ("cell-000", "read-only"),
        ("cell-001", "read-only"),
        ("cell-002", "read-only"),
        ("doubled", "answer"),
        ("doubled-test", "test"),
        ("cell-004", "read-only"),
        ("cell-007", "read-only"),
    ]
    answer, test = made.cells[3:5]
    assert answer.source == (
        'def doubled(x):\n    """x (N,) -> y (N,)."""\n    ### BEGIN SOLUTION\n    # Add it to itself.\n'
        "    return x + x\n    ### END SOLUTION"
    )
    assert test.metadata["nbgrader"]["points"] == 2
    assert test.source.startswith("report = check(doubled)\nassert report.passed, report\n### BEGIN HIDDEN TESTS\n")
    assert f"check(doubled, seed={SEED})" in test.source and "SECRET" not in nbformat.writes(made)


def test_what_a_solution_defines_beside_its_function_stands_above_it(doubling):
    helper = "import math\n\n\ndef helper(x):\n    return 2 * x"
    source = assignment(lesson(solution=f"{helper}\n\n\n{SOLUTION.replace('x + x', 'helper(x)')}")).cells[3].source
    namespace = {}
    exec(source, namespace)
    assert namespace["doubled"](4) == namespace["helper"](4) == 8 and source.count("### BEGIN SOLUTION") == 2
    released = re.sub(r"### BEGIN SOLUTION.*?### END SOLUTION", "...", source, flags=re.S)
    assert released == f"...\n\n\n{STUB.split('    ...')[0]}    ..."
    exec(released, {})


def test_decorators_and_a_hash_among_the_arguments_are_kept(doubling):
    helper = "from functools import cache\n\n\n@cache\ndef helper(x):\n    return 2 * x"
    head = 'def doubled(\n    x, mark="#"\n):'
    inner = "\n    # Add it to itself.\n    @cache\n    def inner(): return helper(x)\n\n    return inner()"
    stub = f"{head}\n    ...\n\n\ncheck(doubled)"
    source = assignment(lesson(stub=stub, solution=f"{helper}\n\n\n{head}{inner}")).cells[3].source
    namespace = {}
    exec(source, namespace)
    assert namespace["doubled"](4) == 8 and namespace["helper"].cache_info().misses == 1
    assert f"{head}\n    ### BEGIN SOLUTION{inner}\n    ### END SOLUTION" in source


def test_the_hidden_test_asks_the_checker_and_not_what_a_student_calls_so(doubling):
    test = assignment(lesson()).cells[4].source
    cheating = {"check": lambda *_, **seed: checks.Report("doubled", "passed", ""), "doubled": lambda x: x}
    cheating["doubled"].__name__ = "doubled"
    with pytest.raises(AssertionError, match="doubled: wrong"):
        exec(test, cheating)


@pytest.mark.parametrize(
    "more, stub, solution, words",
    [
        ([], STUB, "def doubled(x): return x + x", "on lines of its own"),
        ([], STUB, SOLUTION.replace("(x):", "(x, y):"), "give both the same"),
        ([], STUB, "doubled = print", "defines 0 functions"),
        ([], STUB.replace("check(doubled)", "check(tripled)"), SOLUTION, "checks no known exercise"),
        ([text("**Question 1.** Why?", "written")], STUB, SOLUTION, "does not say its points"),
    ],
)
def test_what_does_not_fit_is_said(doubling, more, stub, solution, words):
    with pytest.raises(ValueError, match=words):
        assignment(lesson(*more, stub=stub, solution=solution))


def test_an_exercise_without_a_solution_is_said(doubling):
    made = lesson()
    made.cells = [cell for cell in made.cells if "solution" not in tags(cell)]
    with pytest.raises(ValueError, match="no solution follows"):
        assignment(made)


def test_a_written_question_is_graded_by_hand_and_its_rubric_is_the_answer(doubling):
    rubric = "<details><summary>Rubric, for the lecturer</summary>\n\n- 5: says why\n\n</details>"
    made = assignment(
        lesson(
            text("**Question 1** (5 points). Why?", "written"),
            text(rubric, "solution"),
            text("**Question 2** (1 point). And how?", "written"),
        )
    )
    assert kinds(made)[-5:-1] == [
        ("cell-007", "read-only"), ("question-1", "by hand"), ("cell-009", "read-only"), ("question-2", "by hand"),
    ]  # fmt: skip
    assert [cell.metadata["nbgrader"].get("points") for cell in made.cells[-5:-1]] == [None, 5, None, 1]
    assert made.cells[-4].source == rubric and "No rubric" in made.cells[-2].source


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_is_an_assignment(path):
    """By nbgrader's schema 3: ids of its letters, each once; the points of the exercises; solutions that pass."""
    kept = notebooks.read(path)
    made = assignment(kept)
    nbformat.validate(made)
    found = [cell.metadata["nbgrader"] for cell in made.cells]
    ids = [m["grade_id"] for m in found]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-zA-Z0-9_-]+", name) for name in ids)
    expected = {name: e.difficulty for name, e in EXERCISES.items() if e.lesson == notebooks.name_of(path)}
    points = {m["grade_id"].removesuffix("-test"): m["points"] for m in found if m["grade"] and m["locked"]}
    assert points == expected
    written = sum("written" in tags(cell) for cell in kept.cells)
    assert sum(kind == "by hand" for _, kind in kinds(made)) == written
    for cell, m in zip(made.cells, found, strict=True):
        assert set(m) <= {"schema_version", "grade", "solution", "locked", "task", "grade_id", "points"}
        assert m["schema_version"] == 3 and ("points" in m) == m["grade"] and not m["task"]
        assert cell.cell_type == "code" or m["grade"] == m["solution"], "of text nbgrader grades answers alone"
        assert ("BEGIN SOLUTION" in cell.source) == (m["solution"] and cell.cell_type == "code")
        assert cell.cell_type == "markdown" or cell.outputs == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_an_answer_between_the_marks_is_the_solution_of_the_lesson(path):
    """Statement by statement, but for the function's description, which the stub has; that it passes, the lint says."""
    cells = notebooks.read(path).cells
    solutions = [c.source for c in cells if "solution" in tags(c) and c.cell_type == "code"]
    made = assignment(notebooks.read(path)).cells
    answers = [c.source for c in made if c.metadata["nbgrader"]["solution"] and c.cell_type == "code"]
    assert len(answers) == len(solutions) > 0
    for answer, solution in zip(answers, solutions, strict=True):
        assert statements(answer) == statements(solution), answer


def statements(source):
    """The statements of a cell but for checks and descriptions, in any order."""
    found = ast.parse(source).body
    for node in found:
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return sorted(ast.dump(node) for node in found if not ast.unparse(node).startswith("check("))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_command_writes_a_course_and_leaves_what_is_there(doubling, tmp_path, monkeypatch, capsys):
    course = tmp_path / "lessons"
    (course / "data").mkdir(parents=True)
    (course / "data" / "text.txt").write_text("To be", encoding="utf-8")
    notebooks.write(lesson(), course / "00-doubling.ipynb")
    tour = nbformat.v4.new_notebook(cells=[text("# The tour · Doubling")])
    notebooks.write(tour, course / "tour.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", course)
    made = tmp_path / "made"
    assert main(["nbgrader", str(made), "--seed", "7"]) is None
    files = contents(made)
    assert {path.as_posix() for path in files} == {
        "nbgrader_config.py", "source/00-doubling/00-doubling.ipynb", "source/00-doubling/data/text.txt",
    }  # fmt: skip
    assert "seed=7)" in nbformat.writes(notebooks.read(made / "source" / "00-doubling" / "00-doubling.ipynb"))
    assert main(["nbgrader", str(made), "--seed", "7"]) is None and contents(made) == files
    for name in files:
        other = tmp_path / name.name
        (other / name).parent.mkdir(parents=True)
        (other / name).write_bytes(b"what somebody else wrote")
        before = contents(other)
        assert main(["nbgrader", str(other), "--seed", "7"]) == 1
        assert contents(other) == before and name.name in capsys.readouterr().err
        assert main(["nbgrader", str(other), "--seed", "7", "--overwrite"]) is None and contents(other) == files
    assert main(["nbgrader", str(tmp_path / "no"), "--seed", "-1"]) == 1 and not (tmp_path / "no").exists()
