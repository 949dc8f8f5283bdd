"""The adapters of tests/test_course_adapters.py against PyTorch and the tokenizers library, streams too."""

import json
import random
from functools import cache

import numpy as np
import pytest

from minillama import backend
from minillama.ops.loss import IGNORED
from minillama.ops.norms import NORMS
from minillama.tokenizers import (
    BYTE_SYMBOLS,
    END_OF_TEXT,
    CharTokenizer,
    load_tokenizer,
    read_vocab_and_merges,
    streaming,
)

from .. import test_course_adapters as adapters
from ..test_streaming import ALPHABET, KINDS

torch = pytest.importorskip("torch")
tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
hypothesis = pytest.importorskip("hypothesis")
from .test_tokenizers import (  # noqa: E402
    ADDED_TEXTS,
    MULTILINGUAL,
    TEXT,
    added_tokens,
    library_of_bytes,
    library_of_spaces,
    load_json,
)

given, st = hypothesis.given, hypothesis.strategies
many = hypothesis.settings(deadline=None, derandomize=True, max_examples=400)
F = torch.nn.functional
op = backend.load("numpy")
# float32 as PyTorch computes it, float64 to its last digits
TOLERANCES = {np.float32: dict(rtol=2e-5, atol=2e-6), np.float64: dict(rtol=1e-11, atol=1e-12)}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCES)


def arrays(rng, dtype, *shapes):
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def tensors(*given):
    return [torch.tensor(array, requires_grad=True) for array in given]


def same(received, expected, dtype):
    assert received.dtype == dtype
    np.testing.assert_allclose(received, expected.detach().numpy(), **TOLERANCES[dtype])


@each_dtype
@pytest.mark.parametrize("dim", [-1, 0, 1])
def test_softmax_and_log_softmax(dtype, dim, rng):
    x, dy = arrays(rng, dtype, (3, 4, 5), (3, 4, 5))
    for name in ("softmax", "log_softmax"):
        (tensor,) = tensors(x)
        expected = getattr(F, name)(tensor, dim)
        expected.backward(torch.tensor(dy))
        y = getattr(op, name)(x, dim)
        same(y, expected, dtype)
        same(getattr(op, f"{name}_backward")(dy, y, dim), tensor.grad, dtype)


HEADS = [((), ()), ((2,), (2,)), ((2, 4), (2, 4)), ((2, 4), (2, 2)), ((3, 2, 4), (3, 2, 1))]


