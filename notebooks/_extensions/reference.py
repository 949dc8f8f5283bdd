"""The reference pages of the site, made from the docstrings of the package by sphinx.ext.autodoc.

    .. room:: minillama.ops        a section for each module of a package, or for one module: tables, functions, classes
    .. exports:: minillama         every name in the __all__ of a package

Docstrings are plain text, written for an editor. `as_rst` says the same in reStructuredText: formulas and what is
indented stand as they were typed, other paragraphs are text in which no character has a second meaning.
"""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
from itertools import pairwise
from textwrap import dedent, indent

from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

_EQUATION = re.compile(r"[\w.,\[\](){}|^ /-]{1,40} (=|\+=|-=|<-) \S")  # how a formula begins
_MARGIN = 100  # docstrings are wrapped at 120 characters, their indentation included
_BACKWARD = "_backward"


def as_rst(text):
    """The lines of a plain docstring, without the indentation of its source, in reStructuredText."""
    lines = []
    for number, block in enumerate(re.split(r"\n\s*\n", text.strip("\n"))):
        lines += [*_block(block.splitlines(), first=number == 0), ""]
    return lines


def _block(lines, first):
    if all(line.startswith(" ") for line in lines):
        return _literal(dedent("\n".join(lines)).splitlines(), "literal")
    if any("   " in line.strip() for line in lines) or (_EQUATION.match(lines[0]) and (first or len(lines) == 1)):
        return _literal(lines, "formula")
    if not any(line.startswith(" ") for line in lines):
        if all(line.startswith("- ") for line in lines[:1]):
            return _items(lines)
        return _paragraphs(lines)
    introduction = next(i for i, line in enumerate(lines) if line.startswith(" "))
    if lines[introduction - 1].endswith(":"):
        return [*_paragraphs(lines[:introduction]), "", *_block(lines[introduction:], first=False)]
    return _items(lines)


def _paragraphs(lines):
    """A line that ends a sentence well before the margin ends its paragraph: shapes and sources stand by themselves."""
    paragraphs = [lines[0]]
    for before, line in pairwise(lines):
        if before.endswith(".") and len(before) + 1 + len(line.split()[0]) < _MARGIN:
            paragraphs.append(line)
        else:
            paragraphs[-1] += f" {line}"
    return [part for paragraph in paragraphs for part in ("", _text(paragraph))][1:]


def _literal(lines, kind):
    return [".. code-block:: text", f"   :class: {kind}", "", *(f"   {line}" for line in lines)]


def _items(lines):
    """A list, each item of which begins in the first column: its further lines are indented."""
    items = []
    for line in lines:
        if line.startswith(" "):
            items[-1] += " " + line.strip()
        else:
            items.append(line.removeprefix("- "))
    return [f"* {_text(item)}" for item in items]


def _text(line):
    """A paragraph. What stands in backquotes is code, and a link where it is the name of something on these pages."""
    parts = re.split(r"`([^`]+)`", line)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f":py:obj:`{part}`" if re.fullmatch(r"[\w.]+", part) else f"``{part}``"
        else:
            plain = re.sub(r"([\\*|`]|_(?!\w))", r"\\\1", part)
            plain = re.sub(r"arXiv (\d{4}\.\d{4,5})", r"`arXiv \1 <https://arxiv.org/abs/\1>`__", plain)
            parts[i] = re.sub(r"^([-+#]|\w+[.)]|\(\w+\)|\.\.)(?= )", r"\\\1", plain) if i == 0 else plain
    text = parts[0]
    for i, part in enumerate(parts[1:], 1):  # markup begins and ends at a space or a mark, or behind an escaped space
        text += part if i % 2 == 0 else f"\\ {part}\\ "
    return text.strip()


def modules(name, skip=()):
    """The names of a package and the modules in it, or of a module."""
    module = importlib.import_module(name)
    inside = pkgutil.walk_packages(getattr(module, "__path__", ()), f"{name}.")
    return [name, *(info.name for info in inside if info.name.rpartition(".")[2] not in skip)]


def members(name):
    """{name: function or class} that a module defines for others, in the order of the file."""
    found = {
        key: value
        for key, value in vars(importlib.import_module(name)).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == name
        if inspect.isclass(value) or inspect.isfunction(inspect.unwrap(value))
    }
    return dict(sorted(found.items(), key=lambda item: inspect.unwrap(item[1]).__qualname__ not in found))


def tables(name):
    """{name: (value, comment)} of the constants that a module defines for others: dictionaries, what has a comment."""
    module, found = importlib.import_module(name), {}
    source = inspect.getsource(module)
    lines = source.splitlines()
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and re.fullmatch(r"[A-Z][A-Z0-9_]*", target.id):
                value, rest = getattr(module, target.id), lines[node.end_lineno - 1][node.end_col_offset :]
                comment = rest.partition("#")[2].strip() or lines[node.lineno - 1].partition("{  #")[2].strip()
                if comment or (isinstance(value, dict) and value and all(isinstance(key, str) for key in value)):
                    found[target.id] = value, comment
    return found


