"""Check the exercises in notebooks that students hand in."""

import csv
import glob
import json
import logging
import re
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

from .. import __version__
from ..files import replacing, write_text
from ..messages import needs
from .checks import EXERCISES
from .frames import PAGES, TOUR, lesson_of_title
from .notebooks import FOLDER, read
from .reporting import MARK, SECONDS

with needs("lessons", "running a notebook"):
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import DeadKernelError

_ENDLESS_CELLS = 3  # interrupted cells, after which a notebook is given up


def handed_in(given):
    """The notebooks that files, folders and patterns name: a folder stands for all notebooks in it and below

    What is hidden in it is left out: checkpoints of Jupyter, an environment beside the notebooks. Patterns are for
    shells that leave them alone (on Windows).
    """
    found = []
    for name in given:
        if Path(name).is_dir():
            inside = ((p, p.relative_to(name).parts) for p in Path(name).rglob("*.ipynb"))
            found += sorted(p for p, parts in inside if not any(part.startswith(".") for part in parts))
        elif Path(name).exists():  # whatever a pattern would make of its name
            found.append(Path(name))
        else:
            found += [Path(match) for match in sorted(glob.glob(str(name), recursive=True))] or [Path(name)]
    if not found:
        raise ValueError(f"there are no notebooks (*.ipynb) in {', '.join(map(str, given))}")
    return found


def grade(path, seed=0, timeout=SECONDS):
    """Run a student's notebook and check its functions with random cases of this seed; a list of dicts, one an exercise

    It runs the student's code, as this user: where that is not wanted, do it in a container. It runs in a temporary
    folder beside the course's data. Cells that fail do not stop the rest; one that takes more than `timeout` seconds is
    interrupted. A function that a later cell defines anew counts as it was last. The tour and the pages, which
    stand among the lessons and have no exercises, give no line.
    """
    path = Path(path)
    notebook, lesson = _opened(path)
    if lesson in (TOUR, *PAGES):
        return []
    names = [name for name, exercise in EXERCISES.items() if exercise.lesson == lesson]
    asks = [
        nbformat.v4.new_code_cell(
            f"from minillama.lessons.reporting import report; report(globals(), {name!r}, {seed})"
        )
        for name in names
    ]
    handed = list(notebook.cells)
    notebook.cells += asks
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for data in ("data", "results"):
            if (FOLDER / data).is_dir():
                shutil.copytree(FOLDER / data, Path(folder) / data)
        endless, stopped = _execute(notebook, folder, timeout)
    rows = []
    for number, (name, cell) in enumerate(zip(names, asks, strict=True), len(handed)):
        row = _said(cell)
        if row is None and number in endless:
            row = {"status": "wrong", "hint": f"it did not end within {timeout} s: is there an endless loop?"}
        elif row is None:
            row = {"status": "not checked", "hint": stopped or _error(cell) or "the checker said nothing"}
        elif row["status"] == "missing":
            failed = [_error(c) for c in handed if re.search(rf"^\s*def {name}\b", c.source, re.M)]
            row["hint"] += "".join(f"; the cell that would define it stops with {e}" for e in failed[-1:] if e)
        given = {"notebook": path.as_posix(), "lesson": lesson, "exercise": name}
        rows.append(_row(**given, difficulty=EXERCISES[name].difficulty, **row))
    return rows


def ungraded(path, error):
    """The line of a notebook that could not be checked at all."""
    nothing = dict.fromkeys(("lesson", "exercise", "difficulty"), "")
    return _row(notebook=path.as_posix(), **nothing, status="not checked", hint=str(error))


def _row(**row):
    """A line that can be written as UTF-8: with ? for what is no character in the name of a file or in an error."""
    named = ("notebook", "hint")
    return {**row, **{name: row[name].encode("utf-8", "replace").decode("utf-8") for name in named}}


def write_grades(rows, path):
    """A CSV file with a line for each notebook and exercise."""
    with replacing(path) as new, open(new, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["notebook", "lesson", "exercise", "difficulty", "status", "hint"])
        writer.writeheader()
        writer.writerows(rows)


def write_grades_json(rows, path, **settings):
    """The same rows as JSON: {"minillama": version, **settings, "sums": {status: count}, "rows": [...]}."""
    sums = Counter(row["status"] for row in rows)
    made = {"minillama": __version__, **settings, "sums": dict(sorted(sums.items())), "rows": rows}
    write_text(path, json.dumps(made, indent=1, ensure_ascii=False) + "\n")


def _opened(path):
    """The notebook, and which lesson it is; its title need not be first, since students put their names there."""
    try:
        notebook = read(path)
        sources = [cell.source for cell in notebook.cells]
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except Exception as error:  # nbformat has many ways to fail, some of them a KeyError
        what = " ".join(str(error).split())[:80]
        raise ValueError(
            f"it is no notebook that can be read; ask for it again ({type(error).__name__}: {what})"
        ) from None
    lessons = {exercise.lesson for exercise in EXERCISES.values()}
    titles = (lesson_of_title(source) for source in sources)
    lesson = next((title for title in titles if title in {*lessons, TOUR, *PAGES}), None)
    if lesson is None:
        begins = repr(sources[0][:40]) if sources else "nothing"
        raise ValueError(
            f"no cell begins with a lesson's title, '# NN · ...': it begins with {begins}. If it is a lesson, "
            f"put its title back, as it stands in the notebooks folder"
        )
    return notebook, lesson


def _execute(notebook, folder, timeout):
    """Run all cells in a new kernel, in place; returns the numbers of those that did not end, and why it gave up."""
    silent = logging.getLogger(__name__)
    silent.setLevel(logging.CRITICAL + 1)  # what it would say becomes a line of the grades
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        allow_errors=True,
        coalesce_streams=True,
        interrupt_on_timeout=True,
        error_on_timeout={"ename": "Timeout", "evalue": f"not done after {timeout} s", "traceback": []},
        extra_arguments=["--log-level=ERROR"],
        shutdown_kernel="immediate",
        log=silent,
    )
    endless, cell = [], None
    try:
        with client.setup_kernel():
            for number, cell in enumerate(notebook.cells):
                if len(endless) > _ENDLESS_CELLS:
                    return endless, f"{len(endless)} cells did not end within {timeout} s each; the rest was not run"
                started = time.monotonic()
                client.execute_cell(cell, number)
                if cell.cell_type == "code" and time.monotonic() - started >= timeout:
                    endless.append(number)
    except DeadKernelError:
        begins = repr(cell.source.strip().split("\n")[0][:60]) if cell else "nothing"
        return endless, f"its kernel died in the cell that begins with {begins}: was memory short, or does it exit?"
    return endless, ""


def _said(cell):
    printed = "".join(output.get("text", "") for output in cell.outputs)
    line = next((line for line in printed.splitlines() if line.startswith(MARK)), None)
    return line and json.loads(line[len(MARK) :])


def _error(cell):
    """The error that a cell stopped with, in a line, or None."""
    errors = [output for output in cell.get("outputs", ()) if output.output_type == "error"]
    return f"{errors[-1].ename}: {errors[-1].evalue}" if errors else None
