"""Tokenizers of open checkpoints, from each of their files: ids against plain references, and damaged files."""

import base64
import copy
import json
import os
import pickle
import random
import struct
import time
import tracemalloc

import pytest

from minillama.tokenizers import (
    END_OF_TEXT,
    GPT2_PATTERN,
    LLAMA3_PATTERN,
    AddedToken,
    BPETokenizer,
    CharTokenizer,
    SentencePieceTokenizer,
    WordPieceTokenizer,
    compile_pattern,
    load_tokenizer,
    protobuf,
    tiktoken,
)
from minillama.tokenizers.merging import LONGEST_TOKEN, merge, merges_by_token
from minillama.tokenizers.tiktoken import LLAMA3_SPECIAL_TOKENS

MUTATIONS = int(os.environ.get("MINILLAMA_MUTATIONS", 60))  # of each kind of file
SAMPLE = "The cat sat on the mat.  Thé chat s'est assis:\n\n猫が座った。 It's 1984, ISN'T it? 😀\t\r\n </s> [MASK] "
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
UNKNOWN, CONTROL, NORMAL, USER_DEFINED, UNUSED, BYTE = 2, 3, 1, 4, 5, 6


# Writers of the formats


def varint(value: int) -> bytes:
    value %= 1 << 64
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def proto(*fields: tuple[int, int | float | str | bytes]) -> bytes:
    """A protocol buffer of these fields: (number, value)."""
    out = b""
    for number, value in fields:
        if isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def sentencepiece_model(pieces, trainer=((3, 2), (35, 1)), normalizer=((1, "identity"), (4, 0))) -> bytes:
    """A ModelProto of (piece, score, type)."""
    rows = [(1, proto((1, piece), (2, float(score)), (3, kind))) for piece, score, kind in pieces]
    return proto(*rows, (2, proto(*trainer)), (3, proto(*normalizer)))


def with_special(words, scores=None) -> list:
    """Pieces of a model with byte fallback: three special ones, the bytes, and words with falling scores."""
    special = [("<unk>", 0, UNKNOWN), ("<s>", 0, CONTROL), ("</s>", 0, CONTROL)]
    scores = scores or [-i for i in range(len(words))]
    return special + [(b, 0, BYTE) for b in BYTES] + [(w, s, NORMAL) for w, s in zip(words, scores, strict=True)]


def llama2c_bin(tokens: list[tuple[str | bytes, float]], longest: int | None = None) -> bytes:
    rows = [(token.encode() if isinstance(token, str) else token, score) for token, score in tokens]
    longest = max(len(token) for token, _ in rows) if longest is None else longest
    return struct.pack("<i", longest) + b"".join(struct.pack("<fi", s, len(t)) + t for t, s in rows)


def tiktoken_file(tokens: list[bytes]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % i for i, token in enumerate(tokens))


check_whose = tiktoken.check_whose


@pytest.fixture(autouse=True)
def small_files_are_llama_3s(monkeypatch):
    """Llama 3's file is known by its 128,000 ranks, which no test needs but the one of just that."""
    monkeypatch.setattr(tiktoken, "check_whose", lambda vocab, ranks: None)


WORDS = "▁ ▁t h e a t ▁a he ▁the ▁▁ c s o n m . ▁cat at ▁s ▁sat ▁on ▁mat T ▁T ▁The 猫 が é".split()
RANKED = [bytes([i]) for i in range(256)] + [b"th", b"he", b"the", b" t", b" the", b"cat", b"\n\n", b"98", b"19", b"'T"]
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "s", "##at", "##t", "##s", "on", "un", "##able",
         "a", "##a", ".", ",", "'", "!", "猫", "c", "##c", "cafe", "n't", "do", "not", "ß"]  # fmt: skip


