"""How text is drawn from a published model: the generation_config.json of a Hugging Face folder

It names the tokens that end a text, and how its authors draw. Where a folder has none, transformers looks into
config.json for the same keys, and so does this module. Each key has a place below; what would change the text and is
not done here is named in `Generation.notes`, as the model itself is not touched by it.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from ..generation.generate import check_sampling
from .huggingface import read_json

FILE, CONFIG = "generation_config.json", "config.json"
TEMPERATURE, TOP_P = 0.8, 0.95  # where neither the user nor the model's files say anything
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
# {key that is read: what transformers takes where it is missing, so that it says nothing in a config.json}
SETTINGS = {"do_sample": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "repetition_penalty": 1.0}
# {key: values that change nothing}: with another one transformers draws in a way that is not computed here
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bad_words_ids": (None, []),
    "begin_suppress_tokens": (None, []),
    "constraints": (None,),
    "dola_layers": (None,),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1),
    "epsilon_cutoff": (None, 0),
    "eta_cutoff": (None, 0),
    "exponential_decay_length_penalty": (None,),
    "force_words_ids": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "guidance_scale": (None, 1),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "min_p": (None, 0),
    "no_repeat_ngram_size": (None, 0),
    "num_beam_groups": (None, 1),
    "num_beams": (None, 1),
    "penalty_alpha": (None, 0),
    "sequence_bias": (None, {}, []),
    "stop_strings": (None, []),
    "suppress_tokens": (None, []),
    "token_healing": (None, False),
    "top_h": (None,),
    "typical_p": (None, 1),
    "watermarking_config": (None,),
}
# {why they do not change which tokens are likely: keys}
IGNORED_SETTINGS = {
    "of the file itself": {"_from_model_config", "generation_kwargs", "transformers_version"},
    "how much is written is for the user to say": {"max_length", "max_new_tokens", "max_time", "num_return_sequences"},
    "counts for nothing without beams": {"diversity_penalty", "early_stopping", "length_penalty", "renormalize_logits"},
    "of encoders with decoders": {"decoder_start_token_id", "forced_decoder_ids"},
    "a model with numbers that are not finite is refused": {"remove_invalid_values"},
    "how transformers computes the same": {
        "assistant_confidence_threshold", "assistant_early_exit", "assistant_ensemble_weight", "assistant_lookbehind",
        "cache_config", "cache_implementation", "compile_config", "continuous_batching_config", "disable_compile",
        "is_assistant", "low_memory", "max_cache_len", "max_matching_ngram_size", "num_assistant_tokens",
        "num_assistant_tokens_schedule", "prefill_chunk_size", "prompt_lookup_num_tokens", "return_legacy_cache",
        "speculation_type", "target_lookbehind", "use_cache", "use_mtp",
    },
    "which results transformers returns": {
        "output_attentions", "output_hidden_states", "output_logits", "output_scores", "return_dict_in_generate",
    },
}  # fmt: skip
_KEYS = {*TOKENS, *SETTINGS, *NEUTRAL, *set().union(*IGNORED_SETTINGS.values())}


class Generation(NamedTuple):
    """What the files of a model say about drawing text from it; None where they say nothing."""

    begin: int | None = None  # the token that a text begins with
    end: tuple[int, ...] = ()  # tokens that end a text
    pad: int | None = None
    greedy: bool = False  # the likeliest token is taken each time
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    notes: tuple[str, ...] = ()  # what they ask for besides, which is not done

    def sampling(self, temperature=None, top_k=None, top_p=None, repetition_penalty=None):
        """The settings of `generate`: what is given here, else what the files say, else our defaults

        Files that ask for the likeliest token each time are heeded where nothing is given about drawing. Most files do
        not say do_sample; then transformers takes the likeliest token, and this is left to our defaults.
        """
        if self.greedy and temperature is top_k is top_p is None:
            top_k = 1
        asked = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "repetition_penalty": repetition_penalty}
        usual = {"temperature": TEMPERATURE, "top_k": None, "top_p": TOP_P, "repetition_penalty": 1.0}
        said = {name: getattr(self, name) if value is None else value for name, value in asked.items()}
        return {name: usual[name] if value is None else value for name, value in said.items()}


class Source(NamedTuple):
    """What a folder says, as it says it, for another folder that shall say the same."""

    keys: dict  # {key of config.json: its value}
    text: str | None  # of generation_config.json


def read(folder, vocab_size, config=CONFIG):
    """The Generation of a folder, or of what is none, which says nothing; ValueError where its files are damaged

    vocab_size: of the model, in which the tokens must be. config: what its config.json is called.
    """
    folder = Path(folder)
    path = folder / FILE
    if path.is_file():
        values = read_json(path)
        if not isinstance(values, dict):
            raise ValueError(f"{path} must hold an object with settings; received {values!r:.60}. Copy it again")
    elif (folder / config).is_file():
        path = folder / config
        values = _beyond_the_usual(_generation_keys(path))
    else:
        return Generation()
    try:
        return _generation(values, vocab_size, path.name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; mend the file") from error


def source(folder, vocab_size, config=CONFIG):
    """The Source of a folder, after it was read as `read` does."""
    folder = Path(folder)
    read(folder, vocab_size, config)
    path = folder / FILE
    keys = _generation_keys(folder / config)
    _tokens(keys, vocab_size, config)
    return Source(keys, path.read_bytes().decode("utf-8") if path.is_file() else None)


def text_of(source):
    """The text of a generation_config.json that says what a Source does; None for one that says nothing."""
    values = _beyond_the_usual(source.keys)
    return source.text or (json.dumps(values, indent=2) + "\n" if values else None)


def _beyond_the_usual(keys):
    """The keys of a config.json without the settings that say nothing there."""
    return {key: value for key, value in keys.items() if value != SETTINGS.get(key, ())}


def _generation_keys(path):
    values = read_json(path)
    return {key: values[key] for key in values if key in {*TOKENS, *SETTINGS, *NEUTRAL}}


def _generation(values, vocab_size, name):
    begin, end, pad = _tokens(values, vocab_size, name)
    numbers = {key: _number(values, key) for key in SETTINGS if key != "do_sample"}
    draws = values.get("do_sample")
    if draws is not None and not isinstance(draws, bool):
        raise ValueError(f"do_sample = {draws!r} must be true or false")
    greedy = draws is False or (numbers["temperature"] == 0 and draws is None)
    if greedy and numbers["temperature"] == 0:
        numbers["temperature"] = None
    if numbers["top_k"] == 0:  # as transformers has it, all tokens
        numbers["top_k"] = None
    given = {"temperature": 1.0, "top_k": None, "top_p": 1.0, "repetition_penalty": 1.0}
    check_sampling(**given | {key: value for key, value in numbers.items() if value is not None})
    notes = [
        f"{name} asks for {key} = {values[key]!r:.60}, which is not done here"
        for key, neutral in NEUTRAL.items()
        if key in values and values[key] not in neutral
    ]
    notes += [f"{name} has the unknown key {key!r:.60}, which is not heeded" for key in values if key not in _KEYS]
    return Generation(begin, end, pad, greedy, **numbers, notes=tuple(notes))


def _tokens(values, vocab_size, name):
    """The begin, the ends, the pad; ValueError for what is no token of the model

    Only for the pad any whole number will do: nothing is drawn with it, and some models were given one without a row.
    """
    end = values.get("eos_token_id")
    ends = end if isinstance(end, list) else [end]
    begin, pad = values.get("bos_token_id"), values.get("pad_token_id")
    pad = None if pad == -1 else pad  # as LLaMA's first files say that there is none
    for key, token in [("bos_token_id", begin), ("pad_token_id", pad), *(("eos_token_id", token) for token in ends)]:
        whole = isinstance(token, int) and not isinstance(token, bool)
        if token is not None and not (whole and 0 <= token and (token < vocab_size or key == "pad_token_id")):
            raise ValueError(f"{name} says {key} = {token!r:.60}; the model has the tokens 0 to {vocab_size - 1}")
    return begin, tuple(token for token in ends if token is not None), pad


def _number(values, key):
    value, whole = values.get(key), key == "top_k"
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or abs(value) >= 2**63:
        raise ValueError(f"{key} = {value!r:.60} must be a {'whole ' if whole else ''}number")
    return value
