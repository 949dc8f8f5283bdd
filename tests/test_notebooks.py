"""The lessons run from a clean kernel within their time, and their outputs and claims still hold."""

import copy

import pytest

from minillama.lessons import notebooks

LESSONS = notebooks.paths()
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seconds():
    taken = {}
    yield taken
    print("\n" + "\n".join(f"{name}: {s:.0f} s" for name, s in taken.items()))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_the_frame_of_all(path):
    assert notebooks.faults(notebooks.read(path)) == []


@pytest.mark.alone  # it is timed, and so are things in it
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_runs_and_says_what_it_said(path, seconds):
    kept = notebooks.read(path)
    fresh = copy.deepcopy(kept)
    seconds[path.name] = notebooks.execute(fresh)
    assert notebooks.differences(kept, fresh) == []
    assert seconds[path.name] < notebooks.SECONDS


def test_the_exported_figures_are_those_of_the_lessons(tmp_path):
    made = notebooks.export_figures(tmp_path)
    kept = notebooks.FOLDER.parent / "figures" / "course"
    assert {path.name for path in made} == {path.name for path in kept.iterdir()}
    for path in made:
        again = f"python -m minillama.lessons figures {kept} --overwrite"
        assert path.read_bytes() == (kept / path.name).read_bytes(), again
