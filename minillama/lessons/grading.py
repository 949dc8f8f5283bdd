"""Check the exercises in notebooks that students hand in."""

import csv
import json
from pathlib import Path

import nbformat

from ..files import replacing
from .checks import EXERCISES, check
from .notebooks import execute, read

_MARK = "minillama-grades "


def report(namespace, lesson, seed):
    """Print what the checkers say to a notebook's functions, for `grade` to read; called in its kernel."""
    names = [name for name, exercise in EXERCISES.items() if exercise.lesson == lesson]
    rows = []
    for name in names:
        answer = namespace.get(name)
        if getattr(answer, "__name__", None) != name:
            rows.append({"exercise": name, "status": "missing", "hint": f"the notebook defines no function {name}"})
        else:
            found = check(answer, seed)
            rows.append({"exercise": name, "status": found.status, "hint": found.hint})
    print(_MARK + json.dumps(rows))


def grade(path, seed=0, timeout=120):
    """Run a student's notebook and check its functions with random cases of this seed; a list of dicts, one an exercise

    It runs the student's code, as this user: where that is not wanted, do it in a container. Cells that fail do not
    stop the rest. A function that a later cell defines anew counts as it was last.
    """
    path = Path(path)
    notebook = read(path)
    lesson = notebook.cells[0].source[2:4] if notebook.cells else ""
    if not any(exercise.lesson == lesson for exercise in EXERCISES.values()):
        raise ValueError(
            f"{path}: its first cell does not begin with the lesson's title, '# NN · ...'; it begins with "
            f"{notebook.cells[0].source[:40]!r}"
            if notebook.cells
            else f"{path} has no cells"
        )
    ask = f"from minillama.lessons.grading import report; report(globals(), {lesson!r}, {seed})"
    notebook.cells.append(nbformat.v4.new_code_cell(ask))
    execute(notebook, folder=path.parent, timeout=timeout, allow_errors=True)
    printed = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    line = next((line for line in printed.splitlines() if line.startswith(_MARK)), None)
    if line is None:
        raise ValueError(f"{path}: the checkers did not run: {printed or notebook.cells[-1].outputs}")
    return [{"notebook": path.name, "lesson": lesson, **row} for row in json.loads(line[len(_MARK) :])]


def write_grades(rows, path):
    """A CSV file with a line for each notebook and exercise."""
    with replacing(path) as new, open(new, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["notebook", "lesson", "exercise", "status", "hint"])
        writer.writeheader()
        writer.writerows(rows)
