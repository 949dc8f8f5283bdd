"""The lessons as assignments for nbgrader: `python -m minillama.lessons nbgrader DIR` makes DIR a course of it.

Of each lesson there is the instructor's version in source/NN-title, from which `nbgrader generate_assignment NN-title`
makes the students'. An exercise becomes two cells: one in which the student writes, with the course's solution between
nbgrader's marks, and a test that calls the checker and gives the exercise's points; its hidden part imports the checker
anew, whatever the student has called `check`. A written question gets a cell for
its answer, to be graded by hand, which holds the rubric in the instructor's version. All other cells are read-only:
nbgrader puts them back as they were before it grades.

The metadata are those of nbgrader's schema 3: https://nbgrader.readthedocs.io/en/stable/contributor_guide/metadata.html
"""

import ast
import re
import textwrap
from pathlib import Path

from ..messages import needs
from .checks import EXERCISES
from .frames import PAGES, TOUR, name_of
from .notebooks import as_bytes, data_files, paths, read, without_solutions, write_all
from .sittings import tags

with needs("lessons", "reading a notebook"):
    import nbformat

SEED = 2026  # of the random cases that only the instructor's tests have
_POINTS = re.compile(r"\((\d+) points?\)")
_CONFIG = '''"""The settings of nbgrader for this course of minillama; see nbgrader's documentation for more of them."""

c = get_config()

c.CourseDirectory.course_id = "minillama"
# A solution leaves what a stub of the lessons has: the checker says "not started" to it, and no later cell stops.
c.ClearSolutions.code_stub = {"python": "..."}
# Students may change numbers and run again; before grading, all that is not theirs is as it was.
c.LockCells.lock_readonly_cells = False
c.Execute.timeout = 120  # seconds that a cell may take: some of them train a model
'''


def build_assignments(folder, overwrite=False, seed=SEED):
    """Write a course of nbgrader with an assignment for each lesson; returns the notebooks' paths

    FileExistsError, before the first is written, if there is a file in their places that holds something else.
    overwrite: replace it. seed: of the hidden random cases.
    """
    folder = Path(folder)
    made, others = {}, {folder / "nbgrader_config.py": _CONFIG.encode("utf-8")}
    for path in paths():
        if name_of(path) in (TOUR, *PAGES):  # they have no exercises
            continue
        place = folder / "source" / path.stem
        made[place / path.name] = as_bytes(assignment(read(path), seed))
        others |= {place / name: content for name, content in data_files().items()}
    write_all(made | others, overwrite)
    return list(made)


def assignment(notebook, seed=SEED):
    """A lesson as nbgrader's instructor version; ValueError, with what to change, where a cell does not fit into it."""
    cells = notebook.cells
    made = without_solutions(notebook)
    made.cells, question = [], 0
    for number, cell in enumerate(cells):
        if "solution" in tags(cell):
            continue
        if "exercise" in tags(cell):
            made.cells += _exercise(cell, _solution_after(cells, number), seed)
            continue
        kept = nbformat.from_dict(cell)
        if kept.cell_type == "code":
            kept.outputs, kept.execution_count = [], None
        made.cells.append(_graded(kept, f"cell-{number:03d}", locked=True))
        if "written" in tags(cell):
            question += 1
            made.cells.append(_answer(cell, cells[number + 1 : number + 2], question))
    return made


def _graded(cell, grade_id, points=None, solution=False, locked=False):
    """The cell with nbgrader's metadata; points: where it is graded."""
    cell.metadata["nbgrader"] = {
        "schema_version": 3,
        "grade": points is not None,
        "solution": solution,
        "locked": locked,
        "task": False,
        "grade_id": grade_id,
        **({} if points is None else {"points": points}),
    }
    return cell


def _solution_after(cells, number):
    """The code of the solution of the exercise in this cell."""
    for cell in cells[number + 1 :]:
        if "exercise" in tags(cell):
            break
        if "solution" in tags(cell) and cell.cell_type == "code":
            return cell.source
    raise ValueError(f"no solution follows the exercise that begins with {cells[number].source[:60]!r}")


