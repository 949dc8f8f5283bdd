"""A copy of the package and its tests, to which a test adds what a contributor would: a file, and a row of a table."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import minillama

TESTS = Path(__file__).parent
# What is new has no kernel, and to compile the others for this copy would take a while.
_IN_NUMPY = (
    "import sys; from minillama import backend; from minillama.cli.main import main\n"
    "with backend.use('numpy'): sys.exit(main(sys.argv[1:]))"
)


class PackageCopy:
    """The copy in a folder, in which a text lies too, text.txt; all that is run there runs on the copy."""

    def __init__(self, folder):
        self.folder, self.package = folder, folder / "minillama"
        for source, name in ((Path(minillama.__file__).parent, "minillama"), (TESTS, "tests")):
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "text.txt").write_text("to be or not to be " * 200, encoding="utf-8")
        self._before = self._files()

    def _files(self):
        return {path: path.read_bytes() for path in self.package.rglob("*.py")}

    def add(self, path, text):
        """A new file of the package."""
        assert not (self.package / path).exists()
        (self.package / path).write_text(text, encoding="utf-8")

    def add_row(self, path, table, row, imports=""):
        """The row at the top of the table in the file, and a line of imports above its first relative one."""
        file = self.package / path
        text = file.read_text(encoding="utf-8")
        text, rows = re.subn(rf"(?m)^{table}(: .+)? = \{{", lambda found: f"{found[0]}\n    {row},", text)
        assert rows == 1, (path, table)
        file.write_text(text.replace("\nfrom .", f"\n{imports}\nfrom .", 1) if imports else text, encoding="utf-8")

    @property
    def touched(self):
        """The files of the package that are new or changed."""
        return {
            path.relative_to(self.package).as_posix()
            for path, content in self._files().items()
            if self._before.get(path) != content
        }

    def python(self, *arguments, code=0, **variables):
        """What Python with these arguments does, as a completed process; its exit code must be this one."""
        places = {"PYTHONPATH": str(self.folder), "MINILLAMA_CACHE": str(self.folder / "cache")}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env={**os.environ, **places, **variables},
            capture_output=True, encoding="utf-8", timeout=600,
        )  # fmt: skip
        assert done.returncode == code, done.stdout[-3000:] + done.stderr
        return done

    def command(self, *words, code=0):
        """What a command says, on standard output and on standard error, computed with the NumPy operations."""
        done = self.python("-c", _IN_NUMPY, *words, code=code)
        return done.stdout + done.stderr

    def train(self, *options, out="run", code=0):
        """What the training of a tiny model says; its folder is `out`."""
        shape = "--data text.txt --tokenizer char --dim 16 --layers 1 --heads 2 --context 16 --steps 3 --threads 1"
        return self.command("train", "--out", out, *shape.split(), *options, code=code)

    def passes(self, name, least, *files):
        """The tests of these files pass for the choice of this name, and there are at least so many."""
        done = self.python("-m", "pytest", "-q", "-k", f"{name} and not numba", *(f"tests/{file}" for file in files))
        assert int(done.stdout.split(" passed")[0].split()[-1]) >= least, done.stdout
