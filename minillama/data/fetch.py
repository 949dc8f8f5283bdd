"""Receiving a file: checked against what it must be, resumed where a connection broke off.

A file is received beside its place, as NAME.part, and takes its place when it is whole and has the right digest. So
what stands under a name can be relied on, and what was received before a connection broke is not received again.
"""

import contextlib
import errno
import hashlib
import http.client
import itertools
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tqdm import tqdm

from ..files import InUse, alone, require_free, write_text

TIMEOUT = 30.0  # seconds that a server may be silent
_CHUNK = 2**18  # bytes read at a time
_REFUSALS = {
    401: "wants to know who you are, and no password is sent: fetch it with a browser",
    403: "does not give it to you: fetch it with a browser, where you can say who you are",
    404: "does not have it; it may have moved",
    429: "has had too many requests; try again later",
}


class File(NamedTuple):
    """A file, where it comes from, and what is known of it."""

    name: str
    address: str
    size: int | None = None  # in bytes
    sha256: str | None = None


def fetch(file, folder, timeout=TIMEOUT, quiet=False, others=()):
    """Receive a File into a folder and return its digest, which is written to NAME.sha256 if it was not known

    others: Files that are still to come, which a message names too where it says what to put into the folder by hand.
    The folder is made when there is something to write.
    """
    path = Path(folder) / file.name
    part, validator = (path.with_name(path.name + ending) for ending in (".part", ".part.etag"))
    require_place(file, folder)
    wanted = (f"the file {each.name} at {path.with_name(each.name)}, from {each.address}" for each in (file, *others))
    hint = f"By hand: put {'; and '.join(wanted)}"
    seen = _size(part)
    for have, headers in (_resume(file, part, validator), (0, {})):
        if have == file.size:  # it was whole, but not checked yet
            with _alone(part, seen):
                return _checked(file, path, part, validator)
        response = ask(file.address, hint, have, headers, timeout)
        if response is not None:
            with response, _alone(part, seen):
                _save(file, hint, part, validator, response, have, quiet)
                return _checked(file, path, part, validator)
    raise ConnectionError(f"{file.address} answers with a part that was not asked for. {hint}")


def _checked(file, path, part, validator):
    """Let the part, which is whole, take its place if it has the right digest; returns the digest."""
    digest = _digest(part)
    if file.sha256 not in (None, digest):
        names = (f"{path.name}.rejected{'' if n == 1 else f'-{n}'}" for n in itertools.count(1))
        rejected = next(place for place in map(path.with_name, names) if not place.exists())
        os.replace(part, rejected)
        validator.unlink(missing_ok=True)
        raise ValueError(
            f"{file.address} gave other bytes than expected: their sha256 is {digest}, not {file.sha256}. They are "
            f"kept as {rejected}, and not used. Try again, or another --mirror"
        )
    os.replace(part, path)
    validator.unlink(missing_ok=True)
    if file.sha256 is None:
        write_text(_record(path), f"{digest}  {path.name}\n")
    return digest


def _size(path):
    return path.stat().st_size if path.is_file() else None


@contextlib.contextmanager
def _alone(part, seen):
    """A block in which this process alone writes the part of a file; InUse if its size is no longer what was seen."""
    with _writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
    with alone(part.with_name(f".{part.name}.lock"), f"receiving {part}"):
        if _size(part) != seen or part.with_name(part.name.removesuffix(".part")).exists():
            raise InUse(f"{part} was written by another process in the meantime; give the same command again")
        yield


def require_place(file, folder):
    """FileExistsError where files of others have the names of those that are written while a file is received."""
    path = Path(folder) / file.name
    part = path.with_name(path.name + ".part")
    if part.exists() and not part.with_name(part.name + ".etag").exists():
        raise FileExistsError(f"{part} was not begun here, as there is no {part.name}.etag beside it; move it away")
    if file.sha256 is None:
        require_free([_record(path)], None, "move it away, or choose another folder with --out")


def _resume(file, part, validator):
    """How many bytes are there already, and the headers that ask for the others, if the file is still the same."""
    have = part.stat().st_size if part.is_file() else 0
    unchanged = validator.read_text(encoding="utf-8") if validator.is_file() else ""
    if not unchanged and file.sha256 is None or file.size is not None and have > file.size:
        have = 0  # nothing would show whether the parts belong together
    if not have:
        return 0, {}
    return have, {"Range": f"bytes={have}-", **({"If-Range": unchanged} if unchanged else {})}


