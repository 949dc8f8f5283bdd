"""The tensors of safetensors files: their names and shapes at once, their numbers when they are asked for

The safetensors library opens each file and so checks its header: every tensor inside the file, none over another. The
numbers are read here, because NumPy has no bfloat16 and the library gives it none.
"""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ..ops.weights.halves import widen_bfloat16
from .foreign import refuse_file

# As they lie in the file; of bfloat16 the bits.
KINDS = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
_AT_A_TIME = 2**24  # bytes that are read from a file in one piece


class TensorFiles(Mapping):
    """{name: shape} of the tensors of one or several safetensors files, and their numbers

    ValueError where a file is damaged or two of them have a tensor of the same name.
    """

    def __init__(self, paths):
        self._places = {}  # {name: (file, kind, shape, its first byte)}
        for path in map(Path, paths):
            for name, place in _read_header(path).items():
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
                part = np.fromfile(file, KINDS[kind], count * prod(shape[1:])).reshape(count, *shape[1:])
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
    """{name: (kind, shape, first byte)} of a file that the library finds whole."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; is the copy complete?")
    refuse_file(path)  # of Git LFS there may be a pointer in its place
    try:
        with safe_open(path, "np"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is truncated or not a safetensors file ({error}); copy it again") from error
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length).decode("utf-8"))
    header.pop("__metadata__", None)
    return {
        name: (tensor["dtype"], tuple(tensor["shape"]), 8 + length + tensor["data_offsets"][0])
        for name, tensor in header.items()
    }


def write_tensors(path, tensors):
    """Write {name: (kind, array)} as a safetensors file; array has the type KINDS[kind], and any strides

    The format: 8 bytes with the length of the header; the header, JSON, filled up with blanks to a multiple of 8 bytes;
    the numbers of each tensor, the widest kinds first, so that all are aligned. Written here because the library's
    NumPy side cannot write bfloat16; of other kinds it writes the same bytes.
    """
    order = sorted(tensors, key=lambda name: (-KINDS[tensors[name][0]].itemsize, name))
    header, end = {"__metadata__": {"format": "pt"}}, 0
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
            np.ascontiguousarray(array.view(KINDS[kind])).tofile(file)
