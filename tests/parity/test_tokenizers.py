"""The same vocabulary, ids and text as Hugging Face's tokenizers and transformers."""

import json
import random
import sys
import unicodedata

import pytest

from minillama.tokenizers import (
    END_OF_TEXT,
    PATTERNS,
    BPETokenizer,
    CharTokenizer,
    compile_pattern,
    load_tokenizer,
)

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
hypothesis = pytest.importorskip("hypothesis")
given, st = hypothesis.given, hypothesis.strategies
many = hypothesis.settings(deadline=None, derandomize=True, max_examples=400)

SPECIAL = (END_OF_TEXT, "<|a|>", "<|a|><|b|>", "<｜é▁｜>")
MULTILINGUAL = (
    "First Citizen:\nBefore we proceed any, hear me speak. It's 1984, isn't it? They've won; we'll go\n"
    "Être ou ne pas être, c'est là la question. Größe, Straße, œuvre, naïveté, İstanbul, ǅ, ŉ\n"
    "Съешь же ещё этих мягких французских булок. Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.\n"
    "猫が座った。你好，世界！ 안녕하세요 세계. שלום עולם مرحبا بالعالم नमस्ते दुनिया สวัสดีชาวโลก\n"
    "int main(void) { return x[0] != 0x1F ? 3.14e-10 : -1; }  // 12345 ½ ² Ⅷ ٣ 𝟙 𝒜\n"
    "\t tabs\t\tand   spaces  \r\n\r\n \n  trailing \u00a0\u2003\u3000 \x85 \x1c \x1f \x0b \0 \u200b \ufeff "
)
AWKWARD = [
    "",
    " ",
    "\n",
    "   \n\n  \t",
    "Hello , world ! do n't clean this up , it 's fine .",
    "  leading and trailing  ",
    "a" * 1000,
    " " * 1000 + "x",
    "0123456789" * 3,
    "e\u0301 👩\u200d👩\u200d👧 🇫🇷 \ufdd0 \U0010ffff",
    "don't DON'T we're 's's ''s 'tis 'll",
    "\r\n\r\n\n\r",
    f"{END_OF_TEXT}{END_OF_TEXT} one {END_OF_TEXT}\n<|a|><|b|><|a|> <|b|> <|a <｜é▁｜> end{END_OF_TEXT}",
    MULTILINGUAL,
]

# The library may know a younger version of Unicode than this Python; characters unknown here are left out.
KNOWN = st.characters(exclude_categories=["Cs", "Cn"])
PIECES = st.sampled_from([*SPECIAL, "<|", "|>", " ", "  ", "\n", "\t", "'s", "n't", "the", "12", ".", "\x1c"])
PARTS = st.one_of(PIECES, st.text(KNOWN, max_size=6), st.text("ab 1\n'", max_size=6))
TEXT = st.lists(PARTS, max_size=12).map("".join)


