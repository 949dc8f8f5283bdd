"""Files of safetensors as minillama reads and writes them, against the library of that name."""

import copy
import json
import random
import re

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from minillama.checkpoint.tensors import TensorFiles, kind_of, write_tensors

TENSORS = {
    "blocks.0.w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "ü": np.float64([[1.5]]),
    "half": np.float16([1, 2, 3]),
    "none": np.zeros((0, 4), np.float32),
    "scalar": np.array(7, np.float32),
}


def test_the_bytes_written_are_those_of_the_library(tmp_path):
    metadata = {"format": "pt"}
    write_tensors(tmp_path / "ours", {name: (kind_of(array), array) for name, array in TENSORS.items()}, metadata)
    save_file(TENSORS, tmp_path / "theirs", metadata)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    write_tensors(tmp_path / "ours", {"a": ("F32", TENSORS["blocks.0.w"].T)}, {"run": '{"step": 1}'})
    np.testing.assert_array_equal(load_file(tmp_path / "ours")["a"], TENSORS["blocks.0.w"].T)
    with safe_open(tmp_path / "ours", "np") as file:
        assert file.metadata() == {"run": '{"step": 1}'} == TensorFiles([tmp_path / "ours"]).metadata


def test_what_the_library_wrote_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "a", {"who": "they"})
    save_file({"b": np.float32([1])}, tmp_path / "b")  # without metadata
    read = TensorFiles([tmp_path / "a", tmp_path / "b"])
    assert dict(read) == {name: array.shape for name, array in TENSORS.items()} | {"b": (1,)}
    assert read.metadata == {"who": "they"}
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(read.raw(name), array)
        target = np.full(array.shape or 1, np.nan, np.float64)
        read.read_into(target, name)
        np.testing.assert_array_equal(target.reshape(array.shape), array)
    np.testing.assert_array_equal(read.read("ü"), TENSORS["ü"])


HEADER = {
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "U8", "shape": [], "data_offsets": [8, 9]},
}


