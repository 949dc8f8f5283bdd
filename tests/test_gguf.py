"""GGUF: blocks against their definition, damaged containers, models and tokenizers there and back."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import minillama
from minillama import Config, Model
from minillama.checkpoint import gguf
from minillama.checkpoint.gguf.container import GGUFFile, Value, write
from minillama.checkpoint.open import load_tokenizer, read_config, read_generation, read_template
from minillama.ops.weights.blocks import BLOCKS
from minillama.tokenizers import GPT2_PATTERN, LLAMA3_PATTERN, AddedToken, BPETokenizer, CharTokenizer
from minillama.tokenizers import load_tokenizer as read_file
from minillama.tokenizers.gguf import gguf_values, read_gguf
from tests.test_formats import random_model

FOLDER = Path(__file__).parents[1] / "notebooks"
WRITTEN = gguf.PACKED_TYPES
TEXTS = [
    "Once upon a time",
    " 12 34,567  dogs\n\n\tand caf\u00e9s \u65e5\u672c \U0001f999",
    "",
    "it's I'll",
    "a  b",
    "<|endoftext|>x",
]


# Blocks, one weight after the other, as ggml-quants.c has them


def half(block, at):
    return np.float32(struct.unpack_from("<e", bytes(block), at)[0])


def nibble(block, at, i, group):
    """The number of 4 bits of weight i, where groups of so many bytes hold as many low and then as many high ones."""
    byte = block[at + i // (2 * group) * group + i % group]
    return byte >> 4 if i // group % 2 else byte & 15


def six_bits(block, at, j):
    """The scale and the minimum of group j."""
    q = block[at : at + 12]
    if j < 4:
        return q[j] & 63, q[j + 4] & 63
    return (q[j + 4] & 15) | (q[j - 4] >> 6) << 4, (q[j + 4] >> 4) | (q[j] >> 6) << 4


def weight(kind, block, i):
    """Weight i of a block, in float32."""
    f = np.float32
    if kind == "F32":
        return f(struct.unpack("<f", bytes(block))[0])
    if kind == "F16":
        return half(block, 0)
    if kind == "BF16":
        return f(struct.unpack("<f", b"\0\0" + bytes(block))[0])
    if kind == "Q8_0":
        return half(block, 0) * f(np.int8(np.uint8(block[2 + i])))
    if kind == "Q4_0":
        return half(block, 0) * f(nibble(block, 2, i, 16) - 8)
    if kind == "Q4_1":
        return half(block, 0) * f(nibble(block, 4, i, 16)) + half(block, 2)
    if kind in ("Q5_0", "Q5_1"):
        at = 2 if kind == "Q5_0" else 4
        fifth = int.from_bytes(bytes(block[at : at + 4]), "little") >> i & 1
        q = nibble(block, at + 4, i, 16) | fifth << 4
        return half(block, 0) * f(q - 16) if kind == "Q5_0" else half(block, 0) * f(q) + half(block, 2)
    if kind in ("Q4_K", "Q5_K"):
        scale, minimum = six_bits(block, 4, i // 32)
        q = nibble(block, 16 if kind == "Q4_K" else 48, i, 32)
        if kind == "Q5_K":
            q |= (block[16 + i % 32] >> i // 32 & 1) << 4
        return half(block, 0) * f(scale) * f(q) - half(block, 2) * f(minimum)
    part, within = divmod(i, 128)  # Q6_K
    byte = block[64 * part + within % 64]
    q = (byte >> 4 if within >= 64 else byte & 15) | (block[128 + 32 * part + within % 32] >> within // 32 * 2 & 3) << 4
    return half(block, 208) * f(np.int8(np.uint8(block[192 + i // 16]))) * f(q - 32)


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_are_what_they_stand_for(kind, rng):
    row = BLOCKS[kind]
    raw = rng.integers(0, 256, (3, 2, row.nbytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        wide = row.widen(raw)
        expected = [[[weight(kind, block.tolist(), i) for i in range(row.weights)] for block in line] for line in raw]
    assert wide.dtype == np.float32 and wide.shape == (3, 2, row.weights)
    np.testing.assert_array_equal(wide, np.array(expected, np.float32))


@pytest.mark.parametrize("kind", WRITTEN)
def test_packing_is_the_nearest_that_the_type_holds(kind, rng):
    row = BLOCKS[kind]
    weights = (rng.standard_normal((5, 4, row.weights)) * 10.0 ** rng.integers(-3, 2, (5, 4, 1))).astype(np.float32)
    weights[0, 0] = 0
    again = row.widen(row.pack(weights))
    largest = np.abs(weights).max(axis=-1, keepdims=True)
    shares = {"F32": 0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 1 / 127, "Q4_0": 1 / 8}
    step = largest * shares[kind]
    off = {"F32": 0, "F16": 1, "BF16": 1, "Q8_0": 0.51, "Q4_0": 1.01}[kind]  # the scale is rounded to half precision
    of_scale = largest * 2**-11 + 2**-24 * 127 if kind[0] == "Q" else 0  # below 6e-5 its steps are 6e-8
    assert (np.abs(again - weights) <= off * step + of_scale).all()
    assert (again[0, 0] == 0).all()
    if kind in ("F16", "BF16", "F32"):
        np.testing.assert_array_equal(row.pack(again), row.pack(weights))


@pytest.mark.parametrize("kind", [kind for kind in WRITTEN if kind != "F32"])
def test_what_a_type_cannot_hold_is_refused(kind):
    weights = np.full((1, 1, BLOCKS[kind].weights), np.inf, np.float32)
    with pytest.raises(ValueError, match="not all finite"):
        BLOCKS[kind].pack(weights)
    if kind in ("F16", "Q8_0", "Q4_0"):
        with pytest.raises(ValueError, match="65,504"):
            BLOCKS[kind].pack(np.full((1, 1, BLOCKS[kind].weights), 1e9, np.float32))


# The container

VALUES = {
    "a.uint8": Value("uint8", 200), "a.int8": Value("int8", -3), "a.uint16": Value("uint16", 60000),
    "a.int16": Value("int16", -7), "a.uint32": Value("uint32", 2**32 - 1), "a.int32": Value("int32", -(2**31)),
    "a.float32": Value("float32", 0.5), "a.bool": Value("bool", True), "a.text": Value("string", "caf\u00e9"),
    "a.uint64": Value("uint64", 2**63), "a.int64": Value("int64", -5), "a.float64": Value("float64", 1e300),
    "an.array": Value("int32", [1, 2, 3]), "texts": Value("string", ["a", "", "\u65e5"]), "none": Value("float32", []),
}  # fmt: skip


def tensors(rng, **shapes):
    made = {}
    for name, (kind, shape) in shapes.items():
        row = BLOCKS[kind]
        raw = rng.integers(0, 100, (int(np.prod(shape[:-1])), shape[-1] // row.weights, row.nbytes), dtype=np.uint8)
        made[name] = kind, shape, [raw[:1], raw[1:]]
    return made


def test_values_and_tensors_come_back(tmp_path, rng):
    made = tensors(
        rng, a=("F32", (3, 5)), b=("Q6_K", (2, 512)), c=("Q4_0", (7, 32)), d=("F32", (9,)), e=("F16", (2, 3, 4))
    )
    write(tmp_path / "x", VALUES, made)
    file = GGUFFile(tmp_path / "x")
    assert list(file) == list(made) and dict(file) == {name: shape for name, (_, shape, _) in made.items()}
    for name, (kind, value) in VALUES.items():
        found = file.values[name]
        if not isinstance(value, list):
            assert found == value and type(found) is type(value)
        elif kind == "string":
            assert found == [text.encode() for text in value]
        else:
            assert found.tolist() == value
    for name, (kind, _, (first, rest)) in made.items():
        assert file.type(name) == kind
        np.testing.assert_array_equal(file.raw(name), np.concatenate([first, rest]))
    assert len((tmp_path / "x").read_bytes()) % 32 == 0


def small(tmp_path, rng):
    write(tmp_path / "x", {"general.name": Value("string", "x")}, tensors(rng, a=("F32", (4, 8)), b=("F32", (16,))))
    return bytearray((tmp_path / "x").read_bytes())


def opened(tmp_path, data):
    (tmp_path / "y").write_bytes(data)
    return GGUFFile(tmp_path / "y")


def test_version_2_is_read_and_others_are_named(tmp_path, rng):
    data = small(tmp_path, rng)
    data[4] = 2
    assert dict(opened(tmp_path, data)) == {"a": (4, 8), "b": (16,)}
    for version, words in ((1, "its version is 1"), (4, "its version is 4")):
        data[4] = version
        with pytest.raises(ValueError, match=words):
            opened(tmp_path, data)
    data[4:8] = struct.pack(">I", 3)
    with pytest.raises(ValueError, match="big-endian"):
        opened(tmp_path, data)


def test_a_file_that_is_cut_off_anywhere_is_an_error(tmp_path, rng):
    data = small(tmp_path, rng)
    for length in range(len(data)):
        with pytest.raises(ValueError, match="copy it again"):
            opened(tmp_path, data[:length])


def header(values=b"", tensors=b"", counts=(0, 0)):
    return struct.pack("<4sIQQ", b"GGUF", 3, *counts) + values + tensors + bytes(64)


def name(text):
    return struct.pack("<Q", len(text)) + text


def info(text, kind=0, shape=(8,), offset=0):
    return name(text) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


@pytest.mark.parametrize(
    "data, words",
    [
        (header(counts=(0, 2**60)), "cannot hold"),
        (header(name(b"a") + struct.pack("<I", 13), counts=(0, 1)), "has the kind 13"),
        (header(name(b"\xff") + struct.pack("<IB", 0, 1), counts=(0, 1)), "not UTF-8"),
        (header((name(b"a") + struct.pack("<IB", 0, 1)) * 2, counts=(0, 2)), "comes twice"),
        (header(name(b"a") + struct.pack("<IIQ", 9, 9, 1), counts=(0, 1)), "array of arrays"),
        (header(name(b"a") + struct.pack("<IIQ", 9, 4, 2**62), counts=(0, 1)), "are left"),
        (header(name(b"a") + struct.pack("<IIQ", 9, 8, 2**60), counts=(0, 1)), "bytes are left"),
        (header(name(b"general.alignment") + struct.pack("<II", 4, 24), counts=(0, 1)), "a power of 2"),
        (header(tensors=info(b"a", kind=77), counts=(1, 0)), "has the type 77"),
        (header(tensors=info(b"a", shape=(1,) * 5), counts=(1, 0)), "has 5 axes"),
        (header(tensors=info(b"a", shape=(0,)), counts=(1, 0)), "do not fill"),
        (header(tensors=info(b"a", kind=2, shape=(31,)), counts=(1, 0)), "do not fill"),
        (header(tensors=info(b"a", offset=8), counts=(1, 0)), "is to lie at byte"),
        (header(tensors=info(b"a", shape=(2**40,)), counts=(1, 0)), "is to lie at byte"),
        (header(tensors=info(b"a") + info(b"b"), counts=(2, 0)), "overlap"),
        (header(tensors=info(b"a") + info(b"a", offset=32), counts=(2, 0)), "comes twice"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path, data, words):
    with pytest.raises(ValueError, match=words):
        opened(tmp_path, data)


def test_a_type_that_is_not_read_is_named_when_it_is_asked_for(tmp_path):
    file = opened(tmp_path, header(tensors=info(b"a", kind=23), counts=(1, 0)))
    with pytest.raises(ValueError, match="of the type IQ4_XS; minillama reads F32"):
        file.raw("a")


# Models

SHAPES = {
    "plain": {},
    "grouped, tied": {"kv_heads": 2, "tied": True},
    "biases": {"bias": ("qkv", "o")},
    "interleaved": {"rope_layout": "interleaved"},
    "linear": {"rope_scaling": "linear", "rope_factor": 4.0},
    "yarn": {"rope_scaling": "yarn", "rope_factor": 4.0, "rope_original_context": 32},
    "llama3": {"rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_context": 8192, "context": 16384},
}


def model_of(**changes):
    shape = {"vocab_size": 50, "dim": 64, "layers": 2, "heads": 4, "ffn": 96, "context": 64, "rope_theta": 500000.0}
    return Model(Config(**shape | changes), seed=3, threads=1, init_std=0.3)


def with_weights_of(model, kind):
    """A copy in which all that is written as blocks of this type is what they stand for."""
    copy, row = model_of(**{f: getattr(model.config, f) for f in model.config.__dataclass_fields__}), BLOCKS[kind]
    for name, array in copy.parameters.items():
        array[:] = model.parameters[name]
        if array.ndim > 1:
            array[:] = row.widen(row.pack(array.reshape(len(array), -1, row.weights))).reshape(array.shape)
    return copy


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_comes_back_with_the_same_logits(tmp_path, shape, kind, rng):
    model = model_of(**SHAPES[shape])
    gguf.save(tmp_path / "x.gguf", model, type=kind)
    read = minillama.checkpoint.open.load(tmp_path / "x.gguf", 1, "float32")
    assert replace(read.config, rope_layout=model.config.rope_layout) == model.config
    ids = rng.integers(0, 50, (2, 20))
    np.testing.assert_allclose(read.logits(ids), with_weights_of(model, kind).logits(ids), rtol=1e-4, atol=2e-5)
    again = tmp_path / "y.gguf"
    gguf.save(again, read, type=kind)
    first, second = GGUFFile(tmp_path / "x.gguf"), GGUFFile(again)
    for name in first:
        if kind in ("F32", "F16", "BF16", "Q8_0"):  # the largest of Q4_0's weights may change its sign
            np.testing.assert_array_equal(first.raw(name), second.raw(name), err_msg=name)


@pytest.mark.parametrize("kind, kept", [("BF16", "bfloat16"), ("F16", "float16"), ("Q8_0", "float32")])
def test_half_precision_stays_so(tmp_path, kind, kept):
    gguf.save(tmp_path / "x", model_of(), type=kind)
    model = minillama.checkpoint.open.load(tmp_path / "x")
    assert model.weights.kind == kept
    if kept != "float32":
        gguf.save(tmp_path / "y", model)
        assert {GGUFFile(tmp_path / "y").type(n) for n in GGUFFile(tmp_path / "x")} == {kind, "F32"}


def test_rows_that_no_block_fills_stay_float32(tmp_path):
    gguf.save(tmp_path / "x", model_of(ffn=72), type="Q8_0")
    file = GGUFFile(tmp_path / "x")
    assert file.type("blk.0.ffn_down.weight") == "F32" and file.type("blk.0.ffn_up.weight") == "Q8_0"


def changed(tmp_path, key, value):
    """A file with one value more, or another."""
    gguf.save(tmp_path / "x", model_of())
    file = GGUFFile(tmp_path / "x")
    kinds = {str: "string", int: "uint32", float: "float32", bool: "bool"}
    values = {n: Value(kinds[type(v)], v) for n, v in file.values.items()}
    made = {n: (file.type(n), file[n], [np.array(file.raw(n))]) for n in file}
    if value is None:
        del values[key]
    else:
        values[key] = value
    write(tmp_path / "y", values, made)
    return tmp_path / "y"


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("general.architecture", Value("string", "qwen2"), "architecture 'qwen2'"),
        ("llama.expert_count", Value("uint32", 8), "llama.expert_count = 8"),
        ("llama.attention.sliding_window", Value("uint32", 4096), "sliding_window = 4096"),
        ("llama.something_new", Value("uint32", 1), "unknown key"),
        ("llama.block_count", None, "llama.block_count = None"),
        ("llama.block_count", Value("uint32", 3), "are missing"),
        ("llama.feed_forward_length", Value("uint32", 60), "its values ask for"),
        ("llama.attention.key_length", Value("uint32", 32), "key_length = 32"),
        ("llama.rope.scaling.type", Value("string", "longrope"), "longrope"),
        ("llama.context_length", Value("uint32", 2**31 - 1), "positions"),
        ("llama.attention.layer_norm_rms_epsilon", None, "epsilon = None"),
    ],
)
def test_values_that_would_give_wrong_logits_are_refused(tmp_path, key, value, words):
    with pytest.raises(ValueError, match=words):
        minillama.checkpoint.open.load(changed(tmp_path, key, value))


@pytest.mark.parametrize(
    "changes", [{"norm": "layernorm"}, {"feed_forward": "geglu"}, {"bias": ("ffn",)}, {"position": "alibi"},
                {"rope_scaling": "ntk", "rope_factor": 2.0}, {"qk_norm": True}]
)  # fmt: skip
def test_what_llama_cpp_does_not_compute_is_not_written(tmp_path, changes):
    with pytest.raises(ValueError, match="Write another format"):
        gguf.save(tmp_path / "x", model_of(**changes))
    assert not (tmp_path / "x").exists()


# Tokenizers

CORPUS = "Once upon a time there were 12 dogs and 345 cats. It's a caf\u00e9!\n\n  They'll play.\t" * 20


def tokenizers():
    digits = BPETokenizer.train(CORPUS, 300)
    pieces = read_file(FOLDER / "data" / "tok512.bin")
    found = {"digits": digits, "sentencepiece": pieces}
    for name, pattern in (("gpt-2", GPT2_PATTERN), ("llama-bpe", LLAMA3_PATTERN)):
        t = BPETokenizer.train(CORPUS, 300, pattern=pattern)
        found[name] = BPETokenizer(
            t.vocab, t.merges, {}, pattern, ignore_merges=name == "llama-bpe",
            added=[*t.added_tokens, AddedToken("<|user|>", 300, special=False)],
        )  # fmt: skip
    return found


@pytest.mark.parametrize("kind", ["digits", "gpt-2", "llama-bpe", "sentencepiece"])
def test_a_tokenizer_comes_back_with_the_same_ids(tmp_path, kind):
    tokenizer = tokenizers()[kind]
    gguf.save(tmp_path / "x", model_of(vocab_size=tokenizer.vocab_size), tokenizer)
    read = load_tokenizer(tmp_path / "x", tokenizer.vocab_size)
    for text in TEXTS:
        same = kind != "digits" or "  dogs" not in text
        assert not same or read.encode(text).tolist() == tokenizer.encode(text).tolist(), text
        assert read.decode(read.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert read.special_tokens == tokenizer.special_tokens and read.template == tokenizer.template
    assert (read.begin_of_text, read.end_of_text) == (tokenizer.begin_of_text, tokenizer.end_of_text)
    generation = read_generation(tmp_path / "x", tokenizer.vocab_size)
    assert generation.begin == tokenizer.begin_of_text and generation.end == (tokenizer.end_of_text,)


def test_rows_without_a_token_come_back_as_such(tmp_path):
    for tokenizer in tokenizers().values():
        gguf.save(tmp_path / "x", model_of(vocab_size=tokenizer.vocab_size + 7), tokenizer)
        read = load_tokenizer(tmp_path / "x", tokenizer.vocab_size + 7)
        assert read.vocab_size == tokenizer.vocab_size
        assert read.encode("It's 12 [PAD305]").tolist() == tokenizer.encode("It's 12 [PAD305]").tolist()


def test_converting_says_where_llama_cpp_finds_other_ids(tmp_path):
    from minillama.checkpoint.convert import convert

    for kind, said in (("digits", True), ("gpt-2", False)):
        tokenizer = tokenizers()[kind]
        minillama.save(model_of(vocab_size=tokenizer.vocab_size), tmp_path / kind, tokenizer)
        text = convert(tmp_path / kind, tmp_path / f"{kind}.gguf")
        assert "with its tokenizer" in text and ("before a digit in another place" in text) is said


def test_other_tokenizers_are_left_out_and_the_reason_is_said(tmp_path):
    with pytest.raises(ValueError, match="CharTokenizer"):
        gguf_values(CharTokenizer.train("abc"))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model": "bert"}, "supported are 'gpt2' and 'llama'"),
        ({"pre": "tekken"}, "pre is 'tekken'"),
        ({"tokens": []}, "must be an array of texts"),
        ({"token_type": [1]}, "1 types for"),
        ({"merges": [b"ab"]}, "two ordinary tokens"),
        ({"bos_token_id": 10**6, "add_bos_token": True}, "bos_token_id is 1000000"),
    ],
)
def test_a_tokenizer_that_would_give_other_ids_is_refused(changes, words):
    values = {n: [t.encode() for t in v] if k == "string" and isinstance(v, list) else v
              for n, (k, v) in gguf_values(tokenizers()["gpt-2"]).items()}  # fmt: skip
    assert read_gguf(values) is not None
    with pytest.raises(ValueError, match=words):
        read_gguf(values | {f"tokenizer.ggml.{key}": value for key, value in changes.items()})


def test_a_file_a_folder_and_converting(tmp_path):
    tokenizer = tokenizers()["gpt-2"]
    minillama.save(model_of(vocab_size=tokenizer.vocab_size), tmp_path / "run", tokenizer)
    (tmp_path / "run" / "chat_template.jinja").write_text("{{ '<|im_start|>' }}", encoding="utf-8")
    from minillama.checkpoint.convert import convert

    (tmp_path / "folder").mkdir()
    said = convert(tmp_path / "run", tmp_path / "folder" / "m.gguf", type="Q8_0")
    assert "(gguf), with its tokenizer" in said
    assert read_template(tmp_path / "folder") == "{{ '<|im_start|>' }}"
    assert read_config(tmp_path / "folder").dim == 64
    convert(tmp_path / "folder", tmp_path / "back")
    model, words = minillama.load(tmp_path / "back")
    assert words.encode("It's 12").tolist() == tokenizer.encode("It's 12").tolist()
    assert (tmp_path / "back" / "chat_template.jinja").read_text(encoding="utf-8") == "{{ '<|im_start|>' }}"


def test_a_model_of_the_tests_round_trips(tmp_path):
    model = random_model()
    gguf.save(tmp_path / "m.gguf", model)
    ids = np.arange(5)[None]
    np.testing.assert_allclose(minillama.load(tmp_path / "m.gguf")[0].logits(ids), model.logits(ids), atol=1e-5)