def write(folder, name, data):
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder / name


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small file of every kind."""
    folder = tmp_path_factory.mktemp("files")
    model = write(folder, "llama.model", sentencepiece_model(with_special(WORDS)))
    tokens = [("<unk>", 0.0), ("\n<s>\n", 0.0), ("\n</s>\n", 0.0), *((b, 0.0) for b in BYTES)]
    tokens += [(word.replace("▁", " "), -float(i)) for i, word in enumerate(WORDS)]
    saved = {
        "byte_level": BPETokenizer.train(SAMPLE, 280, (END_OF_TEXT, "<|a|>")),
        "sentencepiece": load_tokenizer(model),
        "wordpiece": load_tokenizer(write(folder, "vocab.txt", "\n".join(VOCAB) + "\n")),
        "characters": CharTokenizer.train(SAMPLE, (END_OF_TEXT,)),
    }
    paths = {
        name: write(folder, f"{name}.json", json.dumps(tokenizer.to_json(), ensure_ascii=False))
        for name, tokenizer in saved.items()
    }
    return paths | {
        "model": model,
        "bin": write(folder, "tokenizer.bin", llama2c_bin(tokens)),
        "vocab": folder / "vocab.txt",
        "tiktoken": write(folder, "tokenizer.model", tiktoken_file(RANKED)),
    }


KINDS = ["byte_level", "sentencepiece", "wordpiece", "characters", "model", "bin", "vocab", "tiktoken"]


# Merging


def merged_by_scanning(symbols, merges):
    """All pairs looked at each time: of those with the lowest priority the leftmost is joined."""
    symbols = list(symbols)
    while True:
        found = [(merges[pair], i) for i, pair in enumerate(zip(symbols, symbols[1:], strict=False)) if pair in merges]
        if not found:
            return symbols
        (_, joined), i = min(found, key=lambda item: (item[0][0], item[1]))
        symbols[i : i + 2] = [joined]


def test_merging_is_as_by_scanning():
    rng = random.Random(0)
    for _ in range(300):
        merges = {(rng.randrange(6), rng.randrange(6)): (rng.randrange(4), rng.randrange(6)) for _ in range(8)}
        symbols = rng.choices(range(4), k=rng.randrange(12))
        assert merge(symbols, merges) == merged_by_scanning(symbols, merges), (symbols, merges)


def test_every_way_to_make_a_token():
    tokens = {"a": 0, "b": 1, "ab": 2, "abb": 3, "bb": 4}
    made = merges_by_token(tokens, tokens, {i: -i for i in range(5)})
    assert made == {(0, 1): (-2, 2), (0, 4): (-3, 3), (2, 1): (-3, 3), (1, 1): (-4, 4)}


# SentencePiece


def by_sentencepiece(text, pieces, scores, unknown, squeeze=False, dummy=True):
    """What the SentencePiece library does, step by step (normalizer.cc, bpe_model.cc), as ids.

    pieces: normal piece -> id; unknown(character) -> ids of a character without a piece.
    """
    if squeeze:
        text = text.lstrip(" ")
    if not text:
        return []
    normal = ["▁"] if dummy else []
    after_space = squeeze
    for character in text:
        if not (after_space and character == " "):
            normal.append("▁" if character == " " else character)
        after_space = squeeze and character == " "
    while squeeze and normal and normal[-1] == "▁":
        normal.pop()
    while True:
        pairs = [left + right for left, right in zip(normal, normal[1:], strict=False)]
        known = [(-scores[pieces[pair]], i) for i, pair in enumerate(pairs) if pair in pieces]
        if not known:
            break
        i = min(known)[1]
        normal[i : i + 2] = [normal[i] + normal[i + 1]]
    ids, run = [], False
    for symbol in normal:
        if symbol in pieces:
            ids.append(pieces[symbol])
        elif unknown is not None:
            ids += [] if run else [unknown]
        else:
            ids += [3 + byte for byte in symbol.encode()]
        run = symbol not in pieces
    return ids


def random_text(rng, alphabet, longest=20):
    return "".join(rng.choices(alphabet, k=rng.randrange(longest)))


@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize("dummy", [True, False])
def test_ids_are_those_of_sentencepiece(fallback, squeeze, dummy, tmp_path):
    """Random vocabularies with equal scores, pieces of characters that are none, spaces within pieces."""
    rng = random.Random(fallback * 4 + squeeze * 2 + dummy)
    for _ in range(60):
        alphabet = rng.choice(["ab▁", "abé▁", "a▁", "abcd"])
        made = {random_text(rng, alphabet, 6) for _ in range(rng.randrange(1, 15))} | set(rng.sample(alphabet, k=2))
        words = sorted(made - {""}, key=lambda word: rng.random())
        scores = [-float(rng.randrange(5)) for _ in words]
        rows = with_special(words, scores) if fallback else [("<unk>", 0, UNKNOWN), ("<s>", 0, CONTROL)]
        rows += [] if fallback else [(w, s, NORMAL) for w, s in zip(words, scores, strict=True)]
        trainer = ((3, 2), (35, int(fallback)))
        data = sentencepiece_model(rows, trainer, ((3, int(dummy)), (4, int(squeeze))))
        tokenizer = load_tokenizer(write(tmp_path, "a.model", data))
        pieces = {piece: i for i, (piece, _, kind) in enumerate(rows) if kind == NORMAL}
        score_of = {i: score for i, (_, score, _) in enumerate(rows)}
        for _ in range(15):
            text = random_text(rng, alphabet.replace("▁", "") + "  ▁xé", 16)
            expected = by_sentencepiece(text, pieces, score_of, None if fallback else 0, squeeze, dummy)
            assert tokenizer.encode(text, special=False).tolist() == expected, (text, rows[-len(words) :])


@pytest.fixture(scope="module")
def llamas(assets):
    """Llama 2's tokenizer from both of its files."""
    return [load_tokenizer(assets / "models" / f"llama2-tokenizer.{ending}") for ending in ("model", "bin")]


def test_llama_2_ids_and_text(llamas):
    for llama in llamas:
        assert llama.vocab_size == 32_000
        assert llama.special_tokens == {"<unk>": 0, "<s>": 1, "</s>": 2}
        assert (llama.begin_of_text, llama.end_of_text, llama.mask_token) == (1, 2, None)
        assert llama.encode("Hello world").tolist() == [15043, 3186]
        assert llama.encode("<s> Hello", special=False).tolist() == [529, 29879, 29958, 15043]
        assert llama.encode("<s> Hello").tolist() == [1, 29871, 15043]
        assert llama.encode("\n猫🦙").tolist() == [29871, 13, 234, 143, 174, 243, 162, 169, 156]
        text = "  two  spaces\n\tand 猫 🦙 \x00 "
        assert llama.decode(llama.encode(text)) == text


