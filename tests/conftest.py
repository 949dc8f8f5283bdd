"""What several tests share."""

import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

import minillama
from minillama import backend

# Compiled kernels are kept from one test run to the next, under a name that changes with any kernel's code.
_package = Path(minillama.__file__).parent
_code = [path.read_bytes() for path in sorted([*_package.glob("kernels/**/*.py"), *_package.glob("ops/**/*.py")])]
_name = "minillama-kernels-" + hashlib.sha256(b"".join(_code)).hexdigest()[:16]
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / _name))

BACKENDS = ["numpy", *(["numba"] if importlib.util.find_spec("numba") else [])]


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    os.environ["MINILLAMA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=BACKENDS)
def each_backend(request):
    """The test runs once with each backend that is installed."""
    with backend.use(request.param):
        yield request.param


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def assets():
    """The folder of larger files that MINILLAMA_ASSETS names."""
    folder = os.environ.get("MINILLAMA_ASSETS")
    if not folder:
        pytest.skip("MINILLAMA_ASSETS is not set")
    return Path(folder).resolve()


@pytest.fixture(autouse=True)
def small_models_are_worth_sharing(monkeypatch):
    """The models of the tests are so small that one worker would compute them alone."""
    monkeypatch.setattr("minillama.shards.WORK_WORTH_SHARING", 0)
