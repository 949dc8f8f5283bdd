"""encode_iterable: the ids of the whole text, wherever it is cut, in memory that does not grow with it."""

import copy
import random
import tracemalloc

import pytest

from minillama.tokenizers import (
    END_OF_TEXT,
    PATTERNS,
    AddedToken,
    BPETokenizer,
    CharTokenizer,
    SentencePieceTokenizer,
    WordPieceTokenizer,
    load_tokenizer,
    streaming,
)

SAMPLE = "The cat's at 12345 tables. They'll say: «Thé chat» 猫が座った。  \n\n\tthe end...\r\n it's\n \n" * 3
# What stands beside other things in many ways: contractions, digits, spaces of several kinds, parts of special tokens
ALPHABET = [
    "a", "b", "the", "The", "s", "'", "'s", "'ll", "'LL", "l", "1", "23", "456", " ", " ", "  ", "\n", "\r\n", "\t",
    "\u2003", "\x85", "\x1c", ".", "...", "!\n", "-", "猫", "が。", "é", "e\u0301", "▁", "\u200b", "<|a|>",
    "<|a|><|b|>", "<|a", "|>", "<", ">", END_OF_TEXT, " of", "<s>", "[MASK]", "[mask]", "[CLS]", "[UNK]",
]  # fmt: skip
WORDS = ["▁", "▁▁", "▁t", "he", "▁the", "▁The", "at", "▁at", "th", "s", "▁s", "ll", "'ll", "..", "12", "34", "\n\n",
         "<s>", "猫が"]  # fmt: skip


def bpe(pattern=PATTERNS[0], added=(), **options):
    trained = BPETokenizer.train(SAMPLE, 330, (END_OF_TEXT, "<|a|>", "<|a|><|b|>"), pattern)
    size = trained.vocab_size
    added = [AddedToken(text, size + i, **flags) for i, (text, flags) in enumerate(added)]
    return BPETokenizer(trained.vocab, trained.merges, trained.special_tokens, pattern, added=added, **options)


ADDED = [
    ("<s>", dict(normalized=True, rstrip=True)),
    (" of", dict(special=False, lstrip=True)),
    ("[MASK]", dict(lstrip=True, rstrip=True)),
    ("  ", dict(special=False)),
]


def byte_level_step(**settings):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True} | settings


def sentencepiece(fallback=True, normalized=False, more=(), **options):
    pieces = {f"<0x{byte:02X}>": 3 + byte for byte in range(256)} if fallback else {}
    words = sorted({"a", "b", ".", *"".join(WORDS)}) + [word for word in (*WORDS, *more) if len(word) > 1]
    pieces |= {word: 3 + len(pieces) + i for i, word in enumerate(words)}
    scores = {i: -float(i) for i in pieces.values()}
    added = [AddedToken(text, i, normalized=normalized) for i, text in enumerate(("<unk>", "<s>", "</s>"))]
    return SentencePieceTokenizer.from_scores(pieces, scores, added, unknown="<unk>", **options)


def wordpiece(normalized=False, **options):
    words = [
        "the",
        "cat",
        "##s",
        "s",
        "##at",
        "a",
        "b",
        "##b",
        "'",
        ".",
        "12",
        "##3",
        "猫",
        "##ll",
        "l",
        "e",
        "é",
        "<",
        ">",
    ]
    added = [AddedToken(t, i, normalized=normalized) for i, t in enumerate(("[UNK]", "[CLS]", "[MASK]", "<s>"))]
    return WordPieceTokenizer({word: 4 + i for i, word in enumerate(words)}, added, **options)