def test_llama_2_files_agree(llamas):
    model, binary = llamas
    assert model.pieces == binary.pieces and model.added_tokens == binary.added_tokens
    assert model._merges == binary._merges
    assert len(model._merges) == 61_249


def test_llama_2_ids_are_those_of_sentencepiece(assets, llamas):
    llama = llamas[0]
    shakespeare = (assets / "data" / "tinyshakespeare.txt").read_bytes().decode()
    data = (assets / "models" / "llama2-tokenizer.bin").read_bytes()
    pieces, scores, place = {}, {}, 4
    for i in range(32_000):  # pieces of spaces alone have equal scores
        scores[i], size = struct.unpack_from("<fi", data, place)
        if i >= 259:
            pieces[data[place + 8 : place + 8 + size].decode().replace(" ", "▁")] = i
        place += 8 + size
    rng = random.Random(0)
    texts = [shakespeare[i : i + rng.randrange(200)] for i in rng.choices(range(len(shakespeare)), k=100)]
    texts += [" " * i + "the" + " " * i for i in range(40)]
    texts += [random_text(rng, SAMPLE + "  ▁\n\0éß\U0001f999", 80) for _ in range(200)]
    for text in texts:
        assert llama.encode(text, special=False).tolist() == by_sentencepiece(text, pieces, scores, None)


def test_a_long_text_is_no_trap(llamas):
    llama = copy.copy(llamas[0])
    for text in ("a" * 50_000, " " * 50_000, "猫" * 20_000, "ab" * 20_000, "\u2003 " * 20_000):
        start = time.perf_counter()
        assert llama.decode(llama.encode(text)) == text
        assert time.perf_counter() - start < 20  # under a second; quadratic code would take an hour
    llama.squeeze = True
    assert llama.decode(llama.encode("▁" * 50_000 + "a" + "▁" * 50_000)).strip(" ") == "a"


def test_tok512(assets):
    tokenizer = load_tokenizer(assets / "models" / "stories260K" / "tok512.bin")
    assert (tokenizer.vocab_size, tokenizer.begin_of_text, tokenizer.end_of_text) == (512, 1, 2)
    text = "Once upon a time, there was a little girl named Lily."
    assert tokenizer.encode(text).tolist()[:4] == [403, 407, 261, 378]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_first_space_of_a_text_is_taken_away_in_decoding(files):
    tokenizer = load_tokenizer(files["model"])
    the, cat, byte_space = tokenizer.pieces["▁the"], tokenizer.pieces["▁cat"], 3 + 0x20
    assert tokenizer.decode([the, cat]) == "the cat"
    assert tokenizer.decode([1, the, cat]) == "<s>the cat"  # control tokens leave the text its start
    assert tokenizer.decode([the, 2, 1, cat]) == "the</s><s> cat"
    assert tokenizer.decode([byte_space, cat]) == "  cat"  # as in SentencePiece: a byte is not a piece
    assert tokenizer.decode([tokenizer.pieces["▁▁"], cat]) == "  cat"
    assert tokenizer.decode([tokenizer.pieces["▁"], cat]) == " cat"
    assert tokenizer.token_bytes(cat) == b" cat"
    assert [tokenizer.vocab[token] for token in (b" cat", b"\n", b"a")] == [cat, 3 + 0x0A, tokenizer.pieces["a"]]
    squeezing = sentencepiece_model(with_special(WORDS), normalizer=((4, 1),))
    squeezing = load_tokenizer(write(files["model"].parent, "squeezing.model", squeezing))
    assert squeezing.decode([squeezing.pieces["▁"], the, cat]) == "the cat"
    assert squeezing.decode(squeezing.encode("  the   cat  ")) == "the cat"


def test_to_json_refuses_what_it_cannot_say(tmp_path):
    tokenizer = load_tokenizer(write(tmp_path, "a.model", sentencepiece_model(with_special(["▁", "ab"]))))
    assert tokenizer.encode("ab").tolist() == [259, 260]
    with pytest.raises(ValueError, match="a character that is no piece itself"):
        tokenizer.to_json()


