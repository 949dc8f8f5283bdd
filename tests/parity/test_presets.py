"""The presets have the parameters that transformers makes of the same configuration; nothing is allocated."""

import pytest

from minillama import PRESETS
from minillama.catalogue.sizes import encoder_parameters, parameter_count

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def count(kind, config):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in kind(config).parameters())


@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name].is_llama])
def test_llama(name):
    config = PRESETS[name]
    theirs = transformers.LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.dim,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        intermediate_size=config.ffn,
        tie_word_embeddings=config.tied,
    )
    assert parameter_count(config)["total"] == count(transformers.LlamaForCausalLM, theirs)


@pytest.mark.parametrize("name", ["gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl", "gpt3-175b", "tiny-gpt2"])
def test_gpt2(name):
    config = PRESETS[name]
    theirs = transformers.GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.context,
        n_embd=config.dim,
        n_layer=config.layers,
        n_head=config.heads,
        n_inner=config.ffn,
    )
    assert parameter_count(config)["total"] == count(transformers.GPT2LMHeadModel, theirs)


@pytest.mark.parametrize("name", ["bert-base", "bert-large", "tiny-bert"])
def test_bert_with_its_head_and_with_its_pooler(name):
    config = PRESETS[name]
    theirs = transformers.BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.dim,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.ffn,
        max_position_embeddings=config.context,
        type_vocab_size=config.token_types,
    )
    assert parameter_count(config)["total"] == count(transformers.BertForMaskedLM, theirs)
    assert encoder_parameters(config)["total"] == count(transformers.BertModel, theirs)
