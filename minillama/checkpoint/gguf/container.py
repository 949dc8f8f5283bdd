"""GGUF, the container: typed values by name, and tensors of blocks

    "GGUF"; uint32 version, 2 or 3; uint64 number of tensors, of values
    of each value: its name; uint32 kind; the value
    of each tensor: its name; uint32 number of axes; uint64 length of each, of a row first; uint32 type; uint64 offset
    zeros up to a multiple of general.alignment; the tensors, each at its offset from there

A text is a uint64 with its length in bytes, and UTF-8. There are 13 kinds of values, KINDS: twelve of one value, and
arrays: uint32 kind of the elements, uint64 their number, the elements. Numbers are little-endian.
Source: docs/gguf.md of github.com/ggml-org/ggml.
"""

import mmap
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...ops.weights.blocks import BLOCKS
from ..tensors import write_array

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # version 3 is version 2, and may be big-endian
ALIGNMENT = 32  # bytes, where general.alignment does not say another
_HEAD = struct.Struct("<4sIQQ")
_LENGTH, _NUMBER = struct.Struct("<Q"), struct.Struct("<I")
_MOST_AXES = 4  # GGML_MAX_DIMS
_BOOL, _STRING, _ARRAY = 7, 8, 9
# {number of the kind in a file: (its name, NumPy's dtype of one)}
KINDS = {
    0: ("uint8", "<u1"), 1: ("int8", "<i1"), 2: ("uint16", "<u2"), 3: ("int16", "<i2"), 4: ("uint32", "<u4"),
    5: ("int32", "<i4"), 6: ("float32", "<f4"), _BOOL: ("bool", "<u1"), _STRING: ("string", None),
    _ARRAY: ("array", None), 10: ("uint64", "<u8"), 11: ("int64", "<i8"), 12: ("float64", "<f8"),
}  # fmt: skip
_KIND_OF = {name: number for number, (name, _) in KINDS.items()}
_TYPES = {row.number: name for name, row in BLOCKS.items()}
# Types that GGUF has or had and that are not read here; a number that is in neither table is damaged or new.
_OTHER_TYPES = {
    4: "Q4_2", 5: "Q4_3", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS",
    19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64",
    28: "F64", 29: "IQ1_M", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 34: "TQ1_0", 35: "TQ2_0", 36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8", 39: "MXFP4",
}  # fmt: skip
_AT_A_TIME = 2**22  # weights that are widened in one piece
_SMALLEST_VALUE, _SMALLEST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8  # bytes in the header


class Located(NamedTuple):
    """Where a tensor lies in a file."""

    type: str  # of BLOCKS, or of those that are not read
    shape: tuple[int, ...]  # as NumPy has it: rows first
    start: int  # byte


class Value(NamedTuple):
    """A value to be written, of a kind of KINDS, by name; value is a list where it is an array of that kind."""

    kind: str
    value: object


