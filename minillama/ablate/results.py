"""Results as lines of JSON, one for each job; folders that several processes fill merge by concatenation."""

import json
from pathlib import Path

from ..files import append_text, write_text
from .jobs import RUN, key_of


class Results:
    """The results in a folder, and one file of it to add to, which nobody else writes

    by_key: {key: result} of all files. A killed process leaves at most one line that is cut off; it is taken away
    before the next one is written. ValueError if the folder has results of another protocol (see `read`). alone: only
    the file is read, whatever else the folder has.
    """

    def __init__(self, folder, file, protocol, alone=False):
        self.path = Path(folder) / file
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            content = self.path.read_bytes()
            whole_lines = content[: content.rfind(b"\n") + 1]
            if whole_lines != content:
                write_text(self.path, whole_lines.decode("utf-8"))
        self.by_key = read([folder] if not alone else [self.path] if self.path.is_file() else [], protocol)

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


def of(results, corpora, seeds):
    """Those of the results that are on one of the corpora, and with one of the first so many seeds."""
    return {
        key: result
        for key, result in results.items()
        if result["corpus"] in corpora and (result["kind"] != RUN or result["seed"] < seeds)
    }


def read(paths, protocol=None):
    """{key: result} of files and of the .jsonl files in folders. The first of several results of a job counts

    ValueError if one belongs to another protocol (default: that of the first) or to other data of the same name: losses
    can only be compared on the same terms.
    """
    results, data = {}, {}
    for file in _files(paths):
        lines = file.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines[:-1], 1):  # what stands behind the last line end was cut off
            where = f"line {number} of {file}"
            try:
                result = json.loads(line)
                results.setdefault(key_of(result), result)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{where} is not a result ({error!r}); remove that line") from error
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
    protocol, wanted = ({**terms, **terms["settings"], "settings": None} for terms in (protocol, wanted))
    for name in wanted | protocol:
        if protocol.get(name) != wanted.get(name):
            raise ValueError(
                f"{where} was made with {name} {protocol.get(name)}, not {wanted.get(name)}; such results cannot be "
                f"compared. Keep results of different settings in different folders"
            )
