"""The rooms of the package: which may import which, as CONTRIBUTING.md draws it, and how large they may grow."""

import ast
import re
import sys
import threading
from collections import defaultdict
from pathlib import Path

import pytest

import minillama
from minillama import Config, backend
from minillama.data.corpora import encode_corpus
from minillama.training.run import Run
from minillama.training.trainer import Settings

PACKAGE = Path(minillama.__file__).parent
DRAWING = Path(__file__).parents[1] / "CONTRIBUTING.md"
LINES_AT_MOST = 400  # in a file of the library
ROOT_AT_MOST = 10  # modules beside the rooms
CALLS_AT_MOST = 8  # from `train` to the first matrix product


def rows():
    """[{the rooms and modules of a row}] of the drawing, from the top to the bottom."""
    text = DRAWING.read_text(encoding="utf-8")
    drawing = re.search(r"```text\n(.*?)```", text[text.index("## Rooms") :], re.S).group(1)
    return [set(re.split(r"\s{2,}", line.strip())[0].split(", ")) for line in drawing.splitlines()]


def modules(package):
    """{dotted name below the package: path} of all modules; a package is its __init__."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(package):
    """{module: {modules of the package that it names in import statements, wherever they stand}}"""
    known, found = modules(package), {}
    for name, path in known.items():
        inside = name.split(".") if path.name == "__init__.py" and name else name.split(".")[:-1]
        targets = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted = [alias.name.split(".") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = inside[: len(inside) - node.level + 1] if node.level else []
                base = ["minillama", *base] if node.level else []
                base = base + (node.module.split(".") if node.module else [])
                wanted = [[*base, alias.name] for alias in node.names if alias.name != "__version__"]  # no module's
            else:
                continue
            for parts in wanted:
                if parts[0] == "minillama":
                    while ".".join(parts[1:]) not in known:  # a name inside of a module
                        parts = parts[:-1]
                    targets.add(".".join(parts[1:]))
        found[name] = targets - {name}
    return found


def room(module):
    return module.split(".")[0]


def trespasses(package):
    """[what imports something that the drawing does not put below it]"""
    height = {name: -i for i, row in enumerate(rows()) for name in row}
    return [
        f"{module} imports {target or 'the package itself'}"
        for module, targets in imports(package).items()
        if module not in ("", "__main__")
        for target in sorted(targets)
        if room(target) != room(module) and not (target and height[room(target)] < height[room(module)])
    ]


def test_every_room_stands_in_the_drawing_once():
    drawn = [name for row in rows() for name in row]
    assert sorted(drawn) == sorted({room(name) for name in modules(PACKAGE)} - {"", "__main__"})


def test_imports_point_down():
    assert trespasses(PACKAGE) == []


@pytest.mark.parametrize(
    "place, statement, said",
    [
        ("ops/loss.py", "from ..model import Model", "ops.loss imports model"),
        ("ops/loss.py", "from .. import model", "ops.loss imports model"),
        ("ops/loss.py", "def late():\n    from ..kernels import matmul", "ops.loss imports kernels.matmul"),
        ("training/trainer.py", "import minillama.cli.arguments", "training.trainer imports cli.arguments"),
        ("data/corpora.py", "from .. import Model", "data.corpora imports the package itself"),
        ("layers/attention.py", "from ..kernels import matmul", "layers.attention imports kernels.matmul"),
    ],
)  # fmt: skip
def test_an_import_that_points_up_is_found(tmp_path, place, statement, said):
    copy = tmp_path / "minillama"
    for path in PACKAGE.rglob("*.py"):
        target = copy / path.relative_to(PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    with (copy / place).open("a", encoding="utf-8") as file:
        file.write(f"\n{statement}\n")
    assert trespasses(copy) == [said]


def test_no_module_is_part_of_a_circle():
    """Not even by imports inside of functions. A package's __init__ is not imported for its own sake by its modules."""
    waiting = {name: set(targets) for name, targets in imports(PACKAGE).items()}
    while free := {name for name, targets in waiting.items() if not targets & waiting.keys()}:
        for name in free:
            del waiting[name]
    assert waiting == {}


def test_rooms_are_few_and_files_are_short():
    files = modules(PACKAGE)
    root = [path.name for path in files.values() if path.parent == PACKAGE]
    assert len(root) <= ROOT_AT_MOST, root
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files.items()}
    assert {name: n for name, n in lengths.items() if n > LINES_AT_MOST} == {}


def test_one_word_has_one_meaning():
    """No two rooms have a public class or a table of the same name."""
    places = defaultdict(set)
    for name, path in modules(PACKAGE).items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(room(name))
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name) and target.id.isupper() and not target.id.startswith("_"):
                        places[target.id].add(room(name))
    assert {word: where for word, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_the_walk_from_train_to_the_first_matrix_product_is_short(tmp_path, monkeypatch, name, threads):
    if name == "numba" and backend.missing_kernels() is not None:
        pytest.skip(backend.missing_kernels())
    (tmp_path / "text.txt").write_text("to be or not to be " * 200, encoding="utf-8")
    corpus = encode_corpus(tmp_path / "text.txt", "char")
    config = Config(corpus.tokenizer.vocab_size, dim=16, layers=1, heads=2, context=16)
    walk = []

    def linear(*_):
        frame = sys._getframe()
        if threading.current_thread() is not threading.main_thread():
            raise StopIteration
        while frame.f_code is not Run.train.__code__:
            walk.insert(0, frame.f_code.co_name)
            frame = frame.f_back
        raise StopIteration

    with backend.use(name):
        run = Run.start(tmp_path / "run", config, Settings(steps=1, batch_size=2), corpus, threads=threads)
        monkeypatch.setattr(backend.active(config), "linear", linear)
        with pytest.raises(StopIteration):
            run.train(quiet=True)
    assert len(walk) <= CALLS_AT_MOST, walk