class GGUFFile(Mapping):
    """{name: shape} of the tensors of a file, and what else it says

    values: {name: value}, of texts str, of arrays of texts a list of bytes, of other arrays a NumPy array. ValueError,
    with the byte where it is, for a file that is damaged, cut off, or of a version or byte order that is not read.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.nbytes = self.path.stat().st_size
        try:
            with open(self.path, "rb") as file:
                if not self.nbytes:
                    raise ValueError("it is empty")
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    self.values, self._places = _read_header(data)
        except ValueError as error:
            raise ValueError(
                f"{self.path} is damaged or cut off, or not a GGUF file: {error}; copy it again"
            ) from error

    def __getitem__(self, name):
        return self._places[name].shape

    def __iter__(self):
        return iter(self._places)

    def __len__(self):
        return len(self._places)

    def type(self, name):
        """The type of the tensor's blocks: "F32", "Q4_K" ..."""
        return self._places[name].type

    def raw(self, name):
        """The tensor as it lies in the file: a memory map (rows, blocks, bytes of a block) of uint8."""
        place = self._places[name]
        if place.type not in BLOCKS:
            raise ValueError(
                f"{self.path}: {name} is of the type {place.type}; minillama reads {', '.join(BLOCKS)}. The same model "
                f"is usually there in one of these, such as Q4_K_M or Q8_0"
            )
        row, (*rows, columns) = BLOCKS[place.type], place.shape
        shape = prod(rows), columns // row.weights, row.nbytes
        return np.memmap(self.path, np.uint8, "r", place.start, shape)

    def read_into(self, target, name):
        """target[:] = the weights of a tensor, a piece at a time, in target's type of floats."""
        raw, widen = self.raw(name), BLOCKS[self.type(name)].widen
        flat = target.reshape(len(raw), -1)
        rows = max(1, _AT_A_TIME // max(1, flat.shape[1]))
        with np.errstate(over="ignore", invalid="ignore"):  # damaged scales are taken as they are
            for first in range(0, len(raw), rows):
                part = np.array(raw[first : first + rows])
                flat[first : first + rows] = widen(part).reshape(len(part), -1)


class _Reader:
    """A place in a file's bytes that moves on; ValueError where it would go beyond their end."""

    def __init__(self, data):
        self._data, self.at = data, 0

    @property
    def left(self):
        return len(self._data) - self.at

    def take(self, count, what):
        """So many bytes."""
        if count > self.left:
            raise ValueError(f"{what} at byte {self.at} takes {count} bytes, and {self.left} are left")
        self.at += count
        return self._data[self.at - count : self.at]

    def whole(self, layout, what):
        """A number of a struct.Struct of one."""
        return layout.unpack(self.take(layout.size, what))[0]

    def text(self, what):
        return self.take(self.whole(_LENGTH, what), what)

    def name(self, what):
        data = self.text(what)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{what}, {data[:40]!r}, is not UTF-8") from None

    def value(self, kind, what):
        name, dtype = self._kind(kind, what)
        if name == "string":
            return self.name(what)
        if name == "array":
            return self._array(what)
        (number,) = np.frombuffer(self.take(np.dtype(dtype).itemsize, what), dtype)
        return bool(number) if name == "bool" else number.item()

    def _kind(self, kind, what):
        if kind not in KINDS:
            raise ValueError(f"{what} has the kind {kind}, expected 0 to {max(KINDS)}")
        return KINDS[kind]

    def _array(self, what):
        kind, count = self.whole(_NUMBER, what), self.whole(_LENGTH, what)
        name, dtype = self._kind(kind, what)
        if name == "array":
            raise ValueError(f"{what} is an array of arrays, which no model has")
        if name != "string":
            return np.frombuffer(self.take(count * np.dtype(dtype).itemsize, what), dtype)
        if count * _LENGTH.size > self.left:
            raise ValueError(f"{what} would have {count} texts, and {self.left} bytes are left")
        return self._texts(count, what)

    def _texts(self, count, what):
        """A vocabulary has a hundred thousand of them, so that every call counts."""
        data, size, unpack, found, at = self._data, len(self._data), _LENGTH.unpack_from, [], self.at
        for _ in range(count):
            begin = at + _LENGTH.size
            end = begin + unpack(data, at)[0] if begin <= size else size + 1
            if end > size:
                raise ValueError(f"{what} ends within its text {len(found)}, at byte {at}")
            found.append(data[begin:end])
            at = end
        self.at = at
        return found


def _read_header(data):
    """(values, {name: Located}) of a file's bytes."""
    reader = _Reader(data)
    magic, version, tensors, count = _HEAD.unpack(reader.take(_HEAD.size, "the head"))
    if magic != MAGIC:
        raise ValueError(f"it begins with {magic!r}, expected {MAGIC!r}")
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
        order = f": it is version {swapped} in big-endian order" if swapped in VERSIONS else ""
        raise ValueError(f"its version is {version}, and {' and '.join(map(str, VERSIONS))} are read{order}")
    if count * _SMALLEST_VALUE + tensors * _SMALLEST_TENSOR > reader.left:
        raise ValueError(f"{len(data)} bytes cannot hold {count} values and {tensors} tensors")
    values, places = {}, {}
    for _ in range(count):
        name = reader.name("the name of a value")
        if name in values:
            raise ValueError(f"the value {name!r:.60} comes twice")
        values[name] = reader.value(reader.whole(_NUMBER, f"the kind of {name!r:.60}"), f"the value of {name!r:.60}")
    infos = [_tensor_info(reader) for _ in range(tensors)]
    alignment = values.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment!r:.40}, expected a power of 2")
    base = -(-reader.at // alignment) * alignment
    for name, kind, shape, offset in infos:
        if name in places:
            raise ValueError(f"the tensor {name!r:.60} comes twice")
        places[name] = _place(name, kind, shape, offset, base, alignment, len(data))
    _check_apart(places)
    return values, places


def _tensor_info(reader):
    name = reader.name("the name of a tensor")
    what = f"the tensor {name!r:.60}"
    axes = reader.whole(_NUMBER, what)
    if not 1 <= axes <= _MOST_AXES:
        raise ValueError(f"{what} has {axes} axes, expected 1 to {_MOST_AXES}")
    shape = tuple(reader.whole(_LENGTH, what) for _ in range(axes))[::-1]
    return name, reader.whole(_NUMBER, what), shape, reader.whole(_LENGTH, what)


def _place(name, kind, shape, offset, base, alignment, size):
    what = f"the tensor {name!r:.60}"
    if kind not in _TYPES:
        if kind not in _OTHER_TYPES:
            raise ValueError(f"{what} has the type {kind}, which GGUF does not have, or not yet")
        return Located(_OTHER_TYPES[kind], shape, base + offset)
    row = BLOCKS[_TYPES[kind]]
    if not all(shape) or shape[-1] % row.weights:
        raise ValueError(f"{what} has the shape {shape}, which {_TYPES[kind]}'s blocks of {row.weights} do not fill")
    nbytes = prod(shape) // row.weights * row.nbytes
    if offset % alignment or base + offset + nbytes > size:
        raise ValueError(
            f"{what} is to lie at byte {base + offset} and takes {nbytes}; the file has {size}, aligned by {alignment}"
        )
    return Located(_TYPES[kind], shape, base + offset)


def _check_apart(places):
    """ValueError where two tensors share bytes: a small file could stand for a large model."""
    end, before = 0, None
    for name, place in sorted(places.items(), key=lambda item: item[1].start):
        if place.type not in BLOCKS:
            continue
        if place.start < end:
            raise ValueError(f"the tensors {before!r:.60} and {name!r:.60} overlap")
        row = BLOCKS[place.type]
        end, before = place.start + prod(place.shape) // row.weights * row.nbytes, name


def write(path, values, tensors):
    """Write a file of version 3: values {name: Value}, tensors {name: (type of BLOCKS, shape, pieces)}

    pieces: an iterable of arrays of uint8, the raw rows in order, so that a tensor need not be in memory as a whole.
    """
    head = [_HEAD.pack(MAGIC, VERSIONS[-1], len(tensors), len(values))]
    for name, (kind, value) in values.items():
        head.append(_text(name))
        if isinstance(value, list):
            head += [
                _NUMBER.pack(_ARRAY),
                _NUMBER.pack(_KIND_OF[kind]),
                _LENGTH.pack(len(value)),
                _elements(kind, value),
            ]
        else:
            head += [_NUMBER.pack(_KIND_OF[kind]), _elements(kind, [value])]
    offset, sizes = 0, {}
    for name, (kind, shape, _) in tensors.items():
        row = BLOCKS[kind]
        head += [_text(name), _NUMBER.pack(len(shape)), *(_LENGTH.pack(n) for n in shape[::-1])]
        head += [_NUMBER.pack(row.number), _LENGTH.pack(offset)]
        sizes[name] = prod(shape) // row.weights * row.nbytes
        offset = _aligned(offset + sizes[name])
    header = b"".join(head)
    with open(path, "wb") as file:
        file.write(header.ljust(_aligned(len(header)), b"\0"))
        for name, (_, _, pieces) in tensors.items():
            written = 0
            for piece in pieces:
                write_array(file, piece)
                written += piece.nbytes
            if written != sizes[name]:
                raise ValueError(f"the tensor {name} has {written} bytes, and its shape asks for {sizes[name]}")
            file.write(bytes(_aligned(written) - written))


def _aligned(count):
    return -(-count // ALIGNMENT) * ALIGNMENT


def _text(value):
    data = value if isinstance(value, bytes) else value.encode("utf-8")
    return _LENGTH.pack(len(data)) + data


def _elements(kind, values):
    if kind == "string":
        return b"".join(map(_text, values))
    return np.array(values, KINDS[_KIND_OF[kind]][1]).tobytes()
