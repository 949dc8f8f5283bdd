"""Llama, GPT-2 and BERT against transformers: its directories read, ours written, the same logits and gradients."""

import json
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest

from minillama import IGNORED, Config, Model, load, save
from minillama.checkpoint.huggingface import model_type
from minillama.config import BIASES
from minillama.gradcheck import relative_error

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
modeling_llama = pytest.importorskip("transformers.models.llama.modeling_llama")
modeling_rope_utils = pytest.importorskip("transformers.modeling_rope_utils")


class Case(NamedTuple):
    """A model of transformers, and the lengths of the texts that it reads."""

    model: Any
    auto: Any
    values: dict
    lengths: tuple[int, ...] = (5, 48)


def llama(lengths=(5, 48), **changes):
    shape = dict(
        vocab_size=61, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=48, rms_norm_eps=1e-4, rope_parameters=rope(),
    )  # fmt: skip
    return Case(transformers.LlamaForCausalLM, transformers.AutoModelForCausalLM, {**shape, **changes}, lengths)


def rope(rope_type="default", **given):
    return {"rope_theta": 100.0, "rope_type": rope_type, **given}


def gpt2(**changes):
    shape = dict(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=48, layer_norm_epsilon=1e-4)
    off = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None)
    return Case(transformers.GPT2LMHeadModel, transformers.AutoModelForCausalLM, {**shape, **off, **changes})


def bert(**changes):
    shape = dict(
        vocab_size=61, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=48, type_vocab_size=3, layer_norm_eps=1e-4,
        pad_token_id=None,  # an id would keep that token's embedding from being trained
    )  # fmt: skip
    off = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return Case(transformers.BertForMaskedLM, transformers.AutoModelForMaskedLM, {**shape, **off, **changes})


# With theta 100 and a head width of 8 the pairs make 5.1, 1.6, 0.5 and 0.16 turns over 32 positions: llama3 leaves the
# first alone, slows the last two, and mixes for the second; yarn mixes for the second, with its other bounds for three.
CASES = {
    "Llama multi-head": llama(),
    "Llama grouped": llama(num_key_value_heads=2),
    "Llama multi-query": llama(num_key_value_heads=1),
    "Llama tied": llama(tie_word_embeddings=True, num_key_value_heads=2),
    "Llama attention_bias": llama(attention_bias=True, num_key_value_heads=2),
    "Llama mlp_bias": llama(mlp_bias=True),
    "Llama with all biases, tied": llama(attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "Llama GEGLU": llama(hidden_act="gelu"),
    "Llama linear": llama(rope_parameters=rope("linear", factor=3.0)),
    "Llama dynamic": llama(
        lengths=(7, 24, 25, 36, 48), max_position_embeddings=24, rope_parameters=rope("dynamic", factor=2.0)
    ),
    "Llama llama3": llama(
        rope_parameters=rope(
            "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
        ),
        num_key_value_heads=2,
    ),
    "Llama llama3 with other bounds": llama(
        rope_parameters=rope(
            "llama3", factor=2.5, low_freq_factor=0.3, high_freq_factor=2.0, original_max_position_embeddings=32
        )
    ),
    "Llama yarn": llama(rope_parameters=rope("yarn", factor=1.5, original_max_position_embeddings=32)),
    "Llama yarn with other bounds": llama(
        rope_parameters=rope(
            "yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=3.0, beta_slow=0.25
        )
    ),
    "GPT-2": gpt2(),
    "GPT-2 untied, exact GELU": gpt2(tie_word_embeddings=False, activation_function="gelu", n_inner=40),
    "BERT": bert(),
}  # fmt: skip
SCALED = [name for name, case in CASES.items() if case.values.get("rope_parameters", rope())["rope_type"] != "default"]


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


class InFloat64:
    """The module torch, except that what asks for float32 gets float64."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextmanager
def computing_in(dtype):
    """Llama's norms, rotation and softmax too, which transformers computes in float32 whatever the weights are."""
    with pytest.MonkeyPatch.context() as patch:
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        if dtype == torch.float64:
            for module in (modeling_llama, modeling_rope_utils):
                patch.setattr(module, "torch", InFloat64())
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def make(case, dtype=torch.float32, seed=1):
    """A model of transformers whose weights, biases and norms all differ enough from 0 and 1 that each one matters."""
    torch.manual_seed(seed)
    model = case.model(case.model.config_class(**case.values, attn_implementation="eager")).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def inputs_for(model, length, rng):
    """ids and targets, and for a bidirectional model types and lengths, some shorter than the batch."""
    config, shape = model.config, (3, length)
    ids, targets = rng.integers(0, config.vocab_size, shape), rng.integers(0, config.vocab_size, shape)
    targets[1, ::3] = IGNORED
    if config.causal:
        return ids, targets, {}
    lengths = np.array([length, 1 + length // 3, length - 1])
    targets[np.arange(length) >= lengths[:, None]] = IGNORED
    return ids, targets, dict(types=rng.integers(0, config.token_types, shape), lengths=lengths)


def their_logits(theirs, ids, types=None, lengths=None):
    given = {}
    if types is not None:
        given["token_type_ids"] = torch.tensor(types)
        given["attention_mask"] = torch.tensor(np.arange(ids.shape[1]) < lengths[:, None]).long()
    return theirs(torch.tensor(ids), **given).logits


def their_gradients(theirs, loss, folder):
    """{our name: gradient}, through a directory in which gradients stand in the place of weights."""
    theirs.zero_grad()
    loss.backward()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad)
    theirs.save_pretrained(folder)
    return load(folder)[0].parameters


def text_of(ids, lengths):
    """Which of ids are no padding."""
    return np.full(ids.shape, True) if lengths is None else np.arange(ids.shape[1]) < lengths[:, None]


@pytest.mark.parametrize("dtype, of_logits, of_gradients", [("float32", 1e-5, 1e-4), ("float64", 1e-9, 1e-9)])
def test_logits_and_every_gradient(case, dtype, of_logits, of_gradients, each_backend, tmp_path, rng):
    with computing_in(getattr(torch, dtype)):
        theirs = make(case, getattr(torch, dtype))
        theirs.save_pretrained(tmp_path / "weights")
        ours, _ = load(tmp_path / "weights")
        assert ours.dtype == dtype
        for length in case.lengths:
            ids, targets, inputs = inputs_for(ours, length, rng)
            logits, text = their_logits(theirs, ids, **inputs), text_of(ids, inputs.get("lengths"))
            expected = logits.detach().numpy()
            assert relative_error(ours.logits(ids, **inputs)[text], expected[text]) < of_logits, length
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), torch.tensor(targets).flatten(), ignore_index=IGNORED
        )
        our_loss, gradients = ours.loss_and_gradients(ids, targets, **inputs)
        assert abs(our_loss - loss.item()) < of_logits * loss.item()
        expected = their_gradients(theirs, loss, tmp_path / "gradients")
        assert gradients.keys() == expected.keys()
        largest = max(np.abs(gradient).max() for gradient in expected.values())
        for name, gradient in gradients.items():
            if name.endswith("b_k") and ours.tables.rotation is None:  # the same for all scores: noise around 0
                assert max(np.abs(gradient).max(), np.abs(expected[name]).max()) < of_gradients * largest, name
            else:
                assert relative_error(gradient, expected[name]) < of_gradients, name


