"""The tour and the lessons as files: execute them, keep their outputs, test that these still hold, and build the
students' set.

A cell's tags say what it is:
    predict   a question that the reader answers before going on
    gradient  text that displays a gradient; the next code cells compare it with finite differences
    cited     text with numbers that come from the source it links to, not from a cell
    measured  code that prints times or rounding errors: its numbers differ from run to run
    exercise  code with a stub and its check; hint and solution follow it
    hint, solution: of the exercise above; the students' set has no solutions
    written   a question to be answered in words, with its "(5 points)"; its rubric, tagged solution, follows it
    panels    code that draws several figures, which the site puts beside each other where there is room
    slider    code that shows one of minillama.lessons.sliders: a widget, of which the file keeps the first picture
    put-in    code that puts the function of the exercise above into the model, or fills a table with it, or says that
              it does not pass yet
    drawn     code that prints what a model wrote that was trained in the notebook: another text on another machine
    prose     code that prints a text, whose lines the site breaks where they must end
    whole     code that shows something whole, such as a model's forward, and may be longer than other cells
"""

import ast
import base64
import re
import time
from pathlib import Path

from ..files import replacing, require_free
from ..messages import needs
from .checks import EXERCISES
from .claims import OUTSIDE
from .frames import HEADER, LESSON_FRAME, PAGES, TOUR, frame_of, lesson_of, name_of
from .sittings import faults as faults_of_sittings
from .sittings import has_figure, minutes, tags
from .sliders import faults_of_slider, without_widgets

with needs("lessons", "reading a notebook"):
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellControlSignal, DeadKernelError

FOLDER = Path(__file__).parents[2] / "notebooks"
CODE_LINES = 25  # of a cell, at most
WHOLE_LINES = 40  # of one tagged `whole`
DRAWING_LINES = 8  # code that draws a figure and is longer than this is folded on the web site
_NUMBER = re.compile(  # a sign, also behind a number (0.5+2j); thousands in groups of three; 1.e-05 as NumPy prints it
    r"(?:[-+−]|(?<![\w.]))(?:\d{1,3}(?:[,_]\d{3})+(?!\d)|\d+)(?:\.\d+|\.(?=e[-+]?\d))?(?:e[-+]?\d+)?", re.IGNORECASE
)
_SHOWN = re.compile(_NUMBER.pattern + r"(?:\.(?![\w.]))?", re.IGNORECASE)  # with the dot that NumPy leaves behind 1.
_QUANTITY = re.compile(  # in prose: with decimals, with thousands, or before a unit
    r"(?<![\w.])\d+\.\d+(?!\.?\d)|(?<![\w.,])\d{1,3}(?:,\d{3})+|"
    r"(?<![\w.])\d+(?=\s?(?:%|per cent|times|nats|bits|bytes|kB|MB|GB|ms|µs|tokens/s|×))"
)
_FINITE_DIFFERENCES = re.compile(r"numerical_gradient|directional_derivative|central_difference")


def paths(lessons=()):
    """The notebooks in order, the tour first and the pages last; of these ("tour", "03", "04") if any are named."""
    found = [*FOLDER.glob(f"{TOUR}.ipynb"), *sorted(FOLDER.glob("[0-9][0-9]-*.ipynb"))]
    found += [path for page in PAGES for path in FOLDER.glob(f"{page}.ipynb")]
    if not found:
        raise ValueError(
            f"there are no lessons in {FOLDER}: an installed minillama comes without them. Run this in a clone of the "
            f"repository or its unpacked source archive, after: pip install --editable .[lessons]"
        )
    missing = set(lessons) - {name_of(path) for path in found}
    if missing:
        raise ValueError(f"there is no lesson {', '.join(sorted(missing))} in {FOLDER}")
    return [path for path in found if not lessons or name_of(path) in lessons]


def read(path):
    return nbformat.read(path, as_version=4)


def execute(notebook, folder=FOLDER, allow_errors=False):
    """Run all cells in a new kernel, in place; returns the seconds that it took, the start of the kernel included."""
    started = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=frame_of(notebook).seconds,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        allow_errors=allow_errors,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],  # the kernel warns of its unencrypted port on every start
    ).execute()
    return time.perf_counter() - started