def test_spaces_as_a_file_wants_them(files):
    data = json.loads(files["sentencepiece"].read_bytes())
    the, a, space = (data["model"]["vocab"][piece] for piece in ("▁the", "▁a", "▁"))
    assert SentencePieceTokenizer.from_json(data).encode("the").tolist() == [the]
    data["normalizer"] = data["normalizer"]["normalizers"][1]  # no prefix
    assert SentencePieceTokenizer.from_json(data).encode(" the a").tolist() == [the, a]
    for scheme, split, expected in [
        ("first", False, [the, 1, *[data["model"]["vocab"][p] for p in ("t", "he")]]),
        ("always", True, [the, 1, the]),
        ("never", False, [*[data["model"]["vocab"][p] for p in ("t", "he")], 1]),
    ]:
        data["normalizer"] = None
        data["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
        read = SentencePieceTokenizer.from_json(data)
        assert read.encode("the<s>the").tolist()[: len(expected)] == expected
        assert SentencePieceTokenizer.from_json(read.to_json()).to_json() == read.to_json()
        spaces = [space, space] if split else [data["model"]["vocab"]["▁▁"]]
        assert read.encode("   a").tolist() == [*spaces, a]
    old = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": False}
    assert SentencePieceTokenizer.from_json(data | {"pre_tokenizer": old}).prefix == "never"
    assert SentencePieceTokenizer.from_json(data | {"pre_tokenizer": old | {"add_prefix_space": True}}).cut


# Byte-level


def test_words_of_llama_3():
    words = compile_pattern(LLAMA3_PATTERN).findall
    assert words("It'S 12345 (yes)!\r\n\n  x") == ["It", "'S", " ", "123", "45", " (", "yes", ")!\r\n\n", " ", " x"]
    assert words("IT'SO it'so 'Tx") == ["IT", "'S", "O", " it", "'s", "o", " '", "Tx"]
    assert words("a\n \n  b\tc 's'ſ") == ["a", "\n \n", " ", " b", "\tc", " '", "s", "'ſ"]


def test_llama_3_file(files):
    tokenizer = load_tokenizer(files["tiktoken"])
    assert tokenizer.vocab_size == len(RANKED) + 256
    assert len(set(LLAMA3_SPECIAL_TOKENS)) == 256
    first = len(RANKED)
    assert (tokenizer.begin_of_text, tokenizer.end_of_text) == (first, first + 1)
    assert tokenizer.special_tokens["<|start_header_id|>"] == first + 6
    assert tokenizer.special_tokens["<|end_header_id|>"] == first + 7
    assert tokenizer.special_tokens["<|eot_id|>"] == first + 9
    assert tokenizer.special_tokens["<|reserved_special_token_247|>"] == first + 255
    # " the" is a token; "cat" is one that no merge leads to, and taken as a whole word
    assert tokenizer.encode("the the cat\n\n<|eot_id|>").tolist() == [258, 260, *b" cat", 262, first + 9]
    assert tokenizer._merges[tokenizer.vocab[b" t"], tokenizer.vocab[b"he"]] == (260, 260)  # whatever the halves
    assert tokenizer._merges[tokenizer.vocab[b" "], tokenizer.vocab[b"the"]] == (260, 260)
    assert tokenizer.encode("cat1984").tolist() == [261, *b"1", 263, *b"4"]
    assert tokenizer.decode(tokenizer.encode(SAMPLE)) == SAMPLE


@pytest.mark.parametrize(
    "size, whose",
    [(50_256, "GPT-2's, r50k_base"), (50_280, "OpenAI's p50k_base"), (100_256, "OpenAI's cl100k_base"),
     (199_998, "OpenAI's o200k_base"), (151_643, "Qwen's"), (127_999, None), (128_001, None), (266, None),
     (128_000, "llama3")],
)  # fmt: skip
def test_a_file_of_tiktoken_is_llama_3s_or_refused(tmp_path, monkeypatch, size, whose):
    """For the pattern and the special tokens of the others are not in the file."""
    monkeypatch.setattr(tiktoken, "check_whose", check_whose)
    tokens = [bytes([i]) for i in range(256)] + [bytes([i, j]) for i in range(256) for j in range(256)]
    tokens += [bytes([c]) + token for c in b"abc" for token in tokens[256:]]
    path = write(tmp_path, "any name.model", tiktoken_file(tokens[:size]))
    if whose == "llama3":
        tokenizer = load_tokenizer(path)
        assert tokenizer.vocab_size == 128_256 and tokenizer.special_tokens["<|eot_id|>"] == 128_009
        return
    with pytest.raises(ValueError) as error:
        load_tokenizer(path)
    named = f", as many as {whose}" if whose else ""
    assert f"it has {size:,} ranks{named}; Llama 3's has 128,000" in str(error.value) and str(path) in str(error.value)
    assert "use the tokenizer.json of the model" in str(error.value)


def test_merges_by_rank_of_the_token_made(tmp_path):
    """As tiktoken merges: the pair whose bytes together have the lowest rank, all pairs looked at each time."""
    rng = random.Random(0)
    for _ in range(40):
        made = {random_text(rng, "abc", 5).encode() for _ in range(12)}
        ranked = RANKED[:256] + [token for token in sorted(made, key=lambda t: rng.random()) if len(token) > 1]
        tokenizer = load_tokenizer(write(tmp_path, "b.model", tiktoken_file(ranked)))
        ranks = {token: i for i, token in enumerate(ranked)}
        for _ in range(10):
            word = random_text(rng, "abc").encode()
            parts = [bytes([byte]) for byte in word]
            while word not in ranks:
                pairs = [ranks.get(a + b, 10**9) for a, b in zip(parts, parts[1:], strict=False)]
                if min(pairs, default=10**9) == 10**9:
                    break
                i = pairs.index(min(pairs))
                parts[i : i + 2] = [parts[i] + parts[i + 1]]
            expected = [ranks[word]] if word in ranks else [ranks[part] for part in parts]
            assert tokenizer.encode(word.decode()).tolist() == expected


def test_a_word_that_is_a_token_though_no_merge_leads_to_it():
    vocab = {b"a": 0, b"b": 1, b"ab": 2}
    assert BPETokenizer(vocab, [], {}).encode("ab").tolist() == [0, 1]
    assert BPETokenizer(vocab, [], {}, ignore_merges=True).encode("ab").tolist() == [2]


def gpt2_json(**changes) -> dict:
    """A file in the form of GPT-2's, which is older than some settings."""
    trained = BPETokenizer.train(SAMPLE, 300, pattern=GPT2_PATTERN).to_json()
    model = {name: trained["model"][name] for name in ("vocab", "merges")}
    model |= {"dropout": None, "unk_token": END_OF_TEXT, "continuing_subword_prefix": "", "fuse_unk": False}
    model["merges"] = [" ".join(pair) for pair in model["merges"]]
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    trained["added_tokens"][0]["normalized"] = True
    changes = {"model": model, "pre_tokenizer": step, "decoder": step, "post_processor": step} | changes
    return trained | changes


def test_a_file_like_gpt2s(tmp_path):
    tokenizer = load_tokenizer(write(tmp_path, "tokenizer.json", json.dumps(gpt2_json())))
    trained = BPETokenizer.train(SAMPLE, 300, pattern=GPT2_PATTERN)
    text = SAMPLE + END_OF_TEXT + " 1984"
    assert tokenizer.encode(text).tolist() == trained.encode(text).tolist()
    assert (tokenizer.begin_of_text, tokenizer.end_of_text) == (0, 0)
    data = gpt2_json(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True})
    prefixed = load_tokenizer(write(tmp_path, "tokenizer.json", json.dumps(data)))
    assert prefixed.decode(prefixed.encode(f"cat{END_OF_TEXT}cat cat")) == f" cat{END_OF_TEXT} cat cat"


