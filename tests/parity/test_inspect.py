"""Attention, streams and perplexity against transformers: output_attentions, output_hidden_states, its guide."""

import numpy as np
import pytest

from minillama import load
from minillama.analysis.perplexity import token_losses
from minillama.analysis.trace import logit_lens, trace
from minillama.gradcheck import relative_error

from .test_family import CASES, make, torch

INSIDE = ("Llama multi-head", "Llama grouped", "Llama with all biases, tied", "Llama llama3", "GPT-2", "BERT")
# The module at whose entry the stream between the two layers of a block stands; of BERT, which normalises it first,
# the one that it leaves.
BETWEEN = {"llama": "post_attention_layernorm", "gpt2": "ln_2", "bert": "attention.output.LayerNorm"}


def watched(theirs, ids, types):
    """Logits (T, V), attention maps (L, H, T, T) and streams (2 L + 1, T, C) of one text, by transformers."""
    between, kind = [], theirs.config.model_type

    def hook(module, inputs, output):
        between.append((output if kind == "bert" else inputs[0])[0].clone())

    modules = [module for name, module in theirs.named_modules() if name.endswith(BETWEEN[kind])]
    last = []  # the stream after the last block, which their last hidden state is only after the final norm
    final = {"llama": "model.norm", "gpt2": "transformer.ln_f"}.get(kind)
    hooks = [module.register_forward_hook(hook) for module in modules]
    if final:
        module = theirs.get_submodule(final)
        hooks.append(module.register_forward_hook(lambda module, inputs, output: last.append(inputs[0][0].clone())))
    given = {} if types is None else {"token_type_ids": torch.tensor(types[None])}
    with torch.no_grad():
        out = theirs(torch.tensor(ids[None]), output_attentions=True, output_hidden_states=True, **given)
    for handle in hooks:
        handle.remove()
    whole = [x[0] for x in out.hidden_states]
    if final:
        whole[-1] = last[0]
    streams = [whole[0], *(x for pair in zip(between, whole[1:], strict=True) for x in pair)]
    return out.logits[0].numpy(), torch.cat(out.attentions).numpy(), torch.stack(streams).numpy()


@pytest.mark.parametrize("name", INSIDE)
def test_attention_and_streams(name, each_backend, tmp_path, rng):
    case = CASES[name]
    theirs = make(case)
    theirs.save_pretrained(tmp_path)
    ours, _ = load(tmp_path)
    for length in case.lengths:
        ids = rng.integers(0, 61, length)
        types = rng.integers(0, 3, length) if ours.config.token_types else None
        logits, maps, streams = watched(theirs, ids, types)
        seen = trace(ours, ids, types)
        assert np.abs(seen.attention - maps).max() < 1e-5
        assert relative_error(seen.streams, streams) < 1e-5
        assert relative_error(seen.norms, np.linalg.norm(streams.astype(np.float64), axis=-1)) < 1e-5
        assert relative_error(logit_lens(ours, seen)[-1], logits) < 1e-5


@pytest.mark.parametrize("name", INSIDE)
def test_the_logit_lens(name, tmp_path, rng):
    """Each of their hidden states through their own last norm and head."""
    theirs = make(CASES[name])
    theirs.save_pretrained(tmp_path)
    ours, _ = load(tmp_path)
    ids = rng.integers(0, 61, 12)
    types = rng.integers(0, 3, 12) if ours.config.token_types else None
    _, _, streams = watched(theirs, ids, types)
    norm, head = {
        "llama": ("model.norm", "lm_head"), "gpt2": ("transformer.ln_f", "lm_head"), "bert": (None, "cls"),
    }[theirs.config.model_type]  # fmt: skip
    with torch.no_grad():
        x = torch.tensor(streams[::2])
        expected = theirs.get_submodule(head)(theirs.get_submodule(norm)(x) if norm else x).numpy()
    assert relative_error(logit_lens(ours, trace(ours, ids, types)), expected) < 1e-5


@pytest.mark.parametrize("name", ["Llama grouped", "GPT-2"])
@pytest.mark.parametrize("context, stride", [(24, 24), (24, 12), (24, 5), (1, 1)])
def test_perplexity_of_strided_windows(name, context, stride, tmp_path, rng):
    """The loop of the guide of transformers; its windows hold one token more, the last of which is only predicted."""
    theirs = make(CASES[name])
    theirs.save_pretrained(tmp_path)
    ids = rng.integers(0, 61, 131)
    expected, before = 0.0, 1
    for begin in range(0, len(ids), stride):
        end = min(begin + context + 1, len(ids))
        labels = torch.tensor(ids[None, begin:end])
        labels[:, : max(0, before - begin)] = -100
        if end > before:
            with torch.no_grad():
                loss = theirs(torch.tensor(ids[None, begin:end]), labels=labels).loss
            expected += loss.item() * (end - before)
        before = end
        if end == len(ids):
            break
    losses = token_losses(load(tmp_path)[0], ids, context, stride)
    assert len(losses) == 130 and abs(losses.sum(dtype=np.float64) / expected - 1) < 1e-5
