"""Protocol buffers as they lie in a file: numbered fields, each a varint, 4 or 8 bytes, or a length and bytes.

https://protobuf.dev/programming-guides/encoding. What the numbers mean is up to the message; a field may come several
times, and of one that should come once the last counts.
"""

import struct
from collections import defaultdict

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # wire types


def read_message(data: bytes) -> dict[int, list[int | bytes]]:
    """The values of each field of a message: an int for a varint, else the bytes; ValueError if they are no message."""
    fields: defaultdict[int, list[int | bytes]] = defaultdict(list)
    place = 0
    while place < len(data):
        key, place = _read_varint(data, place)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError(f"a protocol buffer has the field number 0 before byte {place}")
        if kind == _VARINT:
            value, place = _read_varint(data, place)
        else:
            if kind == _BYTES:
                size, place = _read_varint(data, place)
            elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
                size = 8 if kind == _EIGHT_BYTES else 4
            else:
                raise ValueError(f"a protocol buffer has a field of the wire type {kind} before byte {place}")
            if size > len(data) - place:
                raise ValueError(f"a protocol buffer ends within a field of {size} bytes that begins at byte {place}")
            value = data[place : place + size]
            place += size
        fields[number].append(value)
    return fields


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """An unsigned integer of up to 64 bits, seven bits a byte, the lowest first; and the place after it."""
    value = 0
    for i, byte in enumerate(data[place : place + 10]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, place + i + 1
    raise ValueError(f"a protocol buffer has an integer without an end at byte {place}")


def integer(fields: dict, number: int, default: int) -> int:
    """A varint field as an int of 64 bits with a sign."""
    value = _last(fields, number, int, default)
    return value - (1 << 64) if value >= 1 << 63 else value


def real(fields: dict, number: int, default: float) -> float:
    value = _last(fields, number, bytes, struct.pack("<f", default))
    if len(value) != 4:
        raise ValueError(f"field {number} of a protocol buffer has {len(value)} bytes, expected a float32")
    return struct.unpack("<f", value)[0]


def string(fields: dict, number: int, default: str) -> str:
    value = _last(fields, number, bytes, default.encode())
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"field {number} of a protocol buffer is {value[:40]!r}, expected UTF-8") from error


def message(fields: dict, number: int) -> dict[int, list[int | bytes]]:
    return read_message(_last(fields, number, bytes, b""))


def _last(fields: dict, number: int, kind: type, default):
    values = fields.get(number) or [default]
    if not isinstance(values[-1], kind):
        raise ValueError(f"field {number} of a protocol buffer is {values[-1]!r:.40}, expected {kind.__name__}")
    return values[-1]
