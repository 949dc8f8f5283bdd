"""A kind of weights is one file and one row; here 6-bit weights are added to a copy of the package."""

import re

from .package_copy import PackageCopy

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
ROW = '"int6": WeightKind(layout_int6, pack_int6, widen_int6, told=True, option="round the weights to 6 bits")'


def test_a_kind_of_weights_is_one_file_and_one_row(tmp_path):
    copy = PackageCopy(tmp_path)
    copy.add("ops/weights/int6.py", INT6)
    imports = "from ..ops.weights.int6 import layout_int6, pack_int6, widen_int6"
    copy.add_row("weights/__init__.py", "WEIGHT_KINDS", ROW, imports)
    # Layout, rounding, refusals; decoding, reading and losses of whole models.
    copy.passes("int6 and not shared", 30, "test_weights.py")
    copy.train("--dim", "64")
    assert copy.command("sample", "run", "--prompt", "to", "--int6", "--max-tokens", "5").startswith("to")
    row = r"^text.txt +\S+ +\S+ +([\d.]+)"  # tokens, bytes, perplexity
    rounded, exact = (
        float(re.search(row, copy.command("perplexity", "run", "text.txt", *more), re.MULTILINE)[1])
        for more in (["--int6"], [])
    )
    assert 0 < abs(rounded / exact - 1) < 0.02, (rounded, exact)
    told = re.search(r"weights in int6 +([\d.]+) MB  \(with their scales\)", copy.command("info", "run"))
    script = "import minillama; from minillama.weights.quantize import quantize; m, _ = minillama.load('run')"
    held = copy.python("-c", f"{script}; print(quantize(m, 'int6').nbytes)")
    assert float(told[1]) == round(int(held.stdout) / 1e6, 1)
    refused = copy.command("sample", "run", "--int6", "--int8", code=2)
    assert "--int8" in refused and "--int6" in refused
    assert copy.touched == {"ops/weights/int6.py", "weights/__init__.py"}
