"""The tokenizers against plain references, hand-worked examples, and everything that may go wrong."""

import copy
import json
import os
import pickle
import random
import re
import sys
import unicodedata
from collections import Counter

import numpy as np
import pytest

from minillama.tokenizers import (
    DIGITS_PATTERN,
    END_OF_TEXT,
    GPT2_PATTERN,
    PATTERNS,
    BPETokenizer,
    CharTokenizer,
    compile_pattern,
    load_tokenizer,
    merging,
    patterns,
)

SAMPLE = "The cat sat on the mat. Thé chat s'est assis: 猫が座った。 It's 1984, isn't it?\n\n\tthe end  \r\n"
SAMPLE *= 3


def random_texts(how_many: int, alphabet, longest: int = 40):
    """Texts of 0 to `longest` of the alphabet's parts, the same ones at every run."""
    rng = random.Random(how_many)
    for _ in range(how_many):
        yield "".join(rng.choices(alphabet, k=rng.randrange(longest + 1)))


ANY_CHARACTER = [chr(i) for i in [*range(0x500), *range(0x2000, 0x2100), *range(0x1F600, 0x1F650)]] + [
    "猫", "が", "\ufffd", "\uffff", "\U0010ffff", "\ud7ff", "\ue000", *" \n\t'ab01" * 40,
]  # fmt: skip


@pytest.fixture(scope="module")
def bpe():
    return BPETokenizer.train(SAMPLE, 300, special_tokens=(END_OF_TEXT, "<|a|>", "<|a|><|b|>"))


@pytest.fixture(scope="module")
def chars():
    return CharTokenizer.train(SAMPLE, special_tokens=(END_OF_TEXT, "<|a|>"))


@pytest.fixture(scope="module", params=["bpe", "chars"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def shakespeare(assets):
    return (assets / "data" / "tinyshakespeare.txt").read_bytes().decode()


def merges_by_recounting(words: dict[str, int], first_id: int, max_merges: int, vocab) -> list:
    """BPE as the paper's algorithm 1 has it: count all pairs anew for every merge."""
    words = [([vocab[bytes([byte])] for byte in word.encode()], count) for word, count in words.items()]
    merges = []
    while len(merges) < max_merges:
        counts = Counter()
        for word, count in words:
            for pair in zip(word, word[1:], strict=False):
                counts[pair] += count
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        for word, _ in words:
            i = 0
            while i + 1 < len(word):
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = [first_id + len(merges)]
                i += 1
        merges.append(best)
    return merges


def encoded_by_scanning(tokenizer: BPETokenizer, word: str) -> list[int]:
    """The merge learned first, at its leftmost place, until none applies; every pair looked at each time."""
    ids = [tokenizer.vocab[bytes([byte])] for byte in word.encode()]
    while True:
        pairs = list(zip(ids, ids[1:], strict=False))
        known = [pair for pair in tokenizer.merges if pair in pairs]
        if not known:
            return ids
        place = pairs.index(known[0])
        joined = tokenizer.token_bytes(ids[place]) + tokenizer.token_bytes(ids[place + 1])
        ids[place : place + 2] = [tokenizer.vocab[joined]]


def spelled(tokenizer: BPETokenizer) -> list[tuple[bytes, bytes]]:
    return [(tokenizer.token_bytes(left), tokenizer.token_bytes(right)) for left, right in tokenizer.merges]


# Training


def test_merges_worked_out_by_hand():
    # Words: "hug" 10, "pug" 5, "pun" 12, "bun" 4, "hugs" 5, one text each. Pairs: ug 20, pu 17, un 16, hu 15.
    texts = ["hug"] * 10 + ["pug"] * 5 + ["pun"] * 12 + ["bun"] * 4 + ["hugs"] * 5
    trained = BPETokenizer.train(texts, 256 + 6, special_tokens=())
    # After ug: un 16, h+ug 15, p+u 12 (ug took the others). After un: hug 15, p+un 12. After hug: pun 12.
    # Then p+ug 5 and hug+s 5 tie: the smaller pair of ids is p+ug, for p is a byte. Last is b+un 4.
    assert spelled(trained) == [
        (b"u", b"g"),
        (b"u", b"n"),
        (b"h", b"ug"),
        (b"p", b"un"),
        (b"p", b"ug"),
        (b"hug", b"s"),
    ]
    assert trained.vocab_size == 262
    assert trained.encode("hugs pun").tolist() == [261, trained.vocab[b" "], 259]


@pytest.mark.parametrize("alphabet", ["ab", "aab b", "abc'1 \n", ANY_CHARACTER])
def test_merges_are_those_of_recounting(alphabet):
    for max_merges, text in enumerate(random_texts(60, alphabet, longest=60)):
        trained = BPETokenizer.train(text + ".", 257 + max_merges)
        words = Counter(compile_pattern(DIGITS_PATTERN).findall(text + "."))
        reference = merges_by_recounting(words, 257, max_merges, trained.vocab)
        assert trained.merges == reference
        assert trained.vocab_size == 257 + len(reference)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 15, 100])
