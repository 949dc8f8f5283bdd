"""A run that an older version began goes on with the numbers that the older version would have had.

tests/run_before/run was made by the version before optimizers and schedules were tables (commit 05b00a8): 6 of 12 steps
on text.txt by characters, with dropout. expected.json has what that version computed from there on, for each backend:
loss, length of the gradient and learning rate of each step, the last validation loss, and digests of the weights and
the two moments; weights.npy has the weights themselves, by the NumPy operations.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from minillama.data.corpora import encode_corpus
from minillama.training.run import Run, read_state
from minillama.training.trainer import Settings

HERE = Path(__file__).parent / "run_before"


def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(HERE / "run", tmp_path / "run"))


def test_it_is_read_with_defaults_for_what_it_lacks(folder):
    state = read_state(folder)
    settings = Settings.saved(state["settings"])
    assert state["step"] == 6 and settings.lr == 0.01 and settings.warmup == 3 and state["origin"] is None
    assert settings.optimizer == "adamw" and settings.schedule == "cosine" and settings.window is None


def test_it_goes_on_as_it_would_have_before(folder, each_backend):
    expected = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))[each_backend]
    run = Run.resume(folder, encode_corpus(HERE / "text.txt", "char"))
    _, gradients = run.model.loss_and_gradients(*run.batches[6])
    # Products of matrices are summed up in another order on another processor; then the last bits differ from here on.
    same = digest(gradients.flat) == expected["gradient"]
    for step in expected["steps"]:
        wanted, received = [float.fromhex(number) for number in step], run.step()
        assert received[2] == wanted[2] and list(received) == (wanted if same else pytest.approx(wanted, rel=1e-5))
    loss = float.fromhex(expected["loss"])
    assert run.evaluate() == (loss if same else pytest.approx(loss, rel=1e-5))
    np.testing.assert_allclose(run.model.parameters.flat, np.load(HERE / "weights.npy"), rtol=0, atol=1e-4)
    if same:
        found = {"weights": run.model.parameters.flat, **run.optimizer.state}
        assert {name: digest(array) for name, array in found.items()} == {name: expected[name] for name in found}


def test_the_command_line_goes_on_with_it(folder, cli):
    code, out, _ = cli("train", "--out", folder, "--data", HERE / "text.txt", "--resume")
    assert code == 0 and "at step 6 of 12" in out and read_state(folder)["step"] == 12
