"""What is declared is what is imported; without a package minillama works, or says what must be installed."""

import ast
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minillama
from minillama import backend
from minillama.messages import MissingExtra, needs

try:
    import tomllib
except ImportError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

PACKAGE = Path(minillama.__file__).parent
ROOT = PACKAGE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DISTRIBUTIONS = {
    "llvmlite": "numba",
    "IPython": "jupyter",
    "sphinx_revealjs": "sphinx-revealjs",
}  # {what is imported: what brings it, if not of the same name}
CC_BY_4 = "25a40a30d753162c4026b87a389b9534c72436327abcd083f90da00ead6d6869"  # of its words; any spaces and line ends


def requirement(line):
    """The parts of a requirement: name, bounds, and the marker of where it holds."""
    needed, _, marker = line.partition(";")
    name, bounds = re.fullmatch(r"([A-Za-z0-9._-]+)(.*)", needed.strip()).groups()
    return name.lower(), bounds.strip(), marker.strip()


def resolved(extra):
    """The requirements of an extra, with those of the extras that it names."""
    lines = []
    for line in EXTRAS[extra]:
        named = re.fullmatch(r"minillama\[(.*)\]", line)
        lines += [each for name in named[1].split(",") for each in resolved(name)] if named else [line]
    return lines


def names(lines):
    return {requirement(line)[0] for line in lines}


CORE = names(PROJECT["dependencies"])


# What is declared


def test_licence_version_and_extras():
    assert PROJECT["license"] == "MIT AND CC-BY-4.0"
    assert PROJECT["license-files"] == ["LICENSE", "LICENSE-prose"]
    assert not [line for line in PROJECT["classifiers"] if line.startswith("License")]  # PEP 639: it stands once
    code, prose = ((ROOT / name).read_text(encoding="utf-8") for name in PROJECT["license-files"])
    assert code.startswith("MIT License") and "LICENSE-prose" in code and "notebooks/data/README.md" in code
    assert hashlib.sha256(" ".join(prose.split()).encode("utf-8")).hexdigest() == CC_BY_4, "not the text of CC BY 4.0"
    assert "version" in PROJECT["dynamic"] and re.fullmatch(r"\d+\.\d+\.\d+", minillama.__version__)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == minillama.__version__
    assert CORE == {"numpy", "numba", "threadpoolctl", "tqdm", "filelock"}
    assert {"lessons", "plots", "site", "parity", "test", "dev", "all"} == set(EXTRAS)
    assert names(resolved("all")) == set().union(*(names(resolved(extra)) for extra in EXTRAS))


def test_setuptools_reads_the_version_without_importing_the_package():
    """As the environment that builds a wheel has no NumPy: an assignment of a text, once."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    found = [
        node.value for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]  # fmt: skip
    assert [ast.literal_eval(value) for value in found] == [minillama.__version__]


def test_requirements_txt_is_what_tests_demo_and_lessons_need():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = {requirement(line)[:2] for line in lines if line and not line.startswith("#")}
    declared = [*PROJECT["dependencies"], *resolved("lessons"), *resolved("test")]
    assert listed == {requirement(line)[:2] for line in declared}


def test_the_least_numba_is_that_of_the_backend():
    (bounds,) = [bounds for name, bounds, _ in map(requirement, PROJECT["dependencies"]) if name == "numba"]
    assert bounds == ">=" + ".".join(map(str, backend.LEAST_NUMBA))


def test_what_webassembly_lacks_is_not_required_there():
    for name, _, marker in map(requirement, PROJECT["dependencies"]):
        there = all(f"sys_platform != '{system}'" in marker for system in ("emscripten", "wasi"))
        assert there == (name in ("numba", "filelock")), name


# What is imported


def imports(path):
    """[(package, extra or None, at the top level)] of the imports of a module, but for Python's own and minillama's."""
    found = []

    def visit(node, extra, top):
        if isinstance(node, ast.With):
            call = node.items[0].context_expr
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "needs":
                extra = call.args[0].value
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            top = False
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module]
        for name in {module.partition(".")[0] for module in modules}:
            if name not in sys.stdlib_module_names and name != "minillama":
                found.append((name, extra, top))
        for child in ast.iter_child_nodes(node):
            visit(child, extra, top)

    visit(ast.parse(path.read_text(encoding="utf-8")), None, True)
    return found


MODULES = {path.relative_to(PACKAGE).as_posix(): imports(path) for path in sorted(PACKAGE.rglob("*.py"))}
NEEDING = {  # {module: the extra that it needs as soon as it is imported}
    name: next(extra for _, extra, top in found if extra and top)
    for name, found in MODULES.items()
    if any(extra and top for _, extra, top in found)
}


def test_the_imports_are_found():
    assert MODULES["files.py"] == [("filelock", None, False)]
    assert ("matplotlib", "plots", True) in MODULES["analysis/plots.py"] and len(NEEDING) >= 7
    assert ("numba", None, True) in MODULES["kernels/adamw.py"]


@pytest.mark.parametrize("module", [name for name, found in MODULES.items() if found])
def test_every_import_is_declared(module):
    """Of the dependencies, or of the extra that `needs` names around it; Numba's in kernels and what measures them."""
    for package, extra, top in MODULES[module]:
        declared = names(resolved(extra)) if extra else CORE
        assert DISTRIBUTIONS.get(package, package) in declared, (package, extra)
        if DISTRIBUTIONS.get(package, package) == "numba" and top:
            assert module.startswith("kernels/") or module == "bench/machine.py"