def run(path, machine):
    """Execute a lesson, keep its outputs in the file, and write how long it takes into its first cell

    Long code that draws a figure gets the tag that folds it on the web site, where it is in the way of reading. A
    lesson that does not run to its end, or that somebody saves meanwhile, stays as it is: ValueError.
    """
    before = path.read_bytes()
    notebook = read(path)
    try:
        seconds = execute(notebook)
    except (CellControlSignal, DeadKernelError) as error:  # a cell that fails or takes too long, a kernel that dies
        raise ValueError(f"{path} stays as it was, it did not run to its end: {str(error).strip()}") from error
    if path.read_bytes() != before:
        raise ValueError(f"{path} was saved by somebody else while it was executed, and stays so: run it again")
    without_widgets(notebook)
    first = notebook.cells[0]
    line = time_line(notebook, seconds, machine)
    first.source = re.sub(r"^\*\*Time\*\*.*$", lambda _: line, first.source, flags=re.M)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:03d}"  # the same on every run, so that a diff shows what changed
        cell.metadata.pop("execution", None)
        if has_figure(cell) and ("hide-input" in tags(cell) or len(cell.source.splitlines()) > DRAWING_LINES):
            cell.metadata["tags"] = sorted(tags(cell) | {"hide-input"})
            cell.metadata.setdefault("mystnb", {}).setdefault("code_prompt_show", "Show the code that draws this")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    write(notebook, path)
    return seconds


def write(notebook, path):
    with replacing(path) as new:
        new.write_bytes(as_bytes(notebook))


def as_bytes(notebook):
    """A notebook as its file holds it."""
    return (nbformat.writes(notebook) + "\n").encode("utf-8")


def time_line(notebook, seconds, machine):
    """The line of the first cell about time: to read, of these the core, for the exercises, to run."""
    reading, core = minutes(notebook)
    for_exercises = sum(exercise.minutes for exercise in EXERCISES.values() if exercise.lesson == lesson_of(notebook))
    parts = f"{reading} minutes to read"
    parts += f", of these {core} the core" if core < reading else ""
    parts += f", {for_exercises} for the exercises" if for_exercises else ""
    return f"**Time**: {parts}, {max(1, round(seconds))} s to run on {machine}."


def text_of(cell):
    """What a cell printed and returned, as text."""
    texts = []
    for output in cell.get("outputs", ()):
        if output.output_type == "stream" and output.name == "stdout":
            texts.append(output.text)
        elif "text/plain" in output.get("data", {}) and "image/png" not in output.data:
            texts.append(output.data["text/plain"])
    return "\n".join(texts)


def differences(kept, fresh):
    """Where the outputs in a file no longer are what its code gives, a message each; [] if they hold

    The words must be the same, wherever lines break and columns begin. So must whole numbers, and others up to one in
    the last digit shown or a thousandth, unless the cell is tagged `measured`; and no claim may be outside of its band.
    """
    found = []
    for old, new in zip(kept.cells, fresh.cells, strict=True):
        if old.cell_type != "code":
            continue
        before, after = text_of(old), text_of(new)
        if "drawn" in tags(old):
            found += [] if after.strip() else [f"{_name(old)}: prints nothing any more"]
        elif _words(before) != _words(after):
            found.append(f"{_name(old)}: the output was\n{before}\nand now is\n{after}")
        elif "measured" not in tags(old):
            pairs = zip(_NUMBER.findall(before), _NUMBER.findall(after), strict=True)
            changed = [f"{a} is now {b}" for a, b in pairs if not _agree(a, b)]
            if changed:
                found.append(f"{_name(old)}: {'; '.join(changed)}")
        if OUTSIDE in after:
            found.append(f"{_name(old)}: {after}")
        if has_figure(old) != has_figure(new):
            found.append(f"{_name(old)}: a figure appeared or went")
    return found


def _words(text):
    return re.sub(r"[][(){},;|]", r" \g<0> ", _SHOWN.sub(" 0 ", text)).split()


def _value(text):
    return float(text.replace(",", "").replace("_", "").replace("−", "-"))


def _agree(a, b):
    if not re.search("[.e]", a + b, re.IGNORECASE):
        return _value(a) == _value(b)
    mantissa, _, exponent = a.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    rounded = decimals or (exponent and "." not in mantissa)  # NumPy's 1. and 2.e-05 are all the digits there are
    unit = 10.0 ** (int(exponent or 0) - decimals) if rounded else 0
    return abs(_value(a) - _value(b)) <= max(1.01 * unit, 1e-3 * abs(_value(a)))


def _name(cell):
    line = next((line for line in cell.source.splitlines() if line.strip()), "")
    return f"{cell.get('id', 'a cell')} ({line[:60]})"


