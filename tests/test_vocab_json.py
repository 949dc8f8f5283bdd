"""Vocabularies that are no tokenizer.json: vocab.json with merges.txt, tokens and merges as bytes, ids with gaps."""

import json
import re
import shutil

import pytest

import minillama
from minillama.tokenizers import (
    END_OF_TEXT,
    GPT2_PATTERN,
    AddedToken,
    BPETokenizer,
    load_tokenizer,
    read_vocab_and_merges,
)
from minillama.tokenizers.vocabulary import check_tokenizer

SAMPLE = "The cat sat on the mat. Thé chat s'est assis: 猫が座った。 It's 1984, isn't it?\n\n\tthe end  \r\n# # #\n" * 3


@pytest.fixture
def trained():
    return BPETokenizer.train(SAMPLE, 310, pattern=GPT2_PATTERN)


@pytest.fixture
def folder(trained, tmp_path):
    """As transformers' GPT2Tokenizer saves its files."""
    model = trained.to_json()["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    lines = ["#version: 0.2", *map(" ".join, model["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def changed(path, change):
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def test_a_folder_and_a_file(folder, trained):
    for path in (folder, folder / "vocab.json"):
        assert load_tokenizer(path).to_json() == trained.to_json()


def test_other_names_line_ends_and_no_version(folder, trained):
    text = (folder / "merges.txt").read_text(encoding="utf-8").removeprefix("#version: 0.2\n")
    (folder / "gpt2_merges.txt").write_bytes(text.replace("\n", "\r\n").encode())
    shutil.move(folder / "vocab.json", folder / "gpt2_vocab.json")
    assert load_tokenizer(folder / "gpt2_vocab.json").to_json() == trained.to_json()
    shutil.move(folder / "gpt2_vocab.json", folder / "encoder.json")
    shutil.move(folder / "gpt2_merges.txt", folder / "vocab.bpe")
    read = read_vocab_and_merges(folder / "encoder.json", folder / "vocab.bpe")
    assert read.to_json() == trained.to_json()
    with pytest.raises(ValueError, match="a vocabulary without merges.*pass both files to minillama.tokenizers.read"):
        load_tokenizer(folder / "encoder.json")


def test_which_tokens_are_special(folder, trained):
    files = folder / "vocab.json", folder / "merges.txt"
    assert read_vocab_and_merges(*files).special_tokens == {END_OF_TEXT: 0}
    assert (
        read_vocab_and_merges(*files, special_tokens=()).encode(END_OF_TEXT).tolist()
        == trained.encode(END_OF_TEXT, special=False).tolist()
    )
    more = read_vocab_and_merges(*files, special_tokens=[END_OF_TEXT, "<a>", "<b>"])
    assert more.special_tokens == {END_OF_TEXT: 0, "<a>": 310, "<b>": 311}
    (folder / "added_tokens.json").write_text('{"<a>": 330}')
    added = load_tokenizer(folder)
    assert added.special_tokens == {END_OF_TEXT: 0, "<a>": 330} and added.has_gaps and added.vocab_size == 331
    assert added.encode("the<a>").tolist() == [*trained.encode("the"), 330]


def test_a_token_that_is_unlike_all_others_is_special(folder):
    changed(folder / "vocab.json", lambda data: data.update({"<｜é▁｜>": 310}))
    assert load_tokenizer(folder).special_tokens == {END_OF_TEXT: 0, "<｜é▁｜>": 310}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v: v.pop("the"), r"merges\.txt: line \d+ .*'the'|not in the vocabulary"),
        (lambda v: v.update({"the": "5"}), "model.type is None, expected: str"),
        (
            lambda v: v.update({"the": 5}),
            "the tokens '.*' and 'the' have the same id, 5|'the' and '.*' have the same id, 5",
        ),
        (lambda v: v.update({"the": -5}), "integers from 0 to 2147483647"),
        (lambda v: v.update({"the": 2**31}), "integers from 0 to 2147483647"),
        (lambda v: v.update({"\ud800": 400}), "lone surrogate"),
    ],
)
def test_a_damaged_vocabulary(folder, change, message):
    changed(folder / "vocab.json", change)
    with pytest.raises(ValueError, match=message) as error:
        load_tokenizer(folder)
    assert str(folder / "vocab.json") in str(error.value)


@pytest.mark.parametrize(
    "line, message",
    [
        ("a b c", "line 3 is 'a b c', expected two tokens of the vocabulary"),
        ("t", "line 3 is 't', expected two"),
        ("t €", "line 3 is 't €', expected two"),
        ("q q", "line 3 makes 'qq', which is not in the vocabulary"),
        (f"t {END_OF_TEXT}", "which is not in the vocabulary"),
    ],
)
def test_damaged_merges(folder, line, message):
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    lines[2:2] = [line]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"{folder / 'merges.txt'}: ") + ".*" + re.escape(message)):
        load_tokenizer(folder)


def test_the_files_of_another_model_are_refused(folder):
    config = folder / "tokenizer_config.json"
    for values in ({"tokenizer_class": "Qwen2Tokenizer"}, {"add_prefix_space": True}):
        config.write_text(json.dumps(values))
        with pytest.raises(ValueError, match="supported: GPT2Tokenizer without; use its tokenizer.json"):
            load_tokenizer(folder)
    config.write_text('{"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": false}')
    assert load_tokenizer(folder).vocab_size == 310
    (folder / "merges.txt").unlink()
    with pytest.raises(ValueError, match="a vocabulary without merges, which are looked for in merges.txt"):
        load_tokenizer(folder)