def trained_by_library(texts, vocab_size, special=(END_OF_TEXT,), pattern=PATTERNS[0]):
    pre_tokenizers = tokenizers.pre_tokenizers
    trained = tokenizers.Tokenizer(tokenizers.models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trained.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    return trained


def assert_same_training(texts, vocab_size, **options):
    ours = BPETokenizer.train(texts, vocab_size, special_tokens=options.get("special", (END_OF_TEXT,)))
    assert ours.to_json() == json.loads(trained_by_library(texts, vocab_size, **options).to_str())


@pytest.fixture(scope="module")
def shakespeare(assets):
    return (assets / "data" / "tinyshakespeare.txt").read_bytes().decode()


@pytest.fixture(scope="module", params=PATTERNS)
def bpe(request):
    return BPETokenizer.train(MULTILINGUAL, 600, special_tokens=SPECIAL, pattern=request.param)


@pytest.fixture(scope="module")
def chars():
    return CharTokenizer.train(" ".join("".join(AWKWARD)), special_tokens=SPECIAL)


@pytest.fixture(scope="module", params=["bpe", "chars"])
def saved(request, tmp_path_factory):
    """A tokenizer and the folder that it was saved to."""
    name = request.param
    if name == "bpe":
        ours = BPETokenizer.train(MULTILINGUAL, 600, special_tokens=SPECIAL)
    else:
        ours = request.getfixturevalue("chars")
    folder = tmp_path_factory.mktemp(name)
    ours.save(folder)
    return ours, folder


# Training


@many
@given(st.text("ab ", min_size=1, max_size=80), st.integers(257, 320))
def test_training_on_two_letters(text, vocab_size):
    assert_same_training([text], vocab_size)


@many
@given(st.lists(st.text("abcd'1 \n", min_size=1, max_size=40), min_size=1, max_size=6), st.integers(258, 330))
def test_training_on_several_texts(texts, vocab_size):
    assert_same_training(texts, vocab_size, special=("<s>", "</s>"))


@many
@given(st.lists(st.text(KNOWN, min_size=1, max_size=40), min_size=1, max_size=4))
def test_training_on_any_text(texts):
    assert_same_training(texts, 400, special=())


@pytest.mark.parametrize("unit", ["a", "ab", "aab", "aba", " ", "\n", "é", "a ", "1"])
def test_training_on_repetition(unit):
    for times in [*range(1, 20), 31, 32, 33, 100]:
        assert_same_training([unit * times], 300)


def test_training_on_many_languages():
    for vocab_size in (257, 300, 500, 700, 5000):
        assert_same_training([MULTILINGUAL, "猫 cat", MULTILINGUAL[::-1]], vocab_size)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_training_with_each_pattern(pattern):
    ours = BPETokenizer.train(MULTILINGUAL * 2, 500, pattern=pattern)
    assert ours.to_json() == json.loads(trained_by_library([MULTILINGUAL * 2], 500, pattern=pattern).to_str())


def test_training_around_special_tokens():
    """The library learns from special tokens in the text; given the parts between them it agrees."""
    parts = ["end of text", "text of the end", "<|end|>"]
    ours = BPETokenizer.train(END_OF_TEXT.join(parts), 300)
    assert ours.to_json() == json.loads(trained_by_library(parts, 300).to_str())


@pytest.mark.parametrize("vocab_size", [512, 4096, 30_000])
def test_training_on_tinyshakespeare(shakespeare, vocab_size):
    ours = BPETokenizer.train(shakespeare, vocab_size)
    library = trained_by_library([shakespeare], vocab_size)
    assert ours.to_json() == json.loads(library.to_str())
    assert ours.encode(shakespeare).tolist() == library.encode(shakespeare).ids


# Words


def test_character_classes():
    r"""\p{L}, \p{N} and \s for every character that this Python knows."""
    known = [chr(i) for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i)) not in ("Cs", "Cn")]
    assert len(known) > 270_000
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    text = "|".join(f"a{character}.{character}  {character}" for character in known)
    assert compile_pattern(pattern).findall(text) == [word for word, _ in split.pre_tokenize_str(text)]


@many
@given(TEXT)
def test_words(text):
    for pattern in PATTERNS:
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        assert compile_pattern(pattern).findall(text) == [word for word, _ in split.pre_tokenize_str(text)]


# Encoding and decoding


def both_encodings(ours, library, text):
    """ids of a text from both, with special tokens and without."""
    for special in (True, False):
        library.encode_special_tokens = not special
        yield ours.encode(text, special).tolist(), library.encode(text, add_special_tokens=True).ids


@pytest.fixture(scope="module")
def library_bpe(bpe):
    return tokenizers.Tokenizer.from_str(json.dumps(bpe.to_json()))


@many
@given(TEXT)
def test_ids_and_text_of_bpe(bpe, library_bpe, text):
    for ours, theirs in both_encodings(bpe, library_bpe, text):
        assert ours == theirs
        assert bpe.decode(ours) == library_bpe.decode(ours, skip_special_tokens=False) == text


