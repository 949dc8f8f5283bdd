"""The PyTorch model that the benchmark times is the same model, and its step the same step."""

import numpy as np
import pytest

from minillama import Config, Model
from minillama.memory import Store
from minillama.optim import AdamW

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"kv_heads": 2}])
def test_three_steps_of_both_give_the_same_losses(changes, monkeypatch, rng):
    from minillama.bench import torch_llama

    config = Config(61, dim=32, layers=2, heads=4, ffn=40, context=24, **changes)
    ours = Model(config, seed=2, init_std=0.1)
    ids, targets = rng.integers(0, 61, (2, 3, 24))

    made = []
    build = torch_llama.TorchLlama

    def with_our_weights(config):
        made.append(build(config))
        made[0].load_state_dict(_state(ours.parameters, config))
        return made[0]

    monkeypatch.setattr(torch_llama, "TorchLlama", with_our_weights)
    step, optimizer = torch_llama.torch_step(config, ids, targets, 1), AdamW(ours.parameters)
    for _ in range(3):
        loss, gradients = ours.loss_and_gradients(ids, targets)
        optimizer.step(gradients, optimizer.gradient_norm(gradients, ours.workers), 1e-3, ours.workers)
        assert step() == pytest.approx(loss, abs=2e-5)
    assert loss < np.log(61)


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