def test_the_state_dict_goes_both_ways(case, tmp_path, rng):
    theirs = make(case)
    theirs.save_pretrained(tmp_path / "theirs")
    ours, _ = load(tmp_path / "theirs")
    save(ours, tmp_path / "ours")
    again, report = case.auto.from_pretrained(tmp_path / "ours", attn_implementation="eager", output_loading_info=True)
    assert type(again) is case.model and not any(report.values()), report
    for length in case.lengths:
        ids, _, inputs = inputs_for(ours, length, rng)
        with torch.no_grad():
            assert torch.equal(their_logits(again, ids, **inputs), their_logits(theirs, ids, **inputs))
    loaded, _ = load(tmp_path / "ours")
    assert loaded.config == ours.config
    np.testing.assert_array_equal(loaded.parameters.flat, ours.parameters.flat)


@pytest.mark.parametrize("name", ["Llama grouped", "GPT-2"])
def test_padding_of_a_causal_model(name, tmp_path, rng):
    theirs = make(CASES[name])
    theirs.save_pretrained(tmp_path / "weights")
    ours, _ = load(tmp_path / "weights")
    lengths = np.array([24, 9, 17])
    ids, targets = rng.integers(0, 61, (3, 24)), rng.integers(0, 61, (3, 24))
    text = text_of(ids, lengths)
    targets[~text] = IGNORED
    logits = theirs(torch.tensor(ids), attention_mask=torch.tensor(text).long()).logits
    assert relative_error(ours.logits(ids, lengths=lengths)[text], logits.detach().numpy()[text]) < 1e-5
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(targets).flatten(), ignore_index=IGNORED
    )
    _, gradients = ours.loss_and_gradients(ids, targets, lengths=lengths)
    for name, expected in their_gradients(theirs, loss, tmp_path / "gradients").items():
        if not name.endswith("b_k"):  # adds the same to all scores of a query: noise around 0
            assert relative_error(gradients[name], expected) < 1e-4, name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_halves_in_several_files(case, dtype, tmp_path, rng):
    theirs = make(case).to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    ours, _ = load(tmp_path / "theirs")
    assert ours.weights.kind == dtype
    save(ours, tmp_path / "ours")
    again = case.auto.from_pretrained(tmp_path / "ours", attn_implementation="eager", dtype="auto")
    assert again.dtype == theirs.dtype
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    theirs = case.auto.from_pretrained(tmp_path / "theirs", attn_implementation="eager", dtype=torch.float32)
    ids, _, inputs = inputs_for(ours, case.lengths[0], rng)
    text = text_of(ids, inputs.get("lengths"))
    with torch.no_grad():
        expected = their_logits(theirs, ids, **inputs).numpy()
    assert relative_error(ours.logits(ids, **inputs)[text], expected[text]) < 1e-5