def test_merges_of_a_repeated_character(length):
    text = "a" * length
    trained = BPETokenizer.train(text, 1000)
    reference = merges_by_recounting({text: 1}, 257, 1000, trained.vocab)
    assert trained.merges == reference
    assert len(trained.encode(text)) == 1


def test_a_short_text_gives_fewer_tokens_than_asked_for():
    trained = BPETokenizer.train("ab", 5000)
    assert trained.vocab_size == 258
    assert spelled(trained) == [(b"a", b"b")]


def test_ids_are_special_tokens_then_bytes_then_merges():
    trained = BPETokenizer.train("ab", 5000, special_tokens=("<s>", "</s>"))
    assert trained.special_tokens == {"<s>": 0, "</s>": 1}
    in_order = [*range(33, 127), *range(161, 173), *range(174, 256), *range(33), *range(127, 161), 173]
    assert [trained.token_bytes(i) for i in range(2, 258)] == [bytes([byte]) for byte in in_order]
    assert trained.token_bytes(258) == b"ab"
    assert (trained.begin_of_text, trained.end_of_text, trained.mask_token) == (0, 1, None)


def test_nothing_is_merged_across_texts_or_special_tokens():
    parts = ["abab", "abc", "bca"]
    apart = BPETokenizer.train(iter(parts), 300)
    assert BPETokenizer.train(END_OF_TEXT.join(parts), 300).merges == apart.merges
    assert BPETokenizer.train("".join(parts), 300).merges != apart.merges


def test_a_pattern_decides_what_is_merged():
    text = "2024 2024"
    assert BPETokenizer.train(text, 300).encode("2024").size == 4
    trained = BPETokenizer.train(text, 300, pattern=GPT2_PATTERN)
    assert trained.encode("2024").size == 1
    assert trained.to_json()["pre_tokenizer"]["pretokenizers"][0]["pattern"] == {"Regex": GPT2_PATTERN}


def test_characters_in_order_then_special_tokens():
    trained = CharTokenizer.train(f"cab{END_OF_TEXT}b\n", special_tokens=(END_OF_TEXT,))
    assert [trained.token_bytes(i) for i in range(trained.vocab_size)] == [
        b"\n",
        b"a",
        b"b",
        b"c",
        END_OF_TEXT.encode(),
    ]
    assert trained.encode(f"ab{END_OF_TEXT}c").tolist() == [1, 2, 4, 3]
    assert trained.begin_of_text == trained.end_of_text == 4
    assert CharTokenizer.train("ab", special_tokens=("<|mask|>",)).mask_token == 2


def test_tinyshakespeare(shakespeare):
    assert CharTokenizer.train(shakespeare).vocab_size == 65
    trained = BPETokenizer.train(shakespeare, 512)
    ids = trained.encode(shakespeare)
    assert trained.vocab_size == 512
    assert ids.size == 575_809
    assert trained.decode_bytes(ids) == shakespeare.encode()
    assert spelled(trained)[:5] == [(b" ", b"t"), (b"h", b"e"), (b" ", b"a"), (b"o", b"u"), (b" ", b"s")]


# Words


