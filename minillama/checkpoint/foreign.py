"""Formats that people have and minillama does not open: told by what is in the file, and what to do with each."""

from collections.abc import Callable
from typing import NamedTuple

from .contents import Content, look

_ORIGINAL = (
    "Most such models also come as safetensors, as which minillama opens them: fetch the original with minillama "
    "download hf:OWNER/REPO, and open its folder"
)
_UNPACK = "Unpack it, and open the folder or the .bin file that is in it"
_TO_SAFETENSORS = """Models from Hugging Face also come as model.safetensors: copy that into the folder, and open it. \
Or, where PyTorch and safetensors are installed, this makes safetensors of it, once and without running its code:

python -c "
import pathlib, sys, torch
from safetensors.torch import save_file
for path in map(pathlib.Path, sys.argv[1:]):
    tensors = torch.load(path, map_location='cpu', weights_only=True)
    save_file({{name: tensor.clone() for name, tensor in tensors.items()}}, path.with_suffix('.safetensors'))
" {files}"""


class Foreign(NamedTuple):
    """A row of FOREIGN."""

    what: str
    remedy: str  # {files} stands for the files that are meant
    suffixes: tuple[str, ...]  # of the names of such files, under which nothing else is to be written
    begins: Callable  # begins(the first bytes of a file) -> whether it is one
    is_model: bool = True  # where such a file lies in a folder, it may be what the folder was given for


def _with(*starts, at=0):
    return lambda head: head[at:].startswith(starts)


def _zip_of(*endings):
    """Of a zip archive whose first member has such a name."""

    def begins(head):
        name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return head.startswith(b"PK\x03\x04") and name.endswith(endings)

    return begins


def _onnx(head):
    """Of a ModelProto, which has no mark: its field 1, ir_version, and the beginning of one of its other fields

    Source: onnx.proto of github.com/onnx/onnx: producer_name 2, producer_version 3, domain 4, model_version 5,
    doc_string 6, graph 7, opset_import 8; all but the fifth have a length. The first ir_version that was released is 3.
    """
    return len(head) > 3 and head[0] == 0x08 and 3 <= head[1] <= 32 and head[2] in b"\x12\x1a\x22\x28\x32\x3a\x42"


def _msgpack(head):
    """Of a map in MessagePack, as Flax writes it, whose first key is a text of letters, digits and _

    Source: github.com/msgpack/msgpack, spec.md: fixmap, map 16; fixstr, str 8.
    """
    start = 1 if head[:1] and 0x81 <= head[0] <= 0x8F else 3 if head[:1] == b"\xde" else None
    if start is None or len(head) < start + 3:
        return False
    length, key = head[start] & 31, start + 1
    if head[start] == 0xD9:
        length, key = head[start + 1], start + 2
    elif head[start] >> 5 != 5:
        return False
    name = head[key : key + length]
    return bool(name) and name.isascii() and name.replace(b"_", b"a").isalnum()


def _pickle(head):
    """Of a zip archive as PyTorch makes it, of its form before 1.6, and of what pickle.dump makes since Python 3."""
    in_zip = _zip_of(b"data.pkl", b"/version", b"/byteorder", b"/.format_version", b"/.data/serialization_id")(head)
    return in_zip or (len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and head[2] in b"\x8a\x95}c](")


PICKLE = Foreign(
    "a pickle of PyTorch, which can run any code when it is opened", _TO_SAFETENSORS, (".pt", ".pth", ".ckpt"), _pickle
)
FOREIGN = (
    Foreign("a file of ggml, llama.cpp's format before GGUF", _ORIGINAL, (".ggml",), _with(b"lmgg", b"fmgg", b"tjgg")),
    Foreign("a model of ONNX", _ORIGINAL, (".onnx",), _onnx),
    Foreign("a file of HDF5, as Keras and TensorFlow write it", _ORIGINAL, (".h5", ".hdf5"), _with(b"\x89HDF\r\n")),
    Foreign("a SavedModel of TensorFlow", _ORIGINAL, (".pb",), _with(b"\x08\x01\x12")),
    Foreign("a model of TensorFlow Lite", _ORIGINAL, (".tflite",), _with(b"TFL3", at=4)),
    Foreign("a file of MessagePack, as Flax writes it", _ORIGINAL, (".msgpack",), _msgpack),
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
        is_model=False,
    ),
    PICKLE,
    Foreign(
        "a packed archive",
        _UNPACK,
        (".zip", ".gz", ".tgz", ".tar", ".xz", ".zst", ".7z"),
        lambda head: (
            _with(b"\x1f\x8b\x08", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"BZh")(head)
            or _with(b"ustar", at=257)(head)
            or _with(b"PK\x03\x04", b"PK\x05\x06")(head)  # the second: of one with nothing in it
        ),
    ),
)


def recognise(content):
    """The row of FOREIGN of a file's Content, or None."""
    return next((row for row in FOREIGN if row.begins(content.head)), None)


def refuse(content):
    """ValueError that names the format of a file that is not opened here, and says what to do."""
    row = recognise(content)
    if row is not None:
        _refuse(row, [content.path])


def refuse_file(path):
    """The same for a path."""
    refuse(Content(path))


def refuse_folder(path):
    """The same for such files in a folder in which there is nothing that is opened, pickles before others."""
    found = [(row, content.path) for content in look(path) if (row := recognise(content)) and row.is_model]
    rows = [row for row, _ in found]
    if rows:
        row = PICKLE if PICKLE in rows else rows[0]
        _refuse(row, [path for each, path in found if each is row])


def _refuse(row, paths):
    files = " ".join(f"'{path}'" for path in paths)
    remedy = row.remedy.format(files=files)
    raise ValueError(f"{paths[0]} is {row.what}, which minillama does not open. {remedy}")
