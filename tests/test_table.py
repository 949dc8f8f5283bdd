"""The model table: exact counts, costs by hand, the stated beside the computed, and its three formats."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minillama import PRESETS, __main__
from minillama.catalogue.presets import tiny
from minillama.catalogue.sizes import (
    cache_bytes_per_token,
    encoder_parameters,
    flops_per_token,
    parameter_count,
    training_flops_per_token,
)
from minillama.catalogue.stated import CORRECTIONS, PEAK_FLOPS, REMARKS, STATED
from minillama.catalogue.table import SECTIONS, Row, as_csv, as_markdown, as_text, model_rows, sections

EXACT = {
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-33b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "codellama-7b": 6_738_546_688,
    "codellama-13b": 13_015_864_320 + 2 * 16 * 5120,  # Llama 2 13B, and 16 tokens more in two matrices
    "codellama-34b": 33_743_970_304,
    "codellama-70b": 68_976_910_336,
    "gpt2-small": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "gpt3-175b": 174_604_259_328,
    "bert-base": 109_514_298,
    "bert-large": 335_174_458,
}


@pytest.fixture(scope="module")
def rows():
    return {row.model: row for row in model_rows()}


@pytest.mark.parametrize("name", EXACT)
def test_every_model_has_the_exact_number_of_parameters(name):
    row = model_rows([name])[0]
    assert row.parameters == EXACT[name]
    assert row.embedding + row.attention + row.feed_forward + row.norms_and_biases + row.head == row.parameters


def test_the_table_has_every_model_of_which_something_is_stated():
    assert EXACT.keys() == STATED.keys() == PRESETS.keys() - {"tiny-llama", "tiny-gpt2", "tiny-bert"}
    assert all(stated.source and stated.label for stated in STATED.values())
    assert [row.name for row in model_rows() if row.context] == list(STATED)
    assert [row.model for row in model_rows() if not row.context] == ["BERT base, pooler", "BERT large, pooler"]


def test_bert_is_counted_with_its_pooler_and_with_the_head_of_its_pretraining(rows):
    assert rows["BERT base, pooler"].parameters == 109_482_240
    assert rows["BERT large, pooler"].parameters == 335_141_888
    assert rows["BERT base"].parameters == 109_482_240 + 2 * 768 + 30522  # the norm and the bias of the head
    assert encoder_parameters(PRESETS["bert-base"])["total"] == 109_482_240
    encoder = rows["BERT base, pooler"]
    assert encoder.head == 768**2 and encoder.embedding == (30522 + 512 + 2) * 768
    assert sum(encoder[4:9]) == encoder.parameters


def test_parts_of_gpt2_small_by_hand(rows):
    row = rows["GPT-2 small"]
    assert row.embedding == (50257 + 1024) * 768 and row.head == 0
    assert row.attention == 12 * 4 * 768**2 and row.feed_forward == 12 * 8 * 768**2
    assert row.norms_and_biases == 12 * (2 * 2 + 4 + 4 + 1) * 768 + 2 * 768


def test_cache_and_what_grouping_saves(rows):
    llama = rows["Llama 2 70B"]
    assert llama.cache_bytes_per_token == 2 * 80 * 8 * 128 * 2 == 327_680 and llama.cache_saving == 8
    assert rows["Llama 3.1 405B"].cache_bytes_per_token == 516_096 and rows["Llama 3.1 405B"].cache_saving == 16
    assert rows["LLaMA 1 7B"].cache_bytes_per_token == 524_288 and rows["LLaMA 1 7B"].cache_saving == 1
    bert = rows["BERT base"]
    assert bert.cache_bytes_per_token == 0 and bert.cache_saving is None
    assert cache_bytes_per_token(PRESETS["bert-large"]) == 0


def test_flops_by_hand():
    config = PRESETS["gpt2-small"]
    weights = 12 * 12 * 768**2 + 50257 * 768  # positions are looked up; the output is the embedding matrix
    assert flops_per_token(config, 0) == 2 * weights
    assert flops_per_token(config) == 2 * weights + 4 * 1024 * 768 * 12
    assert training_flops_per_token(config) == 3 * (2 * weights + 4 * 512 * 768 * 12)
    config = PRESETS["bert-base"]
    weights = 12 * 12 * 768**2 + 768**2 + 30522 * 768  # with the matrix of the head
    assert flops_per_token(config, 0) == 2 * weights
    assert training_flops_per_token(config) == 3 * (2 * weights + 4 * 512 * 768 * 12)  # every position reads all
    assert training_flops_per_token(config, 128) == 3 * (2 * weights + 4 * 128 * 768 * 12)


def test_memory(rows):
    row = rows["Llama 3.2 1B"]
    vectors = 33 * 2048  # norms, in float32; each 64 of the other weights share a scale, as every row is whole groups
    matrices = 1_235_814_400 - vectors
    expected = 4 * (matrices + vectors), 2 * matrices + 4 * vectors, matrices + 4 * matrices // 64 + 4 * vectors
    assert (row.bytes_float32, row.bytes_bfloat16, row.bytes_int8) == expected


def test_training_flops_agree_with_what_is_published(rows):
    assert rows["GPT-3 175B"].training_flops_6nd == pytest.approx(3.14e23, rel=0.003)  # arXiv 2005.14165, section 2.1
    assert rows["Llama 3.1 405B"].training_flops_6nd == pytest.approx(3.8e25, rel=0.003)  # arXiv 2407.21783, section 1
    for row in rows.values():
        if row.training_flops is not None:
            assert 1 < row.training_flops / row.training_flops_6nd < 1.25, row.model


def test_utilisation(rows):
    row = rows["LLaMA 1 65B"]
    assert row.mfu_6nd == pytest.approx(6 * 65_285_660_672 * 1.4e12 / (1_022_362 * 3600 * 312e12))
    assert PEAK_FLOPS == {"A100-80GB": 312e12, "H100-80GB": 989e12}
    assert row.mfu_6nd == pytest.approx(0.478, abs=0.001)
    assert rows["Llama 3.1 405B"].mfu_6nd == pytest.approx(0.346, abs=0.001)
    for row in rows.values():
        stated = row.tokens is not None and row.gpu_hours is not None
        assert (row.mfu is not None) == stated and (not stated or 0.05 < row.mfu_6nd < row.mfu < 0.55), row.model


def test_deviation_from_the_size_in_the_name(rows):
    assert rows["LLaMA 1 33B"].deviation == pytest.approx(-0.0143, abs=1e-4)
    assert rows["Llama 3.2 1B"].deviation == pytest.approx(0.2358, abs=1e-4)
    assert all(abs(row.deviation) < 0.08 for row in rows.values() if row.name != "llama-3.2-1b")


@pytest.mark.parametrize("vocab_size, context", [(65, 64), (256, 128), (1024, 256), (4096, 64), (65, 1024)])
def test_tiny_models_are_of_equal_size(vocab_size, context):
    counts = [parameter_count(tiny(family, vocab_size, context))["total"] for family in ("llama", "gpt2", "bert")]
    assert all(abs(count / counts[0] - 1) < 0.0007 for count in counts)
    assert counts[0] == pytest.approx(0.79e6 + 128 * vocab_size, rel=0.01)


def test_tiny_models_have_the_choices_of_their_families():
    assert PRESETS["tiny-llama"].is_llama and PRESETS["tiny-llama"] == tiny("llama", 1024, 256)
    for family, published in (("gpt2", "gpt2-small"), ("bert", "bert-base")):
        config, large = tiny(family, 65, 64).to_dict(), PRESETS[published].to_dict()
        shape = {"vocab_size", "dim", "layers", "heads", "kv_heads", "ffn", "context"}
        assert {key: config[key] for key in config.keys() - shape} == {key: large[key] for key in large.keys() - shape}
    assert tiny("bert", 65, 64, dropout=0.1).dropout == 0.1
    assert [PRESETS[f"tiny-{family}"].ffn for family in ("llama", "gpt2", "bert")] == [344, 479, 461]
    assert tiny("gpt2", 65, 64, position="rope").ffn > tiny("gpt2", 65, 64).ffn
    with pytest.raises(ValueError, match="one of llama, gpt2, bert; received 'gpt'"):
        tiny("gpt")
    with pytest.raises(ValueError, match="parameters are too few for this model.*a shorter context"):
        tiny("gpt2", context=8192)


def test_csv_holds_every_number_unrounded(rows):
    read = list(csv.DictReader(as_csv(model_rows()).splitlines()))
    assert [line["model"] for line in read] == list(rows)
    for line, row in zip(read, rows.values(), strict=True):
        assert line.keys() == {*Row._fields, "deviation"}
        assert int(line["parameters"]) == row.parameters
        assert line["mfu"] == ("" if row.mfu is None else repr(row.mfu))
    assert read[0]["source"] == "arXiv 2302.13971, tables 2 and 15"


def test_markdown_is_tables_and_lists():
    text = as_markdown(model_rows())
    assert "| LLaMA 1 7B | 6,738,415,616 | 7B | -3.7 % |" in text
    tables = [block for block in text.split("\n\n") if block.startswith("| model")]
    assert len(tables) == 3
    for block in tables:
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_the_guide_shows_what_is_computed(rows):
    text = (Path(__file__).parents[1] / "notebooks" / "guide" / "models.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line[:2] == "| "]
    assert len(lines) == 11
    for line in lines[2:]:
        name, *cells = [cell.strip().removesuffix(" B") for cell in line.strip("|").split("|")]
        row = rows[name.split(",")[0]]
        assert set(cells) <= {column.cell(row) for columns in SECTIONS.values() for column in columns}, name
    assert "with the pooler 109,482,240 |" in text


def test_text_fits_a_terminal_and_ends_with_the_corrections():
    text = as_text(model_rows())
    assert max(map(len, text.splitlines())) <= 120
    assert "109,482,240" in text and "109,514,298" in text and "124,439,808" in text
    words = " ".join(text.split())
    for entry in CORRECTIONS:
        assert f'"{entry.claim}": {entry.correction} ({entry.source})' in words
    assert all(remark in words for _, remark in REMARKS)


def test_notes_are_those_of_the_models_that_are_shown():
    text = as_text(model_rows(["gpt2-small"]))
    assert "GPT-2's are open" in text and "117M, 345M" in text and "Training:" not in text
    assert "CommonCrawl" not in text and "Code Llama goes on" not in text
    assert "imprecise" not in as_text(model_rows(["tiny-llama"]))
    assert "CommonCrawl 67.0 %" in " ".join(as_text(model_rows(["llama-7b"])).split())


def test_a_model_that_is_named_twice_is_one_row():
    assert [row.name for row in model_rows(["gpt2-xl", "tiny-bert", "gpt2-xl"])] == ["gpt2-xl", "tiny-bert"]


@pytest.mark.parametrize(
    "name, near", [("llama-8b", "llama-3-8b"), ("Llama-2-7B", "llama-2-7b"), ("gpt2", "gpt2-small, gpt2-medium")]
)
def test_an_unknown_name_is_refused_and_near_ones_are_offered(name, near, capsys):
    assert __main__.main(["table", name]) == 1
    assert f"no model {name!r}; did you mean {near}" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"no model 'zzz'; choose among llama-7b"):
        model_rows(["zzz"])


def test_the_table_takes_no_time():
    start = time.process_time()  # not the clock on the wall: other processes may keep this one waiting
    as_text(model_rows())
    assert time.process_time() - start < 0.5


def test_command_line(capsys, tmp_path):
    assert __main__.main(["table"]) == 0
    assert capsys.readouterr().out == as_text(model_rows()) + "\n"
    path = tmp_path / "table.png"
    assert __main__.main(["table", "llama-7b", "bert-base", "--format", "csv", "--figure", str(path)]) == 0
    captured = capsys.readouterr()
    assert [line["name"] for line in csv.DictReader(captured.out.splitlines())] == ["llama-7b", *["bert-base"] * 2]
    assert path.read_bytes().startswith(b"\x89PNG") and str(path) in captured.err


def test_no_figure_no_matplotlib():
    code = "import sys; from minillama.__main__ import main; main(['table']); print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.split()[-1] == b"False"


def test_sections_leave_out_what_nothing_is_known_of():
    assert len(sections(model_rows(["tiny-gpt2"]))) == 2 and len(sections(model_rows(["bert-large"]))) == 3