@pytest.mark.parametrize(
    "text, words",
    [
        ("Hello world", ["Hello", " world"]),
        ("a  b", ["a", " ", " b"]),
        ("a \n b", ["a", " \n", " b"]),
        ("end  ", ["end", "  "]),
        ("a\tb", ["a", "\t", "b"]),
        ("it's 'tis we'll", ["it", "'s", " '", "tis", " we", "'ll"]),
        ("x1 23.5", ["x", "1", " ", "2", "3", ".", "5"]),
        ("naïve Ünïcode", ["naïve", " Ünïcode"]),
        ("猫が。!?", ["猫が", "。!?"]),
        ("½²Ⅷ", ["½", "²", "Ⅷ"]),
        ("a\x1cb", ["a", "\x1c", "b"]),
        ("a \x1c\x1fb", ["a", " \x1c\x1f", "b"]),  # not White_Space: a sign, with the space before it
        ("a\x85\u2003\u3000b", ["a", "\x85\u2003", "\u3000", "b"]),
        ("e\u0301x", ["e", "\u0301", "x"]),  # a combining mark is neither letter nor number
        ("𝒜𝟙😀", ["𝒜", "𝟙", "😀"]),
    ],
)
def test_words(text, words):
    assert compile_pattern(DIGITS_PATTERN).findall(text) == words


