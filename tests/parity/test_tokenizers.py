"""The same vocabulary, ids and text as Hugging Face's tokenizers and transformers."""

import json
import os
import random
import struct
import sys
import unicodedata
from itertools import islice
from pathlib import Path

import pytest

from minillama.data import stories
from minillama.tokenizers import (
    DIGITS_PATTERN,
    END_OF_TEXT,
    LLAMA3_PATTERN,
    PATTERNS,
    AddedToken,
    BPETokenizer,
    CharTokenizer,
    SentencePieceTokenizer,
    WordPieceTokenizer,
    compile_pattern,
    load_tokenizer,
    wordpiece,
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


@pytest.mark.parametrize("pattern, around", [(DIGITS_PATTERN, "|a{0}.{0}  {0}"), (LLAMA3_PATTERN, "1{0}a")])
def test_character_classes(pattern, around):
    r"""\p{L}, \p{N} and \s for every character that this Python knows."""
    known = [chr(i) for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i)) not in ("Cs", "Cn")]
    assert len(known) > 270_000
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    text = "".join(map(around.format, known))
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


# Open checkpoints


TEXTS = int(os.environ.get("MINILLAMA_FUZZ", 300))  # random texts for each kind of tokenizer
FRAGMENTS = [
    *("'s", "'LL", "'ſ", "n't", " the", " and", "  ", "    "),
    *("\r\n", "\n\n", "12345", "\t", "\x00", "<0x0A>", "▁", "▁▁"),
    *("<s>", "</s>", "<unk>", "[MASK]", "[CLS]", END_OF_TEXT, "<|begin_of_text|>", "<|x|>"),
    *("猫が", "\u0301", "\x85", "\x1c"),
]  # fmt: skip
COMMON = [*" " * 8, *"abcdefghistTSLDVEREM0189.,!?'’-_()éüßſK😀"]
CHARACTERS = [
    chr(i) for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i)) not in ("Cs", "Cn")
]  # those that this Python knows; the library may know younger ones


def fuzzed(count, characters=CHARACTERS):
    """Random texts, the same at every run: common characters, rare ones, awkward fragments, words, special tokens."""
    rng = random.Random(0)
    words = MULTILINGUAL.split(" ")
    sources = [COMMON] * 5 + [characters] + [FRAGMENTS] * 2 + [words] * 3
    for _ in range(count):
        yield "".join(rng.choice(rng.choice(sources)) for _ in range(rng.randrange(1, 25)))


def assert_same(ours, library, texts, decoding=True):
    """The same ids and text from ours, from the library, and from the library with the file that ours writes."""
    written = tokenizers.Tokenizer.from_str(json.dumps(ours.to_json()))
    for text in texts:
        for special in (True, False):
            ids = ours.encode(text, special).tolist()
            for other in (library, written):
                other.encode_special_tokens = not special
                assert ids == other.encode(text, add_special_tokens=False).ids, (text, special)
            if decoding:
                assert ours.decode(ids) == library.decode(ids, skip_special_tokens=False), (text, special)