def faults(notebook):
    """What a lesson, or the tour, lacks of the frame that all have, a message each; see the module for the tags."""
    cells, frame = notebook.cells, frame_of(notebook)
    found = [f"the first cell has no {part}" for part in HEADER if part not in cells[0].source]
    if lesson_of(notebook) is None:
        found.append(f"the first cell does not begin with '{frame.title}'")
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    found += [f"there is no section {section!r}" for section in frame.sections if section not in text]
    if not any("predict" in tags(cell) for cell in cells):
        found.append("no question to predict (tag predict)")
    for number, cell in enumerate(cells):
        if cell.cell_type == "code":
            found += [f"{_name(cell)}: {fault}" for fault in _code_faults(cell)]
        else:
            found += [f"{_name(cell)}: {fault}" for fault in _text_faults(cell, cells[:number], cells[number + 1 :])]
    if frame is LESSON_FRAME and lesson_of(notebook):
        found += faults_of_sittings(notebook)
    return [*found, *_exercise_faults(cells, lesson_of(notebook)), *_borrowed_from_solutions(cells)]


def _code_faults(cell):
    most = WHOLE_LINES if "whole" in tags(cell) else CODE_LINES
    if len(cell.source.splitlines()) > most:
        yield f"{len(cell.source.splitlines())} lines, more than {most}"
    if cell.execution_count is None:
        yield "was not executed"
    for output in cell.outputs:
        if output.output_type == "error" or output.get("name") == "stderr":
            yield f"an error or a warning is kept: {output.get('text', output.get('evalue', ''))[:200]}"
    yield from faults_of_slider(cell)
    if has_figure(cell) and not cell.metadata.get("mystnb", {}).get("image", {}).get("alt"):
        yield "a figure without a description for those who cannot see it (metadata mystnb.image.alt)"


def _text_faults(cell, before, after):
    if "solution" in tags(cell) and not cell.source.lstrip().startswith("<details"):
        yield "text of a solution that is not folded: put it into <details>"
    if "cited" in tags(cell) and not re.search(r"\]\(https?://", cell.source):
        yield "is tagged cited, and links to no source"
    displays = "".join(re.findall(r"\$\$.*?\$\$", cell.source, flags=re.S))
    if ("\\partial" in displays or "\\mathrm{d}" in displays) and "gradient" not in tags(cell):
        yield "displays a gradient, but is not tagged gradient"
    if "gradient" in tags(cell):
        code = [cell for cell in after if cell.cell_type == "code"][:3]
        if not any(_FINITE_DIFFERENCES.search(cell.source) for cell in code):
            yield "none of the next three code cells compares the gradient with finite differences"
    if tags(cell) & {"cited", "predict", "hint", "solution"} or cell.source.startswith("# "):
        return
    code = [cell for cell in before if cell.cell_type == "code"]
    known = [_value(n) for cell in code for n in _NUMBER.findall(text_of(cell) + "\n" + cell.source)]
    for quantity in _QUANTITY.findall(_prose(cell.source)):
        decimals = len(quantity.split(".")[1]) if "." in quantity else 0
        value, half = _value(quantity), 0.501 * 10.0**-decimals
        if not any(abs(abs(n) * scale - value) <= half for n in known for scale in (1, 100)):
            yield f"{quantity} was printed by no cell above"


def _prose(source):
    for pattern in (r"```.*?```", r"\$\$.*?\$\$", r"`[^`]*`", r"\$[^$]*\$", r"\[[^\]]*\]\([^)]*\)", r"^#+ .*$"):
        source = re.sub(pattern, " ", source, flags=re.S if pattern[0] in "`\\$" else re.M)
    return source


def _exercise_faults(cells, lesson):
    asked = set()
    for number, cell in enumerate(cells):
        if "exercise" not in tags(cell):
            continue
        name = next((name for name in EXERCISES if re.search(rf"\bcheck\({name}\)", cell.source)), None)
        if name is None:
            yield f"{_name(cell)}: checks no known exercise"
            continue
        asked.add(name)
        rest = [tags(cell) for cell in cells[number + 1 :]]
        until = next((i for i, tagged in enumerate(rest) if "exercise" in tagged), len(rest))
        for part in ("hint", "solution"):
            if not any(part in tagged for tagged in rest[:until]):
                yield f"{name}: no {part} follows"
        solved = "\n".join(text_of(cell) for cell in cells[number + 1 : number + 1 + until] if cell.cell_type == "code")
        if f"{name}: not started" not in text_of(cell):
            yield f"{name}: its stub is not reported as not started"
        if f"{name}: passed" not in solved:
            yield f"{name}: its solution did not pass"
    for name, exercise in EXERCISES.items():
        if exercise.lesson == lesson and name not in asked:
            yield f"exercise {name} has a checker and is not in the lesson"


