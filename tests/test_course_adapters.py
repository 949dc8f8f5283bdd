"""What the first assignment of Stanford's course CS336 asks for, on minillama's functions, against plain formulas.

The functions named run_... and get_... have the arguments of the course's adapters, with arrays of NumPy in place of
tensors: who takes the course can compare each part of their own code with ours. tests/parity compares the same
functions with PyTorch and with the tokenizers library.
"""

import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from minillama import Config, LayerAlone, Model, backend
from minillama.data.batches import Batches
from minillama.ops.masked_attention import masked_attention
from minillama.ops.positions.rope import rope_frequencies, rotated, rotated_backward
from minillama.tokenizers import END_OF_TEXT, GPT2_PATTERN, BPETokenizer, compile_pattern
from minillama.training.clipping import clip_gradients
from minillama.training.optimizers import AdamW
from minillama.training.schedules import learning_rate

op = backend.load("numpy")


def run_linear(d_in, d_out, weights, in_features):
    return op.linear(in_features, weights)


def run_embedding(vocab_size, d_model, weights, token_ids):
    return op.embedding(token_ids, weights)


def run_silu(in_features):
    return op.silu(in_features)


def run_swiglu(d_model, d_ff, w1_weight, w2_weight, w3_weight, in_features):
    inner = op.linear(in_features, np.concatenate([w1_weight, w3_weight]))
    return op.linear(op.swiglu(inner), w2_weight)


def run_rmsnorm(d_model, eps, weights, in_features):
    return op.rmsnorm(in_features, weights, eps)[0]


def run_softmax(in_features, dim):
    return op.softmax(in_features, dim)


def run_cross_entropy(inputs, targets):
    return op.cross_entropy(inputs, targets)[0].mean()


def run_rope(d_k, theta, max_seq_len, in_query_or_key, token_positions):
    return op.rotated(in_query_or_key, token_positions, rope_frequencies(d_k, theta), layout="interleaved")


def run_scaled_dot_product_attention(Q, K, V, mask=None):
    return op.masked_attention(Q, K, V, mask)[0]


def run_multihead_self_attention(d_model, num_heads, q_proj, k_proj, v_proj, o_proj, in_features, turn=lambda x: x):
    projected = op.linear(in_features, np.stack([q_proj, k_proj, v_proj]).reshape(3 * d_model, -1))
    q, k, v = np.moveaxis(projected.reshape(*in_features.shape[:-1], 3, num_heads, -1), (-3, -2), (0, -3))
    causal = np.tril(np.ones((q.shape[-2], q.shape[-2]), bool))
    mixed, _ = op.masked_attention(turn(q), turn(k), v, causal)
    return op.linear(mixed.swapaxes(-2, -3).reshape(in_features.shape), o_proj)


