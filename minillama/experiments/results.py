"""Results as lines of JSON, one for each job; folders that several processes fill merge by concatenation."""

import json
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from ..files import InUse, alone, append_text, write_text
from ..training.trainer import Settings
from .jobs import RUN, TIME, TUNING, key_of

_BEGINS = [f'{{"kind": "{kind}", "variant": "'.encode() for kind in (TUNING, RUN, TIME)]  # every result


class Results:
    """The results in a folder, and one file of it to add to, which no other process adds to at the same time

    by_key: {key: result} of all files. ValueError if the folder has results of another protocol, or the file something
    else (see `read`); so far nothing is written. A killed process leaves at most one line that is cut off; it is taken
    away before results are added. only_file: only the file is read, whatever else the folder has.
    """

    def __init__(self, folder, file, protocol, only_file=False):
        self.path = Path(folder) / file
        files = [self.path] if self.path.is_file() else []
        self.by_key = read(files if only_file else [folder] if Path(folder).is_dir() else [], protocol)
        self._content = self.path.read_bytes() if files else b""
        self._whole = self._content[: self._content.rfind(b"\n") + 1]
        cut = self._content[len(self._whole) :]
        begun = any(cut.startswith(begin) or (self._whole and begin.startswith(cut)) for begin in _BEGINS)
        if cut and not begun:
            raise ValueError(
                f"the end of {self.path} is no result: {cut[:40]!r}. Remove it, or give the name of another file"
            )

    @contextmanager
    def adding(self):
        """A block in which this process alone adds results; files.InUse where another one does, or has since."""
        lock = self.path.with_name(f".{self.path.name}.lock")
        with alone(lock, f"adding results to {self.path}"):
            if (self.path.read_bytes() if self.path.is_file() else b"") != self._content:
                raise InUse(f"another process has added results to {self.path}; give the same command again")
            if self._whole != self._content:
                write_text(self.path, self._whole.decode("utf-8"))
            yield

    def add(self, result):
        line = json.dumps(result, allow_nan=False)
        append_text(self.path, line + "\n")
        self.by_key[key_of(result)] = json.loads(line)

    def check_data(self, name, fingerprint):
        """ValueError if the results on the corpus of this name were made with other tokens."""
        for result in self.by_key.values():
            if result["corpus"] == name and result["data"] != fingerprint:
                raise ValueError(
                    f"{self.path.parent} has results on {name} that were made with another text, or other tokens of "
                    f"it; they cannot be compared. Use another folder"
                )


def of(results, corpora, seeds, variants):
    """Those of the results that are on one of the corpora, of a variant so named, and with one of the first seeds."""
    return {
        key: result
        for key, result in results.items()
        if result["corpus"] in corpora
        and result["variant"] in variants
        and (result["kind"] != RUN or result["seed"] < seeds)
    }


def read(paths, protocol=None):
    """{key: result} of files and of the .jsonl files in folders. The first of several results of a job counts

    ValueError if one belongs to another protocol (default: that of the first) or to other data of the same name: losses
    can only be compared on the same terms.
    """
    results, data = {}, {}
    for file in _files(paths):
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is not UTF-8, so it holds no results; give another place for them") from error
        for number, line in enumerate(lines[:-1], 1):  # what stands behind the last line end was cut off
            where = f"line {number} of {file}"
            try:
                result = json.loads(line)
                results.setdefault(key_of(result), result)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{where} is not a result ({error!r}). If results are missing from it, remove that line; if it is "
                    f"a file of something else, give another place for results"
                ) from error
            protocol = protocol or result["protocol"]
            _check_protocol(result["protocol"], protocol, where)
            if data.setdefault(result["corpus"], result["data"]) != result["data"]:
                raise ValueError(f"{where}: made with another text called {result['corpus']}, or other tokens of it")
    return results


def _files(paths):
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(path.glob("*.jsonl"))
        elif path.is_file():
            yield path
        else:
            raise FileNotFoundError(f"there is no file or folder {path} with results")


def _check_protocol(protocol, wanted, where):
    """ValueError for other terms; a setting that a result was made without, by an older version, has its default."""
    protocol, wanted = ({**terms, **terms["settings"], "settings": None} for terms in (protocol, wanted))
    for name, usual in asdict(Settings()).items():
        protocol.setdefault(name, usual)
        wanted.setdefault(name, usual)
    for name in wanted | protocol:
        if protocol.get(name) != wanted.get(name):
            raise ValueError(
                f"{where} was made with {name} {protocol.get(name)}, not {wanted.get(name)}; such results cannot be "
                f"compared. Keep results of different settings in different folders"
            )
