"""The model table of lesson 08, filled in by a reader's function, and its treemaps."""

import pytest

from minillama.catalogue.stated import STATED
from minillama.lessons import model_table
from minillama.lessons.model_table import CARD, OFF_CARD, fill_table
from tests.lessons.answers_08_table import RIGHT

RIGHT_ONES = [pytest.param(name, answer, id=name) for name in model_table.COLUMNS for answer in RIGHT[name][:1]]


def named(name, function):
    function.__name__ = name
    return function


@pytest.mark.parametrize("name, answer", RIGHT_ONES)
def test_a_right_answer_has_every_number_of_the_table(name, answer, capsys):
    fill_table(named(name, answer))
    printed = capsys.readouterr().out
    assert printed.count("  yes\n") == len(CARD) == 10 and "NO" not in printed
    assert f"models of the card: {len(CARD)}, equal to the last digit: {len(CARD)}\n" in printed
    assert f"other LLaMAs and Code Llamas: {len(OFF_CARD)}, equal to the last digit: {len(OFF_CARD)}\n" in printed


@pytest.mark.parametrize("name, answer", RIGHT_ONES)
def test_a_number_that_is_off_by_one_is_told(name, answer, capsys):
    """Of a model whose shape the checker does not try."""

    def off_by_one(V, C, L, *rest):
        return answer(V, C, L, *rest) + (L in (32, 126))

    fill_table(named(name, off_by_one))
    printed = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split()[-1] for line in printed.splitlines()}
    for model in CARD:
        wrong = model in ("llama-7b", "llama-2-7b", "llama-3-8b", "llama-3.1-405b")
        assert rows[STATED[model].label] == ("NO" if wrong else "yes")
    assert "equal to the last digit: 6\n" in printed


@pytest.mark.parametrize("name", model_table.COLUMNS)
def test_what_does_not_pass_fills_nothing(name, capsys):
    fill_table(named(name, lambda *shape: None))
    fill_table(named(name, lambda *shape: 1))
    printed = capsys.readouterr().out
    assert "not started" in printed and "wrong" in printed and "yes" not in printed


def test_other_exercises_fill_no_column():
    with pytest.raises(ValueError, match="crossing_length"):
        fill_table(named("crossing_length", lambda *shape: 1))
    with pytest.raises(ValueError, match="count_parameters"):
        fill_table(7)


def test_card_and_others_are_the_whole_family():
    assert {name for name in STATED if "llama" in name} == {*CARD, *OFF_CARD}


def test_areas_of_a_treemap_are_the_shares():
    plt = pytest.importorskip("matplotlib.pyplot")
    treemap = pytest.importorskip("minillama.lessons.treemap").treemap
    sizes = {"a": 50, "b": 20, "c": 0, "d": 20, "e": 6, "f": 4}
    axes = treemap("title", {name: (size, "blue") for name, size in sizes.items()}).axes[0]
    boxes = [patch.get_bbox() for patch in axes.patches]
    areas = [box.width * box.height for box in boxes]
    assert [100 * area / sum(areas) for area in areas] == pytest.approx([50, 20, 20, 6, 4])
    overlaps = [
        max(0, min(a.x1, b.x1) - max(a.x0, b.x0)) * max(0, min(a.y1, b.y1) - max(a.y0, b.y0))
        for i, a in enumerate(boxes)
        for b in boxes[:i]
    ]
    assert max(overlaps) < 1e-9
    texts = [text.get_text() for text in axes.texts]
    assert any(text.startswith("a") and "50%" in text for text in texts) and "the small ones: f 4.0%" in texts
    plt.close("all")
