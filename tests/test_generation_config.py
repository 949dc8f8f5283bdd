"""generation_config.json: what a folder says of drawing text, how it is heeded, and that it is not lost."""

import json
import random

import numpy as np
import pytest

import minillama
from minillama import Config, Model
from minillama.checkpoint import generation_config, huggingface
from minillama.checkpoint.convert import convert
from minillama.checkpoint.generation_config import IGNORED_SETTINGS, NEUTRAL, SETTINGS, TOKENS, Generation
from minillama.generation.chat import Conversation
from minillama.generation.chat_templates import encode_chat, stop_tokens
from minillama.generation.generate import check_sampling, generate
from minillama.tokenizers import CharTokenizer
from tests.test_chat import SAMPLE, make_model, make_tokenizer
from tests.test_fuzz import mutated_json

IDS = {"bos_token_id": 1, "eos_token_id": [2, 7], "pad_token_id": 2}
# As published; the names of the models are those on huggingface.co
PUBLISHED = {
    "meta-llama/Llama-2-7b-hf": (  # HamZil/Llama-2-7b-hf
        {
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "temperature": 0.9, "max_length": 4096,
            "top_p": 0.6, "transformers_version": "4.31.0.dev0",
        },
        Generation(1, (2,), 0, temperature=0.9, top_p=0.6),
    ),
    "meta-llama/Llama-3.1-70B-Instruct": (  # its kin in MiMiGame-1/Reflection-Llama-3.1-70B
        {
            "bos_token_id": 128000, "do_sample": True, "eos_token_id": [128001, 128008, 128009], "temperature": 0.7,
            "top_p": 0.95, "transformers_version": "4.44.0",
        },
        Generation(128000, (128001, 128008, 128009), temperature=0.7, top_p=0.95),
    ),
    "FlagAlpha/Atom-7B": (  # HuengchI/Atom-7B
        {
            "_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "temperature": 0.3,
            "top_p": 0.95, "transformers_version": "4.31.0",
        },
        Generation(1, (2,), 2, temperature=0.3, top_p=0.95),
    ),
    "SakuraLLM/Sakura-14B-Qwen2.5-v1.0": (  # 1235357/Backup_hf_sakura-14b-qwen2.5-v1.0-q6k
        {
            "bos_token_id": 151643, "do_sample": True, "eos_token_id": [151645, 151643], "pad_token_id": 151643,
            "repetition_penalty": 1.05, "temperature": 0.1, "top_k": 30, "top_p": 0.3, "transformers_version": "4.44.2",
            "length_penalty": 1.2, "encoder_repetition_penalty": 0.9, "max_new_tokens": 131072,
        },
        Generation(
            151643, (151645, 151643), 151643, False, 0.1, 30, 0.3, 1.05,
            ("generation_config.json asks for encoder_repetition_penalty = 0.9, which is not done here",),
        ),
    ),
    "all of transformers 4.51's keys": (  # AllanK24/SiliconShowdown
        {
            "max_length": 20, "max_new_tokens": 256, "min_length": 0, "min_new_tokens": None, "early_stopping": False,
            "max_time": None, "stop_strings": None, "do_sample": False, "num_beams": 1, "num_beam_groups": 1,
            "penalty_alpha": None, "dola_layers": None, "use_cache": True, "cache_implementation": None,
            "cache_config": None, "return_legacy_cache": None, "prefill_chunk_size": None, "temperature": None,
            "top_k": None, "top_p": None, "min_p": None, "typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
            "diversity_penalty": 0.0, "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0,
            "length_penalty": 1.0, "no_repeat_ngram_size": 0, "bad_words_ids": None, "force_words_ids": None,
            "renormalize_logits": False, "constraints": None, "forced_bos_token_id": None, "forced_eos_token_id": None,
            "remove_invalid_values": False, "exponential_decay_length_penalty": None, "suppress_tokens": None,
            "begin_suppress_tokens": None, "forced_decoder_ids": None, "sequence_bias": None, "token_healing": False,
            "guidance_scale": None, "low_memory": None, "watermarking_config": None, "num_return_sequences": 1,
            "output_attentions": False, "output_hidden_states": False, "output_scores": False, "output_logits": None,
            "return_dict_in_generate": False, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
            "encoder_no_repeat_ngram_size": 0, "decoder_start_token_id": None, "is_assistant": False,
            "num_assistant_tokens": 20, "num_assistant_tokens_schedule": "constant",
            "assistant_confidence_threshold": 0.4, "prompt_lookup_num_tokens": None, "max_matching_ngram_size": None,
            "assistant_early_exit": None, "assistant_lookbehind": 10, "target_lookbehind": 10,
            "disable_compile": False, "generation_kwargs": {}, "_from_model_config": False,
            "transformers_version": "4.51.0",
        },
        Generation(greedy=True, repetition_penalty=1.0),
    ),
}  # fmt: skip