def test_words_of_gpt2_keep_numbers_together():
    assert compile_pattern(GPT2_PATTERN).findall("x1 23.5") == ["x", "1", " 23", ".", "5"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_every_part_of_every_text(pattern):
    every_character = "".join(map(chr, range(sys.maxunicode + 1)))
    white_space_and_signs = random_texts(500, "a1 \t\n\x1c\u3000'.s", longest=20)
    for text in (every_character, " ".join(every_character[:0x3100]), *white_space_and_signs):
        assert "".join(compile_pattern(pattern).findall(text)) == text


# Encoding and decoding


def test_text_comes_back(bpe):
    for text in random_texts(200, ANY_CHARACTER):
        for special in (True, False):
            ids = bpe.encode(text, special)
            assert ids.dtype == np.int32 and ids.ndim == 1
            assert bpe.decode(ids) == text
            assert bpe.decode_bytes(ids) == text.encode()
        assert bpe.encode_bytes(text.encode()).tolist() == bpe.encode(text).tolist()


def test_text_with_special_tokens_comes_back(bpe):
    parts = [END_OF_TEXT, "<|a|>", "<|b|>", "<|a", "|>", " ", "the", "é", "\n", "'s", "0"]
    for text in random_texts(200, parts, longest=12):
        assert bpe.decode(bpe.encode(text)) == text
        assert bpe.encode_bytes(text.encode()).tolist() == bpe.encode(text).tolist()
        plain = bpe.encode(text, special=False)
        assert not set(plain.tolist()) & set(bpe.special_tokens.values())
        assert bpe.encode_bytes(text.encode(), special=False).tolist() == plain.tolist()


def test_bytes_come_back(bpe):
    rng = random.Random(0)
    pieces = [
        b" the",
        "é猫😀".encode(),
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\x80",
        *(bytes([byte]) for byte in range(256)),
    ]
    for _ in range(300):
        data = b"".join(rng.choices(pieces, k=rng.randrange(30)))
        data = data[: rng.randrange(len(data) + 1)]
        ids = bpe.encode_bytes(data)
        assert ids.dtype == np.int32
        assert bpe.decode_bytes(ids) == data


def test_bytes_that_are_not_utf8_are_single_tokens(bpe):
    the = bpe.encode(" the").tolist()
    lone = [bpe.vocab[b"\xff"], bpe.vocab[b"\xc3"]]
    assert bpe.encode_bytes(b" the\xff\xc3 the").tolist() == the + lone + the
    assert bpe.decode(lone) == "\ufffd\ufffd"


def test_a_word_is_encoded_as_by_scanning():
    trained = BPETokenizer.train("aabb abab bbaa baab tab abba aaaa bat", 290)
    for text in random_texts(200, "aab bt", longest=30):
        expected = []
        for word in compile_pattern(DIGITS_PATTERN).findall(text):
            expected += encoded_by_scanning(trained, word)
        assert trained.encode(text).tolist() == expected


def test_overlapping_merges_go_left_to_right():
    trained = BPETokenizer.train("aa", 300)
    a, aa = trained.vocab[b"a"], trained.vocab[b"aa"]
    assert trained.encode("aaaaa").tolist() == [aa, aa, a]


def test_a_long_word_is_no_trap():
    trained = BPETokenizer.train("aaaa", 300)  # a+a, aa+aa
    assert trained.encode("a" * 50_003).tolist() == [trained.vocab[b"aaaa"]] * 12_500 + [
        trained.vocab[b"aa"],
        trained.vocab[b"a"],
    ]


def test_the_memory_of_words_is_bounded(bpe, monkeypatch):
    text = SAMPLE + "a" * 1000
    expected = bpe.encode(text).tolist()
    assert bpe._words.keys() >= {"The", " cat"} and "a" * 1000 not in bpe._words
    bounded = BPETokenizer.from_json(bpe.to_json())
    monkeypatch.setattr(merging.WordCache, "MAX_WORDS", 3)
    assert bounded.encode(text).tolist() == expected
    assert 0 < len(bounded._words) <= 3


def test_special_tokens_are_told_from_text(bpe):
    end, a, ab = (bpe.special_tokens[text] for text in (END_OF_TEXT, "<|a|>", "<|a|><|b|>"))
    assert bpe.end_of_text == end
    assert bpe.encode("<|a|><|b|><|a|>").tolist() == [ab, a]  # of two that match, the longer one
    assert bpe.encode(f"{END_OF_TEXT}the").tolist() == [end, *bpe.encode("the")]
    plain = bpe.encode(END_OF_TEXT, special=False)
    assert bpe.decode(plain) == END_OF_TEXT and end not in plain


def test_empty(either):
    assert either.encode("").dtype == np.int32 and either.encode("").shape == (0,)
    assert either.decode([]) == "" and either.decode_bytes([]) == b""


def test_characters_come_back(chars):
    text = SAMPLE + END_OF_TEXT + "\n <|a|>"
    ids = chars.encode(text)
    assert ids.dtype == np.int32 and ids.size == len(SAMPLE) + 4
    assert chars.decode(ids) == text
    assert chars.decode_bytes(ids) == text.encode()
    plain = CharTokenizer.train(SAMPLE + END_OF_TEXT)
    assert plain.end_of_text is None
    assert plain.decode(plain.encode(text.replace("<|a|>", ""))) == text.replace("<|a|>", "")


def test_an_unknown_character_is_shown_with_its_place(chars):
    with pytest.raises(ValueError, match=r"'€' \(U\+20AC\) at position 4 .*train it on text"):
        chars.encode("the €100")
    with pytest.raises(ValueError, match=rf"'\|' \(U\+007C\) at position {len(END_OF_TEXT) + 2} "):
        chars.encode(f"a{END_OF_TEXT}a|")
    with pytest.raises(ValueError, match=r"'<' \(U\+003C\) at position 0 "):
        chars.encode(END_OF_TEXT, special=False)


def test_a_stream_gives_what_decode_gives(bpe):
    rng = random.Random(0)
    stream = bpe.stream()  # the same one throughout: after finish() it starts anew
    for _ in range(200):
        ids = rng.choices(range(bpe.vocab_size), k=rng.randrange(30))
        assert "".join(map(stream.feed, ids)) + stream.finish() == bpe.decode(ids)


def test_a_stream_waits_for_whole_characters(bpe):
    stream = bpe.stream()
    single_bytes = [bpe.vocab[bytes([byte])] for byte in "é猫😀!".encode()]
    assert list(map(stream.feed, single_bytes)) == ["", "é", "", "", "猫", "", "", "", "😀", "!"]
    assert stream.finish() == ""
    assert stream.feed(single_bytes[0]) == ""
    assert stream.finish() == "\ufffd"


def test_a_stream_of_characters(chars):
    stream = chars.stream()
    assert [stream.feed(i) for i in chars.encode("é猫<|a|>")] == ["é", "猫", "<|a|>"]


def test_copies_work(either):
    either.encode("the cat")
    for copied in (pickle.loads(pickle.dumps(either)), copy.deepcopy(either)):
        assert copied.encode(SAMPLE).tolist() == either.encode(SAMPLE).tolist()


# Files


def test_save_and_load(either, tmp_path):
    folder = tmp_path / "new" / "run"
    either.save(folder)
    either.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    for path in (folder, folder / "tokenizer.json", str(folder)):
        loaded = load_tokenizer(path)
        assert type(loaded) is type(either)
        assert loaded.to_json() == either.to_json()
        assert loaded.special_tokens == either.special_tokens
        text = SAMPLE + END_OF_TEXT
        assert loaded.encode(text).tolist() == either.encode(text).tolist()
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TEXT,
    }
    written = (folder / "tokenizer.json").read_bytes()
    assert b"\r" not in written and b"\\u" not in written  # characters stand as themselves, in UTF-8


