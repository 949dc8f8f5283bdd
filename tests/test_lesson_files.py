"""No command of the lessons changes a file that it did not make, nor does a target of the Makefile."""

import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

from minillama.lessons import first_values, gradient_mistakes, learning_rates, notebooks
from minillama.lessons.__main__ import main
from tests.test_lesson_experiments import result

FOREIGN = b"what somebody else wrote, without a last line end"


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of two lessons with data, results and figures, whose trainings and checks take no time."""
    folder = tmp_path / "course"
    for name in ("data/deep/text.txt", "results/numbers.jsonl"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"{}\r\n")
    for number in ("00", "01"):
        picture = nbformat.v4.new_output("display_data", data={"image/png": "aGk="})
        drawn = nbformat.v4.new_code_cell("1", metadata={"figure": f"figure-{number}"}, outputs=[picture])
        cells = [nbformat.v4.new_markdown_cell(f"# {number} · Nothing"), drawn]
        notebooks.write(nbformat.v4.new_notebook(cells=cells), folder / f"{number}-nothing.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", folder)
    monkeypatch.setattr("minillama.lessons.grading.grade", lambda path, seed, timeout: [])
    monkeypatch.setattr(learning_rates, "train", lambda corpus, *job: result(*job))
    monkeypatch.setattr(learning_rates, "encode_corpus", lambda name: None)
    losses = {"loss": 0.5}
    monkeypatch.setattr(
        gradient_mistakes, "training", lambda mistake, seed: {"mistake": mistake, "seed": seed} | losses
    )
    monkeypatch.setattr(first_values, "train", lambda corpus, *job: {"job": job})
    monkeypatch.setattr(first_values, "encode_corpus", lambda name, vocab_size: None)
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


COMMANDS = {  # name -> the command that writes to a folder
    "student": lambda course, folder, *more: main(["student", str(folder), *more]),
    "figures": lambda course, folder, *more: main(["figures", str(folder), *more]),
    "grade": lambda course, folder, *more: main(
        ["grade", str(course), "--out", str(folder / "grades.csv"), "--json", str(folder / "grades.json"), *more]
    ),
    "learning_rates": lambda course, folder: learning_rates.main(["--out", str(folder / "a.jsonl"), "--seeds", "0"]),
    "gradient_mistakes": lambda course, folder: gradient_mistakes.main(["--out", str(folder / "c.jsonl")]),
    "first_values": lambda course, folder, *more: first_values.main(["--out", str(folder / "b.jsonl"), *more]),
}
ADDING = ("learning_rates", "gradient_mistakes")  # to their own results, and no others
OVERWRITE = [name for name in COMMANDS if name not in ADDING]
# files in an empty folder
WRITTEN = {"student": 4, "figures": 2, "grade": 2, "learning_rates": 1, "first_values": 1, "gradient_mistakes": 1}


@pytest.mark.parametrize("name", COMMANDS)
def test_foreign_files_stay_to_the_byte(name, course, tmp_path, capsys):
    """Each file that a command writes, alone and all together, with other bytes in it beforehand."""
    command, course_before = COMMANDS[name], contents(course)
    (tmp_path / "empty").mkdir()
    assert not command(course, tmp_path / "empty")
    made = contents(tmp_path / "empty")
    assert len(made) == WRITTEN[name]
    for number, foreign in enumerate([[path] for path in made] + [list(made)]):
        folder = tmp_path / str(number)
        for path in [*foreign, Path("other.txt")]:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(FOREIGN)
        before = contents(folder)
        capsys.readouterr()
        assert command(course, folder), f"exit code 0 with {foreign} there"
        error = capsys.readouterr().err
        assert contents(folder) == before
        assert str(folder / foreign[0]) in error and ("othing was changed" in error)
        if name in OVERWRITE:
            assert not command(course, folder, "--overwrite")
            assert contents(folder) == made | {Path("other.txt"): FOREIGN}
    assert contents(course) == course_before


@pytest.mark.parametrize("name", ["student", "figures", *ADDING])
def test_once_more_over_what_it_has_written_changes_nothing(name, course, tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    assert not COMMANDS[name](course, folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert not COMMANDS[name](course, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times


def test_answers_of_a_student_stay(course, tmp_path, capsys):
    folder = tmp_path / "student"
    assert not main(["student", str(folder)])
    worked_in = folder / "01-nothing.ipynb"
    notebook = notebooks.read(worked_in)
    notebook.cells.append(nbformat.v4.new_code_cell("answer = 42"))
    notebooks.write(notebook, worked_in)
    (folder / "00-nothing.ipynb").unlink()  # it would be written before the other one is met
    before = contents(folder)
    assert main(["student", str(folder)]) == 1
    assert contents(folder) == before
    assert f"{worked_in} is there already" in capsys.readouterr().err


def test_a_folder_in_the_place_of_a_file_is_not_replaced(course, tmp_path):
    for name in OVERWRITE:
        (tmp_path / "empty").mkdir()
        assert not COMMANDS[name](course, tmp_path / "empty")
        for path in contents(tmp_path / "empty"):
            folder = tmp_path / name
            (folder / path / "kept").mkdir(parents=True)
            assert COMMANDS[name](course, folder, "--overwrite") == 1
            assert (folder / path / "kept").is_dir() and contents(folder) == {}
            shutil.rmtree(folder)
        shutil.rmtree(tmp_path / "empty")


def test_the_lessons_themselves_are_no_place_for_a_students_set(course, tmp_path, monkeypatch):
    before = contents(course)
    monkeypatch.chdir(course.parent)
    for folder in (course, course / "data" / "..", "course"):
        assert main(["student", str(folder), "--overwrite"]) == 1
    assert contents(course) == before


def test_grades_do_not_take_the_place_of_a_notebook(course):
    before = contents(course)
    for notebook in course.glob("*.ipynb"):
        for option in ("--out", "--json"):
            assert main(["grade", str(course), option, str(notebook), "--overwrite"]) == 1
    assert contents(course) == before


def test_grades_are_refused_before_the_first_notebook_is_run(course, tmp_path, monkeypatch):
    monkeypatch.setattr("minillama.lessons.grading.grade", lambda *_: pytest.fail("a notebook was run"))
    (tmp_path / "grades.csv").write_bytes(FOREIGN)
    (tmp_path / "file").write_bytes(FOREIGN)
    for out in (tmp_path / "grades.csv", tmp_path / "file" / "grades.csv"):
        for option in ("--out", "--json"):
            assert main(["grade", str(course), option, str(out)]) == 1
    assert (tmp_path / "grades.csv").read_bytes() == (tmp_path / "file").read_bytes() == FOREIGN


@pytest.mark.parametrize("option, value", [("--seed", "-1"), ("--timeout", "0"), ("--timeout", "-5")])
def test_impossible_numbers_are_not_graded_with(option, value, course, monkeypatch, capsys):
    """Else every answer of every student is "not checked"."""
    monkeypatch.setattr("minillama.lessons.grading.grade", lambda *_: pytest.fail("a notebook was run"))
    assert main(["grade", str(course), option, value]) == 1
    assert f"{option} must be at least" in capsys.readouterr().err


def test_an_empty_folder_name_is_called_what_the_help_calls_it(capsys):
    for command in ("student", "figures"):
        with pytest.raises(SystemExit):
            main([command, ""])
        assert "DIR is empty" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["1 / 0", "import os\nos._exit(1)"])
def test_a_lesson_that_fails_stays_as_it_was(source, course, capsys):
    path = course / "00-nothing.ipynb"
    notebook = notebooks.read(path)
    notebook.cells.append(nbformat.v4.new_code_cell(source))
    notebooks.write(notebook, path)
    before = contents(course)
    assert main(["run", "00"]) == 1
    assert contents(course) == before
    assert f"{path} stays as it was" in capsys.readouterr().err


def test_a_lesson_that_is_saved_while_it_is_executed_stays_as_saved(course, capsys):
    path = course / "00-nothing.ipynb"
    notebook = notebooks.read(path)
    notebook.cells.append(nbformat.v4.new_code_cell(f"open({str(path)!r}, 'a').write(' ') and None"))
    notebooks.write(notebook, path)
    saved = path.read_bytes() + b" "
    assert main(["run", "00"]) == 1
    assert path.read_bytes() == saved
    assert "was saved by somebody else" in capsys.readouterr().err


MAKEFILE = Path(__file__).parents[1] / "Makefile"
NO_MAKE = not (shutil.which("make") and shutil.which("rm"))


def make(folder, *arguments):
    shutil.copy(MAKEFILE, folder)
    # Without the variables of a make that runs the tests: VENV among them says what would be cleaned away.
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "VENV"))}
    run = subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=True, env=outside)
    return run.stdout


@pytest.mark.skipif(NO_MAKE, reason="there is no make here")
def test_make_clean_leaves_what_people_made(tmp_path):
    made = [".venv/bin/python", ".venv/installed", "build/site/index.html"]
    kept = ["runs/a/model.safetensors", "runs/demo/loss.png", "build/student/00.ipynb", "own/python", "figures/a.png"]
    for name in made + kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(FOREIGN)
    make(tmp_path, "clean", "VENV=own")  # an environment that make did not make
    make(tmp_path, "clean")
    assert contents(tmp_path) == {Path("Makefile"): MAKEFILE.read_bytes()} | {Path(name): FOREIGN for name in kept}
    make(tmp_path, "clean")


@pytest.mark.skipif(NO_MAKE, reason="there is no make here")
def test_no_other_target_of_make_removes_or_copies(tmp_path):
    targets = {target for target in _phony() if target != "clean"}
    assert {"demo", "notebooks-student"} < targets
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    for target in targets:
        commands = make(tmp_path, "--dry-run", "--always-make", "VENV=.venv", target)
        assert not any(line.split()[0] in ("rm", "cp", "mv") for line in commands.splitlines()), commands


def _phony():
    line = next(line for line in MAKEFILE.read_text(encoding="utf-8").splitlines() if line.startswith(".PHONY:"))
    return line.split()[1:]