def write(folder, values, name="generation_config.json"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(values), encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path, rng):
    """A model of 9 tokens, of which the files say nothing."""
    model = Model(Config(9, dim=16, layers=2, heads=2, context=64), threads=1)
    model.parameters.flat[:] = rng.standard_normal(model.parameters.flat.size).astype(np.float32) * 0.4
    minillama.save(model, tmp_path / "model", CharTokenizer.train("abcdefghi"))
    return tmp_path / "model"


def edit(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_published_files_say(name, tmp_path):
    values, expected = PUBLISHED[name]
    assert generation_config.read(write(tmp_path / "model", values), 152064) == expected


def test_what_says_nothing(tmp_path):
    for nothing in (tmp_path, tmp_path / "none", write(tmp_path / "model", {"transformers_version": "5.0"})):
        said = generation_config.read(nothing, 9)
        assert said == Generation()
        usual = {"temperature": 0.8, "top_k": None, "top_p": 0.95, "repetition_penalty": 1.0}
        assert said.sampling() == usual


def test_config_json_counts_where_there_is_no_other_file(tmp_path):
    """But for transformers' own defaults, which a file with all keys has."""
    values = {**IDS, **SETTINGS, "hidden_size": 8, "num_beams": 1, "max_length": 20}
    write(tmp_path, values, "config.json")
    assert generation_config.read(tmp_path, 9) == Generation(1, (2, 7), 2)
    write(tmp_path, {**values, "temperature": 0.3, "num_beams": 4}, "config.json")
    said = generation_config.read(tmp_path, 9)
    assert said.temperature == 0.3 and said.notes == ("config.json asks for num_beams = 4, which is not done here",)
    write(tmp_path, {"eos_token_id": 3})
    assert generation_config.read(tmp_path, 9) == Generation(end=(3,))


def test_what_is_asked_for_goes_before_what_is_said():
    said = Generation(temperature=0.3, top_k=5, top_p=0.5, repetition_penalty=1.1)
    settings = {"temperature": 0.3, "top_k": 5, "top_p": 0.5, "repetition_penalty": 1.1}
    assert said.sampling() == settings
    for name, value in {"temperature": 2.0, "top_k": 7, "top_p": 1.0, "repetition_penalty": 1.0}.items():
        assert said.sampling(**{name: value}) == {**settings, name: value}


def test_greedy_where_nothing_is_said_about_drawing():
    said = Generation(greedy=True, repetition_penalty=1.3)
    assert said.sampling()["top_k"] == 1 and said.sampling()["repetition_penalty"] == 1.3
    assert said.sampling(repetition_penalty=1.0)["top_k"] == 1
    assert said.sampling(temperature=0.5) == {
        "temperature": 0.5, "top_k": None, "top_p": 0.95, "repetition_penalty": 1.3,
    }  # fmt: skip


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"temperature": 0}, Generation(greedy=True)),
        ({"temperature": 0.0, "do_sample": False}, Generation(greedy=True)),
        ({"top_k": 0, "do_sample": True}, Generation()),
        ({"pad_token_id": -1}, Generation()),
        ({"eos_token_id": []}, Generation()),
        ({"eos_token_id": None}, Generation()),
        ({"temperature": 1, "top_p": 1}, Generation(temperature=1, top_p=1)),
    ],
)
def test_other_ways_to_say_it(values, expected, tmp_path):
    assert generation_config.read(write(tmp_path, values), 9) == expected


