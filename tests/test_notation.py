"""The page of notation, glossary and gradients says what is true, and the lessons write what it says."""

import ast
import importlib
import inspect
import math
import pkgutil
import re

import numpy as np
import pytest

import minillama.ops
from minillama.gradcheck import numerical_gradient, relative_error
from minillama.lessons.notebooks import FOLDER, name_of, paths, read

PAGE = (FOLDER / "notation.md").read_text(encoding="utf-8")
ROOT = FOLDER.parent
NOTEBOOKS = {path.name: read(path).cells for path in paths()}
LESSONS = {name: [cell.source for cell in cells if cell.cell_type == "markdown"] for name, cells in NOTEBOOKS.items()}


def table(text, header):
    """The rows of the tables with this first heading, as lists of cells."""
    found, inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| \n").split(" | ")]
        if line.startswith(f"| {header} |"):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("| ---"):
            found.append(cells)
    return found


GRADIENTS = {cells[0].split("<br>")[0]: cells for cells in table(PAGE, "operation")}


# Gradients


def statements(cell):
    """{name: expression} of the code of a cell."""
    return dict(code.split(" = ", 1) for code in re.findall(r"`([^`]+)`", cell))


def arrays(cell, rng):
    """What the first cell of a row names: arrays that have a gradient, arrays that have none, and the sizes."""
    sizes = {letter: int(size) for letter, size in zip("BTSNCOVDFKG", rng.permutation(np.arange(2, 13)), strict=True)}
    sizes["D"] += sizes["D"] % 2
    sizes["H"] = sizes["K"] * sizes["G"]
    learned, _, given = cell.partition("given")

    def shaped(text):
        for name, axes, kind in re.findall(r"`(\w+) \(([\w, ]+)\)([^`]*)`", text):
            yield name, [sizes[axis] for axis in axes.split(", ")], kind.strip()

    fixed = {}
    for name, shape, kind in shaped(given):
        if kind.startswith("below "):
            fixed[name] = rng.integers(sizes[kind.removeprefix("below ")], size=shape)
        elif kind == "true or false":
            fixed[name] = rng.random(shape) < 0.7
        elif kind == "that every query reads by":
            fixed[name] = rng.random(shape) < 0.6
            fixed[name][:, 0] = True
        else:
            assert kind == "", kind
            fixed[name] = rng.integers(1, 9, size=shape).astype(float)
    return {name: rng.standard_normal(shape) for name, shape, _ in shaped(learned)}, fixed, sizes


