"""What several tests share."""

import hashlib
import os
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest

import minillama
from minillama import __main__, backend
from minillama.cli.commands import make_parser
from minillama.gradcheck import numerical_gradient, relative_error
from minillama.runtime.workers import available_threads

# Compiled kernels are kept from one test run to the next, under a name that changes with any kernel's code.
_package = Path(minillama.__file__).parent
_code = [path.read_bytes() for path in sorted([*_package.glob("kernels/**/*.py"), *_package.glob("ops/**/*.py")])]
_name = "minillama-kernels-" + hashlib.sha256(b"".join(_code)).hexdigest()[:16]
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / _name))

BACKENDS = ["numpy", *(["numba"] if backend.missing_kernels() is None else [])]
needs_kernels = pytest.mark.skipif("numba" not in BACKENDS, reason=f"there are no kernels: {backend.missing_kernels()}")
each_precision = pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-12)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """What -n auto means: the processors of this process, also where two of them are halves of one core."""
    return available_threads()


# An operation's case is a function make(op, rng, dtype, *choices) -> inputs, forward, backward: the arrays that are
# differentiated, by name; forward() -> y from these arrays as they now are; backward(dy) -> their gradients by name.


def check_gradient(make, choices, rng):
    """The gradients of a case with the active backend against finite differences."""
    inputs, forward, backward = make(backend.active(), rng, np.float64, *choices)
    weights = rng.standard_normal(forward().shape)  # of the outputs, in the number that is differentiated
    gradients = backward(weights)
    assert gradients.keys() == inputs.keys()
    for name, x in inputs.items():
        numerical = numerical_gradient(lambda: float(np.sum(weights * forward())), x)
        assert relative_error(gradients[name], numerical) < 1e-7, name


def check_kernel(make, choices, dtype, tolerance):
    """Values and gradients of a case with kernels against the NumPy specification."""
    results = []
    for name in ("numpy", "numba"):
        _, forward, backward = make(backend.load(name), np.random.default_rng(1), dtype, *choices)
        y = forward()
        dy = np.random.default_rng(2).standard_normal(y.shape).astype(dtype)
        results.append({"y": y, **backward(dy)})
    for name, expected in results[0].items():
        assert results[1][name].dtype == expected.dtype == dtype, name
        assert relative_error(results[1][name], expected) < tolerance, name


def whole_parser():
    """The parser of the command line, in which every command has its arguments."""
    parser = make_parser()
    waiting = [parser]
    while waiting:
        inner = waiting.pop().complete()._inner()
        waiting += [] if inner is None else inner.choices.values()
    return parser


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    os.environ["MINILLAMA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=BACKENDS)
def each_backend(request):
    """The test runs once with each backend that is installed."""
    with backend.use(request.param):
        yield request.param


@pytest.fixture(autouse=True, scope="session")
def heeds_signals():
    """Tests that raise signals pass in a background job of a shell's script too, which is started to ignore SIGINT, and
    under nohup, which has SIGHUP ignored."""
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    if hasattr(signal, "SIGHUP"):
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def cli(capsys):
    """cli(*arguments): what the command line gives, (exit code, standard output, standard error)."""

    def run(*arguments):
        code = __main__.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


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
    monkeypatch.setattr("minillama.runtime.shards.WORK_WORTH_SHARING", 0)
