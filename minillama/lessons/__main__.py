"""python -m minillama.lessons COMMAND: run the lessons, build the students' set, grade what comes back."""

import sys
from pathlib import Path

from ..cli.arguments import Parser
from ..cli.streams import prepare
from ..files import require_free
from ..messages import MissingExtra
from .checks import EXERCISES
from .reporting import SECONDS


def main(arguments=None):
    if not prepare("minillama.lessons"):
        return 1
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        sys.stdout = None
        return 1
    except (ValueError, OSError, MissingExtra) as error:
        print(f"minillama.lessons: error: {error}", file=sys.stderr)
        return 1


def _parser():
    parser = Parser(prog="python -m minillama.lessons", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name, function, text):
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(command=function)
        return made

    def replaces(made, what):
        made.add_argument("--overwrite", action="store_true", help=f"replace {what}")

    made = command("run", _run, "execute lessons from a new kernel and keep their outputs")
    made.add_argument("lessons", nargs="*", metavar="NN", help="lessons to run, tour, or a page (default: all)")
    made.add_argument("--machine", default="2 cores", help="what the first cell calls this machine")
    made = command("lint", _lint, "say what lessons lack of the common frame")
    made.add_argument("lessons", nargs="*", metavar="NN", help="lessons to read, tour, or a page (default: all)")
    made = command("plan", _plan, "how lessons are cut: cells, words and minutes of reading of each sitting")
    made.add_argument("lessons", nargs="*", metavar="NN", help="lessons, tour, or a page (default: all)")
    made = command("student", _student, "write the lessons without solutions and outputs")
    made.add_argument("folder", metavar="DIR", help="where to")
    replaces(made, "notebooks that are there, with the answers in them")
    made = command("nbgrader", _nbgrader, "write a course of nbgrader, with an assignment for each lesson")
    made.add_argument("folder", metavar="DIR", help="where to: the folder in which nbgrader's commands are then run")
    made.add_argument("--seed", type=int, default=2026, help="of the hidden random cases (default: %(default)s)")
    replaces(made, "what is there of the assignments' sources, and nbgrader_config.py with what you set there")
    made = command("slides", _slides, "make slides of the lessons' figures and formulas, as HTML and PDF")
    made.add_argument("folder", metavar="DIR", help="where to: DIR/index.html lists them")
    made.add_argument("--no-pdf", dest="pdf", action="store_false", help="HTML alone, for which no Chromium is needed")
    replaces(made, "slides that are there")
    made = command("figures", _figures, "write the lessons' best figures as PNG files")
    made.add_argument("folder", metavar="DIR", help="where to")
    replaces(made, "other pictures of the same names")
    command("exercises", _exercises, "list the exercises")
    made = command("grade", _grade, "run notebooks that students handed in, and check their functions")
    made.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="a notebook, or a folder with notebooks in it")
    made.add_argument("--seed", type=int, default=0, help="of the random cases")
    made.add_argument(
        "--timeout", type=int, default=SECONDS, help="seconds for a cell or a check (default: %(default)s)"
    )
    made.add_argument("--out", metavar="CSV", help="also write the results to a new file, a line for each exercise")
    made.add_argument("--json", metavar="FILE", help="also write them there, with the version, the seed and their sums")
    made.add_argument(
        "--fail-on-wrong",
        action="store_true",
        help="exit status 1 unless every exercise has passed; without it, only where a notebook could not be checked",
    )
    replaces(made, "the files of --out and --json, if they are there")
    return parser


# What needs the extra "lessons" is imported where it is used: the list of exercises needs nothing of it.


def _run(options):
    from .notebooks import paths, run

    for path in paths(options.lessons):
        print(f"{path.name}: {run(path, options.machine):.0f} s")


def _lint(options):
    from .notebooks import faults, paths, read

    found = [f"{path.name}: {fault}" for path in paths(options.lessons) for fault in faults(read(path))]
    print("\n".join(found) or "nothing is missing")
    return bool(found)


def _plan(options):
    from .frames import PAGES, TOUR
    from .notebooks import paths, read
    from .sittings import sittings

    total = 0
    print(f"{'':74} {'cells':>5} {'words':>6} {'core':>5} {'deeper':>7}  minutes of reading")
    for path in paths(options.lessons):
        found = sittings(read(path))
        for sitting in found:
            title = f"{path.stem if sitting is found[0] else '':>28}  {sitting.title[:44]:44}"
            print(f"{title} {sitting.cells:5} {sitting.words:6} {sitting.core:5.0f} {sitting.deeper:7.0f}")
        if path.stem not in (TOUR, *PAGES):
            total += sum(sitting.core for sitting in found)
    print(f"core of the lessons: {total:.0f} minutes, {total / 60:.1f} hours")


def _student(options):
    from .notebooks import build_student_set

    for path in build_student_set(options.folder, options.overwrite):
        print(path)


def _nbgrader(options):
    from .assignments import build_assignments

    if options.seed < 0:
        raise ValueError(f"--seed must be at least 0; received {options.seed}")
    for path in build_assignments(options.folder, options.overwrite, options.seed):
        print(path)


def _slides(options):
    from .slides import build_slides

    for path in build_slides(options.folder, options.overwrite, options.pdf):
        print(path)


def _figures(options):
    from .notebooks import export_figures

    for path in export_figures(options.folder, options.overwrite):
        print(path)


def _exercises(options):
    for exercise in EXERCISES.values():
        stars = "*" * exercise.difficulty
        print(f"{exercise.lesson}  {exercise.name:28} {stars:4} {exercise.minutes:3} min  {exercise.title}")


def _grade(options):
    """One notebook after the other; what is done is in the files already if a later one takes too long for you."""
    from .grading import grade, handed_in, ungraded, write_grades, write_grades_json

    for option, value, least in (("--seed", options.seed, 0), ("--timeout", options.timeout, 1)):
        if value < least:
            raise ValueError(f"{option} must be at least {least}; received {value}")
    rows, failed, found = [], 0, handed_in(options.notebooks)
    _require_free_grades(options, found)

    def write():
        if options.out:
            write_grades(rows, options.out)
        if options.json:
            write_grades_json(rows, options.json, seed=options.seed, timeout=options.timeout)

    write()  # a folder that cannot be written to is said now, not after the first notebook
    for path in found:
        try:
            graded = grade(path, options.seed, options.timeout)
        except (ValueError, OSError) as error:
            graded = [ungraded(path, error)]
        failed += any(row["status"] == "not checked" for row in graded)
        for row in graded:
            print(f"{row['notebook']:32} {row['exercise']:28} {row['status']:12} {row['hint']}", flush=True)
        rows += graded
        write()
    if failed:
        print(f"{failed} of {len(found)} notebooks could not be checked: see 'not checked' above", file=sys.stderr)
    passed = sum(row["status"] == "passed" for row in rows)
    wrong = options.fail_on_wrong and (passed < len(rows) or not rows)  # nothing to check is no pass
    if wrong:
        print(f"--fail-on-wrong: {passed} of {len(rows)} exercises passed", file=sys.stderr)
    return bool(failed or wrong)


def _require_free_grades(options, notebooks):
    """Asked before the long work; the files that this run has made are then written anew after each notebook."""
    given = {"--out": options.out, "--json": options.json}
    for option, path in given.items():
        if path and Path(path).exists() and any(n.exists() and n.samefile(path) for n in notebooks):
            raise ValueError(
                f"{option} {path} is one of the notebooks to be graded; it was left as it is. Name another file"
            )
    require_free(filter(None, given.values()), options.overwrite, "name another file")


if __name__ == "__main__":
    sys.exit(main())