def test_a_file_like_smollms(tmp_path):
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    data = gpt2_json(pre_tokenizer={"type": "Sequence", "pretokenizers": [digits, step]})
    data["model"] |= {"type": "BPE", "unk_token": None}
    lacking = data["model"]["vocab"]
    i = lacking.pop("ñ")  # the byte 0xf1, of which SmolLM has no token
    lacking |= {token: j - (j > i) for token, j in lacking.items()}
    tokenizer = load_tokenizer(write(tmp_path, "tokenizer.json", json.dumps(data)))
    assert tokenizer.decode(tokenizer.encode("in 1984")) == "in 1984"
    assert [tokenizer.decode([i]) for i in tokenizer.encode("84 84")] == ["8", "4", " ", "8", "4"]
    assert tokenizer.encode("a\U00040000a").tolist() == [tokenizer.vocab[bytes([b])] for b in b"a\x80\x80\x80a"]
    data["model"]["unk_token"] = END_OF_TEXT
    with pytest.raises(ValueError, match="supported only where every byte has a token"):
        BPETokenizer.from_json(data)


def test_added_tokens_and_their_settings():
    data = BPETokenizer.train("a b c ", 260, (END_OF_TEXT,)).to_json()
    size = len(data["model"]["vocab"])
    rows = [("<l>", True, True, False), ("<r>", False, False, True), ("<lr>", True, True, True)]
    for i, (text, special, left, right) in enumerate(rows, start=size):
        flags = {"special": special, "lstrip": left, "rstrip": right, "normalized": False, "single_word": False}
        data["added_tokens"].append({"id": i, "content": text, **flags})
    tokenizer = BPETokenizer.from_json(data)
    assert tokenizer.special_tokens.keys() == {END_OF_TEXT, "<l>", "<lr>"}
    a = tokenizer.vocab[b"a"]
    assert tokenizer.encode("a \n<l><r>\t \n<lr> a").tolist() == [a, size, size + 1, size + 2, a]
    assert tokenizer.encode("a<r> a", special=False).tolist() == [a, size + 1, a]
    assert size not in tokenizer.encode("<l>", special=False).tolist()
    assert BPETokenizer.from_json(tokenizer.to_json()).added_tokens == tokenizer.added_tokens
    with pytest.raises(ValueError, match="both written 'a'"):
        BPETokenizer({b"a": 0}, [], {}, added=[AddedToken("a", 1, special=False)]).to_json()


# WordPiece


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("The CATS sat", ["the", "cat", "##s", "s", "##at"]),
        ("unable, cat.", ["un", "##able", ",", "cat", "."]),
        ("Café!", ["cafe", "!"]),
        ("cat猫cat", ["cat", "猫", "cat"]),
        ("on\x00\u200b\ufffd\t\n\u3000on", ["on", "on"]),
        ("o\u0301n", ["on"]),
        ("x catx", ["[UNK]", "[UNK]"]),
        ("a" * 100, ["a"] + ["##a"] * 99),
        ("a" * 101, ["[UNK]"]),
        ("[CLS] the [MASK]cat [SEP]", ["[CLS]", "the", "[MASK]", "cat", "[SEP]"]),
        ("ẞ ß", ["ß", "ß"]),
        ("", []),
        (" \n", []),
    ],
)
def test_wordpiece(files, text, tokens):
    tokenizer = load_tokenizer(files["vocab"])
    assert tokenizer.encode(text).tolist() == [VOCAB.index(token) for token in tokens]


def test_wordpiece_text(files):
    tokenizer = load_tokenizer(files["vocab"])
    assert (tokenizer.begin_of_text, tokenizer.end_of_text, tokenizer.mask_token) == (2, 3, 4)
    assert tokenizer.decode(tokenizer.encode("The cats, unable!")) == "the cats, unable!"
    assert tokenizer.decode(tokenizer.encode("[CLS] cat [SEP]")) == "[CLS] cat [SEP]"
    assert tokenizer.decode([VOCAB.index("##at")]) == "##at"  # as it stands, where no word is before it