def test_no_end_of_text_no_eos_token(tmp_path):
    CharTokenizer.train("ab").save(tmp_path)
    assert "eos_token" not in json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))


def test_a_failed_save_leaves_the_old_file(bpe, tmp_path, monkeypatch):
    bpe.save(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()

    def fail(*paths):
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        CharTokenizer.train("ab").save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_json_is_a_description_of_its_own(either):
    data = either.to_json()
    assert json.loads(json.dumps(data)) == data
    again = type(either).from_json(copy.deepcopy(data))
    assert again.to_json() == data == either.to_json()


def test_json_is_what_the_tokenizers_library_expects():
    data = BPETokenizer.train("the the", 260, special_tokens=("<s>", "</s>")).to_json()
    model = data.pop("model")
    vocab, merges = model.pop("vocab"), model.pop("merges")
    assert merges == [["h", "e"], ["t", "he"]]
    some = {"<s>": 0, "</s>": 1, "!": 2, "ÿ": 189, "Ā": 190, "Ġ": 222, "Ń": 257, "he": 258, "the": 259}
    assert len(vocab) == 260 and vocab.items() >= some.items()
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    split = {"type": "Split", "pattern": {"Regex": DIGITS_PATTERN}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    assert {name: value for name, value in model.items() if value} == {"type": "BPE"}
    assert {name: value for name, value in data.items() if value} == {
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "<s>", **flags}, {"id": 1, "content": "</s>", **flags}],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    }


def test_a_template_that_adds_nothing_is_read(either):
    data = either.to_json()
    alone = [{"Sequence": {"id": "A", "type_id": 0}}]
    data["post_processor"] = {"type": "TemplateProcessing", "single": alone, "special_tokens": {}}
    assert type(either).from_json(data).to_json() == either.to_json()
    data["post_processor"]["single"] = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, *alone]
    with pytest.raises(ValueError, match="'<s>', which stands for no special token"):
        type(either).from_json(data)


def test_a_template_tells_what_goes_before_a_text(either):
    data = either.to_json()
    i = either.special_tokens["<|a|>"]
    data["post_processor"] = {
        "type": "Sequence",
        "processors": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
            {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<|a|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {"<|a|>": {"id": "<|a|>", "ids": [i], "tokens": ["<|a|>"]}},
            },
        ],
    }
    read = type(either).from_json(data)
    assert (read.begin_of_text, read.end_of_text) == (i, either.end_of_text)
    assert read.encode("the").tolist() == either.encode("the").tolist()
    again = type(either).from_json(read.to_json())
    assert again.begin_of_text == i
    for single in ([], data["post_processor"]["processors"][1]["single"] * 2):
        data["post_processor"]["processors"][1]["single"] = single
        with pytest.raises(ValueError, match="has a text"):
            type(either).from_json(data)


def test_ids_may_come_in_any_order_and_merges_in_the_old_form(bpe):
    data = bpe.to_json()
    data["model"]["merges"] = [" ".join(merge) for merge in data["model"]["merges"]]
    data["model"]["vocab"] = dict(reversed(data["model"]["vocab"].items()))
    del data["model"]["ignore_merges"]  # files from before there was the setting
    data["model"]["continuing_subword_prefix"] = ""
    assert BPETokenizer.from_json(data).to_json() == bpe.to_json()