def run_multihead_self_attention_with_rope(
    d_model, num_heads, max_seq_len, theta, q_proj, k_proj, v_proj, o_proj, in_features, token_positions=None
):  # fmt: skip
    positions = np.arange(in_features.shape[-2]) if token_positions is None else token_positions[..., None, :]
    return run_multihead_self_attention(
        d_model, num_heads, q_proj, k_proj, v_proj, o_proj, in_features,
        lambda x: run_rope(d_model // num_heads, theta, max_seq_len, x, positions),
    )  # fmt: skip


NAMES = {
    "attention_norm": "ln1.weight", "w_q": "attn.q_proj.weight", "w_k": "attn.k_proj.weight",
    "w_v": "attn.v_proj.weight", "w_o": "attn.output_proj.weight", "ffn_norm": "ln2.weight",
    "w_gate": "ffn.w1.weight", "w_up": "ffn.w3.weight", "w_down": "ffn.w2.weight",
}  # fmt: skip


def run_transformer_block(d_model, num_heads, d_ff, max_seq_len, theta, weights, in_features):
    config = Config(
        vocab_size=1, dim=d_model, heads=num_heads, ffn=d_ff, context=max_seq_len, rope_theta=theta,
        rope_layout="interleaved",
    )  # fmt: skip
    block = LayerAlone("block", config, dtype=in_features.dtype)
    for ours, theirs in NAMES.items():
        block.parameters[ours][:] = weights[theirs]
    return block.forward(in_features)[0]


def run_transformer_lm(
    vocab_size, context_length, d_model, num_layers, num_heads, d_ff, rope_theta, weights, in_indices
):  # fmt: skip
    config = Config(
        vocab_size, d_model, num_layers, num_heads, ffn=d_ff, context=context_length, rope_theta=rope_theta,
        rope_layout="interleaved",
    )  # fmt: skip
    names = {"embedding": "token_embeddings.weight", "final_norm": "ln_final.weight", "output": "lm_head.weight"}
    for i in range(num_layers):
        names |= {f"blocks.{i}.{ours}": f"layers.{i}.{theirs}" for ours, theirs in NAMES.items()}
    model = Model(config, init_std=None, dtype=weights["lm_head.weight"].dtype)
    for ours, theirs in names.items():
        model.parameters[ours][:] = weights[theirs]
    return model.logits(in_indices)


def run_get_batch(dataset, batch_size, context_length, seed=0):
    """Windows of an epoch in random order, not independent draws: none comes twice before the others came once."""
    return Batches(dataset, context_length, batch_size, seed)[0]


def run_gradient_clipping(gradients, max_l2_norm):
    clip_gradients(gradients, max_l2_norm)


def get_adamw_cls():
    def matrices(arrays):
        """Views: the course lets vectors decay too, where ours lets arrays of two axes and more."""
        return {str(i): np.atleast_2d(array) for i, array in enumerate(arrays)}

    class WithRate(AdamW):
        def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
            super().__init__(matrices(parameters), betas, eps, weight_decay)
            self.rate = lr

        def step(self, gradients):
            super().step(matrices(gradients), self.rate)

    return WithRate


def run_get_lr_cosine_schedule(it, max_learning_rate, min_learning_rate, warmup_iters, cosine_cycle_iters):
    return learning_rate(it, cosine_cycle_iters, max_learning_rate, warmup_iters, min_learning_rate / max_learning_rate)


def run_save_checkpoint(model, optimizer, iteration, out):
    save_file({**model.parameters, **optimizer.state}, out, metadata={"iteration": str(iteration)})


def run_load_checkpoint(src, model, optimizer):
    with safe_open(src, "np") as file:
        for name, array in {**model.parameters, **optimizer.state}.items():
            array[:] = file.get_tensor(name)
        optimizer.steps = int(file.metadata()["iteration"])
    return optimizer.steps


def get_tokenizer(vocab, merges, special_tokens=None):
    tokenizer = BPETokenizer.from_tokens(vocab, merges, special_tokens or ())
    return SimpleNamespace(
        encode=lambda text: tokenizer.encode(text).tolist(),
        encode_iterable=tokenizer.encode_iterable,
        decode=tokenizer.decode,
    )


def run_train_bpe(input_path, vocab_size, special_tokens):
    text = input_path.read_bytes().decode("utf-8")
    trained = BPETokenizer.train(text, vocab_size, tuple(special_tokens), GPT2_PATTERN, ties="greatest")
    spell = trained.token_bytes
    return {i: spell(i) for i in range(trained.vocab_size)}, [(spell(a), spell(b)) for a, b in trained.merges]


# Against formulas that are written out


def random(rng, *shape):
    return rng.standard_normal(shape)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def rotation(x, positions, theta):
    """Neighbours as complex numbers."""
    D = x.shape[-1]
    angles = np.asarray(positions)[..., None] * theta ** (-np.arange(0, D, 2) / D)
    z = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.stack([z.real, z.imag], axis=-1).reshape(x.shape)


def attention(x, w_q, w_k, w_v, w_o, heads, theta=None, positions=None):
    """x (T, C), a head and a query at a time."""
    T, C = x.shape
    D = C // heads
    mixed = np.zeros((T, C))
    for h in range(heads):
        rows = slice(h * D, (h + 1) * D)
        q, k, v = x @ w_q[rows].T, x @ w_k[rows].T, x @ w_v[rows].T
        if theta is not None:
            q, k = (rotation(a, np.arange(T) if positions is None else positions, theta) for a in (q, k))
        for t in range(T):
            mixed[t, rows] = softmax(k[: t + 1] @ q[t] / D**0.5) @ v[: t + 1]
    return mixed @ w_o.T


def rmsnorm(x, weight, eps=1e-5):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * weight


def swiglu(x, w1, w2, w3):
    gate = x @ w1.T
    return (gate / (1 + np.exp(-gate)) * (x @ w3.T)) @ w2.T


def block(x, w, heads, theta):
    attn = [w[f"attn.{name}.weight"] for name in ("q_proj", "k_proj", "v_proj", "output_proj")]
    x = x + attention(rmsnorm(x, w["ln1.weight"]), *attn, heads, theta)
    return x + swiglu(rmsnorm(x, w["ln2.weight"]), *(w[f"ffn.w{i}.weight"] for i in (1, 2, 3)))


def block_weights(rng, C=16, F=24):
    shapes = {name: (C, C) for name in NAMES.values()}
    shapes |= {"ln1.weight": (C,), "ln2.weight": (C,), "ffn.w2.weight": (C, F)}
    shapes |= {"ffn.w1.weight": (F, C), "ffn.w3.weight": (F, C)}
    return {name: 0.4 * random(rng, *shape) for name, shape in shapes.items()}


def lm_weights(rng, layers=2, V=11, C=16):
    weights = {f"layers.{i}.{name}": w for i in range(layers) for name, w in block_weights(rng).items()}
    return weights | {
        "token_embeddings.weight": random(rng, V, C),
        "ln_final.weight": random(rng, C),
        "lm_head.weight": random(rng, V, C),
    }


close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)  # noqa: E731


