"""The library under CPython compiled to WebAssembly (python-wasm, Python 3.11 with NumPy 1.24): without threads, Numba,
processes and locks it trains, saves, opens and writes as it does elsewhere.

    npm install --ignore-scripts --prefix build/wasm python-wasm@0.28.1
    MINILLAMA_WASM=build/wasm python -m pytest tests/test_wasm.py
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import minillama

PACKAGE = Path(minillama.__file__).parent
INSTALLED = Path(os.environ.get("MINILLAMA_WASM", "")).resolve() / "node_modules" / "python-wasm"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("wasm"),  # the program runs once
    pytest.mark.skipif(shutil.which("node") is None, reason="Node.js, which runs WebAssembly here, is not installed"),
    pytest.mark.skipif(
        "MINILLAMA_WASM" not in os.environ,
        reason="MINILLAMA_WASM names no folder with python-wasm (npm install --ignore-scripts python-wasm@0.28.1)",
    ),
]

# What both Pythons run, in a folder with a text. Written for this test: no pytest is there.
PROGRAM = """
import importlib.util, json, sys
import numpy as np
import minillama
from minillama import Config, Model, backend
from minillama.__main__ import main
from minillama.data.corpora import encode_corpus
from minillama.generation.generate import generate
from minillama.runtime.workers import can_start_threads
from minillama.training.run import Run, read_metrics
from minillama.training.trainer import Settings

said = {"numba": importlib.util.find_spec("numba") is not None, "threads": can_start_threads()}
said["python"], said["numpy"], said["platform"] = sys.version, np.__version__, sys.platform
numpy = backend.use("numpy")
numpy.__enter__()  # for all that follows
said["default"] = backend._default()
corpus = encode_corpus("text.txt", "char")
config = Config(corpus.tokenizer.vocab_size, dim=32, layers=2, heads=4, kv_heads=2, context=32)
run = Run.start("run", config, Settings(steps=20, batch_size=8, eval_every=10), corpus, threads=1)
said["loss"] = run.train(quiet=True)
said["losses"] = [row["train_loss"] for row in read_metrics("run")]
model, tokenizer = minillama.load("run", threads=1)
ids = tokenizer.encode("the red cat")
said["text"] = tokenizer.decode(list(generate(model, ids, 20, top_k=1)))
said["resumed"] = Run.resume("run", corpus, threads=1).optimizer.steps
said["again"] = float(minillama.load("run", threads=1)[0].logits(ids[None])[0, -1, 0])
try:
    said["two threads"] = minillama.load("run", threads=2)[0].workers.threads
except ValueError as error:
    said["two threads"] = str(error)
exact = Model(config, 1, np.float64, threads=1)
loss, gradients = exact.loss_and_gradients(ids[None, :-1], ids[None, 1:])
said["exact"] = [loss, float(np.abs(gradients["blocks.0.w_q"]).sum()), float(np.abs(gradients["embedding"]).sum())]
words = "train --data text.txt --out typed --tokenizer char --dim 16 --layers 1 --heads 2 --context 16 --threads 1"
said["typed"] = [main([*words.split(), "--steps", "3"]), main(["sample", "typed", "--prompt", "the", "--threads", "1"])]
open("said.json", "w", encoding="utf-8").write(json.dumps(said))
"""

# What the program raises is printed, as python-wasm tells no more than that there was something.
START = """
const {syncPython} = require(process.argv[1]);
(async () => {
    const python = await syncPython({fs: "everything"});
    python.exec(`
try:
    import os, sys
    sys.path[:0] = ${process.argv[2]}
    os.chdir(sys.path[0])
    exec(open("program.py", encoding="utf-8").read())
except BaseException:
    import traceback
    traceback.print_exc()
`);
})();
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What the program said in WebAssembly and here, and the folders that it ran in."""
    if not INSTALLED.is_dir():
        pytest.fail(f"there is no {INSTALLED}")
    site = tmp_path_factory.mktemp("site")
    with tarfile.open(INSTALLED / "dist" / "numpy.tar.xz") as archive:
        archive.extractall(site)
    shutil.copytree(PACKAGE, site / "minillama", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tqdm", "threadpoolctl"):  # pure Python, and all that is needed besides NumPy
        origin = Path(importlib.util.find_spec(name).origin)
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, site / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, site / origin.name)
    there, here = tmp_path_factory.mktemp("there"), tmp_path_factory.mktemp("here")
    for folder in (there, here):
        (folder / "text.txt").write_text("the red cat saw the blue cat and the green dog. " * 80, encoding="utf-8")
        (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    words = ["node", "-e", START, str(INSTALLED), json.dumps([str(there), str(site)])]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", timeout=300)
    assert (there / "said.json").exists(), done.stdout + done.stderr
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    subprocess.run([sys.executable, "program.py"], cwd=here, env=environment, check=True)
    said = [json.loads((folder / "said.json").read_text(encoding="utf-8")) for folder in (there, here)]
    return *said, there, here


def test_there_is_really_no_numba_and_there_are_no_threads(both):
    there, here, *_ = both
    assert there["platform"] in ("wasi", "emscripten") and there["python"].startswith("3.11.")
    assert there["numpy"].startswith("1.24.") and there["default"] == "numpy"
    assert not there["numba"] and not there["threads"] and here["threads"]
    assert here["two threads"] == 2
    assert there["two threads"] == "threads must be 1 here, as Python cannot start threads (on WebAssembly); received 2"


def test_it_trains_to_the_same_loss_as_here(both):
    there, here, *_ = both
    assert here["loss"] < here["losses"][0] and there["resumed"] == 20
    assert there["loss"] == pytest.approx(here["loss"], rel=1e-6)
    assert there["losses"] == pytest.approx(here["losses"], rel=1e-6)
    assert there["text"] == here["text"] and len(here["text"]) == 20


def test_the_commands_work_there_too(both):
    assert both[0]["typed"] == both[1]["typed"] == [0, 0]


def test_loss_and_gradients_in_float64_are_the_same(both):
    there, here, *_ = both
    assert there["exact"] == pytest.approx(here["exact"], rel=1e-12)


def test_what_was_saved_there_is_opened_here(both):
    there, _, folder, _ = both
    with minillama.backend.use("numpy"):
        model, tokenizer = minillama.load(folder / "run", threads=1)
        logits = model.logits(tokenizer.encode("the red cat")[None])
    assert float(logits[0, -1, 0]) == pytest.approx(there["again"], abs=1e-5)