@many
@given(st.text("abtheo n", max_size=60))
def test_ids_of_bpe_with_many_merges(bpe, library_bpe, text):
    assert bpe.encode(text).tolist() == library_bpe.encode(text).ids


@many
@given(st.lists(st.integers(0, 599), max_size=40))
def test_text_of_any_ids(bpe, library_bpe, ids):
    assert bpe.vocab_size == 600
    assert bpe.decode(ids) == library_bpe.decode(ids, skip_special_tokens=False)


def test_every_token_alone(bpe, library_bpe):
    for i in range(bpe.vocab_size):
        assert bpe.decode([i]) == library_bpe.decode([i], skip_special_tokens=False)
    assert bpe.vocab_size == library_bpe.get_vocab_size()


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_of_bpe(bpe, library_bpe, text):
    for ours, theirs in both_encodings(bpe, library_bpe, text):
        assert ours == theirs
        assert library_bpe.decode(ours, skip_special_tokens=False) == text


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_of_characters(chars, text):
    library = tokenizers.Tokenizer.from_str(json.dumps(chars.to_json()))
    for ours, theirs in both_encodings(chars, library, text):
        assert ours == theirs
        assert chars.decode(ours) == library.decode(ours, skip_special_tokens=False) == text


def test_the_library_refuses_unknown_characters_too(chars):
    library = tokenizers.Tokenizer.from_str(json.dumps(chars.to_json()))
    with pytest.raises(ValueError, match="not among"):
        chars.encode("a☃")
    with pytest.raises(Exception, match="WordLevel error"):
        library.encode("a☃")


# Files


def test_the_library_writes_the_same_file(saved, tmp_path):
    ours, folder = saved
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert json.loads(library.to_str()) == ours.to_json()
    library.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).to_json() == ours.to_json()


def test_a_file_trained_and_saved_by_the_library_is_read(tmp_path):
    library = trained_by_library([MULTILINGUAL], 400)
    library.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert ours.encode(MULTILINGUAL).tolist() == library.encode(MULTILINGUAL).ids


def test_special_tokens_added_later_are_read():
    library = trained_by_library([MULTILINGUAL], 400)
    library.add_special_tokens(["<|user|>", "<|assistant|>"])
    ours = BPETokenizer.from_json(json.loads(library.to_str()))
    assert ours.special_tokens == {END_OF_TEXT: 0, "<|user|>": 400, "<|assistant|>": 401}
    text = f"<|user|>Hello<|assistant|> Hi{END_OF_TEXT}"
    assert ours.encode(text).tolist() == library.encode(text).ids


@pytest.mark.parametrize("opener", ["AutoTokenizer", "PreTrainedTokenizerFast"])
def test_transformers_opens_the_folder(saved, opener):
    ours, folder = saved
    theirs = getattr(transformers, opener).from_pretrained(str(folder))
    assert len(theirs) == ours.vocab_size
    assert theirs.eos_token == END_OF_TEXT and theirs.eos_token_id == ours.end_of_text
    for text in AWKWARD:
        ids = ours.encode(text).tolist()
        assert theirs(text)["input_ids"] == theirs.encode(text) == ids
        assert theirs.decode(ids) == text
    rng = random.Random(0)
    for _ in range(200):
        ids = [rng.randrange(ours.vocab_size) for _ in range(rng.randrange(1, 30))]
        assert theirs.decode(ids) == ours.decode(ids)


def test_what_transformers_saves_is_read(saved, tmp_path):
    ours, folder = saved
    transformers.AutoTokenizer.from_pretrained(str(folder)).save_pretrained(str(tmp_path))
    assert load_tokenizer(tmp_path).to_json() == ours.to_json()


def test_transformers_refuses_unknown_characters_too(chars, tmp_path):
    chars.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    with pytest.raises(Exception, match="WordLevel error"):
        theirs("a☃")