def _exercise(cell, solution, seed):
    """The cell for the answer, and the test behind it."""
    name = next((name for name in EXERCISES if re.search(rf"\bcheck\({name}\)", cell.source)), None)
    if name is None:
        raise ValueError(f"the exercise that begins with {cell.source[:60]!r} checks no known exercise")
    answer = nbformat.v4.new_code_cell(_answered(name, cell.source, solution), id=name)
    test = nbformat.v4.new_code_cell(
        f"report = check({name})\nassert report.passed, report\n"
        f"### BEGIN HIDDEN TESTS\nfrom minillama.lessons import check\n\n"
        f"report = check({name}, seed={seed})\nassert report.passed, report\n"
        f"### END HIDDEN TESTS\nreport",
        id=f"{name}-test",
    )
    points = EXERCISES[name].difficulty
    return [_graded(answer, name, solution=True), _graded(test, f"{name}-test", points=points, locked=True)]


def _answered(name, stub, solution):
    """The stub without its check, and with the solution, marked for nbgrader, in the place of its `...`

    What the solution defines beside the function (helpers, imports) stands above it, between marks of its own, as the
    solutions of later exercises may read it. nbgrader leaves a stub, `...`, for each pair of marks.
    """
    asked, _ = _function(name, stub, "stub")
    given, others = _function(name, solution, "solution")
    if ast.unparse(asked.args) != ast.unparse(given.args):
        raise ValueError(
            f"{name}: its stub has the arguments ({ast.unparse(asked.args)}), its solution "
            f"({ast.unparse(given.args)}); give both the same"
        )
    lines, asked_lines = solution.splitlines(), stub.splitlines()
    begin = given.body[0].end_lineno if ast.get_docstring(given) is not None else _end_of_head(name, given, lines)
    body = textwrap.dedent("\n".join(lines[begin : given.end_lineno]))  # with comments above its first statement
    helpers = "\n\n\n".join("\n".join(lines[_first_line(node) - 1 : node.end_lineno]) for node in others)
    above = [_marked(helpers), "", ""] if helpers else []
    after = [line for line in asked_lines[asked.end_lineno :] if not line.startswith(f"check({name}")]
    head = asked_lines[: asked.body[-1].lineno - 1]
    return "\n".join([*above, *head, textwrap.indent(_marked(body), "    "), *after]).rstrip()


def _marked(source):
    return f"### BEGIN SOLUTION\n{source}\n### END SOLUTION"


def _function(name, source, what):
    """The function of this name that a cell defines, and its other statements but for the check."""
    statements = ast.parse(source).body
    found = [node for node in statements if isinstance(node, ast.FunctionDef) and node.name == name]
    if len(found) != 1:
        raise ValueError(f"{name}: its {what} defines {len(found)} functions of that name, expected one")
    others = [n for n in statements if n is not found[0] and not ast.unparse(n).startswith(f"check({name}")]
    return found[0], others


def _first_line(statement):
    """Its number; that of the first decorator, if it has any."""
    return min(node.lineno for node in (statement, *getattr(statement, "decorator_list", ())))


def _end_of_head(name, function, lines):
    """The number of the line that ends `def f(...):`, which may be several; comments behind it belong to the body."""
    number = _first_line(function.body[0]) - 1
    while not lines[number - 1].strip() or lines[number - 1].lstrip().startswith("#"):
        number -= 1
    if number < function.lineno:
        raise ValueError(f"{name}: write the body of its solution below its `def`, on lines of its own")
    return number


def _answer(question, after, number):
    """The cell for the answer to a written question, with the rubric in it if one follows."""
    points = _POINTS.search(question.source)
    if points is None:
        raise ValueError(f"the written question {question.source[:60]!r} does not say its points, such as (5 points)")
    rubric = after[0].source if after and "solution" in tags(after[0]) else "No rubric has been written."
    cell = nbformat.v4.new_markdown_cell(rubric, id=f"question-{number}")
    return _graded(cell, f"question-{number}", points=int(points[1]), solution=True)
