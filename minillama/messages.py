"""What is said to a user: commands to paste into a shell, what an unknown name may mean, what must be installed."""

import os
import shlex
import subprocess
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import PurePath

_WINDOWS = os.name == "nt"
_FOR_CMD = set("&|<>^()%!;,='`@{}$#")  # what a shell of Windows reads as more than a letter, outside of quotes


def command_line(*words):
    """minillama and the words of a command, quoted so that a shell reads back exactly these words

        command_line("train", ("--out", folder), "--resume")

    An option with a value is a pair; a value that begins with a dash is joined to it with =, and a path that does gets
    ./ before it, as it would be taken for an option. POSIX shells; on Windows what cmd and PowerShell read.
    """
    parts = []
    for word in words:
        if isinstance(word, tuple):
            option, value = word[0], str(word[1])
            parts += [f"{option}={value}"] if value.startswith("-") else [option, value]
        elif isinstance(word, PurePath) and str(word).startswith("-"):
            parts.append(f".{os.sep}{word}")
        else:
            parts.append(str(word))
    return " ".join(["minillama", *map(quoted, parts)])


def quoted(word):
    """A word as a shell takes it."""
    if not _WINDOWS:
        return shlex.quote(word)
    made = subprocess.list2cmdline([word])
    if made.startswith('"') or not _FOR_CMD & set(word):
        return made
    backslashes = len(made) - len(made.rstrip("\\"))  # before a quote each counts twice
    return f'"{made}{made[len(made) - backslashes :]}"'


class MissingExtra(ModuleNotFoundError):
    """Packages are missing that one of minillama's extras installs; the message says which."""


@contextmanager
def needs(extra, doing):
    """Around the imports of packages that are no dependencies: MissingExtra where one is not installed

    extra: of pyproject.toml, which has it; doing: what it is needed for, as the beginning of a sentence.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", __package__):  # not what the extra brings
            raise
        how = f'pip install "minillama[{extra}]"'  # quotes that every shell takes
        raise MissingExtra(f"{doing} needs {missing}, which is not installed; {how}", name=missing) from error


def closest(name, known, most=1, cutoff=0.6):
    """Those of the known names, at most so many, that are spelled most like this one, whatever its case

    cutoff: how alike they must be at least, from 0 to 1 (difflib's ratio).
    """
    spelled = {each.lower(): each for each in known}
    return [spelled[each] for each in get_close_matches(name.lower(), spelled, most, cutoff)]


def near(name, known):
    """Those of the known names that may have been meant by this one, whatever its case."""
    spelled, wanted = {each.lower(): each for each in known}, name.lower()
    if wanted in spelled:
        return [spelled[wanted]]
    begun = [each for lower, each in spelled.items() if wanted and lower.startswith(wanted)]
    return begun or closest(name, known, 1, 0.5)


def unknown(kind, name, known):
    """The message of an error: there is no such thing of this kind, what was meant perhaps, and what there is."""
    meant = near(name, known)
    rest = f"did you mean {', '.join(meant)}? There are" if meant else "choose among"
    return f"there is no {kind} {name!r}; {rest} {', '.join(known)}"
