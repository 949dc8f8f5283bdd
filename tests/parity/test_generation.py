"""The same text as transformers' generate: what generation_config.json asks for, where a text ends, and the penalty."""

import json

import numpy as np
import pytest

from minillama import load, save
from minillama.catalogue.presets import tiny
from minillama.checkpoint import generation_config
from minillama.checkpoint.convert import convert
from minillama.generation.generate import generate, penalise
from minillama.tokenizers import BPETokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROMPT = [5, 11, 5]


@pytest.fixture
def theirs():
    """A tiny Llama whose greedy text has many different tokens."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        initializer_range=0.5,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def continued(model, **settings):
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        return model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(PROMPT) :].tolist()


def opened(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("place", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_a_converted_model_stops_at_the_same_token(theirs, place, several, penalty, tmp_path):
    free = continued(theirs, max_new_tokens=40, eos_token_id=49, do_sample=False, repetition_penalty=penalty)
    different = list(dict.fromkeys(free))
    assert len(different) > 5 and 2 not in different[:6]  # so that the old end is not what stops it
    absent = next(token for token in range(50) if token not in free)
    ends = [different[5], different[3], absent] if several else different[3]
    theirs.config.eos_token_id = theirs.generation_config.eos_token_id = ends
    theirs.generation_config.repetition_penalty = penalty
    theirs.save_pretrained(tmp_path / "theirs")
    if place == "config.json":
        (tmp_path / "theirs" / "generation_config.json").unlink()
        path = tmp_path / "theirs" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "repetition_penalty": penalty}))
    convert(tmp_path / "theirs", tmp_path / "ours")
    expected = free[: free.index(different[3]) + 1]
    for folder in ("theirs", "ours"):
        assert continued(opened(tmp_path / folder), max_new_tokens=40) == expected
        said = generation_config.read(tmp_path / folder, 50)
        assert set(said.end) == set(ends if several else [ends]) and said.begin == 1 and said.pad == 0
        settings = said.sampling() | {"top_k": 1}
        assert list(generate(load(tmp_path / folder)[0], PROMPT, 40, **settings, stop=said.end)) == expected
        assert settings["repetition_penalty"] == penalty


def test_a_converted_model_has_the_same_settings_in_transformers(theirs, tmp_path):
    theirs.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9, top_k=7, eos_token_id=[2, 7])
    theirs.save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours")
    before, after = (opened(tmp_path / name) for name in ("theirs", "ours"))
    assert before.generation_config.to_dict() == after.generation_config.to_dict()
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(before.config, key) == getattr(after.config, key)
    settings = generation_config.read(tmp_path / "ours", 50).sampling()
    assert settings == {"temperature": 0.6, "top_k": 7, "top_p": 0.9, "repetition_penalty": 1.0}


def test_a_model_made_here_stops_in_transformers(tmp_path):
    """Without a generation_config.json: its config.json names the end."""
    from minillama import Model

    tokenizer = BPETokenizer.train("the cat sat on the mat and the dog sat on the cat " * 9, 300)
    model = Model(tiny("llama", vocab_size=tokenizer.vocab_size, context=64), seed=1, threads=1)
    save(model, tmp_path, tokenizer)
    made = opened(tmp_path)
    assert made.generation_config.eos_token_id == tokenizer.end_of_text
    free = continued(made, max_new_tokens=20, eos_token_id=-1, do_sample=False, pad_token_id=0)
    made.generation_config.eos_token_id = free[0]
    assert continued(made, max_new_tokens=20, do_sample=False, pad_token_id=0) == free[:1]


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.05, 1.2, 5.0])
def test_the_penalty_is_transformers(penalty, rng):
    process = transformers.RepetitionPenaltyLogitsProcessor(penalty)
    for length in (1, 3, 40, 200):
        logits = (rng.standard_normal(100) * 5).astype(np.float32)
        ids = rng.integers(0, 100, length)
        expected = process(torch.from_numpy(ids)[None], torch.from_numpy(logits.copy())[None])[0].numpy()
        penalise(logits, sorted({*ids.tolist()}), penalty)
        np.testing.assert_allclose(logits, expected, rtol=1e-6)


@pytest.mark.parametrize("penalty", [1.1, 2.0])
def test_greedy_text_with_a_penalty_is_transformers(theirs, penalty, tmp_path):
    theirs.save_pretrained(tmp_path)
    expected = continued(theirs, max_new_tokens=50, eos_token_id=49, do_sample=False, repetition_penalty=penalty)
    model = load(tmp_path)[0]
    assert list(generate(model, PROMPT, 50, top_k=1, repetition_penalty=penalty, stop={49})) == expected