@pytest.mark.parametrize("key", NEUTRAL)
def test_what_would_draw_otherwise_is_said(key, tmp_path):
    for value in NEUTRAL[key]:
        assert not generation_config.read(write(tmp_path, {key: value}), 9).notes
    said = generation_config.read(write(tmp_path, {key: 3}), 9)
    assert said == Generation(notes=(f"generation_config.json asks for {key} = 3, which is not done here",))


def test_every_key_has_one_place(tmp_path):
    tables = [set(TOKENS), set(SETTINGS), set(NEUTRAL), *IGNORED_SETTINGS.values()]
    assert sum(map(len, tables)) == len(set().union(*tables))
    ignored = set().union(*IGNORED_SETTINGS.values())
    assert generation_config.read(write(tmp_path, dict.fromkeys(ignored, 3)), 9) == Generation()
    assert generation_config.read(write(tmp_path, {"chat_format": "chatml"}), 9).notes == (
        "generation_config.json has the unknown key 'chat_format', which is not heeded",
    )


@pytest.mark.parametrize(
    "values, words",
    [
        ({"eos_token_id": 9}, "says eos_token_id = 9; the model has the tokens 0 to 8; mend the file"),
        ({"eos_token_id": [2, -1]}, "says eos_token_id = -1; the model has"),
        ({"eos_token_id": "2"}, "says eos_token_id = '2'"),
        ({"eos_token_id": [[2]]}, r"says eos_token_id = \[2\]"),
        ({"bos_token_id": 1.0}, "says bos_token_id = 1.0"),
        ({"bos_token_id": True}, "says bos_token_id = True"),
        ({"pad_token_id": -2}, "says pad_token_id = -2"),
        ({"do_sample": "yes"}, "do_sample = 'yes' must be true or false"),
        ({"do_sample": 0}, "do_sample = 0 must be true or false"),
        ({"temperature": "0.6"}, "temperature = '0.6' must be a number"),
        ({"temperature": -1}, "temperature must be above 0; received -1"),
        ({"temperature": 0, "do_sample": True}, "temperature must be above 0; received 0"),
        ({"temperature": float("nan")}, "temperature must be above 0; received nan"),
        ({"top_k": 2.5}, "top_k = 2.5 must be a whole number"),
        ({"top_k": 2**63}, "top_k = 9223372036854775808 must be a whole number"),
        ({"temperature": 10**400}, "temperature = 1000.* must be a number"),
        ({"top_k": -3}, "top-k must be at least 1"),
        ({"top_p": 2}, r"top-p must lie in \(0, 1\]"),
        ({"repetition_penalty": 0}, r"repetition penalty must lie in \[0.001, 1000\]; received 0"),
        ({"repetition_penalty": True}, "repetition_penalty = True must be a number"),
        ([1], r"must hold an object with settings; received \[1\]"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_name(values, words, folder):
    write(folder, values)
    with pytest.raises(ValueError, match=words) as error:
        generation_config.read(folder, 9)
    assert str(folder / "generation_config.json") in str(error.value)
    with pytest.raises(ValueError, match=words):
        convert(folder, folder.with_name("new"))
    assert not folder.with_name("new").exists()


@pytest.mark.parametrize("text", [b'{"eos', b"\xff\xfe", b"[" * 100000])
def test_a_damaged_file_is_refused(text, folder):
    (folder / "generation_config.json").write_bytes(text)
    with pytest.raises(ValueError, match="generation_config.json is truncated or not JSON .*copy it again"):
        generation_config.read(folder, 9)


def test_mutated_files(tmp_path):
    values = PUBLISHED["SakuraLLM/Sakura-14B-Qwen2.5-v1.0"][0]
    read = refused = 0
    for case in range(2000):
        text = mutated_json(random.Random(case), values)
        (tmp_path / "generation_config.json").write_bytes(text.encode("utf-8", "replace"))
        try:
            said = generation_config.read(tmp_path, 152064)
        except ValueError as error:
            refused += 1
            assert str(tmp_path) in str(error)
        else:
            read += 1
            check_sampling(**said.sampling())
            "".join(said.notes).encode("utf-8")  # it can be printed
    assert read > 200 and refused > 200


def test_convert_keeps_what_is_said_to_the_byte(folder, tmp_path):
    edit(folder, **IDS, temperature=0.3)
    text = '{"eos_token_id":  [2, 7],\r\n "temperature": 0.25, "do_sample": true, "note": "ä"}'
    (folder / "generation_config.json").write_bytes(text.encode("utf-8"))
    convert(folder, tmp_path / "new")
    convert(tmp_path / "new", tmp_path / "newer")
    values = json.loads((tmp_path / "newer" / "config.json").read_text())
    assert {**values, **IDS, "temperature": 0.3} == values
    assert (tmp_path / "newer" / "generation_config.json").read_bytes() == text.encode("utf-8")
    assert generation_config.read(tmp_path / "newer", 9) == generation_config.read(folder, 9)


@pytest.mark.parametrize("ids", [{}, {"eos_token_id": None}, {"eos_token_id": 7, "pad_token_id": 0}, IDS])
def test_convert_keeps_each_of_the_tokens_and_makes_up_none(ids, folder, tmp_path):
    """Where a key is missing transformers takes a default of its own, which it is not for us to change."""
    path = folder / "config.json"
    rest = {key: value for key, value in json.loads(path.read_text()).items() if key not in TOKENS}
    path.write_text(json.dumps({**rest, **ids}))
    convert(folder, tmp_path / "new")
    values = json.loads((tmp_path / "new" / "config.json").read_text())
    assert {key: values[key] for key in TOKENS if key in values} == ids
    assert not (tmp_path / "new" / "generation_config.json").exists()


def test_convert_refuses_tokens_that_the_model_does_not_have(folder, tmp_path):
    write(folder, {"eos_token_id": 2})
    edit(folder, eos_token_id=[2, 9])
    with pytest.raises(ValueError, match="config.json says eos_token_id = 9; the model has the tokens 0 to 8"):
        convert(folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_model_that_is_saved_says_what_its_tokenizer_does(folder):
    values = json.loads((folder / "config.json").read_text())
    assert values["eos_token_id"] is values["bos_token_id"] is None
    model, _ = minillama.load(folder)
    huggingface.save(folder, model, None, generation_config.Source({"eos_token_id": 3}, None))
    values = json.loads((folder / "config.json").read_text())
    assert values["eos_token_id"] == 3 and "bos_token_id" not in values


def sampled(cli, folder, *options):
    code, out, err = cli("sample", folder, "--prompt", "a", "--max-tokens", 30, "--threads", 1, *options)
    assert code == 0, err
    return out.rstrip("\n"), err


def test_sample_heeds_the_files_and_the_options_go_first(cli, folder):
    model, tokenizer = minillama.load(folder)
    prompt = tokenizer.encode("a").tolist()

    def text(**settings):
        return "a" + tokenizer.decode(list(generate(model, prompt, 30, **settings)))

    assert sampled(cli, folder) == (text(temperature=0.8, top_p=0.95), "")
    write(folder, {"temperature": 2.0, "top_p": 0.7, "top_k": 6, "repetition_penalty": 1.4})
    said = {"temperature": 2.0, "top_p": 0.7, "top_k": 6, "repetition_penalty": 1.4}
    assert sampled(cli, folder) == (text(**said), "")
    asked = "--temperature", 0.5, "--top-p", 0.9, "--top-k", 4, "--repetition-penalty", 1.1
    assert sampled(cli, folder, *asked) == (text(temperature=0.5, top_p=0.9, top_k=4, repetition_penalty=1.1), "")
    write(folder, {"do_sample": False, "num_beams": 4})
    greedy, err = sampled(cli, folder)
    assert greedy == text(top_k=1)
    assert err == "minillama: note: generation_config.json asks for num_beams = 4, which is not done here\n"


def test_sample_ends_at_each_of_the_tokens_that_end_a_text(cli, folder):
    model, tokenizer = minillama.load(folder)
    prompt = tokenizer.encode("a").tolist()
    tokens = list(generate(model, prompt, 30, temperature=2.0, top_p=0.95))
    different = list(dict.fromkeys(tokens))
    assert len(different) > 3
    for end in (different[2], [different[3], different[2]], [different[1]]):
        write(folder, {"eos_token_id": end, "temperature": 2.0})
        first = min(tokens.index(token) for token in np.atleast_1d(end))
        assert sampled(cli, folder)[0] == "a" + tokenizer.decode(tokens[:first])


def test_a_damaged_file_ends_sample_with_its_name(cli, folder):
    write(folder, {"eos_token_id": 9})
    code, out, err = cli("sample", folder, "--prompt", "a")
    assert code == 1 and not out and "generation_config.json says eos_token_id = 9" in err


@pytest.mark.parametrize("penalty", ["0", "-1", "nan", "1e9"])
def test_a_penalty_that_makes_no_sense_is_refused(penalty, cli, folder):
    code, _, err = cli("sample", folder, "--prompt", "a", f"--repetition-penalty={penalty}")
    assert code == 1 and "repetition penalty must lie in [0.001, 1000]; received" in err


def test_help_says_where_defaults_come_from(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    for command in ("sample", "chat"):
        with pytest.raises(SystemExit):
            minillama.__main__.main([command, "--help"])
        text = capsys.readouterr().out
        for default in ("0.8", "all", "0.95", "1, none"):
            assert f"(default: what the model's files say, else {default})" in text


def test_an_answer_ends_at_the_tokens_that_the_files_name():
    tokenizer = make_tokenizer("llama2")
    model = make_model(tokenizer, dtype=np.float64)

    def answered(**settings):
        conversation = Conversation(model, tokenizer, "llama2", top_k=1, max_tokens=20, **settings)
        conversation.ask("Hello")
        text = "".join(conversation.answer())
        prompt = encode_chat("llama2", tokenizer, [{"role": "user", "content": "Hello"}]).tolist()
        return text, conversation.cut, prompt

    text, cut, prompt = answered()
    assert "20 tokens" in cut
    tokens = list(generate(model, prompt, 20, top_k=1))
    end = list(dict.fromkeys(tokens))[2]
    expected = tokenizer.decode(tokens[: tokens.index(end)]).lstrip()
    assert text.startswith(expected) and answered(stop=(end, 3))[:2] == (expected, None)
    with_penalty = list(generate(model, prompt, 20, top_k=1, repetition_penalty=1.5))
    assert with_penalty != tokens
    assert answered(repetition_penalty=1.5)[0] == tokenizer.decode(with_penalty).lstrip()


def test_a_tokenizer_that_names_no_end_will_do_where_the_files_name_one():
    tokenizer = CharTokenizer.train(SAMPLE)
    with pytest.raises(ValueError, match="no special token that ends an answer"):
        stop_tokens("vicuna", tokenizer)
    assert stop_tokens("vicuna", tokenizer, (3, 5)) == {3, 5}
    assert stop_tokens("llama2", make_tokenizer("llama2"), (5,)) == {5, make_tokenizer("llama2").end_of_text}


class _Spy(Conversation):
    given = None

    def __init__(self, *arguments, **settings):
        _Spy.given = settings
        super().__init__(*arguments, **settings)


def test_chat_heeds_the_files(cli, tmp_path, monkeypatch, assets):
    """The tokenizer of stories260K knows one end; the files say another."""
    source = assets / "models" / "stories260K" / "stories260K.bin"
    convert(source, tmp_path / "model")
    write(tmp_path / "model", {"eos_token_id": [2, 300], "temperature": 0.3, "repetition_penalty": 1.1, "top_k": 5})
    monkeypatch.setattr("minillama.generation.chat.Conversation", _Spy)
    monkeypatch.setattr("sys.stdin", (tmp_path / "empty").open("w+"))
    code, _, err = cli("chat", tmp_path / "model", "--template", "vicuna", "--top-k", 7, "--threads", 1)
    assert code == 0, err
    said = {"temperature": 0.3, "top_k": 7, "top_p": 0.95, "repetition_penalty": 1.1, "stop": (2, 300)}
    assert said.items() <= _Spy.given.items()
