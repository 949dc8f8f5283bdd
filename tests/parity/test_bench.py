"""The PyTorch model that the benchmark times is the same model, and its steps are the same steps."""

import numpy as np
import pytest

from minillama import Config, Model
from minillama.bench.ours import batch
from minillama.bench.shapes import Shape
from minillama.runtime.memory import Store
from minillama.training.clipping import clip_scale, gradient_norm
from minillama.training.optimizers import AdamW

torch = pytest.importorskip("torch")

CHANGES = [{}, {"tied": True}, {"kv_heads": 2}]


@pytest.fixture(params=CHANGES)
def pair(request, monkeypatch):
    """A model, and torch_llama which builds its own with the same weights."""
    from minillama.bench import torch_llama

    config = Config(61, dim=32, layers=2, heads=4, ffn=40, context=24, **request.param)
    ours, build = Model(config, seed=2, init_std=0.1), torch_llama.TorchLlama

    def with_our_weights(config):
        theirs = build(config)
        theirs.load_state_dict(_state(ours.parameters, config))
        return theirs

    monkeypatch.setattr(torch_llama, "TorchLlama", with_our_weights)
    return ours, torch_llama


def test_three_steps_of_both_give_the_same_losses(pair):
    ours, torch_llama = pair
    shape = Shape(ours.config, 3)
    ids, targets = batch(shape)
    step, optimizer = torch_llama.training(shape, 1)["step"], AdamW(ours.parameters)
    for _ in range(3):
        loss, gradients = ours.loss_and_gradients(ids, targets)
        scale = clip_scale(gradient_norm(gradients, ours.workers), 1.0)
        optimizer.step(gradients, 1e-3, scale, ours.workers)
        assert step() == pytest.approx(loss, abs=2e-5)
    assert loss < np.log(61)


def test_prefill_and_decoding_give_the_same_logits(pair, rng):
    ours, torch_llama = pair
    ids = rng.integers(0, 61, (2, 12))
    theirs, expected = torch_llama.TorchLlama(ours.config), ours.logits(ids)
    cache = theirs.new_cache(2)
    first = theirs.next_logits(torch.tensor(ids[:, :7]), cache, 0)
    np.testing.assert_allclose(first, expected[:, 6], atol=2e-5)
    for past in range(7, 12):
        logits = theirs.next_logits(torch.tensor(ids[:, past : past + 1]), cache, past)
        np.testing.assert_allclose(logits, expected[:, past], atol=2e-5)


def test_the_prefill_that_is_timed_is_that_of_our_own(pair):
    ours, torch_llama = pair
    shape = Shape(ours.config, 1, prompt=9)
    logits = torch_llama.prefill(shape, 1)["step"]()
    np.testing.assert_allclose(logits, ours.logits(batch(shape)[0][:, :9])[:, -1], atol=2e-5)


def _state(parameters: Store, config):
    """Our parameters by the names of torch_llama; the fused matrices are the parts one above the other."""
    state = {"embedding.weight": parameters["embedding"], "final_norm.weight": parameters["final_norm"]}
    state["output.weight"] = parameters["embedding" if config.tied else "output"]
    fused = {"w_qkv": ("w_q", "w_k", "w_v"), "w_gate_up": ("w_gate", "w_up")}
    for i in range(config.layers):
        for name in ("attention_norm", "w_qkv", "w_o", "ffn_norm", "w_gate_up", "w_down"):
            parts = [parameters[f"blocks.{i}.{part}"] for part in fused.get(name, (name,))]
            state[f"blocks.{i}.{name}.weight"] = np.concatenate(parts)
    return {name: torch.tensor(array) for name, array in state.items()}
