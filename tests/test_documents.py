"""What README, guide and course pages say: their commands exist, and their numbers are those of the results."""

import json
import re
import shlex
from pathlib import Path

import pytest

from minillama.experiments.families import table
from minillama.experiments.report import report
from minillama.experiments.results import read
from minillama.lessons.__main__ import _parser as parser_of_lessons

from .conftest import whole_parser

ROOT = Path(__file__).parents[1]
GUIDE = sorted((ROOT / "notebooks" / "guide").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "notebooks").glob("*.md")), *GUIDE]
FAMILIES, CHOICES = (ROOT / "notebooks" / "guide" / f"{name}.md" for name in ("families", "choices"))
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?")


def read_page(path):
    return path.read_text(encoding="utf-8")


def commands(text, program="minillama|python -m minillama"):
    """The lines of the blocks of shell that call minillama, or another program, as lists of words."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            called = re.match(f"(?:{program}) ", line)
            if called:
                yield shlex.split(line[called.end() :], comments=True)


def test_the_commands_of_a_block_are_found():
    text = "```sh\nminillama train \\\n    --steps 3    # why\nmake demo\npython -m minillama info x\n```\nminillama"
    assert list(commands(text)) == [["train", "--steps", "3"], ["info", "x"]]
    found = [list(commands(read_page(path), re.escape("python -m minillama.lessons"))) for path in PAGES]
    assert sum(map(len, found)) > 8


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_command_of_a_page_is_one(path):
    for words in commands(read_page(path)):
        whole_parser().parse_args([word for word in words if word != "..."])
    for words in commands(read_page(path), re.escape("python -m minillama.lessons")):
        parser_of_lessons().parse_args(words)


def test_readme_is_short_and_leads_to_every_page_of_the_guide():
    readme = read_page(ROOT / "README.md")
    assert len(readme.splitlines()) <= 200
    for path in GUIDE:
        assert f"(notebooks/guide/{path.name})" in readme, path.name
    index = read_page(ROOT / "notebooks" / "index.md")
    assert all(f"guide/{path.stem}" in index for path in GUIDE)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_to_files_of_the_repository_lead_to_one(path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", read_page(path)):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (path.parent / target).exists(), target


def test_a_result_of_the_readme_stands_on_the_page_that_it_names():
    rows = [line for line in read_page(ROOT / "README.md").splitlines() if line.startswith("| ") and "guide/" in line]
    assert len(rows) >= 8
    for row in rows:
        _, _, result, command, link, _ = row.split("|")
        page = read_page(ROOT / re.search(r"\((.*)\)", link)[1])
        for number in _NUMBER.findall(result):
            assert number in _NUMBER.findall(page), f"{number} of {result!r} stands on no line of {link}"
        assert re.search(r"`minillama (\w+)", command)[1] in page


def test_the_comparison_of_families_is_that_of_its_results():
    rows = [json.loads(line) for line in read_page(ROOT / "figures" / "comparison.jsonl").splitlines()]
    assert table(rows).strip() in read_page(FAMILIES)


def test_the_numbers_of_the_ablation_are_those_of_its_results():
    """p values and differences in the text behind the figures; the report is what `ablate report` prints."""
    found = report(read([ROOT / "figures" / "ablation"]))
    assert found.strip() == read_page(ROOT / "figures" / "ablation" / "report.md").strip()
    printed = {f"{abs(float(number)):.2f}" for number in re.findall(r"[-+]?\d+\.\d+", found)}
    printed |= {f"{abs(float(number)):.3f}" for number in re.findall(r"[-+]?\d+\.\d+", found)}
    text = read_page(CHOICES).split("ablation-ladder.png)")[1].split("ablation-norm.png")[0]
    said = re.findall(r"(?<![\d.])0\.\d+", text)
    assert len(said) > 8 and set(said) <= printed, set(said) - printed
