"""Files from their public addresses: only when asked, checked against what they must be, resumed where broken off.

A file is received beside its place, as NAME.part, and takes its place when it is whole and has the right digest. So
what stands under a name can be relied on, and what was received before a connection broke is not received again.
"""

import contextlib
import errno
import hashlib
import http.client
import itertools
import json
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tqdm import tqdm

from ..files import InUse, alone, require_folders, require_free, write_text
from ..messages import command_line, unknown

TIMEOUT = 30.0  # seconds that a server may be silent
HUGGING_FACE, GITHUB = "https://huggingface.co", "https://raw.githubusercontent.com"
_CHUNK, _LISTING = 2**18, 2**24  # bytes: read at a time; the longest list of a repository's files
_TINY_LLAMAS = f"{HUGGING_FACE}/karpathy/tinyllamas/resolve/main"


class File(NamedTuple):
    """A file, where it comes from, and what is known of it."""

    name: str
    address: str
    size: int | None = None  # in bytes
    sha256: str | None = None


class Download(NamedTuple):
    """A row of DOWNLOADS."""

    files: tuple[File, ...]
    then: tuple  # what to do with them, as words for command_line; {folder} is where they are


_LLAMA2C_TOKENIZER = File(
    "tokenizer.bin",
    f"{GITHUB}/karpathy/llama2.c/master/tokenizer.bin",
    433_869,
    "50a52ef822ee9e83de5ce9d0be0a025a773d019437f58b5ff9dcafb063ece361",
)


def _stories(name, size, sha256):
    model = File(f"{name}.bin", f"{_TINY_LLAMAS}/{name}.bin", size, sha256)
    return Download((model, _LLAMA2C_TOKENIZER), ("sample", f"{{folder}}/{name}.bin"))


# Sizes of models follow from their shapes. Digests are those of copies of the files, and for 15M, 42M and 110M, of
# which no copy was at hand, those that several projects state independently of each other.
DOWNLOADS = {
    "stories260K": Download(
        (
            File(
                "stories260K.bin",
                f"{_TINY_LLAMAS}/stories260K/stories260K.bin",
                1_056_540,
                "b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696",
            ),
            File(
                "tok512.bin",
                f"{_TINY_LLAMAS}/stories260K/tok512.bin",
                6_227,
                "037cb335abb25d1fa9e8ecae30ed2a3a8ace9302862ebcdc05d51a6bbb10c312",
            ),
        ),
        ("sample", "{folder}/stories260K.bin"),
    ),
    "stories15M": _stories(
        "stories15M", 60_816_028, "cd590644d963867a2b6e5a1107f51fad663c41d79c149fbecbbb1f95fa81f49a"
    ),
    "stories42M": _stories(
        "stories42M", 167_020_572, "9f65a1000e17d0bc167dd6332e0ce5119a0222a3d920cead5bce413bfab2ee7b"
    ),
    "stories110M": _stories(
        "stories110M", 438_381_596, "515267168726a1ed1317a64a408492e6af3b67c1f71c5bd98c01d9d721803a24"
    ),
    "tinyshakespeare": Download(
        (
            File(
                "tinyshakespeare.txt",
                f"{GITHUB}/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
                1_115_394,
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ),
        ),
        ("train", ("--data", "{folder}/tinyshakespeare.txt"), ("--tokenizer", "char")),
    ),
}
_REFUSALS = {
    401: "wants to know who you are, and no password is sent: fetch it with a browser",
    403: "does not give it to you: fetch it with a browser, where you can say who you are",
    404: "does not have it; it may have moved",
    429: "has had too many requests; try again later",
}
# Of a repository on Hugging Face: what a model and its tokenizer need. Weights in other formats are pickles, which may
# run code when they are opened.
_WEIGHTS = r"model(-\d+-of-\d+)?\.safetensors"
_WANTED = re.compile(
    rf"{_WEIGHTS}|model\.safetensors\.index\.json|(generation_)?config\.json|tokenizer(_config)?\.json|"
    r"tokenizer\.model|special_tokens_map\.json|added_tokens\.json|chat_template\.jinja|vocab\.(json|txt)|merges\.txt"
)


_REPOSITORY = r"(\w[\w.-]*/(\w[\w.-]*))"  # OWNER/REPO