@each_dtype
@pytest.mark.parametrize("front, behind", HEADS, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_attention_with_any_mask(dtype, front, behind, masked, rng):
    """With rows that read nothing, which PyTorch gives 0, too."""
    shapes = (*front, 5, 8), (*behind, 7, 8), (*behind, 7, 6), (*front, 5, 6)
    q, k, v, do = arrays(rng, dtype, *shapes)
    mask = rng.random((*front, 5, 7)) < 0.4 if masked else None
    if masked:
        mask[..., 3, :] = False
    of = tensors(q, k, v)
    group = front[-1] // behind[-1] if front else 1
    k_all, v_all = (x.repeat_interleave(group, -3) if group > 1 else x for x in of[1:])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(of[0], k_all, v_all, None if mask is None else torch.tensor(mask))
    expected.backward(torch.tensor(do))
    o, log_denominator = op.masked_attention(q, k, v, mask)
    same(o, expected, dtype)
    received = op.masked_attention_backward(do, q, k, v, o, log_denominator, mask)
    for gradient, tensor in zip(received, of, strict=True):
        same(gradient, tensor.grad, dtype)


@each_dtype
def test_norms_linear_embedding_and_activations(dtype, rng):
    x, dy, weight, bias = arrays(rng, dtype, (2, 3, 8), (2, 3, 8), 8, 8)
    for name in ("rms_norm", "layer_norm"):
        of = tensors(x, weight, bias)
        expected = getattr(F, name)(of[0], (8,), of[1], *([of[2]] if name == "layer_norm" else []), eps=1e-5)
        expected.backward(torch.tensor(dy))
        own, b = {"rms_norm": ("rmsnorm", None), "layer_norm": ("layernorm", bias)}[name]
        norm, norm_backward = NORMS[own].with_bias(op)
        y, saved = norm(x, weight, b, 1e-5)
        dweight, dbias = np.zeros_like(weight), None if b is None else np.zeros_like(bias)
        dx = norm_backward(dy, x, weight, saved, dweight, dbias)
        for received, tensor in ((y, expected), (dx, of[0].grad), (dweight, of[1].grad), (dbias, of[2].grad)):
            if received is not None:
                same(received, tensor, dtype)
    of = tensors(x, matrix := rng.standard_normal((8, 8)).astype(dtype), bias)
    F.linear(*of).backward(torch.tensor(dy))
    dmatrix, dbias = np.zeros_like(matrix), np.zeros_like(bias)
    same(op.linear(x, matrix, bias), F.linear(*of), dtype)
    same(op.linear_backward(dy, x, matrix, dmatrix, dbias), of[0].grad, dtype)
    same(dmatrix, of[1].grad, dtype)
    same(dbias, of[2].grad, dtype)
    ids = rng.integers(8, size=(2, 3))
    (tensor,) = tensors(matrix)
    F.embedding(torch.tensor(ids), tensor).backward(torch.tensor(dy))
    dtable = np.zeros_like(matrix)
    op.embedding_backward(dy, ids, dtable)
    same(dtable, tensor.grad, dtype)
    for name, function in {"silu": F.silu, "gelu": F.gelu, "relu": F.relu}.items():
        (tensor,) = tensors(x)
        function(tensor).backward(torch.tensor(dy))
        same(getattr(op, name)(x), function(tensor), dtype)
        same(getattr(op, f"{name}_backward")(dy, x), tensor.grad, dtype)


@each_dtype
def test_cross_entropy_with_ignored_targets(dtype, rng):
    (logits,), targets = arrays(rng, dtype, (4, 3, 9)), rng.integers(9, size=(4, 3))
    targets[1, :2] = IGNORED
    (tensor,) = tensors(logits)
    F.cross_entropy(tensor.movedim(-1, 1), torch.tensor(targets), ignore_index=IGNORED, reduction="sum").backward()
    losses, log_denominator = op.cross_entropy(logits, targets)
    expected = F.cross_entropy(tensor.movedim(-1, 1), torch.tensor(targets), ignore_index=IGNORED, reduction="none")
    same(losses, expected, dtype)
    same(op.cross_entropy_backward(np.ones_like(losses), logits, targets, log_denominator), tensor.grad, dtype)
    (logits,), targets = arrays(rng, dtype, (8, 5)), rng.integers(5, size=8)
    expected = F.cross_entropy(torch.tensor(logits), torch.tensor(targets))
    np.testing.assert_allclose(adapters.run_cross_entropy(logits, targets), expected.item(), rtol=1e-6)


@each_dtype
def test_clipping_adamw_and_schedule(dtype, rng):
    gradients = arrays(rng, dtype, (3, 4), (5,))
    of = [torch.nn.Parameter(torch.zeros_like(torch.tensor(g))) for g in gradients]
    for tensor, g in zip(of, gradients, strict=True):
        tensor.grad = torch.tensor(g)
    torch.nn.utils.clip_grad_norm_(of, 0.7)
    adapters.run_gradient_clipping(gradients, 0.7)
    for tensor, g in zip(of, gradients, strict=True):
        np.testing.assert_allclose(g, tensor.grad.numpy(), rtol={np.float32: 2e-6, np.float64: 1e-13}[dtype])
    weights = arrays(rng, dtype, (3, 4), (5,))
    of = [torch.nn.Parameter(torch.tensor(w)) for w in weights]
    theirs = torch.optim.AdamW(of, lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    ours = adapters.get_adamw_cls()(weights, lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for _ in range(10):
        gradients = arrays(rng, dtype, (3, 4), (5,))
        for tensor, g in zip(of, gradients, strict=True):
            tensor.grad = torch.tensor(g)
        theirs.step()
        ours.step(gradients)
    for tensor, w in zip(of, weights, strict=True):
        same(w, tensor, dtype)


@each_dtype
def test_rope_against_transformers(dtype, rng):
    """The layout of Hugging Face's models: halves."""
    (q,), positions = arrays(rng, dtype, (2, 3, 5, 8)), rng.integers(100, size=(2, 5))
    angles = torch.tensor(positions)[..., None].double() * 10000.0 ** (-torch.arange(0, 8, 2).double() / 8)
    cos, sin = (torch.cat([f(angles)] * 2, -1).to(torch.tensor(q).dtype) for f in (torch.cos, torch.sin))
    apply = transformers.models.llama.modeling_llama.apply_rotary_pos_emb
    expected, _ = apply(torch.tensor(q), torch.tensor(q), cos, sin)
    same(op.rotated(q, positions[:, None]), expected, dtype)


# Tokenizers


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A tokenizer of the library as it trains and saves it: vocab.json and merges.txt."""
    folder = tmp_path_factory.mktemp("gpt2")
    library = tokenizers.ByteLevelBPETokenizer()
    library.train_from_iterator([MULTILINGUAL * 3], vocab_size=700, special_tokens=[END_OF_TEXT], show_progress=False)
    library.save_model(str(folder))
    return folder, library


@many
@given(TEXT)
def test_vocab_and_merges_of_the_library(gpt2, text):
    folder, library = gpt2
    ours = _read(folder)
    expected = library.encode(text).ids
    assert ours.encode(text).tolist() == expected == list(ours.encode_iterable(text))
    assert ours.decode(expected) == text == library.decode(expected, skip_special_tokens=False)


_read = cache(load_tokenizer)


def test_transformers_reads_the_same_files(gpt2, tmp_path):
    folder, _ = gpt2
    library = transformers.GPT2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    ours = read_vocab_and_merges(folder / "vocab.json", folder / "merges.txt")
    assert ours.encode(MULTILINGUAL).tolist() == library(MULTILINGUAL)["input_ids"]


def test_the_courses_form_of_the_same_tokenizer(gpt2):
    """{id: bytes} and merges as bytes, from the symbols of the library's file."""
    folder, library = gpt2
    ours = _read(folder)
    spell = lambda text: bytes(BYTE_SYMBOLS[c] for c in text)  # noqa: E731
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:-1]
    merges = [tuple(map(spell, line.split(" "))) for line in lines]
    tokenizer = adapters.get_tokenizer({i: spell(text) for text, i in vocab.items()}, merges, [END_OF_TEXT])
    for text in (MULTILINGUAL, f"a{END_OF_TEXT}{END_OF_TEXT}\n\nb"):
        assert tokenizer.encode(text) == library.encode(text).ids == ours.encode(text).tolist()


# A stream has the ids of the whole


@st.composite
def cuts(draw, text):
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", 1)
    monkeypatch.setattr(streaming, "_NEAR", 2)


@pytest.mark.parametrize("make", [library_of_bytes, library_of_spaces])
@many
@given(
    added_tokens(),
    st.lists(st.sampled_from(("a", "b", " ", "\n", "b ", "a.b", *ADDED_TEXTS)), max_size=12).map("".join),
    st.data(),
)
def test_streams_with_added_tokens_of_every_setting(make, added, text, data):
    library = make()
    for content, is_special, flags in added:
        add = library.add_special_tokens if is_special else library.add_tokens
        add([tokenizers.AddedToken(content, **flags)])
    ours = load_json(library)
    chosen = [st.sets(st.sampled_from([*ours.special_tokens]))] if ours.special_tokens else []
    special = data.draw(st.one_of(st.booleans(), *chosen))
    texts = data.draw(cuts(text))
    assert list(ours.encode_iterable(texts, special)) == ours.encode(text, special).tolist()


SOME_OF_EACH = st.lists(st.one_of(st.sampled_from(ALPHABET), TEXT), max_size=8).map("".join)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "characters"])
@hypothesis.settings(many, max_examples=100)
@given(SOME_OF_EACH, st.data())
def test_streams_of_any_text(kind, text, data):
    ours = _kind(kind)
    assert list(ours.encode_iterable(data.draw(cuts(text)))) == ours.encode(text).tolist()


@cache
def _kind(kind):
    return KINDS[kind]()


@many
@given(TEXT.filter(bool), st.data())
def test_streams_of_characters(text, data):
    ours = CharTokenizer.train("x" + text.replace(END_OF_TEXT, " ".join(END_OF_TEXT)) + " ", (END_OF_TEXT,))
    assert list(ours.encode_iterable(data.draw(cuts(text)))) == ours.encode(text).tolist()


@pytest.mark.parametrize("name", ["llama2-tokenizer.model", "stories260K/tok512.bin"])
def test_streams_of_published_sentencepiece_vocabularies(name, assets):
    ours, rng = load_tokenizer(assets / "models" / name), random.Random(0)
    for _ in range(300):
        start = rng.randrange(len(MULTILINGUAL))
        text = MULTILINGUAL[start : start + rng.randrange(60)] + rng.choice(["", " ", "  \n", "</s>", "<s> a"])
        places = sorted(rng.randrange(len(text) + 1) for _ in range(4))
        texts = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
        assert list(ours.encode_iterable(texts)) == ours.encode(text).tolist(), texts