def _data(module, name, value, comment):
    lines = [f".. py:data:: {name}", f"   :module: {module}"]
    if isinstance(value, dict):
        keys = ", ".join(f"``{key}``" for key in value)
        body = [comment and _text(comment), "", f"Keys: {keys}" if value else ""]
    else:
        shown = repr(value)
        lines += [f"   :value: {shown}"] if len(shown) < 60 and "object at" not in shown else []
        body = [_text(comment)]
    return [*lines, "", *(f"   {line}" for line in body), ""]


def exports(name):
    """{name: value} of a package's __all__, functions and classes first."""
    package = importlib.import_module(name)
    values = {key: getattr(package, key) for key in package.__all__}
    return dict(sorted(values.items(), key=lambda item: not callable(item[1])))


def _constant(package, key, value):
    """The comment beside the constant `key` where it is defined, which is in some module below the package's root."""
    root = package.partition(".")[0]
    for name in sorted(sys.modules):
        if name.startswith(f"{root}.") and getattr(sys.modules[name], key, None) is value:
            found = tables(name)
            if key in found:
                return found[key][1]
    return ""


class Room(SphinxDirective):
    required_arguments = 1
    option_spec = {"skip": directives.unchanged}

    def run(self):
        lines = []
        self.env.note_dependency(__file__)
        for name in modules(self.arguments[0], self.options.get("skip", "").split()):
            lines += [name, "-" * len(name), "", f".. automodule:: {name}", ""]
            for key, (value, comment) in tables(name).items():
                lines += _data(name, key, value, comment)
            for key, value in members(name).items():
                lines += _documented(f"{name}.{key}", value)
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


class Exports(SphinxDirective):
    required_arguments = 1

    def run(self):
        (package,), lines = self.arguments, []
        self.env.note_dependency(__file__)
        for key, value in exports(package).items():
            name = f"{package}.{key}"
            if callable(value):
                lines += _documented(name, value)
            else:
                lines += _data(package, key, value, _constant(package, key, value))
        return self.parse_text_to_nodes("\n".join(lines))


def _documented(name, value):
    if inspect.isclass(value):
        return [f".. autoclass:: {name}", "   :members:", "   :undoc-members:", "   :member-order: bysource", ""]
    return [f".. autofunction:: {name}", ""]


def described(obj):
    """Whether a function or class has a docstring of its own, and not one that Python wrote."""
    text = inspect.getdoc(obj) or ""
    return bool(text) and not (inspect.isclass(obj) and (obj.__doc__ or "").startswith(f"{obj.__name__}("))


def _process_docstring(app, what, name, obj, options, lines):
    if what == "class" and not described(obj):
        lines.clear()
    text = "\n".join(lines)
    if text.strip():
        lines[:] = as_rst(text)
    elif what == "function" and name.endswith(_BACKWARD):
        forward = name.removesuffix(_BACKWARD)
        lines[:] = [
            f"The backward of :py:obj:`{forward.rpartition('.')[2]} <{forward}>`, its mirror line for line.",
            "",
        ]
    if what == "class" and (fields := _fields(obj)):
        lines += ["", ".. code-block:: python", "   :class: fields", "", *indent(fields, "   ").splitlines(), ""]


def _fields(cls):
    """The fields of a dataclass or a named tuple as its file has them, comments included."""
    if not _is_record(cls):
        return ""
    source = dedent(inspect.getsource(cls))
    (body,) = ast.parse(source).body
    fields = [node for node in body.body if isinstance(node, ast.AnnAssign)]
    lines = source.splitlines()[fields[0].lineno - 1 : fields[-1].end_lineno] if fields else []
    return dedent("\n".join(lines))


def _is_record(cls):
    return dataclasses.is_dataclass(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def _process_signature(app, what, name, obj, options, signature, returns):
    return ("", None) if what == "class" and _is_record(obj) else None  # its fields stand below


def _skip_member(app, what, name, obj, skip, options):
    """Fields of records are shown together, as the file has them."""
    field = type(obj).__name__ == "_tuplegetter" or not (callable(obj) or isinstance(obj, (property, staticmethod)))
    return True if what == "class" and field and not hasattr(obj, "func") and not isinstance(obj, classmethod) else None


def setup(app):
    app.add_directive("room", Room)
    app.add_directive("exports", Exports)
    app.connect("autodoc-process-docstring", _process_docstring)
    app.connect("autodoc-process-signature", _process_signature)
    app.connect("autodoc-skip-member", _skip_member)
    return {"parallel_read_safe": True}