def ask(address, hint, have, headers, timeout):
    """The server's response with the bytes from `have` on, or from the first; None if it has no such bytes."""
    headers = {"User-Agent": "minillama", "Accept-Encoding": "identity", **headers}
    host = urlsplit(address).netloc
    try:
        response = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return None
        reason = _REFUSALS.get(error.code, "has a fault; try again later" if error.code >= 500 else "refuses")
        raise ConnectionError(f"{host} {reason} (HTTP {error.code}). {hint}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise ConnectionError(f"cannot reach {host} ({reason}). {hint}") from error
    begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if response.status == http.client.PARTIAL_CONTENT and (begins is None or int(begins[1]) != have):
        response.close()
        return None
    return response


def _save(file, hint, part, validator, response, have, quiet):
    """Write what the response gives to the part, behind the `have` bytes where it gives the rest."""
    if have and response.status != http.client.PARTIAL_CONTENT:
        if not quiet:
            print(f"{file.name}: the server sends it from its beginning", file=sys.stderr)
        have = 0
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdecimal() else file.size
    if file.size not in (None, total):
        raise ValueError(_wrong_length(file, total, hint))
    etag = response.headers.get("ETag", "")
    with _writing(part):
        # A weak ETag stands for files that are alike but not the same; a date may stand for two files of one second.
        # Written first: a part without it is not ours.
        validator.write_text("" if etag.startswith("W/") else etag, encoding="utf-8")
    with _writing(part), open(part, "ab" if have else "wb") as out:
        bar = tqdm(
            total=total, initial=have, desc=file.name, unit="B", unit_scale=True, dynamic_ncols=True, disable=quiet
        )
        with bar:
            while True:
                try:
                    chunk = response.read1(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise ConnectionError(_broken_off(file, part, validator, have, error)) from error
                if not chunk:
                    break
                out.write(chunk)
                out.flush()  # so that a full disk is noticed here
                have += len(chunk)
                bar.update(len(chunk))
                if file.size is not None and have > file.size:
                    raise ValueError(_wrong_length(file, have, hint))
    if total is not None and have < total:
        raise ConnectionError(_broken_off(file, part, validator, have, "the server ended the connection"))


def _broken_off(file, part, validator, have, reason):
    told = f"the connection broke off ({reason}) after {have:,} bytes of {file.name}"
    if _resume(file, part, validator)[0] == 0:
        return f"{told}. Give the same command again; it begins anew, as the server does not say what belongs together"
    return f"{told}; they are kept in {part}. Give the same command again, and it goes on from there"


def _wrong_length(file, received, hint):
    return (
        f"{file.address} has {received:,} bytes or more and {file.name} has {file.size:,}: it is another file. {hint}"
    )


def check_present(file, path):
    """The digest of a file that stands in the place already; ValueError if it is another file."""
    expected = file.sha256 or recorded(path)
    size = path.stat().st_size
    if file.size not in (None, size):
        raise ValueError(f"{path} is there already, with {size:,} bytes and not {file.size:,}; move it away")
    digest = _digest(path)
    if expected not in (None, digest):
        raise ValueError(
            f"{path} is there already, and is another file: its sha256 is {digest}, not {expected}; move it away"
        )
    return digest


def _digest(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _record(path):
    """Where the digest of a file stands, whose right one is not known: for `sha256sum -c`, and for the next time."""
    return path.with_name(path.name + ".sha256")


def recorded(path):
    """The digest that the record of a file has, None where there is no record, or something else in its place."""
    record = _record(path)
    text = record.read_text(encoding="utf-8", errors="replace") if record.is_file() else ""
    found = re.fullmatch(rf"([0-9a-f]{{64}})  {re.escape(path.name)}\s*", text)
    return found and found[1]


@contextlib.contextmanager
def _writing(part):
    """Explain what the disk says about a file; what was received stays."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            text = (
                f"the disk is full; what was received is kept in {part}. Free some space, then give the command again"
            )
            raise OSError(error.errno, text) from error
        if error.errno is not None:
            raise OSError(error.errno, f"cannot write {part}: {error.strerror}") from error
        raise