def test_linear_embedding_silu_swiglu_rmsnorm(rng):
    x, w1, w2, w3 = random(rng, 2, 3, 8), random(rng, 12, 8), random(rng, 8, 12), random(rng, 12, 8)
    close(run_linear(8, 12, w1, x), np.einsum("btc,oc->bto", x, w1))
    ids = rng.integers(12, size=(2, 3, 4))
    assert np.array_equal(run_embedding(12, 8, w1, ids), np.stack([w1[i] for i in ids.ravel()]).reshape(2, 3, 4, 8))
    close(run_silu(x), x / (1 + np.exp(-x)))
    close(run_swiglu(8, 12, w1, w2, w3, x), swiglu(x, w1, w2, w3))
    close(run_rmsnorm(8, 1e-3, w1[0], x), rmsnorm(x, w1[0], 1e-3))


def test_softmax_and_cross_entropy(rng):
    x, targets = random(rng, 4, 3, 7), rng.integers(7, size=(4, 3))
    close(run_softmax(x, -1), softmax(x))
    close(run_softmax(x + 1000, 1), np.moveaxis(softmax(np.moveaxis(x, 1, -1)), -1, 1))
    chosen = np.take_along_axis(softmax(x), targets[..., None], -1)
    close(run_cross_entropy(x, targets), -np.log(chosen).mean())
    close(
        run_cross_entropy(1000 * x, targets),
        np.mean(1000 * (x.max(-1) - np.take_along_axis(x, targets[..., None], -1)[..., 0])),
    )


def test_attention_and_rope(rng):
    x, weights = random(rng, 2, 5, 12), random(rng, 4, 12, 12)
    positions = rng.integers(50, size=(2, 5))
    close(run_rope(12, 300.0, 50, x, positions), rotation(x, positions, 300.0))
    expected = [attention(row, *weights, 3) for row in x]
    close(run_multihead_self_attention(12, 3, *weights, x), expected)
    expected = [attention(row, *weights, 3, 300.0) for row in x]
    close(run_multihead_self_attention_with_rope(12, 3, 50, 300.0, *weights, x), expected)
    expected = [attention(row, *weights, 3, 300.0, p) for row, p in zip(x, positions, strict=True)]
    close(run_multihead_self_attention_with_rope(12, 3, 50, 300.0, *weights, x, positions), expected)
    q, k, v = random(rng, 2, 3, 4, 6), random(rng, 2, 3, 5, 6), random(rng, 2, 3, 5, 2)
    mask = rng.random((2, 3, 4, 5)) < 0.7
    mask[..., 0] = True
    scores = np.where(mask, np.einsum("...td,...sd->...ts", q, k) / 6**0.5, -1e300)
    close(run_scaled_dot_product_attention(q, k, v, mask), np.einsum("...ts,...se->...te", softmax(scores), v))