def test_wordpiece_of_a_cased_model(tmp_path):
    vocab = [*VOCAB, "The", "Café"]
    path = write(tmp_path, "vocab.txt", "\r\n".join(vocab))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("The Café the").tolist() == [len(VOCAB), len(VOCAB) + 1, 5]
    write(tmp_path, "tokenizer_config.json", json.dumps({"do_lower_case": True, "strip_accents": False}))
    assert load_tokenizer(path).encode("The Café").tolist() == [5, 1]
    for damaged in ("[", "[]"):
        write(tmp_path, "tokenizer_config.json", damaged)
        with pytest.raises(ValueError, match=r"vocab\.txt: tokenizer_config\.json beside it"):
            load_tokenizer(path)


# All of them


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_gives_what_decode_gives(files, kind):
    tokenizer = load_tokenizer(files[kind])
    rng = random.Random(0)
    stream = tokenizer.stream()
    for _ in range(200):
        ids = rng.choices(range(tokenizer.vocab_size), k=rng.randrange(12))
        assert "".join(map(stream.feed, ids)) + stream.finish() == tokenizer.decode(ids)


def test_protocol_buffers():
    fields = protobuf.read_message(
        proto((1, 300), (1, -1), (2, "é"), (3, 0.5), (40, proto((1, 7)))) + b"\x21" + bytes(8)
    )
    assert fields == {1: [300, 2**64 - 1], 2: ["é".encode()], 3: [b"\0\0\0?"], 40: [b"\x08\x07"], 4: [bytes(8)]}
    assert protobuf.integer(fields, 1, 5) == -1 and protobuf.integer(fields, 9, 5) == 5  # the last one counts
    assert protobuf.string(fields, 2, "") == "é" and protobuf.real(fields, 3, 0.0) == 0.5
    assert protobuf.message(fields, 40) == {1: [7]} and protobuf.message(fields, 41) == {}


