"""The same loss and gradients as torch's autograd; the same logits as transformers from the folder we write."""

import numpy as np
import pytest

from minillama import IGNORED, Config, Model, load, save
from minillama.data.corpora import encode_corpus
from minillama.generation.generate import generate
from minillama.gradcheck import relative_error
from minillama.training.run import Run
from minillama.training.trainer import Settings

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SHAPE = dict(vocab_size=97, dim=48, layers=3, heads=6, ffn=80, context=40, rope_theta=1000.0, norm_eps=1e-4)
VARIANTS = {
    "multi-head": {},
    "grouped": {"kv_heads": 2},
    "multi-query": {"kv_heads": 1},
    "tied": {"tied": True, "kv_heads": 3},
    "interleaved": {"rope_layout": "interleaved", "kv_heads": 2},
}


@pytest.fixture(params=VARIANTS)
def config(request):
    return Config(**SHAPE, **VARIANTS[request.param])


def make(config, dtype, rng):
    """A model with weights large enough that every path matters."""
    model = Model(config, dtype=dtype)
    model.parameters.matrices[:] *= 8
    for name, array in model.parameters.items():
        if name.endswith("norm"):
            array[:] = rng.uniform(0.5, 1.5, array.shape)
    return model


def open_in_transformers(model, folder):
    save(model, folder)
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


def torch_logits(config, p, ids):
    """The decoder written with torch's own operations, which autograd differentiates: complex numbers for RoPE, its
    own norm and attention. transformers computes norm and rotation in float32 only, whatever the weights are."""
    F, T, D = torch.nn.functional, ids.shape[1], config.head_dim
    turns = torch.arange(T)[:, None] * config.rope_theta ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
    turn = torch.polar(torch.ones_like(turns), turns)[:, None]

    def rotate(x):  # (B, T, heads, D)
        halves = config.rope_layout == "rotate_half"
        pairs = x.unflatten(-1, (2, -1)).mT if halves else x.unflatten(-1, (-1, 2))
        y = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * turn)
        return (y.mT if halves else y).flatten(-2)

    x = p["embedding"][ids]
    for i in range(config.layers):
        w = {name.split(".")[-1]: value for name, value in p.items() if name.startswith(f"blocks.{i}.")}
        h = F.rms_norm(x, (config.dim,), w["attention_norm"], config.norm_eps)
        q, k, v = ((h @ w[name].T).unflatten(-1, (-1, D)) for name in ("w_q", "w_k", "w_v"))
        heads = (y.transpose(1, 2) for y in (rotate(q), rotate(k), v))
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)
        x = x + mixed.transpose(1, 2).flatten(2) @ w["w_o"].T
        h = F.rms_norm(x, (config.dim,), w["ffn_norm"], config.norm_eps)
        x = x + (F.silu(h @ w["w_gate"].T) * (h @ w["w_up"].T)) @ w["w_down"].T
    return F.rms_norm(x, (config.dim,), p["final_norm"], config.norm_eps) @ p.get("output", p["embedding"]).T


def test_float64_loss_logits_and_every_gradient(config, each_backend, rng):
    model = make(config, np.float64, rng)
    p = {name: torch.tensor(array, requires_grad=True) for name, array in model.parameters.items()}
    ids = rng.integers(0, config.vocab_size, (3, config.context))
    targets = np.roll(ids, -1, axis=1)
    targets[0, :5] = IGNORED
    logits = torch_logits(config, p, torch.tensor(ids))
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(targets).flatten(), ignore_index=IGNORED
    )
    loss.backward()
    assert relative_error(model.logits(ids), logits.detach().numpy()) < 1e-10
    our_loss, gradients = model.loss_and_gradients(ids, targets)
    assert abs(our_loss - loss.item()) < 1e-10
    for name, tensor in p.items():
        assert relative_error(gradients[name], tensor.grad.numpy()) < 1e-10, name


def test_float32_logits(config, each_backend, tmp_path, rng):
    model = make(config, np.float32, rng)
    theirs = open_in_transformers(model, tmp_path)
    ids = rng.integers(0, config.vocab_size, (3, config.context))
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    received = model.logits(ids)
    assert received.dtype == np.float32
    assert np.abs(received - expected).max() < 1e-5


def test_what_transformers_writes_is_what_we_read(config, tmp_path, rng):
    model = make(config, np.float32, rng)
    open_in_transformers(model, tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    ids = rng.integers(0, config.vocab_size, (3, config.context))
    np.testing.assert_allclose(load(tmp_path / "theirs")[0].logits(ids), model.logits(ids), rtol=1e-4, atol=1e-5)


def test_decoding_with_the_cache_follows_transformers_greedy_text(config, tmp_path, rng):
    model = make(config, np.float32, rng)
    theirs = open_in_transformers(model, tmp_path)
    ids = rng.integers(0, config.vocab_size, (3, config.context))
    prompt = ids[:1, :6]
    expected = theirs.generate(
        torch.tensor(prompt), attention_mask=torch.ones(1, 6, dtype=torch.long), max_new_tokens=20, do_sample=False
    )[0, 6:].tolist()
    assert list(generate(model, prompt[0], 20, top_k=1)) == expected


def test_the_folder_of_a_run_opens_in_transformers_with_the_same_ids_and_logits(tmp_path):
    (tmp_path / "text.txt").write_text("One day, a cat met 12 dogs.\nThe cat said: hello!\n" * 60, encoding="utf-8")
    for kind in ("bpe", "char"):
        corpus = encode_corpus(tmp_path / "text.txt", kind, 300)
        config = Config(corpus.tokenizer.vocab_size, dim=32, layers=2, heads=4, kv_heads=2, context=32)
        run = Run.start(tmp_path / kind, config, Settings(steps=5, batch_size=4), corpus)
        run.train(quiet=True)
        text = "The cat met 12 dogs.\n"
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / kind)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / kind)
        ids = tokenizer(text)["input_ids"]
        assert ids == run.corpus.tokenizer.encode(text).tolist() and tokenizer.decode(ids) == text
        with torch.no_grad():
            expected = theirs(torch.tensor([ids])).logits.numpy()
        assert np.abs(run.model.logits(np.array([ids])) - expected).max() < 1e-5
