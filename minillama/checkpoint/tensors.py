"""The tensors of safetensors files: their names and shapes at once, their numbers when they are asked for

The format (https://huggingface.co/docs/safetensors): 8 bytes with the length of the header, little-endian; the header,
a JSON object {name: {"dtype", "shape", "data_offsets": [start, end]}}, filled up with blanks, in which "__metadata__"
holds texts by name; then the numbers. The tensors fill the rest of the file without a gap and without an overlap, which
is checked here as the safetensors library checks it. NumPy is all that is needed, also for bfloat16, which it lacks.
"""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np

from ..ops.weights.halves import widen_bfloat16
from .foreign import refuse_file

# As they lie in the file; of bfloat16 the bits.
KINDS = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
# {kind: bits of a number} of all kinds that the format has
_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_LONGEST_HEADER = 100_000_000  # bytes; the format allows no more
_OF_A_MODEL = {"format": "pt"}  # without it transformers refuses a model's file
_AT_A_TIME = 2**24  # bytes that are read from a file in one piece


class TensorFiles(Mapping):
    """{name: shape} of the tensors of one or several safetensors files, and their numbers

    metadata: {name: text} that the files say beside their tensors. ValueError where a file is damaged or two of them
    have a tensor of the same name.
    """

    def __init__(self, paths):
        self._places, self.metadata = {}, {}  # {name: (file, kind, shape, its first byte)}
        for path in map(Path, paths):
            places, metadata = _read_header(path)
            self.metadata |= metadata
            for name, place in places.items():
                if name in self._places:
                    raise ValueError(f"{path} and {self._places[name][0]} both hold {name}; one of them is too much")
                self._places[name] = path, *place

    def __getitem__(self, name):
        return self._places[name][2]

    def __iter__(self):
        return iter(self._places)

    def __len__(self):
        return len(self._places)

    @property
    def nbytes(self):
        """The size of the files."""
        return sum(path.stat().st_size for path in {place[0] for place in self._places.values()})

    def kind(self, name):
        """How the tensor's numbers are written: "F32", "BF16" ..."""
        return self._places[name][1]

    def raw(self, name):
        """The tensor as it lies in the file: a memory map, of bfloat16 the bits as uint16."""
        path, kind, shape, start = self._supported(name)
        if 0 in shape:
            return np.empty(shape, KINDS[kind])
        return np.memmap(path, KINDS[kind], "r", start, shape)

    def read(self, name, rows=slice(None)):
        """Some rows of the tensor, or all, as float32, or float64 where it is that."""
        return widened(np.array(self.raw(name)[rows]), self.kind(name))

    def same(self, name, other):
        """Whether two tensors of one shape hold the same numbers, a few rows at a time."""
        rows = max(1, _AT_A_TIME // max(1, prod(self[name][1:]) * 8))
        parts = (slice(first, first + rows) for first in range(0, self[name][0], rows))
        return self[name] == self[other] and all(np.array_equal(self.read(name, p), self.read(other, p)) for p in parts)

    def read_into(self, target, name, transposed=False):
        """target[:] = the tensor, converted to target's type, or its bits where that is a type of whole numbers

        A piece at a time, so that next to no memory is needed besides target.
        """
        path, kind, shape, start = self._supported(name)
        bits = target.dtype.kind in "iu"
        row = prod(shape[1:]) * KINDS[kind].itemsize
        rows = max(1, _AT_A_TIME // max(row, 1))
        with open(path, "rb") as file:
            file.seek(start)
            for first in range(0, shape[0] if shape else 1, rows):
                count = min(rows, shape[0] - first) if shape else 1
                part = np.empty((count, *shape[1:]), KINDS[kind])
                if file.readinto(part.reshape(-1).view(np.uint8)) < part.nbytes:
                    raise ValueError(f"{path} has become shorter since it was opened; copy it again")
                if bits and kind == "F16" and not np.isfinite(part).all():
                    raise ValueError(
                        f"{path}: {name} has infinity or NaN in half precision: the weights overflowed when they were "
                        f"made, or are damaged; copy the file again, or look at it with dtype='float32'"
                    )
                part = part.view(target.dtype) if bits else widened(part, kind)
                if transposed:
                    target[:, first : first + count] = part.T
                else:
                    target[first : first + count] = part

    def _supported(self, name):
        path, kind, shape, start = self._places[name]
        if kind not in KINDS:
            raise ValueError(f"{path}: {name} holds {kind}; minillama reads {', '.join(KINDS)}")
        return path, kind, shape, start


def widened(raw, kind):
    """The numbers of a kind of KINDS as float32, or float64 where they are that."""
    if kind == "BF16":
        return widen_bfloat16(raw)
    return raw.astype(np.float32) if kind == "F16" else raw


def narrowed(array, kind):
    """A float32 array in the bits of the kind "BF16" or "F16", or None where these do not hold it exactly."""
    with np.errstate(over="ignore"):
        bits = (array.view(np.uint32) >> 16).astype(np.uint16) if kind == "BF16" else array.astype(np.float16)
    same = np.array_equal(widened(bits, kind), array)
    return bits.view(np.uint16 if kind == "BF16" else np.int16) if same else None


def _read_header(path):
    """{name: (kind, shape, first byte)} of the tensors of a file that is whole, and its metadata {name: text}."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; is the copy complete?")
    refuse_file(path)  # of Git LFS there may be a pointer in its place
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                raise ValueError(f"{size} bytes cannot hold a header of {length}")
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_without_repetition)
        if not isinstance(header, dict):
            raise ValueError("the header is no object")
        metadata = header.pop("__metadata__", {})
        if not (isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())):
            raise ValueError("__metadata__ holds something else than texts")
        _check_places(header, size - 8 - length)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is truncated or not a safetensors file ({error}); copy it again") from error
    places = {
        name: (tensor["dtype"], tuple(tensor["shape"]), 8 + length + tensor["data_offsets"][0])
        for name, tensor in header.items()
    }
    return places, metadata


def _without_repetition(pairs):
    """The dictionary of a JSON object's pairs; ValueError where a name comes twice, of which one would be lost."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name comes twice in the header")
    return made


def _check_places(tensors, size):
    """ValueError unless the tensors of a header fill the `size` bytes behind it, each with its bytes, one by one."""
    for name, tensor in tensors.items():
        shown = f"the entry of {name:.100}"
        if not (isinstance(tensor, dict) and {"dtype", "shape", "data_offsets"} <= tensor.keys()):
            raise ValueError(f"{shown} lacks dtype, shape or data_offsets")
        kind, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
        if not (isinstance(kind, str) and kind in _BITS):
            raise ValueError(f"{shown} has the unknown dtype {kind!r:.40}")
        for numbers in (shape, offsets):
            if not (isinstance(numbers, list) and all(type(number) is int and number >= 0 for number in numbers)):
                raise ValueError(f"{shown} has {numbers!r:.80} where whole numbers of at least 0 belong")
        if len(offsets) != 2 or prod(shape) * _BITS[kind] != (offsets[1] - offsets[0]) * 8:
            raise ValueError(f"{shown} has other offsets than its shape and dtype ask for")
    end = 0
    for start, stop, name in sorted((*tensor["data_offsets"], name) for name, tensor in tensors.items()):
        if start != end:
            raise ValueError(f"the numbers of {name:.100} begin at byte {start}, where those before it end at {end}")
        end = stop
    if end != size:
        raise ValueError(f"the tensors take {end} bytes, and there are {size}")


def kind_of(array):
    """The kind of KINDS in which an array of floating-point numbers is written."""
    return {np.dtype("<f8"): "F64", np.dtype("<f4"): "F32", np.dtype("<f2"): "F16"}[array.dtype]


def write_tensors(path, tensors, metadata=_OF_A_MODEL):
    """Write {name: (kind, array)} as a safetensors file; array has the type KINDS[kind], and any strides

    The widest kinds come first, so that all numbers are aligned: the bytes are those that the safetensors library
    writes. metadata: {name: text}.
    """
    order = sorted(tensors, key=lambda name: (-KINDS[tensors[name][0]].itemsize, name))
    header, end = {"__metadata__": metadata}, 0
    for name in order:
        kind, array = tensors[name]
        start, end = end, end + array.nbytes
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            kind, array = tensors[name]
            write_array(file, array.view(KINDS[kind]))


def write_array(file, array):
    """Write an array's numbers, in order, to a file that is open; not by ndarray.tofile, which hides why it fails."""
    file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
