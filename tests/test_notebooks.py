"""The tour and the lessons run from a clean kernel within their time, and their outputs and claims still hold."""

import copy
import hashlib

import pytest

from minillama.data.downloads import DOWNLOADS
from minillama.lessons import notebooks
from minillama.lessons.frames import frame_of

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
    assert seconds[path.name] < frame_of(kept).seconds


def test_the_exported_figures_are_those_of_the_lessons(tmp_path):
    made = notebooks.export_figures(tmp_path)
    kept = notebooks.FOLDER.parent / "figures" / "course"
    assert {path.name for path in made} == {path.name for path in kept.iterdir()}
    for path in made:
        again = f"python -m minillama.lessons figures {kept} --overwrite"
        assert path.read_bytes() == (kept / path.name).read_bytes(), again


def test_the_weights_of_the_tour_are_those_that_were_published():
    for file in DOWNLOADS["stories260K"].files:
        content = (notebooks.FOLDER / "data" / file.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)
    told = (notebooks.FOLDER / "data" / "README.md").read_text(encoding="utf-8")
    assert "stories260K.bin" in told and "MIT License" in told and "Copyright (c) 2023 Andrej" in told


def test_the_tour_comes_first():
    assert [notebooks.name_of(path) for path in LESSONS][:2] == ["tour", "00"]
    index = (notebooks.FOLDER / "index.md").read_text(encoding="utf-8")
    assert index.index("(tour.ipynb)") < index.index("(00-") and index.index("\ntour\n") < index.index("[0-9]*")
    first_screen = (notebooks.FOLDER.parent / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
    assert "(notebooks/tour.ipynb)" in first_screen