def changed(data: dict, path: str, value) -> dict:
    *parents, last = path.split(".")
    node = data = copy.deepcopy(data)
    for key in parents:
        node = node[int(key) if isinstance(node, list) else key]
    node[int(last) if isinstance(node, list) else last] = value
    return data


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("model", None, "model.type is None, expected: str"),
        (
            "model.type",
            "Unigram",
            "a Unigram model with a ByteLevel decoder, supported: WordLevel with Fuse, BPE",
        ),
        ("decoder", {"type": "WordPiece"}, "a BPE model with a WordPiece decoder, supported"),
        ("decoder.type", ["ByteLevel"], "decoder.type is ['ByteLevel'], expected: str"),
        ("model.vocab", ["a"], "model.vocab is ['a'], expected: dict"),
        ("model.vocab.a", "7", "gives 'a' the id '7', expected an int"),
        ("model.vocab.a", True, "gives 'a' the id True, expected an int"),
        ("model.vocab.a", 100_000, "300 tokens need the ids 0 to 299, each once"),
        ("model.vocab.a", 9, "300 tokens need the ids 0 to 299, each once"),
        ("model.vocab.€", 300, "model.vocab has '€', but '€' stands for no byte"),
        ("model.vocab.\ud800", 300, "lone surrogate"),
        (f"model.vocab.{END_OF_TEXT}", 7, "the id 7, expected 0"),
        ("model.merges", "a b", "model.merges is 'a b', expected: list"),
        ("model.merges.0", "a b c", "model.merges has 'a b c', expected two"),
        ("model.merges.0", ["a"], "model.merges has ['a'], expected two"),
        ("model.merges.0", ["a", ["b"]], "model.merges has ['a', ['b']], expected two"),
        ("model.merges.0", ["a", END_OF_TEXT], "expected two ordinary tokens"),
        ("model.merges.0", ["!", "!"], "no ordinary token b'!!'"),
        ("model.dropout", 0.1, "model.dropout is 0.1, supported: None"),
        ("model.ignore_merges", "yes", "model.ignore_merges is 'yes', supported: False"),
        ("model.novelty", 1, "model.novelty is 1, supported: None"),
        ("normalizer", {"type": "NFC"}, "normalizer is {'type': 'NFC'}, supported: None"),
        ("post_processor", {"type": "Novel"}, "post_processor is {'type': 'Novel'}, supported: ByteLevel, Templ"),
        ("post_processor", {"type": "TemplateProcessing"}, "post_processor.single has a text 0 times"),
        ("decoder.novelty", 1, "decoder.novelty is 1, supported: None"),
        ("truncation", {"max_length": 8}, "truncation is {'max_length': 8}, supported: None"),
        ("pre_tokenizer", None, "pre_tokenizer is None, expected: dict"),
        ("pre_tokenizer", {"type": "Whitespace"}, "supported: Split, Digits, ByteLevel"),
        ("pre_tokenizer", {"type": "ByteLevel", "use_regex": 1}, "pre_tokenizer.use_regex is 1, expected: bool"),
        ("pre_tokenizer.pretokenizers", [], "pre_tokenizer has the steps [], supported"),
        ("pre_tokenizer.pretokenizers.0.pattern", {"String": " "}, "0.pattern is {'String': ' '}, supported: a Regex"),
        ("pre_tokenizer.pretokenizers.0.pattern.Regex", r"\S+", "choose from"),
        ("pre_tokenizer.pretokenizers.0.behavior", "Removed", "supported: behavior Isolated, not inverted"),
        ("pre_tokenizer.pretokenizers.0.invert", True, "supported: behavior Isolated, not inverted"),
        ("pre_tokenizer.pretokenizers.1", {"type": "Digits"}, "the steps ['Split', 'Digits'], supported"),
        ("added_tokens", None, "added_tokens is None, expected: list"),
        ("added_tokens.0", 5, "content is None, expected: str"),
        ("added_tokens.0.id", True, "id is True, expected: int"),
        ("added_tokens.0.content", "éé", "special token 'éé' can be taken for"),
        ("added_tokens.0.lstrip", 1, "lstrip of the added token '<|endoftext|>' is 1, expected: bool"),
        ("added_tokens.0.single_word", True, "added_tokens.0.single_word is True, supported: False"),
        ("version", "2.0", "version is '2.0', supported: '1.0'"),
    ],
)
def test_what_is_not_supported_is_refused(bpe, tmp_path, path, value, message):
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(changed(bpe.to_json(), path, value)), encoding="utf-8")
    with pytest.raises(ValueError) as error:
        load_tokenizer(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("model.vocab.ab", 50, "single characters, received 'ab'"),
        ("model.unk_token", "a", "model.unk_token is 'a', supported: ''"),
        ("pre_tokenizer.pattern.Regex", ".", "pre_tokenizer.pattern.Regex is '.'"),
        ("pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer.type is 'Whitespace', supported: 'Split'"),
    ],
)
def test_what_is_not_supported_is_refused_for_characters(tmp_path, path, value, message):
    data = CharTokenizer.train("".join(map(chr, range(97, 97 + 50)))).to_json()
    (tmp_path / "tokenizer.json").write_text(json.dumps(changed(data, path, value)), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        load_tokenizer(tmp_path)


def switched_on(value):
    """The value without what is null, false or empty."""
    if isinstance(value, dict):
        return {key: switched_on(inner) for key, inner in value.items() if inner}
    return [switched_on(inner) for inner in value] if isinstance(value, list) else value


def test_a_damaged_description_is_refused_or_means_the_same(bpe):
    """Anything may be put anywhere in the JSON: what is read follows it, what is not read is a ValueError."""
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = copy.deepcopy(bpe.to_json())
        node = damaged
        while True:
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if not node[key] or not isinstance(node[key], (dict, list)) or rng.random() < 0.2:
                break
            node = node[key]
        node[key] = rng.choice([None, True, False, -1, 0, 300, 0.5, "", "a", "a b", [], {}, ["a"]])
        try:
            read = BPETokenizer.from_json(damaged)
        except ValueError:
            refused += 1
            continue
        assert read.decode(read.encode(SAMPLE)).replace(" ", "") == SAMPLE.replace(" ", "")  # a prefix adds some
        found, written = damaged, read.to_json()
        for data in (found, written):
            data["model"] |= {"vocab": None, "merges": None, "unk_token": None}
            data |= {"decoder": None, "post_processor": None}
        assert switched_on(found) == switched_on(written)
    assert 0 < refused < 400


def test_a_truncated_file_is_refused(either, tmp_path):
    either.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    whole = file.read_bytes().rstrip()
    for length in [0, 1, *range(2, len(whole), max(1, len(whole) // 50))]:
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not complete JSON in UTF-8"):
            load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"[" * 100_000, "{}".encode("utf-16"), b"\xef\xbb\xbf{}"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json: the file is not complete JSON in UTF-8"):
        load_tokenizer(file)


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b'"text"', b"{}"])
def test_json_of_another_kind_is_refused(tmp_path, content):
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.type is None, expected: str; use a tokenizer saved by"):
        load_tokenizer(file)


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "other.json"):
        with pytest.raises(FileNotFoundError, match=r"no file .*\.json; pass"):
            load_tokenizer(path)


# Wrong arguments


@pytest.mark.parametrize("outside", [-1, 300, 2**40, 2**64, 10**20])
def test_ids_out_of_range(bpe, outside):
    with pytest.raises(ValueError, match=rf"id {outside} at position 1 is outside 0 to 299"):
        bpe.decode([5, outside])
    with pytest.raises(ValueError, match=rf"id {outside} at position 0 is outside 0 to 299"):
        bpe.decode_bytes(np.array([outside]))
    with pytest.raises(ValueError, match="outside 0 to 299"):
        bpe.token_bytes(outside)
    with pytest.raises(ValueError, match="outside 0 to 299"):
        bpe.stream().feed(outside)


@pytest.mark.parametrize("ids", [[1.0], [[1, 2]], 3, "12", [True]])
def test_ids_of_another_kind(either, ids):
    with pytest.raises(ValueError, match="ids must be a sequence of integers, received shape"):
        either.decode(ids)


def test_every_integer_dtype_is_decoded(either):
    for dtype in (np.uint8, np.int16, np.int64, np.uint64):
        assert either.decode(np.array([5, 6], dtype=dtype)) == either.decode([5, 6])


@pytest.mark.parametrize("text", [b"bytes", None, 5])
def test_text_of_another_kind(either, text):
    with pytest.raises(TypeError, match=f"text must be a str, received {type(text).__name__}"):
        either.encode(text)


def test_bytes_of_another_kind(bpe):
    with pytest.raises(TypeError, match="encode_bytes takes bytes, received str; use encode"):
        bpe.encode_bytes("text")


def test_lone_surrogates(either):
    message = r"lone surrogate, '\\ud800', at position 2"
    with pytest.raises(ValueError, match=message):
        either.encode("ab\ud800")
    with pytest.raises(ValueError, match=message):
        CharTokenizer.train("ab\ud800")
    with pytest.raises(ValueError, match=message):
        BPETokenizer.train(["a", "ab\ud800"], 300)


@pytest.mark.parametrize("text", ["", [], ["", ""], END_OF_TEXT])
def test_no_text_to_train_on(text):
    with pytest.raises(ValueError, match="no text to train on"):
        BPETokenizer.train(text, 300)
    if isinstance(text, str):
        with pytest.raises(ValueError, match="no text to train on"):
            CharTokenizer.train(text, special_tokens=(END_OF_TEXT,))


@pytest.mark.parametrize("texts, kind", [(b"bytes", "int"), (None, "NoneType"), ([None], "NoneType")])
def test_training_text_of_another_kind(texts, kind):
    with pytest.raises(TypeError, match=f"received {kind}"):
        BPETokenizer.train(texts, 300)


@pytest.mark.parametrize("vocab_size", [0, -1, 257, 300.0, "300", None])
def test_vocab_size_too_small_or_no_integer(vocab_size):
    expected = re.escape(f"at least 258 (256 bytes and 2 special tokens), received {vocab_size!r}")
    with pytest.raises(ValueError, match=expected):
        BPETokenizer.train("some text", vocab_size, special_tokens=("<s>", "</s>"))


def test_the_smallest_vocabulary():
    assert BPETokenizer.train("some text", np.int64(256), special_tokens=()).vocab_size == 256
    assert BPETokenizer.train("some text", 257).merges == []


@pytest.mark.parametrize("token", ["", "a", "Ġ", "Ġthe", "é!", "\ud800\ud800"])
def test_special_tokens_that_cannot_be_told_from_text(token):
    for train in (lambda s: BPETokenizer.train("ab", 300, s), lambda s: CharTokenizer.train("ab", s)):
        with pytest.raises(ValueError, match="special token|lone surrogate"):
            train((token,))


def test_special_tokens_need_not_be_ascii():
    trained = BPETokenizer.train("ab", 300, ("<｜end▁of▁text｜>",))
    assert trained.encode("a<｜end▁of▁text｜>").tolist() == [trained.vocab[b"a"], 0]
    assert trained.decode([0]) == "<｜end▁of▁text｜>"


def test_special_tokens_of_another_kind():
    for train in (lambda s: BPETokenizer.train("ab", 300, s), lambda s: CharTokenizer.train("ab", s)):
        with pytest.raises(TypeError, match="add a comma"):
            train(END_OF_TEXT)
        with pytest.raises(TypeError, match="must be a str, received int"):
            train((1,))
        with pytest.raises(ValueError, match="must differ from each other"):
            train(("<s>", "<s>"))


def test_a_pattern_that_is_not_supported():
    with pytest.raises(ValueError, match=r"pattern '\\\\S\+' is not supported, choose from"):
        BPETokenizer.train("ab", 300, pattern=r"\S+")


def test_parts_that_do_not_fit_together(bpe):
    with pytest.raises(ValueError, match="4 tokens need the ids 0 to 3, each once"):
        CharTokenizer({b"a": 0, b"b": 1, b"c": 1}, {"<s>": 3})
    with pytest.raises(ValueError, match="single characters, received 'ab'"):
        CharTokenizer({b"ab": 0}, {})
    with pytest.raises(ValueError, match="no ordinary token 300"):
        BPETokenizer(bpe.vocab, [(300, 5)], bpe.special_tokens)
    with pytest.raises(ValueError, match="no ordinary token 0"):
        BPETokenizer(bpe.vocab, [(0, 5)], bpe.special_tokens)


def test_a_byte_that_a_vocabulary_lacks_is_left_out():
    lacking = BPETokenizer({b"a": 0, b"b": 1, b"ab": 2}, [(0, 1)], {})
    assert lacking.encode("abcacb").tolist() == [2, 2]  # as the tokenizers library joins what is left of a word
    with pytest.raises(ValueError, match=r"no token for the bytes \[99\]"):
        lacking.encode_bytes(b"abc")


@pytest.mark.parametrize("name", ["L", "N"])
def test_the_classes_of_patterns_are_those_of_unicode(name):
    inside = re.compile("[" + patterns._character_classes()[rf"\p{{{name}}}"] + "]").match
    wrong = [i for i in range(sys.maxunicode + 1) if bool(inside(chr(i))) != (unicodedata.category(chr(i))[0] == name)]
    assert wrong == []
