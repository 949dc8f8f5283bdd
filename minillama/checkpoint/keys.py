"""What is done with each key of a config.json: read, ignored, required to have one value, or refused.

Published files have keys of many programs. Those that shape the model are read; the architecture's row of
minillama.checkpoint.ARCHITECTURES says which. The tables here decide for the others, with the reason. What stands in
none of them is unknown, and refused, since it may change the model.
"""

from typing import Any, NamedTuple


class Decision(NamedTuple):
    kind: str  # "read", "ignored", "required" or "refused"
    reason: str
    allowed: tuple = ()  # of a required key: the values that it may have, the first is what minillama computes


# {why they cannot change the logits: keys}
IGNORED_KEYS = {
    "names and versions": {
        "_commit_hash", "_name_or_path", "architectures", "finetuning_task", "internal_version", "is_llama_config",
        "tokenizer_class", "transformers_version",
    },
    "how the numbers are stored; the weights' own file says it": {"dtype", "torch_dtype"},
    "of training and of initial weights": {
        "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "classifier_dropout", "embd_pdrop",
        "gradient_checkpointing", "hidden_dropout", "hidden_dropout_prob", "initializer_range", "resid_pdrop",
    },
    "how transformers computes the same": {
        "_attn_implementation", "_attn_implementation_autoset", "_flash_attn_2_enabled", "attn_implementation",
        "chunk_size_feed_forward", "pretraining_tp", "torchscript", "use_bfloat16", "use_cache", "use_flash_attn",
    },
    "code in the model's folder, which is not run here, nor by transformers unless it is told to": {"auto_map"},
    "which results transformers returns": {
        "output_attentions", "output_hidden_states", "output_scores", "return_dict", "return_dict_in_generate",
    },
    "of classifiers and of encoders with decoders": {
        "id2label", "is_decoder", "is_encoder_decoder", "label2id", "prefix", "problem_type", "task_specific_params",
        "tf_legacy_loss", "tie_encoder_decoder",
    },
    "settings of other programs": {"transformers.js_config", "unsloth_fixed", "unsloth_version"},
    "counts for nothing without use_sliding_window": {"max_window_layers"},
    "tokens, which minillama.checkpoint.generation_config reads": {
        "bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id", "sep_token_id",
    },
    "how text is drawn, which minillama.checkpoint.generation_config reads": {
        "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping",
        "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id",
        "forced_eos_token_id", "length_penalty", "max_length", "max_new_tokens", "min_length", "no_repeat_ngram_size",
        "num_beam_groups", "num_beams", "num_return_sequences", "remove_invalid_values", "repetition_penalty",
        "suppress_tokens", "temperature", "top_k", "top_p", "typical_p",
    },
}  # fmt: skip
# {key: (values that it may have, what another one would mean)}
REQUIRED: dict[str, tuple[tuple[Any, ...], str]] = {
    "quantization_config": ((None,), "the weights are quantized; get the model in float16, bfloat16 or float32"),
    "compression_config": ((None,), "the weights are compressed"),
    "quantization": ((None,), "the weights are quantized for MLX"),
    "rope_interleaved": (
        (False, None),
        "neighbouring coordinates are rotated as pairs, or were once: transformers ignores the key and rotates halves. "
        "If transformers computes this model rightly, set it to false",
    ),
    "sliding_window": ((None,), "each position reads only the last of those before it"),
    "use_sliding_window": ((False, None), "each position reads only the last of those before it"),
    "partial_rotary_factor": ((1.0, None), "only a part of each head is rotated"),
    "rotary_pct": ((1.0, None), "only a part of each head is rotated"),
    "add_cross_attention": ((False,), "the model reads a second text as well"),
    "cross_attention_hidden_size": ((None,), "the model reads a second text as well"),
    "pruned_heads": (({}, None), "some heads are left out"),
}
# {key: what it says of the model}
REFUSED = {
    **dict.fromkeys(
        ("num_experts", "num_local_experts", "n_routed_experts"), "the feed-forward layers are mixtures of experts"
    ),
    **dict.fromkeys(("vision_config", "text_config", "mm_vision_tower"), "the model reads pictures as well as text"),
}


def decide(key, row):
    """The Decision about a key in a file of the row's architecture; None for an unknown key."""
    if key == "model_type" or key in row.fields.values() or key in row.translated:
        return Decision("read", "it shapes the model")
    if key in row.required:
        return Decision("required", "of this architecture it is the usual value", row.required[key])
    if key in row.ignored:
        return Decision("ignored", row.ignored[key])
    if key in REQUIRED:
        return Decision("required", *REQUIRED[key][::-1])
    if key in REFUSED:
        return Decision("refused", REFUSED[key])
    return next((Decision("ignored", reason) for reason, keys in IGNORED_KEYS.items() if key in keys), None)


def known_keys(row):
    """All keys about which there is a Decision for the row's architecture."""
    of_row = {"model_type", *row.fields.values(), *row.translated, *row.required, *row.ignored}
    return of_row | REQUIRED.keys() | REFUSED.keys() | set().union(*IGNORED_KEYS.values())