def test_the_template_that_is_written(files):
    bert = load_tokenizer(files["vocab"]).to_json()["post_processor"]
    llama = load_tokenizer(files["model"]).to_json()["post_processor"]

    def spelled(row):
        return [tuple(part.values()) for item in row for part in item.values()]

    assert spelled(bert["single"]) == [("[CLS]", 0), ("A", 0), ("[SEP]", 0)]
    assert spelled(bert["pair"]) == [("[CLS]", 0), ("A", 0), ("[SEP]", 0), ("B", 1), ("[SEP]", 1)]
    assert bert["special_tokens"]["[SEP]"] == {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}
    assert spelled(llama["single"]) == [("<s>", 0), ("A", 0)]
    assert spelled(llama["pair"]) == [("<s>", 0), ("A", 0), ("<s>", 1), ("B", 1)]


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_is_the_same(files, kind, tmp_path):
    tokenizer = load_tokenizer(files[kind])
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert type(again) is type(tokenizer)
    assert again.to_json() == tokenizer.to_json() == json.loads((tmp_path / "tokenizer.json").read_bytes())
    for copied in (again, pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert copied.encode(SAMPLE).tolist() == tokenizer.encode(SAMPLE).tolist()
        assert (copied.begin_of_text, copied.end_of_text) == (tokenizer.begin_of_text, tokenizer.end_of_text)
    config = json.loads((tmp_path / "tokenizer_config.json").read_bytes())
    names = {i: text for text, i in tokenizer.special_tokens.items()}
    assert config["eos_token"] == names[tokenizer.end_of_text]
    assert config.get("bos_token", config["eos_token"]) == names[tokenizer.begin_of_text]


def test_a_folder_is_searched_in_order(files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json; pass .* or a tokenizer\.model, tokenizer\.bin, "):
        load_tokenizer(tmp_path)
    for kind, name, expected in [
        ("vocab", "vocab.txt", WordPieceTokenizer),
        ("bin", "tokenizer.bin", SentencePieceTokenizer),
        ("tiktoken", "tokenizer.model", BPETokenizer),
        ("characters", "tokenizer.json", CharTokenizer),
    ]:
        write(tmp_path, name, files[kind].read_bytes())
        assert type(load_tokenizer(tmp_path)) is expected
    with pytest.raises(ValueError, match=r"tokenizer\.xml is not named like a tokenizer\.json"):
        load_tokenizer(write(tmp_path, "tokenizer.xml", "<a/>"))


def changed_pieces(**changes):
    return [changes.get(piece, (piece, score, kind)) for piece, score, kind in with_special(WORDS)]


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("a.model", b"", "it has no pieces; expected a model of SentencePiece, or lines of base64"),
        ("a.model", b"\n\xff", "has an integer without an end at byte 1"),
        ("a.model", b"\n" + b"\xff" * 11, "has an integer without an end at byte 1"),
        ("a.model", b"\n\x05ab", "ends within a field of 5 bytes that begins at byte 2"),
        ("a.model", b"\n\x03ab", "ends within a field of 3 bytes that begins at byte 2"),
        ("a.model", b"\n" + varint((1 << 64) - 1) + b"ab", "ends within a field of 18446744073709551615 bytes"),
        ("a.model", b"\x0b", "a field of the wire type 3 before byte 1"),
        ("a.model", b"\x00\x00", "the field number 0"),
        ("a.model", proto((1, 5), (2, proto((3, 2)))), "piece 0 is the number 5, expected a message"),
        ("a.model", proto((1, b"\n\x01\xff"), (2, proto((3, 2)))), "is b'\\xff', expected UTF-8"),
        ("a.model", proto((1, proto((2, "x"))), (2, proto((3, 2)))), "has 1 bytes, expected a float32"),
        ("a.model", sentencepiece_model(with_special(WORDS), ()), "a model of the type unigram, supported: bpe"),
        ("a.model", sentencepiece_model(with_special(WORDS), ((3, 9),)), "a model of the type 9, supported: bpe"),
        ("a.model", sentencepiece_model(with_special(WORDS), ((3, "x"),)), "is b'x', expected int"),
        ("a.model", sentencepiece_model(with_special(WORDS), ((3, 2), (24, 1))), "white space as a suffix"),
        ("a.model", sentencepiece_model(with_special(WORDS), ((3, 2),)), "256 pieces for bytes, expected 256 with"),
        (
            "a.model",
            sentencepiece_model(with_special(WORDS), normalizer=((1, "nmt_nfkc"), (2, b"\x01\x02"))),
            "rules 'nmt_nfkc' change characters, supported: identity",
        ),
        ("a.model", sentencepiece_model(with_special(WORDS), normalizer=((5, 0),)), "not write spaces as '▁'"),
        ("a.model", sentencepiece_model(with_special([*WORDS, "▁"])), "is '▁' with the score"),
        ("a.model", sentencepiece_model(with_special([*WORDS, ""])), "is '' with the score"),
        ("a.model", sentencepiece_model(with_special(["x"], [float("nan")])), "'x' with the score nan"),
        ("a.model", sentencepiece_model(with_special(["x" * 2000])), "a token of length 2000"),
        ("a.model", sentencepiece_model(changed_pieces(**{"▁the": ("x", 0, USER_DEFINED)})), "'x', has the type 4"),
        ("a.model", sentencepiece_model(changed_pieces(**{"▁the": ("x", 0, UNUSED)})), "'x', has the type 5"),
        ("a.model", sentencepiece_model(changed_pieces(**{"<0x41>": ("<0x41>", 0, NORMAL)})), "has the type 1"),
        ("a.model", sentencepiece_model(changed_pieces(**{"<0x41>": ("A", 0, NORMAL)})), "255 pieces for bytes"),
        ("a.model", sentencepiece_model([("x", 0, NORMAL)], ((3, 2),)), "need either the tokens <0x00> to <0xFF> or"),
        ("a.model", b"IQ== 0\nIQ== 1\n", "line 2 is b'IQ== 1', expected a new token"),
        ("a.model", b"IQ== 0\nIQ=* 1\n", "line 2 is b'IQ=* 1', expected base64 and a rank"),
        ("a.model", b"IQ== 0\nIg== x\n", "line 2 is b'Ig== x', expected a new token"),
        ("a.model", b"IQ== 0\n" + b"Ig== " + b"9" * 5000, "line 2 is b'Ig== 999"),
        ("a.model", b"IQ== 0\n", "no token for 255 of the 256 bytes, the first is 0"),
        ("a.model", tiktoken_file(RANKED[:256] + [b"x" * 2000]), "a token of length 2000"),
        ("a.model", tiktoken_file(RANKED).replace(b" 265\n", b" 999\n"), "522 tokens need the ids 0 to 521"),
        ("a.bin", b"", "it has 0 bytes, expected a tokenizer.bin of llama2.c"),
        ("a.bin", b"\x05\0\0\0\0\0\0", "it ends within token 0, at byte 4"),
        ("a.bin", b"\x05\0\0\0", "it has 0 tokens, expected at least 259"),
        ("a.bin", llama2c_bin([("<unk>", 0.0)], 4), "token 0 has the length 5, expected 0 to 4"),
        ("a.bin", llama2c_bin([("<unk>", 0.0)], 2**31 - 1)[:-1], "token 0 has the length 5, expected 0 to"),
        ("a.bin", struct.pack("<ifi", 9, 0.0, -1), "token 0 has the length -1"),
        ("a.bin", llama2c_bin([(b"\xff", 0.0)]), "token 0 is b'\\xff', expected UTF-8"),
        ("a.bin", llama2c_bin([("a", 0.0)] * 4), "token 3 is 'a', expected '<0x00>'"),
        ("a.bin", llama2c_bin([("a", 0.0)] * 3 + [(b, 0.0) for b in BYTES] + [("a", 0.0)] * 2), "piece 260 is 'a'"),
        ("vocab.txt", "", "the file has 0 tokens, but not [UNK], [CLS] and [SEP]"),
        ("vocab.txt", "a\nb\na\n", "the file has 'a' in several lines"),
        ("vocab.txt", "a\n\nb\n", "the file has '' in several lines"),
        ("vocab.txt", b"\xff", "the file is not UTF-8"),
        ("vocab.txt", "\n".join([*VOCAB, "x" * 2000]), "a token of length 2000"),
    ],
)
def test_what_is_not_supported_is_refused(tmp_path, name, data, message):
    path = write(tmp_path, name, data)
    with pytest.raises(ValueError) as error:
        load_tokenizer(path)
    assert message in str(error.value) and str(path) in str(error.value)