def _borrowed_from_solutions(cells):
    """What a student's notebook would lack: names that a cell reads and that a solution above it has defined."""
    solved = set()
    for cell in cells:
        if cell.cell_type != "code":
            continue
        try:
            statements = ast.parse(cell.source).body
        except SyntaxError as error:
            yield f"{_name(cell)}: line {error.lineno} is not plain Python: {error.msg}"
            continue
        if "solution" in tags(cell):
            solved |= _defined(statements)
            continue
        own = _defined(statements) if "exercise" in tags(cell) else set()
        stubs = EXERCISES.keys() if "put-in" in tags(cell) else set()  # a stub is not put in
        for statement in statements:
            for name in sorted(solved & _read(statement) - own - stubs):
                yield f"{_name(cell)}: reads {name}, which a solution above defines; students have no solutions"
            own |= _defined([statement])
        solved -= own


def _read(statement):
    """The names that a statement reads, without those that are local to a function or comprehension in it."""
    nodes = list(ast.walk(statement))
    scopes = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.Lambda | ast.comprehension)]
    local = {node.arg for node in nodes if isinstance(node, ast.arg)} | _names(scopes, ast.Store)
    defaults = [
        d for node in nodes if isinstance(node, ast.arguments) for d in (*node.defaults, *node.kw_defaults) if d
    ]
    added_to = [node.target for node in nodes if isinstance(node, ast.AugAssign)]
    return _names(defaults, ast.Load) | ((_names([statement], ast.Load) | _names(added_to, ast.Store)) - local)


def _names(nodes, context):
    """The names that stand anywhere in these nodes to be read (ast.Load) or written (ast.Store)."""
    within = [n for node in nodes for n in ast.walk(node)]
    return {n.id for n in within if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


def _defined(statements):
    """The names that these statements, the outermost of a cell, give a value."""
    names = set()
    for node in statements:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        else:
            names |= _names([node], ast.Store)
    return names


def without_solutions(notebook):
    """The lesson as a student gets it: no solutions, no outputs."""
    made = nbformat.from_dict(notebook)
    made.cells = [cell for cell in made.cells if "solution" not in tags(cell)]
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return made


def build_student_set(folder, overwrite=False):
    """Write the lessons without solutions, and the files that they read, to a folder; returns the notebooks' paths

    FileExistsError, before the first is written, if there is a file in their places that holds something else: what a
    student wrote. overwrite: replace it.
    """
    folder = Path(folder)
    if folder.exists() and folder.samefile(FOLDER):
        raise ValueError(f"{folder} holds the lessons themselves, whose solutions would be lost: give another folder")
    made = {folder / path.name: as_bytes(without_solutions(read(path))) for path in paths()}
    write_all(made | {folder / name: content for name, content in data_files().items()}, overwrite)
    return list(made)


def data_files():
    """{path beside the lessons: bytes} of the files that lessons read."""
    found = [path for name in ("data", "results") for path in sorted((FOLDER / name).rglob("*"))]
    return {path.relative_to(FOLDER): path.read_bytes() for path in found if path.is_file()}


def export_figures(folder, overwrite=False):
    """Write the figures of cells whose metadata name one ("figure": "rope-pairs") as PNG files; returns their paths

    FileExistsError, before the first is written, if there is another picture in their places. overwrite: replace it.
    """
    made = {}
    for path in paths():
        for cell in read(path).cells:
            if "figure" in cell.metadata:
                images = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
                if not images:
                    raise ValueError(f"{path.name}: {_name(cell)} keeps no figure: run the lesson first")
                made[Path(folder) / f"{cell.metadata['figure']}.png"] = base64.b64decode(images[0])
    write_all(made, overwrite)
    return list(made)


def write_all(contents, overwrite):
    """Write {path: bytes}, all or none; a file that holds these bytes already is left alone."""
    changed = {path: data for path, data in contents.items() if not (path.is_file() and path.read_bytes() == data)}
    require_free(changed, overwrite, "give another folder")
    for folder in {path.parent for path in changed}:
        folder.mkdir(parents=True, exist_ok=True)  # an impossible one is an error before the first file is written
    for path, data in changed.items():
        with replacing(path) as new:
            new.write_bytes(data)