def test_transformer_block_and_lm(rng, each_backend):
    x, weights = random(rng, 2, 6, 16), block_weights(rng)
    close(run_transformer_block(16, 4, 24, 9, 500.0, weights, x), [block(row, weights, 4, 500.0) for row in x])
    weights, ids = lm_weights(rng), rng.integers(11, size=(2, 6))
    x = weights["token_embeddings.weight"][ids]
    for i in range(2):
        own = {name: weights[f"layers.{i}.{name}"] for name in NAMES.values()}
        x = np.stack([block(row, own, 4, 500.0) for row in x])
    expected = rmsnorm(x, weights["ln_final.weight"]) @ weights["lm_head.weight"].T
    close(run_transformer_lm(11, 9, 16, 2, 4, 24, 500.0, weights, ids), expected)


def test_batches(rng):
    ids, targets = run_get_batch(np.arange(100), 32, 7)
    assert ids.shape == targets.shape == (32, 7)
    assert np.array_equal(ids + 1, targets) and np.array_equal(ids, ids[:, :1] + np.arange(7))
    assert len(set(ids[:, 0])) > 5 and ids.min() >= 0 and targets.max() <= 99


def test_clipping_adamw_and_schedule(rng):
    gradients = [random(rng, 3, 4), random(rng, 5)]
    kept = np.concatenate([g.ravel() for g in gradients])
    run_gradient_clipping(gradients, 100.0)
    assert np.array_equal(np.concatenate([g.ravel() for g in gradients]), kept)
    run_gradient_clipping(gradients, 0.5)
    close(np.concatenate([g.ravel() for g in gradients]), 0.5 * kept / (np.linalg.norm(kept) + 1e-6))

    w, expected, m, v = random(rng, 6), None, 0, 0
    expected, optimizer = w.copy(), get_adamw_cls()([w], lr=0.01, weight_decay=0.1)
    for t in range(1, 5):
        g = random(rng, 6)
        optimizer.step([g])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        expected -= 0.01 * 0.1 * expected + 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    close(w, expected)

    for it in range(30):
        s = (it - 7) / (21 - 7)
        between = 0.1 + (1 + np.cos(np.pi * s)) / 2 * 0.9
        close(run_get_lr_cosine_schedule(it, 1.0, 0.1, 7, 21), it / 7 if it < 7 else between if it <= 21 else 0.1)


def test_checkpoints(rng, tmp_path):
    models = [Model(Config(vocab_size=7, dim=8, layers=1, heads=2), seed=i) for i in range(2)]
    optimizers = [get_adamw_cls()(model.parameters.values(), lr=0.1) for model in models]
    ids = rng.integers(7, size=(2, 5))

    def step(model, optimizer):
        _, gradients = model.loss_and_gradients(ids, ids)
        optimizer.step(gradients.values())

    step(models[0], optimizers[0])
    run_save_checkpoint(models[0], optimizers[0], 1, tmp_path / "checkpoint.safetensors")
    assert run_load_checkpoint(tmp_path / "checkpoint.safetensors", models[1], optimizers[1]) == 1
    for model, optimizer in zip(models, optimizers, strict=True):
        step(model, optimizer)
    assert np.array_equal(models[0].parameters.flat, models[1].parameters.flat)


# The tokenizer


def trained_by_recounting(text, vocab_size, special):
    """The course's rule, with all pairs counted anew for each merge: the most frequent, of equal ones the greatest."""
    words = Counter()
    for part in re.split("|".join(map(re.escape, sorted(special, key=len, reverse=True))), text) if special else [text]:
        words.update(tuple(bytes([b]) for b in word.encode()) for word in compile_pattern(GPT2_PATTERN).findall(part))
    merges = []
    while len(merges) < vocab_size - 256 - len(special):
        counts = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:], strict=False):
                counts[pair] += count
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        merged = Counter()
        for word, count in words.items():
            new, i = [], 0
            while i < len(word):
                joined = word[i : i + 2] == best
                new.append(word[i] + word[i + 1] if joined else word[i])
                i += 1 + joined
            merged[tuple(new)] += count
        words = merged
    return merges


TEXT = (
    "low low low low low lower lower widest widest widest newest newest newest newest newest newest\n"
    "<|endoftext|>It's 1984: the cat sat on the mat, 猫が座った。 été, they'll...\r\n\r\n  <|endoftext|>zz zy "
    "yz aab abb"
)


