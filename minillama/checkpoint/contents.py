"""What is in a file, as far as its format can be told from it: its first bytes, its size, and the keys of its JSON."""

import json
from functools import cached_property
from pathlib import Path

_HEAD = 512  # bytes
_LONGEST_DESCRIPTION = 2**22  # bytes of JSON; a tokenizer may have more, what describes a model has a thousandth of it
LONGEST_HEADER = 100_000_000  # bytes, of a file of tensors: the format allows no more


class Content:
    """A file's path, size and first bytes; the rest is read when it is asked for. OSError as for any file."""

    def __init__(self, path):
        self.path = Path(path)
        self.size = self.path.stat().st_size
        with open(self.path, "rb") as file:
            self.head = file.read(_HEAD)

    @cached_property
    def keys(self):
        """The keys of the JSON object that the file is; none where it is something else."""
        if not self.head.lstrip().startswith(b"{") or self.size > _LONGEST_DESCRIPTION:
            return frozenset()
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return frozenset()
        return frozenset(values)


def look(folder):
    """The Contents of a folder's files, by name; of those that are hidden none, nor of what lies deeper."""
    files = (path for path in sorted(Path(folder).iterdir()) if not path.name.startswith(".") and path.is_file())
    return [Content(path) for path in files]


def is_safetensors(content):
    """Whether a file begins as one of tensors does: the length of a header in eight bytes, and its JSON."""
    length = int.from_bytes(content.head[:8], "little")
    return content.head[8:9] == b"{" and 2 <= length <= LONGEST_HEADER