END = [{"SpecialToken": {"id": "[SEP]", "type_id": 0}}]


@pytest.mark.parametrize(
    "kind, path, value, message",
    [
        ("sentencepiece", "normalizer", {"type": "NFC"}, "normalizer is {'type': 'NFC'}, supported: {'type': 'Seq"),
        ("sentencepiece", "pre_tokenizer", {"type": "Metaspace"}, "beside a pre_tokenizer, supported: None"),
        ("sentencepiece", "decoder.decoders", [], "decoder has the steps [], supported"),
        ("sentencepiece", "model.unk_token", 5, "model.unk_token is 5, expected: str"),
        ("sentencepiece", "model.byte_fallback", False, "model.byte_fallback is False, supported: True"),
        ("sentencepiece", "model.vocab.", 3000, "model.vocab has an empty token"),
        ("sentencepiece", "model.vocab.▁the", 5, "tokens need the ids 0 to"),
        ("wordpiece", "model.vocab.the", 6, "tokens need the ids 0 to"),
        ("sentencepiece", "model.merges.0", ["▁", "h"], "no ordinary token that joins the two"),
        ("wordpiece", "normalizer", None, "normalizer is None, supported: BertNormalizer"),
        ("wordpiece", "normalizer.strip_accents", "no", "strip_accents is 'no', expected: true, false or null"),
        ("wordpiece", "normalizer.lowercase", "no", "normalizer.lowercase is 'no', expected: bool"),
        ("wordpiece", "decoder.prefix", "@@", "decoder.prefix is '@@', supported: '##'"),
        ("wordpiece", "pre_tokenizer.type", "Whitespace", "pre_tokenizer.type is 'Whitespace'"),
        ("wordpiece", "model.unk_token", "[X]", "the unknown token '[X]' is not among the special tokens"),
        ("wordpiece", "model.max_input_chars_per_word", None, "per_word is None, expected: int"),
        ("wordpiece", "post_processor.single", lambda data: data["post_processor"]["single"] * 2, "has a text 2 times"),
        (
            "wordpiece",
            "post_processor.single",
            lambda data: data["post_processor"]["single"] + END,
            "supported: one token",
        ),
        ("wordpiece", "post_processor", {"type": "BertProcessing", "sep": ["[SEP]", 9], "cls": ["[CLS]", 2]}, "[SEP]"),
    ],
)
def test_settings_that_are_not_supported_are_refused(files, tmp_path, kind, path, value, message):
    data = json.loads(files[kind].read_bytes())
    if callable(value):
        value = value(data)
    *parents, last = path.split(".")
    node = data
    for key in parents:
        node = node[key]
    node[int(last) if isinstance(node, list) else last] = value
    with pytest.raises(ValueError) as error:
        load_tokenizer(write(tmp_path, "tokenizer.json", json.dumps(data)))
    assert message in str(error.value)


def test_longest_tokens_are_cut_in_bearable_time(tmp_path):
    words = ["a" * i for i in range(1, LONGEST_TOKEN + 1)]
    start = time.perf_counter()
    tokenizer = load_tokenizer(write(tmp_path, "a.model", sentencepiece_model(with_special(["▁", *words]))))
    assert time.perf_counter() - start < 20  # half a million ways to join two; about a second
    assert tokenizer.encode("a" * LONGEST_TOKEN).size >= 2


# Damaged files


def mutated(rng: random.Random, data: bytes) -> bytes:
    """The file with one to three things done to it: bytes changed, cut out, put in, doubled, the end lost."""
    data = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        i, size = rng.randrange(len(data) + 1), rng.choice([1, 1, 2, 4, 8, 40])
        what = rng.randrange(7)
        if what == 0:
            data[i : i + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            data[i : i + size] = rng.choice([b"\xff", b"\x7f", b"\0", b"\x80", b"9", b"["]) * size
        elif what == 2:
            del data[i : i + size]
        elif what == 3:
            data[i:i] = rng.randbytes(size)
        elif what == 4:
            j = rng.randrange(len(data) + 1)
            data[i:i] = data[j : j + rng.choice([size, 500])]
        elif what == 5:
            data[i : i + 1] = bytes([data[i] ^ 1 << rng.randrange(8)]) if i < len(data) else b""
        elif rng.random() < 0.2:
            del data[i:]
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_refused_or_read(files, kind, tmp_path):
    """An error, or a tokenizer that works: nothing else, in little time and memory."""
    rng = random.Random(kind)
    whole = files[kind].read_bytes()
    load_tokenizer(files[kind]).encode(SAMPLE)  # what is made once does not count below
    path = tmp_path / files[kind].name
    refused = 0
    tracemalloc.start()
    for _ in range(MUTATIONS):
        path.write_bytes(mutated(rng, whole))
        start = time.perf_counter()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try:
            tokenizer = load_tokenizer(path)
            tokenizer.decode(range(tokenizer.vocab_size))
            tokenizer.encode(SAMPLE)
            tokenizer.encode(SAMPLE, special=False)
            tokenizer.to_json()
        except ValueError as error:
            assert str(error)
            refused += 1
        assert time.perf_counter() - start < 5
        assert tracemalloc.get_traced_memory()[1] - before < 100 * len(whole) + 1_000_000
    tracemalloc.stop()
    assert 0 < refused <= MUTATIONS