def trained_bpe(pre_tokenizer, special, every_byte=True, **model):
    """A byte-level BPE with this cutting into words."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE(**model))
    library.pre_tokenizer, library.decoder = pre_tokenizer, tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=special,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet() if every_byte else [],
        show_progress=False,
    )
    library.train_from_iterator([MULTILINGUAL * 3], trainer)
    return library


def template(library, single, names):
    ids = [(name, library.token_to_id(name)) for name in names]
    return tokenizers.processors.TemplateProcessing(single=single, special_tokens=ids)


def like_gpt2(add_prefix_space=False):
    library = trained_bpe(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space), [END_OF_TEXT])
    library.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    return library


def like_smollm(individual_digits=True):
    digits = tokenizers.pre_tokenizers.Digits(individual_digits)
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    steps = tokenizers.pre_tokenizers.Sequence([digits, byte_level])
    return trained_bpe(steps, [END_OF_TEXT, "<|im_start|>"], every_byte=False)


def like_llama3():
    """With words that are tokens though no merge leads to them."""
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(LLAMA3_PATTERN), "isolated")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    steps = tokenizers.pre_tokenizers.Sequence([split, byte_level])
    library = trained_bpe(steps, ["<|begin_of_text|>", "<|end_of_text|>"], ignore_merges=True)
    begin = template(library, "<|begin_of_text|> $A", ["<|begin_of_text|>"])
    offsets = tokenizers.processors.ByteLevel(trim_offsets=False)
    library.post_processor = tokenizers.processors.Sequence([offsets, begin])
    data = json.loads(library.to_str())
    merges = data["model"]["merges"]
    data["model"]["merges"] = [merge for i, merge in enumerate(merges) if i < 200 or i % 3]
    made = {"".join(merge) for merge in data["model"]["merges"]} | set(data["model"]["vocab"])
    data["model"]["merges"] = [merge for merge in data["model"]["merges"] if {*merge} <= made]
    return tokenizers.Tokenizer.from_str(json.dumps(data))


def with_added_tokens():
    """Added tokens of each setting."""
    library = like_gpt2()
    token = tokenizers.AddedToken
    library.add_special_tokens([token("<|x|>", lstrip=True, rstrip=True), token("<s>", normalized=True)])
    library.add_tokens([token("    ", normalized=False), token(" of", lstrip=True), token("[MASK]", rstrip=True)])
    return library


@pytest.mark.parametrize(
    "make, begin, end",
    [
        (like_gpt2, END_OF_TEXT, END_OF_TEXT),
        (lambda: like_gpt2(add_prefix_space=True), END_OF_TEXT, END_OF_TEXT),
        (like_smollm, END_OF_TEXT, END_OF_TEXT),
        (lambda: like_smollm(individual_digits=False), END_OF_TEXT, END_OF_TEXT),
        (like_llama3, "<|begin_of_text|>", "<|end_of_text|>"),
        (with_added_tokens, "<s>", END_OF_TEXT),
    ],
    ids=["gpt2", "gpt2-prefix", "smollm", "digits", "llama3", "added"],
)
def test_byte_level(make, begin, end, tmp_path):
    library = make()
    library.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert (ours.begin_of_text, ours.end_of_text) == (library.token_to_id(begin), library.token_to_id(end))
    assert_same(ours, library, [*fuzzed(TEXTS), *AWKWARD])


ADDED_TEXTS = (" ", "  ", "   ", "\n", "\t", " \n", "\n ", "\u2003", "ab", " a", "a ", "ba", "<x>", "<x", "x>", "<s>")


@st.composite
def added_tokens(draw):
    """Some tokens of every setting that is supported; some lie in others, overlap, or are white space."""
    texts = draw(st.lists(st.sampled_from(ADDED_TEXTS), min_size=1, max_size=6, unique=True))
    flags = st.fixed_dictionaries({name: st.booleans() for name in ("lstrip", "rstrip", "normalized")})
    return [(text, len(text) > 1 and draw(st.booleans()), draw(flags)) for text in texts]


def library_of_bytes():
    """No merges: every text can be added without taking a part away from one."""
    vocab = {symbol: i for i, symbol in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}
    library = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = tokenizers.decoders.ByteLevel()
    return library


def library_of_spaces():
    """A normalizer between the two searches, as Llama 2's: a space before the text, and all written as U+2581."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abx<>s"]
    model = tokenizers.models.BPE(
        {piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    library = tokenizers.Tokenizer(model)
    library.add_special_tokens([tokenizers.AddedToken("<unk>", normalized=False)])
    library.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    decoders = tokenizers.decoders
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return library


@pytest.mark.parametrize("make", [library_of_bytes, library_of_spaces])
@many
@given(
    added_tokens(),
    st.lists(st.sampled_from(("a", "b", " ", "\n", *ADDED_TEXTS)), max_size=9).map("".join),
    st.booleans(),
)
def test_added_tokens_of_every_setting(make, added, text, special):
    library = make()
    for content, is_special, flags in added:
        add = library.add_special_tokens if is_special else library.add_tokens
        add([tokenizers.AddedToken(content, **flags)])
    ours = load_json(library)
    library.encode_special_tokens = not special
    ids = ours.encode(text, special).tolist()
    try:
        expected = library.encode(text, add_special_tokens=False).ids
    except BaseException as error:  # a token with lstrip that ends before the one before it does: the library panics
        assert type(error).__name__ == "PanicException" and any(flags["lstrip"] for _, _, flags in added)
    else:
        assert ids == expected


def load_json(library):
    data = json.loads(library.to_str())
    return (BPETokenizer if data["decoder"]["type"] == "ByteLevel" else SentencePieceTokenizer).from_json(data)


def library_llama(pieces):
    """The library's tokenizer of (piece, score), as checkpoints' converters make it from a SentencePiece model."""
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces[259:]:
        halves = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        merges += [(left, right, score) for left, right in halves if left in vocab and right in vocab]
    merges.sort(key=lambda merge: (merge[2], len(merge[0]), len(merge[1])), reverse=True)
    model = tokenizers.models.BPE(
        vocab, [merge[:2] for merge in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    library = tokenizers.Tokenizer(model)
    library.add_special_tokens([tokenizers.AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")])
    library.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    decoders = tokenizers.decoders
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.post_processor = template(library, "<s> $A", ["<s>"])
    return library


def read_bin(path):
    data, place, pieces = path.read_bytes(), 4, []
    while place < len(data):
        score, size = struct.unpack_from("<fi", data, place)
        pieces.append((data[place + 8 : place + 8 + size].decode().replace(" ", "▁").strip("\n"), score))
        place += 8 + size
    return pieces


@pytest.fixture(scope="module", params=["llama2-tokenizer.bin", "stories260K/tok512.bin"])
def llama(request, assets):
    """A SentencePiece tokenizer from its file, and what the library makes of the same pieces."""
    path = assets / "models" / request.param
    model = path.with_suffix(".model")
    return load_tokenizer(model if model.is_file() else path), library_llama(read_bin(path))


@pytest.fixture
def small_llama(assets):
    """What the library makes of a small SentencePiece tokenizer."""
    return library_llama(read_bin(assets / "models" / "stories260K" / "tok512.bin"))


def test_sentencepiece(llama):
    ours, library = llama
    texts = [*fuzzed(TEXTS), *AWKWARD, *(" " * i + "the" + " " * i for i in range(40))]
    assert_same(ours, library, texts, decoding=False)
    for text in texts:
        ids = ours.encode(text, special=False).tolist()
        assert ours.decode(ids) == library.decode(ids, skip_special_tokens=False) == text.replace("▁", " ")


def test_sentencepiece_on_real_text(llama, shakespeare):
    ours, library = llama
    made = " ".join(islice((d for d in stories.generate(100_000, 0).train), 200))
    code = Path(stories.__file__).read_text(encoding="utf-8")
    for text in (shakespeare, code, made, MULTILINGUAL):
        assert ours.encode(text).tolist() == library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("ending", ["model", "bin"])
def test_llama_2_against_sentencepiece_itself(ending, assets, shakespeare):
    sentencepiece = pytest.importorskip("sentencepiece")
    path = assets / "models" / "llama2-tokenizer.model"
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ours = load_tokenizer(path.with_suffix(f".{ending}"))
    code = Path(stories.__file__).read_text(encoding="utf-8")
    spaces = (" " * i + "the" + " " * i for i in range(40))
    for text in (*fuzzed(TEXTS), *AWKWARD, *spaces, shakespeare, code):
        text = text.replace("\0", "")  # where theirs ends a text
        ids = theirs.encode(text)
        assert ours.encode(text, special=False).tolist() == ids, text[:200]
        assert ours.decode(ids) == theirs.decode(ids), text[:200]


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
@pytest.mark.parametrize("split", [True, False])
def test_sentencepiece_from_json(small_llama, scheme, split, tmp_path):
    """The newer form, in which the pre-tokenizer writes the spaces, and the older one."""
    library = small_llama
    for form in ("normalizer", "Metaspace"):
        if form == "Metaspace":
            library.normalizer = tokenizers.normalizers.Sequence([])
            library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace("▁", scheme, split)
        data = json.loads(library.to_str())
        data["normalizer"] = data["normalizer"] if form == "normalizer" else None
        (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
        ours = load_tokenizer(tmp_path)
        assert (ours.begin_of_text, ours.end_of_text) == (1, 2)
        assert_same(ours, library, fuzzed(TEXTS // 3), decoding=False)


@pytest.mark.parametrize("prefix", ["always", "never"])
def test_sentencepiece_that_squeezes_spaces(small_llama, prefix):
    ours = SentencePieceTokenizer.from_json(json.loads(small_llama.to_str()))
    ours.squeeze, ours.prefix = True, prefix
    library = tokenizers.Tokenizer.from_str(json.dumps(ours.to_json()))
    ours = SentencePieceTokenizer.from_json(ours.to_json())
    assert (ours.squeeze, ours.prefix) == (True, prefix)
    assert ours.decode(ours.encode("  a   b ")) == "a b"
    assert_same(ours, library, fuzzed(TEXTS), decoding=False)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("scheme", [None, "first"])
def test_sentencepiece_with_added_tokens(small_llama, normalized, scheme):
    library = small_llama
    if scheme is not None:
        library.normalizer = None
        library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace("▁", scheme, False)
    token = tokenizers.AddedToken
    library.add_special_tokens([token("<|x|>", normalized=normalized, lstrip=True)])
    library.add_tokens([token("[MASK]", normalized=normalized), token("the ", normalized=normalized)])
    ours = SentencePieceTokenizer.from_json(json.loads(library.to_str()))
    assert_same(ours, library, fuzzed(TEXTS // 3), decoding=False)


@pytest.fixture(scope="module", params=[(True, None), (False, None), (True, False), (False, True)])
def bert(request, tmp_path_factory):
    """A WordPiece tokenizer of the library and ours from its file."""
    lowercase, strip_accents = request.param
    made = tokenizers.BertWordPieceTokenizer(lowercase=lowercase, strip_accents=strip_accents)
    made.train_from_iterator([MULTILINGUAL * 3], vocab_size=500, show_progress=False)
    library = made._tokenizer
    library.post_processor = template(library, "[CLS] $A [SEP]", ["[CLS]", "[SEP]"])
    path = tmp_path_factory.mktemp("bert") / "tokenizer.json"
    library.save(str(path))
    return load_tokenizer(path), library


@pytest.fixture(scope="module")
def agreed():
    """The characters that the library normalises and cuts as ours does."""
    normalizer, cut = tokenizers.normalizers.BertNormalizer(), tokenizers.pre_tokenizers.BertPreTokenizer()
    ours = WordPieceTokenizer({}, [AddedToken("[UNK]", 0)])

    def same(character):
        text = f"a{character}b"
        mine = ours._normalize(text)
        words = [word for word in mine.translate(wordpiece._APART).split(" ") if word]
        return normalizer.normalize_str(text) == mine and words == [word for word, _ in cut.pre_tokenize_str(mine)]

    return list(filter(same, CHARACTERS))


def test_wordpiece_differs_only_in_young_characters(agreed):
    """Marks, signs and controls that came after Unicode 8, which the library does not know and BERT's own code does."""
    differing = set(CHARACTERS) - set(agreed)
    assert len(differing) < 800  # 505 with Unicode 14
    kinds = {unicodedata.category(character) for character in differing}
    assert kinds <= {"Mn", "Mc", "Cf", "Po", "Ps", "Pe", "Pd", "So"}
    assert min(differing) >= "\u061d"


def test_wordpiece(bert, agreed):
    ours, library = bert
    names = ("[CLS]", "[SEP]", "[MASK]")
    assert [ours.begin_of_text, ours.end_of_text, ours.mask_token] == list(map(library.token_to_id, names))
    assert_same(ours, library, [*fuzzed(TEXTS, agreed), *AWKWARD, "\n" + "word " * 50])


def test_wordpiece_from_vocab_txt(bert, tmp_path):
    ours, library = bert
    by_id = sorted(library.get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "vocab.txt").write_text("\n".join(token for token, _ in by_id) + "\n", encoding="utf-8")
    config = {"do_lower_case": ours.lowercase, "strip_accents": ours.strip_accents}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert load_tokenizer(tmp_path).to_json() == ours.to_json()


@pytest.mark.parametrize("kind", ["llama", "wordpiece", "llama3"])
def test_transformers_opens_what_is_saved(kind, llama, bert, tmp_path):
    made = {"llama": llama, "wordpiece": bert}
    ours = made[kind][0] if kind in made else BPETokenizer.from_json(json.loads(like_llama3().to_str()))
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    ends = {"llama": 0, "wordpiece": 1, "llama3": 0}[kind]
    for text in ("Hello world", "The cat's 1984\n"):
        ids = ours.encode(text).tolist()
        ids = [ours.begin_of_text, *ids, *[ours.end_of_text] * ends]
        assert theirs(text)["input_ids"] == ids
    assert theirs.eos_token_id == ours.end_of_text and theirs.bos_token_id == ours.begin_of_text