KINDS = {
    "characters": lambda: CharTokenizer.train(" ".join("".join(ALPHABET)), (END_OF_TEXT, "<|a|>", "<|a|><|b|>")),
    **{f"byte level {i}": (lambda pattern=pattern: bpe(pattern)) for i, pattern in enumerate(PATTERNS)},
    **{f"added, byte level {i}": (lambda pattern=pattern: bpe(pattern, ADDED)) for i, pattern in enumerate(PATTERNS)},
    "byte level, as a whole": lambda: bpe(PATTERNS[-1], ignore_merges=True, merge_by_token=True),
    "GPT-2 with a prefix": lambda: bpe(added=ADDED, pre_tokenizer=byte_level_step(add_prefix_space=True)),
    "SmolLM": lambda: bpe(
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level_step()],
        }
    ),
    "digits, with a prefix": lambda: bpe(
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": False}, byte_level_step(add_prefix_space=True)],
        }
    ),
    "digits alone": lambda: bpe(
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level_step(use_regex=False)],
        }
    ),
    "digits alone, added": lambda: bpe(
        added=ADDED,
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level_step(use_regex=False)],
        },
    ),
    **{
        f"SentencePiece, {p}": (lambda p=p: sentencepiece(prefix=p))
        for p in ("always", "unless_space", "first", "never")
    },
    **{
        f"SentencePiece, {p}, before": (lambda p=p: sentencepiece(prefix=p, in_normalizer=False, normalized=True))
        for p in ("always", "unless_space", "first", "never")
    },
    "SentencePiece, normalized": lambda: sentencepiece(normalized=True),
    "SentencePiece, cut": lambda: sentencepiece(cut=True, in_normalizer=False, prefix="first"),
    "SentencePiece, squeeze": lambda: sentencepiece(squeeze=True),
    "SentencePiece, unknown": lambda: sentencepiece(fallback=False),
    "SentencePiece, across words": lambda: sentencepiece(more=["t▁th"]),
    "SentencePiece, unknown characters in pieces": lambda: sentencepiece(fallback=False, more=["xy"], squeeze=True),
    "SentencePiece, unknown, squeeze": lambda: sentencepiece(fallback=False, squeeze=True, prefix="never"),
    "WordPiece": wordpiece,
    "WordPiece, cased": lambda: wordpiece(lowercase=False, clean=False, chinese=False),
    "WordPiece, normalized": lambda: wordpiece(normalized=True),
}


def cut_anywhere(rng, text):
    places = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(8)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_whole_text(kind, monkeypatch):
    rng, tokenizer = random.Random(kind), KINDS[kind]()
    names = list(tokenizer.special_tokens)
    for case in range(1500):
        monkeypatch.setattr(streaming, "BLOCK", rng.choice([1, 1, 2, 5, 30]))
        monkeypatch.setattr(streaming, "_NEAR", rng.choice([1, 2, 5, 256]))
        text = "".join(rng.choices(ALPHABET, k=rng.randrange(25)))
        special = rng.choice([True, False, rng.sample(names, rng.randrange(len(names) + 1))])
        texts = list(text) if case % 3 == 0 else cut_anywhere(rng, text)
        assert list(tokenizer.encode_iterable(texts, special)) == tokenizer.encode(text, special).tolist(), (
            texts,
            special,
        )