def download(name, folder=None, mirror=None, timeout=TIMEOUT, quiet=False):
    """Bring the files of a name of DOWNLOADS, or of hf:OWNER/REPO, to a folder

    Returns the folder, [(File, its digest, whether it was there already)], and the command to go on with.
    folder None: downloads/NAME. mirror takes the place of scheme and host in all addresses. ValueError for an unknown
    name, and for files that are not what they must be; OSError for what network and disk do. Every message says what
    to do; after a connection that broke off, call again.
    """
    found = re.fullmatch("hf:" + _REPOSITORY, name)
    if name not in DOWNLOADS and not found:
        meant = f" Did you mean hf:{name}?" if re.fullmatch(_REPOSITORY, name) else ""
        raise ValueError(f"{unknown('download', name, DOWNLOADS)}, or hf:OWNER/REPO, a model on Hugging Face.{meant}")
    if mirror is not None and not _is_address(mirror):
        raise ValueError(f"a mirror is an address such as https://host/path; received {mirror!r}")
    folder = Path(folder or Path("downloads") / (found[2] if found else name))
    require_folders([folder / "a file"], "choose another folder with --out")
    if found:
        made = Download(_repository_files(found[1], folder, mirror, timeout), ("info", "{folder}"))
    else:
        made = DOWNLOADS[name]
    done, files = [], [file._replace(address=_mirrored(file.address, mirror)) for file in made.files]
    for i, file in enumerate(files):
        if not (folder / file.name).exists():
            files[i] = file._replace(sha256=file.sha256 or _recorded(folder / file.name))
            _require_free(files[i], folder)
    for i, file in enumerate(files):
        there = (folder / file.name).exists()
        if there:
            digest = _check_present(file, folder / file.name)
        else:
            others = [other for other in files[i + 1 :] if not (folder / other.name).exists()]
            digest = fetch(file, folder, timeout, quiet, others)
        done.append((file, digest, there))
    return folder, done, _going_on(made.then, folder)


def fetch(file, folder, timeout=TIMEOUT, quiet=False, others=()):
    """Receive a File into a folder and return its digest, which is written to NAME.sha256 if it was not known

    others: Files that are still to come, which a message names too where it says what to put into the folder by hand.
    The folder is made when there is something to write.
    """
    path = Path(folder) / file.name
    part, validator = (path.with_name(path.name + ending) for ending in (".part", ".part.etag"))
    _require_free(file, folder)
    wanted = (f"the file {each.name} at {path.with_name(each.name)}, from {each.address}" for each in (file, *others))
    hint = f"By hand: put {'; and '.join(wanted)}"
    seen = _size(part)
    for have, headers in (_resume(file, part, validator), (0, {})):
        if have == file.size:  # it was whole, but not checked yet
            with _alone(part, seen):
                return _checked(file, path, part, validator)
        response = _ask(file.address, hint, have, headers, timeout)
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


def _require_free(file, folder):
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


def _ask(address, hint, have, headers, timeout):
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


def _check_present(file, path):
    """The digest of a file that stands in the place already; ValueError if it is another file."""
    expected = file.sha256 or _recorded(path)
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


def _recorded(path):
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


def _going_on(words, folder):
    """The command that goes on with what is in a folder."""

    def filled(word):
        if isinstance(word, tuple):
            return word[0], word[1].format(folder=folder)
        return Path(word.format(folder=folder)) if "{folder}" in word else word

    return command_line(*map(filled, words))


def _is_address(text):
    try:
        urlsplit(text)
    except ValueError:  # an unfinished IPv6 address
        return False
    return bool(re.match(r"https?://[^/\s]+(/\S*)?$", text))


def _mirrored(address, mirror):
    if mirror is None:
        return address
    parts = urlsplit(address)
    return mirror.rstrip("/") + address[len(f"{parts.scheme}://{parts.netloc}") :]


def _repository_files(repository, folder, mirror, timeout):
    """The Files of a model on Hugging Face, as its list of files says; those that are large come with a digest."""
    address = _mirrored(f"{HUGGING_FACE}/api/models/{repository}/tree/main", mirror)
    hint = f"By hand: put config.json, tokenizer and *.safetensors of {HUGGING_FACE}/{repository} into {folder}"
    with _ask(address, hint, 0, {}, timeout) as response:
        try:
            rows = json.loads(response.read(_LISTING))
            files = tuple(_repository_file(repository, row) for row in rows if _WANTED.fullmatch(row["path"]))
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(f"the connection broke off ({error}); try again") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{address} does not answer with a list of files as Hugging Face does ({error!r})"
            ) from error
    if not any(re.fullmatch(_WEIGHTS, file.name) for file in files):
        raise ValueError(
            f"{repository} has no model.safetensors: it is no model, or has pickled weights only, which may run code "
            f"when they are opened and are not downloaded here"
        )
    return files


def _repository_file(repository, row):
    name, size, large = row["path"], row["size"], row.get("lfs")
    digest = large["oid"] if large else None
    if type(size) is not int or digest is not None and not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(f"size {size!r} and sha256 {digest!r} of {name}")
    return File(name, f"{HUGGING_FACE}/{repository}/resolve/main/{name}", size, digest)