@pytest.mark.parametrize("key", ["rope_type", "type"])  # "type" before version 4.43
@pytest.mark.parametrize("name", SCALED)
def test_the_rope_scaling_of_transformers_4(name, key, tmp_path, rng):
    make(CASES[name]).save_pretrained(tmp_path)
    ours, _ = load(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    scaling = values.pop("rope_parameters")
    values["rope_theta"], scaling[key] = scaling.pop("rope_theta"), scaling.pop("rope_type")
    path.write_text(json.dumps({**values, "rope_scaling": scaling}))
    assert load(tmp_path)[0].config == ours.config
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    ids = rng.integers(0, 61, (2, 48))
    with torch.no_grad():
        assert relative_error(ours.logits(ids), their_logits(theirs, ids).numpy()) < 1e-5


OURS = dict(vocab_size=61, dim=32, layers=2, heads=4, ffn=40, context=24, norm_eps=1e-4)
LEARNED = dict(norm="layernorm", position="learned", bias=("qkv", "o", "ffn", "norm"), tied=True)
MADE_HERE = {
    "llama, interleaved with biases": dict(rope_layout="interleaved", bias=("qkv", "o", "ffn"), kv_heads=2),
    "llama, NTK-aware": dict(rope_scaling="ntk", rope_factor=3.0, rope_theta=100.0),
    "llama, dynamic": dict(rope_scaling="dynamic", rope_factor=3.0, rope_original_context=9, rope_layout="interleaved"),
    "llama, llama3": dict(rope_scaling="llama3", rope_factor=3.0, rope_original_context=9, rope_theta=100.0),
    "llama, yarn": dict(rope_scaling="yarn", rope_factor=3.0, rope_original_context=9, rope_high=4.0, rope_theta=100.0),
    "llama, GEGLU": dict(feed_forward="geglu", tied=True),
    "gpt2": dict(LEARNED, feed_forward="gelu_tanh"),
    "gpt2, ReLU": dict(LEARNED, feed_forward="relu"),
    "gpt2, SiLU": dict(LEARNED, feed_forward="silu", tied=False),
    "bert": dict(
        norm="layernorm", position="learned", bias=BIASES, tied=True, feed_forward="gelu", placement="post",
        mask="bidirectional", head="masked_lm", embedding_norm=True, token_types=2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE_HERE)
def test_transformers_opens_what_is_made_here(name, tmp_path, rng):
    ours = Model(Config(**OURS, **MADE_HERE[name]))
    ours.parameters.flat[:] += 0.2 * rng.standard_normal(ours.parameters.flat.size)
    assert model_type(ours.config) == name.split(",")[0]
    save(ours, tmp_path)
    auto = transformers.AutoModelForCausalLM if ours.config.causal else transformers.AutoModelForMaskedLM
    theirs, report = auto.from_pretrained(tmp_path, attn_implementation="eager", output_loading_info=True)
    assert not any(report.values()), report
    ids, _, inputs = inputs_for(ours, 24, rng)
    text = text_of(ids, inputs.get("lengths"))
    with torch.no_grad():
        expected = their_logits(theirs, ids, **inputs).numpy()
    assert relative_error(ours.logits(ids, **inputs)[text], expected[text]) < 1e-5
    loaded, _ = load(tmp_path)
    assert relative_error(loaded.logits(ids, **inputs)[text], expected[text]) < 1e-5


def test_transformers_refuses_what_it_cannot_compute(tmp_path):
    save(Model(Config(**OURS, position="none")), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "minillama"
    with pytest.raises(ValueError, match="does not recognize this architecture"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_a_bert_with_both_of_its_heads(tmp_path, rng):
    case = CASES["BERT"]._replace(model=transformers.BertForPreTraining)
    theirs = make(case)
    theirs.save_pretrained(tmp_path)
    ours, _ = load(tmp_path)
    ids, _, inputs = inputs_for(ours, 48, rng)
    text = text_of(ids, inputs["lengths"])
    with torch.no_grad():
        expected = theirs(
            torch.tensor(ids), attention_mask=torch.tensor(text).long(), token_type_ids=torch.tensor(inputs["types"])
        ).prediction_logits.numpy()
    assert relative_error(ours.logits(ids, **inputs)[text], expected[text]) < 1e-5


def test_a_bert_without_its_head_is_refused(tmp_path):
    make(CASES["BERT"]._replace(model=transformers.BertModel)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"5 tensors missing \['cls.predictions.bias'.* written by BertModel"):
        load(tmp_path)


@pytest.mark.parametrize(
    "name, model", [("GPT-2", "GPT2Model"), ("Llama tied", "LlamaModel"), ("Llama with all biases, tied", "LlamaModel")]
)
def test_a_tied_model_without_its_head_is_read(name, model, tmp_path, rng):
    whole = make(CASES[name])
    body = make(CASES[name]._replace(model=getattr(transformers, model)))
    body.load_state_dict(whole.base_model.state_dict())
    body.save_pretrained(tmp_path)
    ids = rng.integers(0, 61, (2, 48))
    with torch.no_grad():
        expected = whole(torch.tensor(ids)).logits.numpy()
    assert relative_error(load(tmp_path)[0].logits(ids), expected) < 1e-5
