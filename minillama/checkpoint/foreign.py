"""Formats that people have and minillama does not open: told by their first bytes, and what to do with each."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_ORIGINAL = (
    "Most such models also come as safetensors, as which minillama opens them: fetch the original with minillama "
    "download hf:OWNER/REPO, and open its folder"
)
_UNPACK = "Unpack it, and open the folder or the .bin file that is in it"
_LOOKED_AT = 262  # bytes: of a tar archive the mark stands at 257


class Foreign(NamedTuple):
    """A row of FOREIGN."""

    what: str
    remedy: str
    suffixes: tuple[str, ...]  # of the names of such files, as they are usually called
    begins: Callable  # begins(the first bytes of a file) -> whether it is one


def _with(*starts, at=0):
    return lambda head: head[at:].startswith(starts)


def _zip_of(*endings):
    """Of a zip archive whose first member has such a name."""

    def begins(head):
        name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return head.startswith(b"PK\x03\x04") and name.endswith(endings)

    return begins


FOREIGN = (
    Foreign("a file of GGUF, llama.cpp's format", _ORIGINAL, (".gguf",), _with(b"GGUF", b"FUGG")),
    Foreign("a file of ggml, llama.cpp's format before GGUF", _ORIGINAL, (".ggml",), _with(b"lmgg", b"fmgg", b"tjgg")),
    Foreign("a model of ONNX", _ORIGINAL, (".onnx",), lambda head: False),  # it begins with no mark
    Foreign("a file of HDF5, as Keras and TensorFlow write it", _ORIGINAL, (".h5", ".hdf5"), _with(b"\x89HDF\r\n")),
    Foreign("a model of TensorFlow Lite", _ORIGINAL, (".tflite",), _with(b"TFL3", at=4)),
    Foreign(
        "a file of NumPy arrays, which does not say of what model they are",
        "Make a Model of its Config, copy the arrays into model.parameters, and minillama.save a folder",
        (".npz", ".npy"),
        lambda head: _with(b"\x93NUMPY")(head) or _zip_of(b".npy")(head),
    ),
    Foreign(
        "a pointer of Git LFS that stands for a file, not the file itself",
        "Type git lfs pull in its folder, or fetch it again",
        (),
        _with(b"version https://git-lfs"),
    ),
    Foreign(
        "a web page, not a model",
        "The address that it came from is that of a page: use the one by which the page lets the file be downloaded",
        (),
        lambda head: head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html", b"<head")),
    ),
    Foreign(
        "a packed archive",
        _UNPACK,
        (".zip", ".gz", ".tgz", ".tar", ".xz", ".zst", ".7z"),
        lambda head: (
            _with(b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"BZh")(head)
            or _with(b"ustar", at=257)(head)
            or _zip_of(b"config.json", b".safetensors", b".bin", b".txt", b"/")(head)
        ),
    ),
    Foreign(
        "a pickle of PyTorch, which can run any code when it is opened",
        "Models from Hugging Face also come as model.safetensors: copy that with its config.json, and open the folder",
        (".pt", ".pth", ".ckpt"),
        _with(b"PK\x03\x04", b"\x80\x02\x8a\x0a"),  # a zip archive, and its form before 1.6
    ),
)


def recognise(path):
    """The row of FOREIGN of a file, told by its content or, where that says nothing, by its name; or None."""
    path = Path(path)
    with open(path, "rb") as file:
        head = file.read(_LOOKED_AT)
    by_content = (row for row in FOREIGN if row.begins(head))
    by_name = (row for row in FOREIGN if row.suffixes and path.suffix.lower() in row.suffixes)
    return next(by_content, None) or next(by_name, None)


def refuse_file(path):
    """ValueError that names the format of a file that is not opened here, and says what to do."""
    row = recognise(path)
    if row is not None:
        raise ValueError(f"{path} is {row.what}, which minillama does not open. {row.remedy}")


def refuse_folder(path):
    """The same for the first such file of a folder in which there is nothing that is opened."""
    for file in sorted(Path(path).iterdir()):
        if file.is_file() and any(file.suffix.lower() in row.suffixes for row in FOREIGN):
            refuse_file(file)


def refuse_target(path):
    """ValueError where the name of what is to be written is that of a format which is not written here."""
    suffix = Path(path).suffix.lower()
    names = {ending: row.what for row in FOREIGN for ending in row.suffixes}
    names[".safetensors"] = "a file of weights alone"
    if suffix in names and not Path(path).is_dir():
        raise ValueError(
            f"the name of {path} is that of {names[suffix]}; minillama writes folders of Hugging Face, which hold "
            f"model.safetensors, and files of llama2.c, whose names end in .bin; give one of these"
        )