def as_bytes(tokenizer):
    spell = tokenizer.token_bytes
    return {i: spell(i) for i in range(tokenizer.vocab_size)}, [(spell(a), spell(b)) for a, b in tokenizer.merges]


def test_tokens_and_merges_as_bytes(trained):
    tokens, merges = as_bytes(trained)
    assert BPETokenizer.from_tokens(tokens, merges, [END_OF_TEXT]).to_json() == trained.to_json()
    assert BPETokenizer.from_tokens(tokens, merges).special_tokens == {}
    with pytest.raises(ValueError, match="a merge is of b't' and b'zz', but b'zz' is no ordinary token"):
        BPETokenizer.from_tokens(tokens, [(b"t", b"zz")])
    with pytest.raises(ValueError, match="no ordinary token b'tz'"):
        BPETokenizer.from_tokens(tokens, [(b"t", b"z")])
    with pytest.raises(ValueError, match=r"the token b't' has the ids \d+ and 400; it needs one"):
        BPETokenizer.from_tokens(tokens | {400: b"t"}, merges)
    with pytest.raises(TypeError, match="tuple of str"):
        BPETokenizer.from_tokens(tokens, merges, END_OF_TEXT)


def test_ids_with_gaps(trained, tmp_path):
    tokens, merges = as_bytes(trained)
    gapped = BPETokenizer.from_tokens({3 * i + 2: token for i, token in tokens.items()}, merges, [END_OF_TEXT])
    text = SAMPLE + END_OF_TEXT
    assert gapped.encode(text).tolist() == [3 * i + 2 for i in trained.encode(text)]
    assert gapped.decode(gapped.encode(text)) == text and gapped.encode_bytes(b"\xff").tolist() == [
        3 * i + 2 for i in trained.encode_bytes(b"\xff")
    ]
    assert gapped.vocab_size == 3 * 309 + 3 and gapped.has_gaps and not trained.has_gaps
    stream = gapped.stream()
    for read in (
        gapped.decode,
        gapped.decode_bytes,
        lambda ids: stream.feed(ids[0]),
        lambda ids: gapped.token_bytes(ids[0]),
    ):
        with pytest.raises(ValueError, match="id 3 at position 0 is a gap: it stands for no token"):
            read([3, 2])
    with pytest.raises(ValueError, match="the id 0 stands for no token.*such as '<|unused 0|>'".replace("|", r"\|")):
        gapped.save(tmp_path)
    assert not list(tmp_path.iterdir())
    gaps = [i for i in range(gapped.vocab_size) if i % 3 != 2]
    filled = BPETokenizer(
        gapped.vocab, gapped.merges, gapped.special_tokens, GPT2_PATTERN,
        added=[AddedToken(f"<|unused {i}|>", i) for i in gaps],
    )  # fmt: skip
    filled.save(tmp_path)
    assert load_tokenizer(tmp_path).encode(text).tolist() == gapped.encode(text).tolist()


def test_only_ordinary_tokens_need_a_row_of_the_model(trained):
    tokens, merges = as_bytes(trained)
    far = BPETokenizer.from_tokens(
        tokens | {10**9: END_OF_TEXT.encode() + b"2"}, merges, [END_OF_TEXT, END_OF_TEXT + "2"]
    )
    check_tokenizer(far, 310)
    with pytest.raises(ValueError, match="the tokenizer has 1,000,000,001 tokens and the model 309"):
        check_tokenizer(far, 309)
    with pytest.raises(ValueError, match="another"):
        check_tokenizer(BPETokenizer.from_tokens(tokens | {10**9: b"zz"}, merges), 310)


def test_ties_are_one_of_two():
    with pytest.raises(ValueError, match='ties must be "oldest" or "greatest", received \'last\''):
        BPETokenizer.train("ab", 300, ties="last")
    spelled = {}
    for ties in ("oldest", "greatest"):
        merges = BPETokenizer.train("xy ab", 258, ties=ties)
        spelled[ties] = [tuple(map(merges.token_bytes, pair)) for pair in merges.merges]
    assert spelled == {"oldest": [(b"a", b"b")], "greatest": [(b"x", b"y")]}


@pytest.mark.parametrize(
    "tokens, merges, words",
    [
        ({0: "a"}, [], "tokens must be {id: bytes}; received {0: 'a'}"),
        ({b"a": 0}, [], "tokens must be {id: bytes}; received {b'a': 0}"),
        ({0: b"a"}, ["a b"], "a merge must be a pair of bytes; received 'a b'"),
        ({0: b"a"}, [("a", "b")], "a merge must be a pair of bytes"),
        ({0: b"a"}, [(b"a", b"b", b"c")], "a merge must be a pair of bytes"),
    ],
)
def test_tokens_and_merges_that_are_no_bytes_are_refused(tokens, merges, words):
    with pytest.raises(TypeError, match=re.escape(words)):
        BPETokenizer.from_tokens(tokens, merges)


def test_a_model_is_not_half_saved_with_a_tokenizer_that_cannot_be(tmp_path):
    gapped = BPETokenizer.from_tokens({0: b"a", 2: b"b"}, [])
    model = minillama.Model(minillama.Config(gapped.vocab_size, dim=8, heads=2, layers=1), threads=1)
    with pytest.raises(ValueError, match="the id 1 stands for no token"):
        minillama.save(model, tmp_path / "model", gapped)
    assert not (tmp_path / "model").exists()