@pytest.mark.parametrize("special", [[], [END_OF_TEXT]])
@pytest.mark.parametrize("text", [TEXT, "ab ba cd dc " * 3, "b\u00e9\u00ea\u00eb " * 2 + "aaaa aaa aa", "a"])
def test_training_is_by_recounting_with_the_greatest_of_equal_pairs(text, special, tmp_path):
    (tmp_path / "text.txt").write_bytes(text.encode())
    vocab, merges = run_train_bpe(tmp_path / "text.txt", 340, special)
    assert merges == trained_by_recounting(text, 340, special)
    ordinary = [bytes([b]) for b in range(256)] + [a + b for a, b in merges]
    assert len(vocab) == len(ordinary) + len(special)
    assert set(vocab.values()) == {*ordinary, *(token.encode() for token in special)}
    assert vocab.keys() == set(range(len(vocab)))


def test_the_example_of_the_assignment(tmp_path):
    """Its corpus of four words, in which (e, s) and (s, t) come equally often."""
    (tmp_path / "text.txt").write_text(
        "low low low low low lower lower widest widest widest newest newest newest newest newest newest"
    )
    _, merges = run_train_bpe(tmp_path / "text.txt", 256 + 1 + 2, [END_OF_TEXT])
    assert merges == [(b"s", b"t"), (b"e", b"st")]


@pytest.mark.parametrize("special", [None, [END_OF_TEXT], [END_OF_TEXT, END_OF_TEXT * 2]])
def test_a_tokenizer_of_tokens_and_merges(special, tmp_path):
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    vocab, merges = run_train_bpe(tmp_path / "text.txt", 340, [END_OF_TEXT])
    vocab = {2 * i + 5: token for i, token in vocab.items()}  # gaps
    tokenizer, text = get_tokenizer(vocab, merges, special), f"It's low{END_OF_TEXT}{END_OF_TEXT} été"
    ids = tokenizer.encode(text)
    assert type(ids) is list and type(ids[0]) is int and tokenizer.decode(ids) == text
    assert list(tokenizer.encode_iterable(text)) == ids
    assert ids.count(5) == {None: 0, 1: 2, 2: 0}[special and len(special)]  # the id of the special token in vocab
    assert (max(vocab) + 1 in ids) == (special is not None and len(special) == 2)
    for letter in ("s", "é"):
        assert tokenizer.decode([i for c in letter.encode() for i, t in vocab.items() if t == bytes([c])]) == letter
    assert tokenizer.decode([i for i, t in vocab.items() if t == b"\xc3"]) == "\ufffd"
    with pytest.raises(ValueError, match="id 6 at position 0 is a gap: it stands for no token"):
        tokenizer.decode([6])


ONES = np.ones(3)
READ_ONLY = np.ones(3)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "arrays, words",
    [
        (np.ones(3) * 2, "number 0 is float64. A single array goes into a list"),
        ([np.ones(3) * 2, [1.0, 2.0]], "number 1 is list"),
        ({"a": np.ones(3) * 2, "b": np.arange(3)}, "number 1 is int64"),
        ({"a": np.ones(3) * 2, "b": None}, "number 1 is NoneType"),
        ({"a": np.ones(3) * 2, "b": READ_ONLY}, "number 1 cannot be: it is read-only"),
        ({"a": ONES, "b": ONES}, "number 1 is there twice"),
    ],
)
def test_clipping_changes_all_arrays_or_none(arrays, words):
    first = next(iter(arrays.values() if isinstance(arrays, dict) else arrays))
    before = first.copy()
    with pytest.raises(ValueError, match=words):
        clip_gradients(arrays, 1.0)
    np.testing.assert_array_equal(first, before)


def test_an_optimizer_wants_a_mapping_of_arrays_that_are_each_there_once():
    with pytest.raises(ValueError, match="must be a mapping {name: array}; received list"):
        AdamW([np.ones(3)])
    tied = np.ones(3)
    with pytest.raises(ValueError, match="embedding and output are the same array, which would be moved twice"):
        AdamW({"embedding": tied, "output": tied})


def test_attention_and_rotation_take_lists(rng):
    q = rng.normal(size=(2, 3, 4))
    for ours, lists in zip(masked_attention(q, q, q), masked_attention(*[q.tolist()] * 3), strict=True):
        np.testing.assert_array_equal(ours, lists)
    np.testing.assert_array_equal(rotated(q, np.arange(3)), rotated(q.tolist(), [0, 1, 2]))
    np.testing.assert_array_equal(rotated_backward(q, np.arange(3)), rotated_backward(q.tolist(), [0, 1, 2]))