def functions(sizes):
    def softmax(z):
        weights = np.exp(z - z.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    def scatter(ids, rows):
        made = np.zeros((sizes["V"] if len(rows) == sizes["N"] else sizes["N"], rows.shape[1]))
        np.add.at(made, ids, rows)
        return made

    names = "exp log sqrt tanh cos sin maximum where sum mean repeat ones pi inf".split()
    return {
        **{name: getattr(np, name) for name in names},
        "rowsum": lambda a: np.sum(a, axis=-1, keepdims=True),
        "rowmean": lambda a: np.mean(a, axis=-1, keepdims=True),
        "swap": lambda a: np.swapaxes(a, -1, -2),
        "softmax": softmax,
        "scatter": scatter,
        "onehot": lambda ids: np.eye(sizes["V"])[ids],
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
        "Phi": np.vectorize(lambda z: (1 + math.erf(z / math.sqrt(2))) / 2),
        "rows": np.arange(sizes["N"]),
        "eps": 0.1, "rate": 0.3, "w": 0.7, "slope": 0.5,
    }  # fmt: skip


def computed(expressions, known):
    """All of these expressions, each as soon as what it names is known; those that are known already are left out."""
    known, left = dict(known), {name: text for name, text in expressions.items() if name not in known}
    while left:
        ready = [name for name, text in left.items() if names(text) <= set(known)]
        assert ready, f"{left} name what nothing defines"
        for name in ready:
            known[name] = eval(left.pop(name), {"__builtins__": {}}, known)
    return known


def names(expression):
    return {node.id for node in ast.walk(ast.parse(expression, mode="eval")) if isinstance(node, ast.Name)}


def wrong(cells, seed):
    """The gradients of a row that are not those of its forward, and the arrays that have none."""
    rng = np.random.default_rng(seed)
    inputs, fixed, sizes = arrays(cells[0], rng)
    forward, backward = statements(cells[1]), statements(cells[2])
    known = {**functions(sizes), **sizes, **fixed}
    values = computed(forward, {**known, **inputs})
    free = set().union(*map(names, backward.values())) - set(backward)
    outputs = [name for name in forward if f"d{name}" in free]
    assert outputs, "no gradient of an output is read"
    upstream = {f"d{name}": rng.standard_normal(np.shape(values[name])) for name in outputs}
    gradients = computed(backward, {**{name: values[name] for name in values if name not in backward}, **upstream})
    found = [name for name in inputs if f"d{name}" not in backward]
    for name in [name for name in (*inputs, *forward) if f"d{name}" in backward]:
        at = values[name].copy()

        def loss(name=name, at=at):
            again = computed(forward, {**known, **inputs, name: at})
            return sum(np.sum(again[output] * upstream[f"d{output}"]) for output in outputs)

        gradient = gradients[f"d{name}"]
        if np.shape(gradient) != at.shape or relative_error(gradient, numerical_gradient(loss, at)) > 1e-6:
            found.append(name)
    return found


@pytest.mark.parametrize("operation", GRADIENTS)
def test_a_gradient_is_that_of_the_forward_beside_it(operation):
    for seed in range(3):
        assert wrong(GRADIENTS[operation], seed) == []


@pytest.mark.parametrize("operation", GRADIENTS)
def test_a_wrong_gradient_is_found(operation):
    """Each formula of the page, made wrong by one per cent, is refused, and so is one that is gone."""
    cells = GRADIENTS[operation]
    for name, expression in statements(cells[2]).items():
        before = f"`{name} = {expression}`"
        assert before in cells[2]
        assert wrong([cells[0], cells[1], cells[2].replace(before, f"`{name} = 1.01 * ({expression})`")], 0) != [], name
    last = f"`{name} = {expression}`"
    if len(statements(cells[2])) > 1 and name in (f"d{each}" for each in arrays(cells[0], np.random.default_rng(0))[0]):
        assert wrong([cells[0], cells[1], cells[2].replace(last, "")], 0) == [name[1:]]


def test_every_backward_of_the_library_stands_on_the_page():
    backwards = set()
    for module in pkgutil.walk_packages(minillama.ops.__path__, "minillama.ops."):
        for name, value in inspect.getmembers(importlib.import_module(module.name), inspect.isfunction):
            if name.endswith("_backward") and value.__module__ == module.name:
                backwards.add(f"{module.name}.{name}")
    assert len(backwards) > 15
    assert {name for name in backwards if f"[{name.split('.')[-1]}](#{name})" not in PAGE} == set()


# What is named exists


def heading(text):
    """Without its number, and without what it says of its depth."""
    return re.sub(r"^(\d+\. )?(.*?)( · (core|deeper))?$", r"\2", text.strip())


HEADINGS = {
    name: {heading(title) for text in texts for title in re.findall(r"^#{2,3} (.*)$", text, re.M)}
    for name, texts in LESSONS.items()
}


@pytest.mark.parametrize("operation", GRADIENTS)
def test_a_gradient_is_derived_in_a_lesson_and_tested(operation):
    where = GRADIENTS[operation][3]
    (derived,) = re.findall(r"\[(\d\d)\]\(([\w-]+\.ipynb)\), \*([^*]+)\*", where)
    assert derived[1].startswith(derived[0]) and derived[2] in HEADINGS[derived[1]], derived
    for dotted in re.findall(r"\]\(#([\w.]+)\)", where):
        module, _, name = dotted.rpartition(".")
        assert hasattr(importlib.import_module(module), name), dotted
    for path, test in re.findall(r"`(tests/\w+\.py)::(\w+)`", where):
        assert f"\ndef {test}(" in (ROOT / path).read_text(encoding="utf-8"), (path, test)
    assert ("](#" in where) == ("`tests/" in where)


def test_the_tests_that_stand_in_the_text_exist():
    for path, test in re.findall(r"`(tests/\w+\.py)::(\w+)`", PAGE):
        assert f"\ndef {test}(" in (ROOT / path).read_text(encoding="utf-8"), (path, test)


LETTERS = table(PAGE, "letter")


def test_a_letter_stands_once_and_in_the_lesson_that_introduces_it():
    letters = [each for row in LETTERS for each in re.findall(r"\$([^$]+)\$", row[0])]
    bare = [re.split(" = ", letter)[0].replace("\\,", "") for letter in letters]
    assert len(bare) == len(set(bare)) > 30
    for row in LETTERS:
        (file,) = re.findall(r"\]\(([\w-]+\.ipynb)\)", row[-1])
        letter = re.escape(re.search(r"\$([^$ _]+)", row[0])[1])
        said = " ".join([*formulas_of(file), *(c.source for c in NOTEBOOKS[file] if c.cell_type == "code")])
        assert re.search(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", said), f"{row[0]} does not stand in {file}"


ENTRIES = re.findall(r"^(\*\*.+)$", PAGE.split("## Glossary")[1].split("\n## ")[0], re.M)


def test_the_glossary_is_in_order_and_its_words_stand_in_the_lessons():
    words = [re.findall(r"\*\*([^*]+)\*\*", entry.split(":")[0]) for entry in ENTRIES]
    assert words == sorted(words)
    assert len(words) == len({each for some in words for each in some} - {"post-norm"}) > 35
    for entry, some in zip(ENTRIES, words, strict=True):
        (file,) = re.findall(r"\]\(([\w-]+\.ipynb)\)\)\.$", entry)
        text = " ".join(LESSONS[file]).lower()
        for word in some:
            assert re.search(rf"\b{word[:-1] if word.endswith('y') else word}", text), f"{word} is not said in {file}"


# One letter, one meaning

REFUSED = {  # {what no formula of the lessons may have: what it means here}
    r"\\partial\s*\{?L\b|\\mathrm\{d\}L\b|\bdL/d": "L is the number of blocks",
    r"(?<!\\mathcal\{)(?<![A-Za-z\\])L(?=[_('])|\^\{?L\b": "L is the number of blocks",
    r"(?<![A-Za-z\\])E\s*=\s*\d": "E is the embedding matrix",
    r"\\varepsilon": r"eps is \epsilon",
    r"\\theta_|(?<![A-Za-z\\])[mnt]\s*(\\,)?\s*\\theta|\\(cos|sin)\W*\\theta": "theta is RoPE's base, and no angle",
    r"\bw\s*\\odot|\\odot\s*w\b": r"the weight of a norm is \gamma",
    r"d_\{?(k|\\text)|d_\{\\mathrm": "widths are C and D",
}


OF_A_PAPER = r"(writes?|their|paper's) $"  # in front of a formula that has the letters of somebody else


def formulas_of(file):
    for source in LESSONS[file]:
        text = re.sub(r"```.*?```|`[^`]*`", " ", source, flags=re.S)
        for found in re.finditer(r"\$\$(.*?)\$\$|\$([^$]+)\$", text, re.S):
            if not re.search(OF_A_PAPER, text[: found.start()]):
                yield (found[1] or found[2]).strip()


def other_meanings(formulas):
    return [
        f"{formula}: {reason}" for formula in formulas for what, reason in REFUSED.items() if re.search(what, formula)
    ]


@pytest.mark.parametrize("path", paths(), ids=name_of)
def test_a_letter_has_no_other_meaning(path):
    assert other_meanings(formulas_of(path.name)) == []


@pytest.mark.parametrize(
    "formula, right",
    [
        (r"\frac{\partial L}{\partial x}", False), (r"\frac{\partial \mathcal{L}}{\partial x}", True),
        (r"e^{L_1} + e^{L_2}", False), ("L(x)", False), ("e^L", False), ("2 L K D", True), (r"\sqrt{2L}", True),
        ("D = E = 4", False),
        (r"\theta' = \theta\, s^2", True),
        (r"\cos m\theta", False), (r"m\theta_i", False), (r"\omega_i = \theta^{-2i/D}", True), (r"\theta", True),
        (r"\theta = 10000", True), (r"x^2 + \varepsilon", False), (r"y = w \odot u", False), (r"\sqrt{d_k}", False),
    ],
)  # fmt: skip
def test_other_meanings_are_found(formula, right):
    assert (other_meanings([formula]) == []) is right
