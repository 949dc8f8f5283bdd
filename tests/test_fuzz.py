"""Damaged and hostile files: an error that explains, and never a crash, a hang or memory that the file does not justify

Each case mutates one file of a small model and opens it. How many cases there are is MINILLAMA_FUZZ, by default a few
hundred; a failure names the number of its case, which makes the same file again.
"""

import copy
import faulthandler
import json
import math
import os
import random
import shutil
import struct
import time
import tracemalloc

import pytest

import minillama
from minillama import Config, Model
from minillama.catalogue.presets import FAMILIES
from minillama.checkpoint import gguf, llama2c
from minillama.checkpoint.tensors import TensorFiles
from minillama.tokenizers import BPETokenizer
from tests.test_formats import meta_model, write_meta

CASES = int(os.environ.get("MINILLAMA_FUZZ", 400))
SECONDS = 1.0  # of the processor, for one file
ALLOWED = 2**25  # bytes, besides four times the file: see minillama.checkpoint.bounds
SHAPE = dict(vocab_size=11, dim=16, layers=2, heads=4, ffn=12, context=8)

POWERS = [2**16, 2**24, 2**31, 2**32, 2**40, 2**63, 2**64, 10**30, 10**400]
NUMBERS = [0, 1, -1, 2, 3, 7, 8, 15, 16, 17, 255, 2**31 - 1, 2**63 - 1, *POWERS]
FLOATS = [0.5, 1.0, -0.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan")]
TEXTS = ["", "8", "llama", "gpt2", "yarn", "x" * 5000, "../../etc/passwd", "\x00", "\ud800"]
ROPES = [{"rope_type": "yarn", "factor": 2**62}, {"rope_type": "dynamic", "factor": 1e300}, {"rope_type": "llama3"}]
VALUES = [*NUMBERS, -(2**31), *FLOATS, *TEXTS, *ROPES, None, True, False, [], {}, [[]], [0, 2**63], {"a": 1}]


def folder(path, **changes):
    minillama.save(Model(Config(**{**SHAPE, **changes}), seed=1, threads=1), path)


def in_parts(path):
    folder(path)
    os.rename(path / "model.safetensors", path / "a.safetensors")
    places = {name: "a.safetensors" for name in TensorFiles([path / "a.safetensors"])}
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def yarn(path):
    folder(path, rope_scaling="yarn", rope_factor=2.0, rope_original_context=4)
    values = json.loads((path / "config.json").read_text())
    values["rope_parameters"]["attention_factor"] = values["rope_scaling"]["attention_factor"] = 1 + 0.1 * math.log(2)
    (path / "config.json").write_text(json.dumps(values))


def binary(path, **options):
    path.mkdir()
    llama2c.save(path / "model.bin", Model(Config(**SHAPE, tied=True), seed=1, threads=1), **options)


def in_gguf(path):
    path.mkdir()
    tokenizer = BPETokenizer.train("Once upon a time there was a dog.", 260)
    shape = {**SHAPE, "vocab_size": tokenizer.vocab_size, "dim": 32, "ffn": 64}
    config = Config(**shape, rope_scaling="llama3", rope_factor=2.0)
    gguf.save(path / "model.gguf", Model(config, seed=1, threads=1), tokenizer, type="Q8_0")


# The choices of models whose config.json is mutated.
DYNAMIC = {"rope_scaling": "dynamic", "rope_factor": 2.0, "rope_original_context": 4}
CONFIGS = {**FAMILIES, "dynamic": DYNAMIC, "native": {"position": "sinusoidal"}}
# {what is opened: (how it is made, the file that is mutated, what of the folder is opened)}
TARGETS = {
    "safetensors": (folder, "model.safetensors", "."),
    "yarn": (yarn, "config.json", "."),
    "index": (in_parts, "model.safetensors.index.json", "."),
    "llama2c": (binary, "model.bin", "model.bin"),
    "llama2c int8": (lambda path: binary(path, int8=True), "model.bin", "model.bin"),
    "gguf": (in_gguf, "model.gguf", "model.gguf"),
    "meta": (lambda path: write_meta(path, meta_model(), 2), "params.json", "."),
    "meta safetensors": (lambda path: write_meta(path, meta_model(), 2), "consolidated.01.safetensors", "."),
    **{name: (lambda path, c=changes: folder(path, **c), "config.json", ".") for name, changes in CONFIGS.items()},
}


def mutated_bytes(rng, data, head):
    """Some bytes of the head, or of the whole, are others, too many or missing."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        end = max(1, rng.choice([head, head, len(data)]))
        at, kind = rng.randrange(end), rng.randrange(7)
        if kind == 0:
            data[at : at + 1] = bytes([data[at] ^ 1 << rng.randrange(8)]) if at < len(data) else b""
        elif kind == 1:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 2:
            at -= at % 4
            data[at : at + 4] = struct.pack("<I", rng.choice(NUMBERS) % 2**32)
        elif kind == 3:
            data[at : at + 8] = struct.pack("<Q", rng.choice(NUMBERS) % 2**64)
        elif kind == 4:
            del data[at : at + rng.choice([1, 4, 100])]
        elif kind == 5:
            data[at:at] = rng.randbytes(rng.choice([1, 4, 100]))
        else:
            del data[at:]
        if not data:
            break
    return bytes(data)


def mutated_json(rng, values):
    """A key somewhere has another value, another name or is missing, or there is one more."""
    values = json.loads(json.dumps(values))
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        place = values
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
                place = place[key]
                continue
            kind = rng.randrange(8)
            if kind == 0:
                del place[key]
            elif kind == 1 and isinstance(place, dict):
                place[rng.choice(["x", key + "s", key[1:], ""])] = place.pop(key)
            elif kind == 2 and isinstance(place, dict):
                place[rng.choice([*keys, "new"])] = copy.deepcopy(place[rng.choice(keys)])
            elif kind == 3 and isinstance(place[key], int | float) and not isinstance(place[key], bool):
                place[key] = rng.choice([place[key] * 2, place[key] + 1, -place[key], place[key] * 2**40])
            else:
                place[key] = copy.deepcopy(rng.choice(VALUES))
            break
        if not isinstance(values, dict) or not values:
            break
    return json.dumps(rng.choice([values] * 30 + [[values], None, 3]))


def mutated(rng, name, data):
    """The content of a mutated file."""
    if name.endswith(".json") and rng.random() < 0.8:
        return mutated_json(rng, json.loads(data)).encode("utf-8", "replace")
    if name.endswith(".safetensors"):
        length = int.from_bytes(data[:8], "little")
        if rng.random() < 0.6:
            head = mutated_json(rng, json.loads(data[8 : 8 + length])).encode("utf-8", "replace")
            return struct.pack("<Q", len(head)) + head + data[8 + length :]
        return mutated_bytes(rng, data, rng.choice([8, 8 + length]))
    return mutated_bytes(rng, data, {"model.bin": 44}.get(name, len(data)))


@pytest.mark.parametrize("target", TARGETS)
def test_mutated_files(target, tmp_path):
    make, name, opened = TARGETS[target]
    original = tmp_path / "original"
    make(original)
    data, opened = (original / name).read_bytes(), original / opened
    minillama.load(opened, threads=1)  # it opens; and what is compiled or imported at first is
    refused = 0
    for case in range(-(-CASES // len(TARGETS))):
        (original / name).write_bytes(mutated(random.Random(f"{target} {case}"), name, data))
        size = sum(path.stat().st_size for path in original.iterdir())
        faulthandler.dump_traceback_later(60, exit=True)
        tracemalloc.start()
        start = time.process_time()
        try:
            minillama.load(opened, threads=1)
        except (ValueError, OSError) as error:
            refused += 1
            assert len(str(error)) > 20, f"case {case}: {error!r}"
        except BaseException as error:
            pytest.fail(f"case {case}: {error!r}")
        seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        faulthandler.cancel_dump_traceback_later()
        assert seconds < SECONDS, f"case {case} took {seconds:.2f} s"
        assert peak < ALLOWED + 4 * size, f"case {case} took {peak:,} bytes for files of {size:,}"
    assert refused > 0
    shutil.rmtree(original)
