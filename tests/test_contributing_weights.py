"""A kind of weights is one file and one row; here 6-bit weights are added to a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import minillama

INT6 = '''"""6-bit weights: four of them in three bytes, a float32 scale for each GROUP of a row."""

import numpy as np

GROUP = 32


def layout_int6(columns):
    return {"packed": (np.uint8, 3 * -(-columns // 4)), "scales": (np.float32, -(-columns // GROUP))}


def pack_int6(weight):
    """q = round(w / scale) + 32,   scale = max |w| / 31 over each group"""
    if not np.isfinite(weight).all():
        raise ValueError("the weights are not all finite: this model is damaged, or its training diverged")
    R, C = weight.shape
    padded = np.zeros((R, GROUP * -(-C // GROUP)))
    padded[:, :C] = weight
    groups = padded.reshape(R, -1, GROUP)
    scales = (abs(groups).max(axis=2) / 31).astype(np.float32)
    q = np.rint(groups / np.where(scales == 0, 1, scales)[:, :, None]).clip(-31, 31).reshape(R, -1) + 32
    a, b, c, d = np.moveaxis(q[:, : 4 * -(-C // 4)].astype(np.uint8).reshape(R, -1, 4), 2, 0)
    packed = np.stack([a | b << 6, b >> 2 | c << 4, c >> 4 | d << 2], axis=2)
    return packed.reshape(R, -1), scales


def widen_int6(packed, scales):
    """w = scale (q - 32): packed uint8 (R, 3 ceil(C / 4)), scales float32 (R, ceil(C / GROUP)) -> (R, 4 ceil(C / 4))"""
    x, y, z = np.moveaxis(packed.reshape(len(packed), -1, 3), 2, 0)
    q = np.stack([x & 63, (x >> 6 | y << 2) & 63, (y >> 4 | z << 4) & 63, z >> 2], axis=2).reshape(len(packed), -1)
    return (q.astype(np.float32) - 32) * np.repeat(scales, GROUP, axis=1)[:, : q.shape[1]]
'''
ROW = """    "int6": WeightKind(layout_int6, pack_int6, widen_int6, told=True, option="round the weights to 6 bits"),
"""


def test_a_kind_of_weights_is_one_file_and_one_row(tmp_path):
    source = Path(minillama.__file__).parent
    package = tmp_path / "minillama"
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(__file__).parent, tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "ops/weights/int6.py").write_text(INT6, encoding="utf-8")
    table = package / "weights/__init__.py"
    text = table.read_text(encoding="utf-8")
    text = text.replace("WEIGHT_KINDS = {\n", "WEIGHT_KINDS = {\n" + ROW)
    imports = "from ..ops.weights.int6 import layout_int6, pack_int6, widen_int6\n"
    text = text.replace("from ..ops.weights.int8 import", imports + "from ..ops.weights.int8 import")
    table.write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "MINILLAMA_CACHE": str(tmp_path / "cache")}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
        )

    def command(*words):
        in_numpy = (  # a new kind has no kernel, and to compile the others for this copy takes a while
            "import sys; from minillama import backend, __main__\n"
            "with backend.use('numpy'): sys.exit(__main__.main(sys.argv[1:]))"
        )
        done = run("-c", in_numpy, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    tests = run("-m", "pytest", "-q", "-k", "int6 and not numba and not shared", "tests/test_weights.py")
    assert tests.returncode == 0, tests.stdout[-3000:]
    passed = int(tests.stdout.split(" passed")[0].split()[-1])
    assert passed >= 30, tests.stdout  # layout, rounding, refusals; decoding, reading and losses of whole models
    (tmp_path / "text.txt").write_text("to be or not to be " * 200, encoding="utf-8")
    options = "--data text.txt --tokenizer char --dim 64 --layers 1 --heads 2 --context 16 --steps 3 --threads 1"
    command("train", "--out", "run", *options.split())
    assert command("sample", "run", "--prompt", "to", "--int6", "--max-tokens", "5").startswith("to")
    row = r"^text.txt +\S+ +\S+ +([\d.]+)"  # tokens, bytes, perplexity
    rounded, exact = (
        float(re.search(row, command("perplexity", "run", "text.txt", *more), re.MULTILINE)[1])
        for more in (["--int6"], [])
    )
    assert 0 < abs(rounded / exact - 1) < 0.02, (rounded, exact)
    told = re.search(r"weights in int6 +([\d.]+) MB  \(with their scales\)", command("info", "run"))
    script = "import minillama; from minillama.weights.quantize import quantize; m, _ = minillama.load('run')"
    held = run("-c", f"{script}; print(quantize(m, 'int6').nbytes)")
    assert float(told[1]) == round(int(held.stdout) / 1e6, 1), held.stderr
    refused = run("-c", "from minillama.__main__ import main; main()", "sample", "run", "--int6", "--int8")
    assert refused.returncode == 2 and "--int8" in refused.stderr and "--int6" in refused.stderr, refused.stderr