def test_no_declared_dependency_is_unused():
    used = {DISTRIBUTIONS.get(package, package) for found in MODULES.values() for package, *_ in found}
    assert CORE <= used and names(EXTRAS["plots"]) <= used


# What is missing

ALL_OPTIONAL = sorted({package for found in MODULES.values() for package, extra, _ in found if extra})
MISSING = (
    "import sys; sys.modules.update(dict.fromkeys({!r}))\n"  # as where they are not installed: see the import system
)


def python(missing, program, *arguments, cwd=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    words = [sys.executable, "-c", MISSING.format(missing) + program, *map(str, arguments)]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, encoding="utf-8")


COMMAND = "from minillama.__main__ import main; sys.exit(main())"
LESSONS = "from minillama.lessons.__main__ import main; sys.exit(main())"

IMPORT_ALL = """
import importlib, json
said = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        said[name] = None
    except ImportError as error:
        said[name] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""


def test_every_module_is_imported_with_numpy_and_what_is_pure_python_alone_or_names_its_extra():
    """tqdm, threadpoolctl and NumPy are everywhere; Numba, locks, figures, notebooks and PyTorch are not."""
    dotted = {
        ".".join(["minillama", *Path(name).with_suffix("").parts]).removesuffix(".__init__"): name for name in MODULES
    }
    asked = [each for each, name in dotted.items() if not name.startswith("kernels/") and "__main__" not in name]
    done = python([*ALL_OPTIONAL, "numba", "llvmlite", "filelock", "safetensors"], IMPORT_ALL, *asked)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for module, error in said.items():
        extra = NEEDING.get(dotted[module])
        if error is None:
            assert extra is None, module
        elif not (dotted[module].startswith("bench/") and "numba" in error[1]):  # the benchmark measures the kernels
            assert error[0] == "MissingExtra", (module, error)
            assert re.fullmatch(r'.+ needs \w+, which is not installed; pip install "minillama\[(\w+)\]"', error[1])
            assert extra is None or f"[{extra}]" in error[1] or "[plots]" in error[1]
    needing = [module for module, name in dotted.items() if name in NEEDING]
    assert all(said[module] for module in needing) and len(needing) == len(NEEDING)


SHAPE = "--tokenizer char --dim 8 --layers 1 --heads 1 --context 8 --batch-size 2 --steps 2 --threads 1".split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder in which a model was trained as a plain `pip install minillama` without Numba trains it."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "text.txt").write_text("to be or not to be. " * 100, encoding="utf-8")
    missing = [*ALL_OPTIONAL, "numba", "llvmlite", "safetensors"]
    done = python(missing, COMMAND, "train", "--data", "text.txt", "--out", "run", *SHAPE, cwd=folder)
    return folder, done


def test_training_needs_no_extra_and_says_what_draws_its_curve(run):
    folder, done = run
    assert done.returncode == 0, done.stderr
    assert "without a loss curve: drawing a figure needs matplotlib, which is not installed; " in done.stdout
    assert not (folder / "run" / "loss.png").exists()
    (again,) = re.findall(
        r'; pip install "minillama\[plots\]", then minillama (train --out run --resume)$', done.stdout, re.MULTILINE
    )
    done = python([], COMMAND, *again.split(), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "loss.png").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"], ["info", "run"], ["table", "llama-7b"], ["perplexity", "run", "text.txt"],
        ["sample", "run", "--prompt", "to", "--max-tokens", "4"], ["convert", "run", "other"],
        ["tokenizer", "encode", "run", "to be"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_commands_that_need_no_extra(run, arguments):
    done = python([*ALL_OPTIONAL, "numba", "llvmlite", "safetensors"], COMMAND, *arguments, cwd=run[0])
    assert done.returncode == 0 and done.stdout, done.stderr


NEEDS = {  # {arguments: (the program, the extra that it names)}
    "inspect run --prompt to --out new": (COMMAND, "plots"),
    "table llama-7b --figure new/table.png": (COMMAND, "plots"),
    "ablate ladder --corpora text.txt --out new": (COMMAND, "plots"),
    "bench matmul --figures new": (COMMAND, "plots"),
    "run 00": (LESSONS, "lessons"),
    "lint": (LESSONS, "lessons"),
    "student new": (LESSONS, "lessons"),
    "figures new": (LESSONS, "lessons"),
    "nbgrader new": (LESSONS, "lessons"),
    "slides new": (LESSONS, "lessons"),
    "grade text.txt": (LESSONS, "lessons"),
}


@pytest.mark.parametrize("arguments", NEEDS)
def test_a_command_that_needs_an_extra_names_it_and_has_done_nothing(run, arguments):
    program, extra = NEEDS[arguments]
    if arguments.startswith("bench") and backend.missing_kernels() is not None:
        pytest.skip("the benchmark measures kernels, and there are none")
    done = python(ALL_OPTIONAL, program, *arguments.split(), cwd=run[0])
    assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert re.search(rf'error: .+ needs \w+, which is not installed; pip install "minillama\[{extra}\]"$', done.stderr)
    assert not (run[0] / "new").exists()


def test_the_exercises_are_listed_without_the_extra():
    done = python(ALL_OPTIONAL, LESSONS, "exercises")
    assert done.returncode == 0 and "rmsnorm" in done.stdout


def test_the_benchmark_without_pytorch_says_what_brings_it():
    program = (
        "from minillama.bench.contestants import _serve\n"
        "class Pipe:\n    send = print\n"
        "_serve(Pipe, '.torch_llama', 'training', ())"
    )
    said = python(ALL_OPTIONAL, program).stdout
    assert 'the comparison needs torch, which is not installed; pip install "minillama[parity]"' in said


def test_what_is_missing_of_minillama_itself_is_no_extra():
    with pytest.raises(ModuleNotFoundError) as failed, needs("plots", "drawing"):
        importlib.import_module("minillama.analysis.nothing")
    assert not isinstance(failed.value, MissingExtra)


# What developers use


def test_ruff_is_the_same_before_a_commit_and_in_ci():
    (pinned,) = [line for line in EXTRAS["dev"] if line.startswith("ruff")]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"rev: v(.*)", hooks) == [pinned.removeprefix("ruff==")]


def test_the_workflow_calls_what_a_developer_calls():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert "run: .ci/run\n" in workflow
    for version in re.findall(r'python(?:-version)?: "(3\.\d+)"', workflow):
        assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]
    assert os.name == "nt" or os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("name", ["Makefile", "README.md", "CONTRIBUTING.md", "notebooks/lecturers.md", ".ci/run"])
def test_files_and_extras_that_texts_name_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for file in re.findall(r"requirements[\w-]*\.txt", text):
        assert (ROOT / file).is_file(), file
    for given in re.findall(r'"(?:\.|minillama)\[([\w,]+)\]"', text):
        assert set(given.split(",")) <= set(EXTRAS), given


def test_every_marker_has_its_tests():
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"][
        "markers"
    ]
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("*.py")]
    for marker in markers:
        name = re.match(r"\w+", marker)[0]
        assert any(re.search(rf"pytest\.mark\.{name}\b", source) for source in sources), name
