"""Writing files so that nothing is lost: a new file is written beside the old one and then takes its place."""

import errno
import os
import re
import shutil
import stat
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

_SUFFIX = ".new"
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # the disk, or what this user may have of it


@contextmanager
def replacing(path):
    """Gives the path of a new file beside `path`; if the block succeeds it takes the place of `path`, at once

    Whenever the process dies, `path` holds the old content or the new, whole. If the block fails the new file is
    removed and `path` is as it was; a full disk or an unwritable folder is reported with what to do. The file has the
    rights of the one that it replaces, or those that any new file gets, whichever way the block makes it.
    """
    path = Path(path)
    new = path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")
    there = os.path.exists(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rights = stat.S_IMODE(path.stat().st_mode) if there else _rights_of_new_files(new)
        yield new
        with open(new, "rb+") as file:
            os.fsync(file.fileno())
        if stat.S_IMODE(new.stat().st_mode) != rights:
            new.chmod(rights)
        os.replace(new, path)
    except BaseException as error:
        with suppress(OSError):  # nothing was made where the folder itself is impossible
            new.unlink()
        explained = _explained(error, path, there)
        if explained is error:
            raise
        raise explained from error


@contextmanager
def replacing_all(folder, names):
    """Gives a new folder inside of `folder`; if the block succeeds, its files of these names take their places there

    Files of these names that the block did not make are removed then: together they are one thing, such as a model. If
    the block fails, the folder is as it was. Only a process that dies while names are changed leaves some of both; what
    one left that died before is removed, so that no other process may be inside such a block of this folder.
    """
    folder = Path(folder)
    for left in folder.glob(f".*{_SUFFIX}"):
        if left.is_dir() and left.name.removesuffix(_SUFFIX)[1:].isdecimal():
            shutil.rmtree(left, ignore_errors=True)
    new = folder / f".{os.getpid()}{_SUFFIX}"
    there = folder.is_dir()
    try:
        yield new
        made = [name for name in names if (new / name).exists()]
        for name in made:
            if (folder / name).exists():
                (new / name).chmod(stat.S_IMODE((folder / name).stat().st_mode))
            os.replace(new / name, folder / name)
        for name in set(names) - set(made):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        if error.strerror and str(new) in error.strerror:  # the user knows the other name only
            raise OSError(error.errno, error.strerror.replace(str(new), str(folder))) from error
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if not there:
            with suppress(OSError):  # something was made in it
                folder.rmdir()


def require_free(paths, overwrite=False, instead="choose another place"):
    """FileExistsError, naming them, if any of the paths that a command is about to write is there already

    Every command that writes asks this of all its paths before it does any work, so that no file which it did not make
    is changed. overwrite: the user asked for --overwrite, and files (no folder, no device) may be replaced; None where
    there is no such option. instead: what else the message offers. NotADirectoryError where a file stands in the place
    of a folder that they are to be in, and ValueError where two of them are one file, the second in place of the first.
    """
    paths = list(map(Path, paths))
    require_folders(paths, instead)
    places = Counter(os.path.join(os.path.realpath(path.parent), path.name) for path in paths)
    twice = [place for place, count in places.items() if count > 1]
    if twice:
        raise ValueError(
            f"{twice[0]} would be written twice, by two of the options; nothing was changed. "
            f"{instead[0].upper()}{instead[1:]}"
        )
    there = [path for path in paths if os.path.lexists(path)]
    blocked = list(filter(_stays, there)) if overwrite else there
    if blocked:
        names = ", ".join(map(str, blocked[:5])) + (f" and {len(blocked) - 5} more" if len(blocked) > 5 else "")
        verb = "is" if len(blocked) == 1 else "are"
        them = "it" if len(blocked) == 1 else "them"
        replaceable = overwrite is False and not any(map(_stays, there))
        ways = f"{instead}, or give --overwrite to replace {them}" if replaceable else instead
        raise FileExistsError(f"{names} {verb} there already; nothing was changed. {ways[0].upper()}{ways[1:]}")


def _stays(path):
    """Whether what is at a path is never replaced: a folder, a pipe, a device."""
    return not (path.is_file() or path.is_symlink())


def require_folders(paths, instead="choose another place"):
    """NotADirectoryError where a file, or a link that leads nowhere, stands in the place of a folder of the paths."""
    for path in map(Path, paths):
        above = next((folder for folder in path.parents if os.path.lexists(folder)), None)
        if above is not None and not above.is_dir():
            kind = "a link that leads nowhere" if above.is_symlink() and not above.exists() else "a file"
            raise NotADirectoryError(
                f"{above} is {kind} and no folder, so {path} cannot be written; nothing was changed. "
                f"{instead[0].upper()}{instead[1:]}"
            )


class InUse(OSError):
    """Another process is at work on the same files."""


@contextmanager
def alone(path, doing):
    """While the block runs, no other process is inside such a block of the same path, the lock file; else InUse

    doing: what the other process does then, for the message. The system gives the lock back when a process ends,
    however it ends; the file itself stays, hidden and empty. On WebAssembly there is no other process.
    """
    if sys.platform in ("emscripten", "wasi"):
        yield
        return
    from filelock import FileLock, Timeout

    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=0)
    except NotImplementedError as error:
        text = f"{path.parent} is on a file system without locks; choose another folder"
        raise OSError(errno.ENOLCK, text) from error
    except Timeout as error:
        text = f"another process is {doing}; wait until it has ended, or stop it, or choose another place"
        raise InUse(text) from error
    except OSError as error:
        raise _explained(error, path, path.exists()) from error
    try:
        yield
    finally:
        lock.release()


def write_text(path, text):
    """Write text as UTF-8 with newline line ends, in the place of what was there."""
    with replacing(path) as new:
        new.write_bytes(text.encode("utf-8"))


def append_text(path, text):
    """Append text, as UTF-8, whole or not at all; a full disk and an unwritable folder are explained as above."""
    path = Path(path)
    there = os.path.exists(path)
    try:
        with open(path, "ab", buffering=0) as file:
            size, data = os.fstat(file.fileno()).st_size, memoryview(text.encode("utf-8"))
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                with suppress(OSError):  # a device has no length
                    file.truncate(size)
                raise
    except OSError as error:
        if not there:
            with suppress(OSError):
                path.unlink()
        raise _explained(error, path, there) from error


def remove_leftovers(folder, names):
    """Remove what killed processes left of new files for these names before they took their place."""
    left = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.\d+{re.escape(_SUFFIX)}")
    for path in Path(folder).iterdir():
        if left.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _rights_of_new_files(path):
    """What the system lets a new file at path have. Asked of a file, as the umask cannot be read without setting it."""
    path.touch()
    rights = stat.S_IMODE(path.stat().st_mode)
    path.unlink()
    return rights


def _explained(error, path, there):
    """The error with what to do; there: whether path had content before."""
    if getattr(error, "errno", None) in _FULL:
        state = "keeps its old content" if there else "was not written"
        return OSError(errno.ENOSPC, f"the disk is full; {path} {state}. Free some space")
    if isinstance(error, OSError):
        return OSError(error.errno or errno.EACCES, f"cannot write {path}: {error}")
    return error