def test_a_special_token_that_does_not_count_reaches_out_of_white_space_that_was_taken_along(monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", 1)
    added = [("R", dict(special=False, rstrip=True)), (" ab", {}), ("bc", dict(special=False))]
    steps = {"type": "Sequence", "pretokenizers": [byte_level_step(use_regex=False)]}
    tokenizer, text = bpe(added=added, pre_tokenizer=steps), "R abc" + "d" * 30
    assert list(tokenizer.encode_iterable(text, False)) == tokenizer.encode(text, False).tolist()


# Those whose tokens could reach across all of a text: it has no joints, as the docstring of encode_iterable says
WITHOUT_JOINTS = {
    "digits alone",
    "digits alone, added",
    "SentencePiece, across words",
    "SentencePiece, unknown characters in pieces",
}


@pytest.mark.parametrize("kind", KINDS)
def test_little_is_held(kind, monkeypatch):
    """Of a text of ordinary words ids come while it is read; behind a special token always."""
    tokenizer, read = KINDS[kind](), 0
    monkeypatch.setattr(streaming, "BLOCK", 20)
    special = list(tokenizer.special_tokens)[-1]

    def lines():
        nonlocal read
        for _ in range(100):
            read += 1
            yield special + " the table.\n" if kind in WITHOUT_JOINTS else "the table.\n"

    ids = tokenizer.encode_iterable(lines())
    next(ids)
    assert read < 10 and (kind in WITHOUT_JOINTS) == (tokenizer._joints() is None)


def test_a_file_is_read_line_by_line(tmp_path):
    tokenizer = bpe(PATTERNS[1])
    (tmp_path / "text.txt").write_text(SAMPLE * 10, encoding="utf-8", newline="")
    with open(tmp_path / "text.txt", encoding="utf-8", newline="") as file:
        ids = list(tokenizer.encode_iterable(file))
    assert ids == tokenizer.encode(SAMPLE * 10).tolist() and type(ids[0]) is int
    assert list(tokenizer.encode_iterable([])) == list(tokenizer.encode_iterable(["", ""])) == []
    assert list(tokenizer.encode_iterable("a text")) == tokenizer.encode("a text").tolist()


MEGABYTE = 2**20
LINE = "It's the year 1984, the cat sat on the mat: «chat» 猫が座った。 They'll see...\n"


@pytest.mark.parametrize(
    "kind, megabytes",
    [
        ("byte level 1", 5),
        ("characters", 1),
        ("added, byte level 3", 1),
        ("SentencePiece, always", 1),
        ("WordPiece", 1),
    ],
)
def test_memory_does_not_grow_with_the_text(kind, megabytes):
    """Line by line, and as one str without a line break: what is made besides is below half a megabyte."""
    tokenizer = KINDS[kind]() if kind != "characters" else CharTokenizer.train(LINE)
    lines = megabytes * MEGABYTE // len(LINE)
    for texts in ((LINE for _ in range(lines)), [LINE.replace("\n", " ") * (lines // megabytes)]):
        tracemalloc.start()
        count = sum(1 for _ in tokenizer.encode_iterable(texts))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count > MEGABYTE / 4
        assert peak < MEGABYTE / 2


def test_a_text_without_joints_is_no_trap():
    """A word of 400,000 letters, which no part of can be encoded before its end is known."""
    tokenizer = bpe(PATTERNS[1])
    assert list(tokenizer.encode_iterable("ab" for _ in range(200_000))) == tokenizer.encode("ab" * 200_000).tolist()


@pytest.mark.parametrize(
    "texts, error, message",
    [
        (5, TypeError, "texts must be several str, such as the lines of a file; received int"),
        (b"bytes", TypeError, "received bytes"),
        (["a", b"b"], TypeError, "text must be a str, received bytes"),
        (["a", "\ud800"], ValueError, "lone surrogate"),
    ],
)
def test_what_is_no_text(texts, error, message):
    with pytest.raises(error, match=message):
        list(bpe().encode_iterable(texts))


def test_an_unknown_character():
    with pytest.raises(ValueError, match=r"character 'x' \(U\+0078\) is not among the 2 characters"):
        list(CharTokenizer.train("ab").encode_iterable(["a", "x"]))


# Which special tokens count


def test_the_special_tokens_that_count_can_be_chosen():
    tokenizer = bpe()
    end, a, both = (tokenizer.special_tokens[text] for text in (END_OF_TEXT, "<|a|>", "<|a|><|b|>"))
    text = f"the{END_OF_TEXT}<|a|><|b|>"
    plain = {part: tokenizer.encode(part, special=False).tolist() for part in ("the", END_OF_TEXT, "<|b|>", text)}
    assert tokenizer.encode(text).tolist() == [*plain["the"], end, both], "the longest of those that begin at a place"
    assert tokenizer.encode(text, special=[END_OF_TEXT, "<|a|>"]).tolist() == [*plain["the"], end, a, *plain["<|b|>"]]
    assert tokenizer.encode(text, special={"<|a|>"})[len(plain["the"]) + len(plain[END_OF_TEXT])] == a
    for nothing in (False, [], (), set()):
        assert tokenizer.encode(text, special=nothing).tolist() == plain[text]
    for everything in (True, tokenizer.special_tokens, tokenizer.special_tokens.keys()):
        assert tokenizer.encode(text, special=everything).tolist() == tokenizer.encode(text).tolist()
    assert (
        tokenizer.encode_bytes(text.encode(), special=["<|a|>"]).tolist() == tokenizer.encode(text, ["<|a|>"]).tolist()
    )
    assert copy.deepcopy(tokenizer).encode(text, ["<|a|>"]).tolist() == tokenizer.encode(text, ["<|a|>"]).tolist()


def test_added_tokens_that_are_not_special_always_count():
    tokenizer = bpe(added=[("cat", dict(special=False)), ("dog", dict(normalized=True))])
    cat, dog = (tokenizer.added_tokens[-i].id for i in (2, 1))
    assert tokenizer.encode("catdog", special=[]).tolist()[0] == cat
    assert tokenizer.encode("catdog", special=["dog"]).tolist() == [cat, dog]
    assert dog not in tokenizer.encode("catdog", special=[END_OF_TEXT])


def test_special_tokens_that_do_not_exist():
    with pytest.raises(
        ValueError, match="'<|c|>' is no special token; there are <|endoftext|>, <|a|>, <|a|><|b|>".replace("|", r"\|")
    ):
        bpe().encode("a", special=[END_OF_TEXT, "<|c|>"])
    for special in (END_OF_TEXT, None, 1):
        with pytest.raises(TypeError, match="True, False or a collection of special tokens; received"):
            bpe().encode("a", special=special)
    with pytest.raises(ValueError, match="there are none"):
        CharTokenizer.train("ab").encode("a", special=["a"])
    with pytest.raises(ValueError, match=r"'x' \(U\+0078\) at position 1"):
        CharTokenizer.train("ab", ("<s>",)).encode("axb", special=["<s>"])


def test_a_saved_tokenizer_streams(tmp_path):
    bpe(PATTERNS[1]).save(tmp_path)
    assert list(load_tokenizer(tmp_path).encode_iterable([SAMPLE])) == bpe(PATTERNS[1]).encode(SAMPLE).tolist()
