"""What can be downloaded: a table of files at their public addresses, and models on Hugging Face. Only when asked.

How a file is received and checked: minillama.data.fetch.
"""

import http.client
import json
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ..checkpoint.places import DOWNLOADED
from ..files import require_folders
from ..messages import command_line, unknown
from .fetch import TIMEOUT, File, ask, check_present, fetch, recorded, require_place

HUGGING_FACE, GITHUB = "https://huggingface.co", "https://raw.githubusercontent.com"
_LISTING = 2**24  # bytes: the longest list of a repository's files
_TINY_LLAMAS = f"{HUGGING_FACE}/karpathy/tinyllamas/resolve/main"


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
# Of a repository on Hugging Face, besides what places.DOWNLOADED names. Weights in other formats are pickles, which may
# run code when they are opened.
_WEIGHTS = r"model(-\d+-of-\d+)?\.safetensors"
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
            files[i] = file._replace(sha256=file.sha256 or recorded(folder / file.name))
            require_place(files[i], folder)
    for i, file in enumerate(files):
        there = (folder / file.name).exists()
        if there:
            digest = check_present(file, folder / file.name)
        else:
            others = [other for other in files[i + 1 :] if not (folder / other.name).exists()]
            digest = fetch(file, folder, timeout, quiet, others)
        done.append((file, digest, there))
    return folder, done, _going_on(made.then, folder)


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
    with ask(address, hint, 0, {}, timeout) as response:
        try:
            rows = json.loads(response.read(_LISTING))
            files = tuple(_repository_file(repository, row) for row in rows if _is_wanted(row["path"]))
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


def _is_wanted(name):
    """Whether a file of a repository belongs to its model or the tokenizer, in a format that is opened here."""
    return name in DOWNLOADED or bool(re.fullmatch(_WEIGHTS, name))


def _repository_file(repository, row):
    name, size, large = row["path"], row["size"], row.get("lfs")
    digest = large["oid"] if large else None
    if type(size) is not int or digest is not None and not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(f"size {size!r} and sha256 {digest!r} of {name}")
    return File(name, f"{HUGGING_FACE}/{repository}/resolve/main/{name}", size, digest)