def file_of(header, numbers=bytes(9), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + numbers


def changed(tensor, **entries):
    return {**HEADER, tensor: HEADER[tensor] | entries}


# {what is wrong: (the file, what the message says)}
DAMAGED = {
    "nothing": (b"", "0 bytes cannot hold a header"),
    "seven bytes": (bytes(7), "7 bytes cannot hold a header"),
    "no header": (bytes(8), "Expecting value"),
    "a header beyond the end": (file_of(HEADER, length=10**4), "cannot hold a header of 10000"),
    "a header beyond all bounds": (file_of(HEADER, length=2**63), "cannot hold a header of 9223372036854775808"),
    "not UTF-8": (file_of(b'{"\xff": 1}'), "can't decode byte 0xff"),
    "no JSON": (file_of(b"{,}"), "property name"),
    "no object": (file_of([HEADER]), "the header is no object"),
    "deeply nested": (file_of(b"[" * 10**5), "recursion"),
    "metadata that is no text": (file_of({"__metadata__": {"a": 1}, **HEADER}), "__metadata__"),
    "metadata that is no object": (file_of({"__metadata__": [], **HEADER}), "__metadata__"),
    "an entry that is no object": (file_of({"a": 3}), "the entry of a lacks"),
    "an entry without a shape": (file_of({"a": {"dtype": "F32", "data_offsets": [0, 9]}}), "the entry of a lacks"),
    "an unknown kind": (file_of(changed("a", dtype="F33")), "unknown dtype 'F33'"),
    "a kind that is no text": (file_of(changed("a", dtype=[])), r"unknown dtype \[\]"),
    "a size below 0": (file_of(changed("a", shape=[-1, -2])), "whole numbers of at least 0"),
    "a size that is a fraction": (file_of(changed("a", shape=[2.0])), "whole numbers of at least 0"),
    "a size that is true": (file_of(changed("b", shape=[True])), "whole numbers of at least 0"),
    "a shape that is a number": (file_of(changed("a", shape=2)), "whole numbers of at least 0"),
    "three offsets": (file_of(changed("a", data_offsets=[0, 8, 8])), "other offsets than its shape"),
    "offsets that run backwards": (file_of(changed("a", data_offsets=[8, 0])), "other offsets than its shape"),
    "more numbers than bytes": (file_of(changed("a", shape=[3])), "other offsets than its shape"),
    "half a byte": (file_of(changed("b", dtype="F4", shape=[1])), "other offsets than its shape"),
    "an overlap": (file_of(changed("a", data_offsets=[1, 9]), bytes(10)), "the numbers of a begin at byte 1"),
    "a gap": (file_of(changed("b", data_offsets=[9, 10]), bytes(10)), "the numbers of b begin at byte 9"),
    "less than there should be": (file_of(HEADER, bytes(8)), "the tensors take 9 bytes, and there are 8"),
    "more than there should be": (file_of(HEADER, bytes(10)), "the tensors take 9 bytes, and there are 10"),
    "a name that comes twice": (
        file_of(b'{"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}, "a": {"dtype": "U8", "shape": [9], '
                b'"data_offsets": [0, 9]}}'),
        "a name comes twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_refused_with_the_reason(tmp_path, what):
    content, message = DAMAGED[what]
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=f"(?s)a is truncated or not a safetensors file .*{message}.*; copy it again"):
        TensorFiles([tmp_path / "a"])


VALUES = [0, 1, 3, 8, 12, -1, 2**63, 1.5, True, None, "x", [], [0, 4], {}, "F16", "I64", "F8_E4M3", "BOOL"]


def mutated(rng, header, numbers):
    """A file that was damaged in its header, a text or the numbers."""
    header = copy.deepcopy(header)
    for _ in range(rng.choice([1, 1, 2])):
        name = rng.choice([name for name in header if name != "__metadata__"])
        kind = rng.randrange(6)
        entry = header[name]
        if kind == 0:
            entry[rng.choice(["dtype", "shape", "data_offsets", "more"])] = copy.deepcopy(rng.choice(VALUES))
        elif kind == 1:
            for each in ("shape", "data_offsets"):
                if isinstance(entry.get(each), list) and entry[each]:
                    entry[each][rng.randrange(len(entry[each]))] = rng.choice([0, 1, 2, 4, 6, 8, 24])
        elif kind == 2:
            entry.pop(rng.choice(sorted(entry)), None)
            if not entry:
                break
        elif kind == 3:
            header["more"] = copy.deepcopy(entry)
        elif kind == 4:
            header["__metadata__"] = rng.choice([{"a": "b"}, {"a": 1}, [], {}, "x"])
        else:
            numbers = numbers[: rng.randrange(len(numbers) + 1)] + bytes(rng.choice([0, 0, 1, 4]))
    data = bytearray(file_of(header, numbers))
    if rng.random() < 0.2:
        data[rng.randrange(8 + len(json.dumps(header)))] = rng.randrange(256)
    return bytes(data)


def test_the_library_opens_what_we_open_and_refuses_what_we_refuse(tmp_path):
    """But for a name that comes twice, which the format forbids and the library takes."""
    rng, path, opened = random.Random(0), tmp_path / "a", 0
    save_file(TENSORS, path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, numbers = json.loads(data[8 : 8 + length]), data[8 + length :]
    for case in range(4000):
        path.write_bytes(mutated(rng, header, numbers))
        try:
            with safe_open(path, "np") as file:
                theirs = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        except SafetensorError:
            theirs = None
        try:
            ours = dict(TensorFiles([path]))
        except ValueError as error:
            ours = None
            assert re.search("truncated or not a safetensors file .*copy it again", str(error), re.DOTALL), case
            if "comes twice" in str(error):
                continue
        assert ours == theirs, (case, path.read_bytes())
        opened += ours is not None
    assert 200 < opened < 3000


def test_the_header_is_read_and_not_the_numbers(tmp_path):
    """A file of 100 GB, most of which no disk holds, has its names at once."""
    text = json.dumps({"a": {"dtype": "F32", "shape": [25 * 10**9], "data_offsets": [0, 10**11]}}).encode()
    with open(tmp_path / "a", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        try:
            file.truncate(8 + len(text) + 10**11)
        except OSError:
            pytest.skip("this file system has no files with holes")
    assert dict(TensorFiles([tmp_path / "a"])) == {"a": (25 * 10**9,)}
