"""Chat: what each format writes, that nobody can forge it, the history, the cache, and the loop as a user meets it."""

import io
import json
import os
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minillama import Config, Model, save
from minillama.__main__ import main
from minillama.checkpoint.generation_config import Generation
from minillama.generation.chat import Conversation, converse
from minillama.generation.chat_templates import TEMPLATES, encode_chat, published_template, recognise, stop_tokens
from minillama.interrupts import interruptible
from minillama.tokenizers import BPETokenizer, CharTokenizer, load_tokenizer

SAMPLE = "Hello, what is a llama? A llama is a kind animal. Be brief. USER: ASSISTANT: [INST] [/INST] system user\n"
LLAMA2 = ("<s>", "</s>")
LLAMA3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOKENS = dict(llama2=LLAMA2, llama3=LLAMA3, vicuna=LLAMA2, zephyr=LLAMA2, chatml=CHATML, smollm=CHATML)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hello "},
    {"role": "assistant", "content": "Hi! "},
    {"role": "user", "content": "What is a llama?"},
]
each_template = pytest.mark.parametrize("template", TEMPLATES)


def make_tokenizer(template):
    return BPETokenizer.train(SAMPLE * 3, 320, special_tokens=TOKENS[template])


def make_model(tokenizer, context=128, dtype=np.float32, seed=0):
    model = Model(Config(tokenizer.vocab_size, dim=16, layers=2, heads=2, context=context), threads=1, dtype=dtype)
    model.parameters.flat[:] = np.random.default_rng(seed).standard_normal(model.parameters.flat.size) * 0.3
    return model


def conversation_with(template, longest=128, **settings):
    tokenizer = make_tokenizer(template)
    return Conversation(make_model(tokenizer, longest, np.float64), tokenizer, template, **settings)


def say(conversation, text, **settings):
    conversation.ask(text)
    return "".join(conversation.answer(**settings))


# Formats


@pytest.mark.parametrize(
    "template, expected",
    [
        (
            "llama2",
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hello [/INST] Hi! </s><s>[INST] What is a llama? [/INST]",
        ),
        (
            "llama3",
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHi!<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nWhat is a llama?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("vicuna", "<s>Be brief. USER: Hello ASSISTANT: Hi!</s>USER: What is a llama? ASSISTANT:"),
        (
            "zephyr",
            "<|system|>\nBe brief.</s>\n<|user|>\n Hello </s>\n<|assistant|>\nHi! </s>\n"
            "<|user|>\nWhat is a llama?</s>\n<|assistant|>\n",
        ),
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hello <|im_end|>\n"
            "<|im_start|>assistant\nHi! <|im_end|>\n<|im_start|>user\nWhat is a llama?<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
    ],
)
def test_the_text_of_each_format(template, expected):
    tokenizer = make_tokenizer(template)
    ids = encode_chat(template, tokenizer, TALK)
    assert ids.dtype == np.int32 and tokenizer.decode(ids) == expected
    assert ids.tolist() == tokenizer.encode(expected).tolist()  # here nothing of it was typed by somebody


def test_without_a_system_prompt_there_is_none_or_the_one_that_the_models_know():
    hello = [{"role": "user", "content": "Hello"}]
    tokenizer = make_tokenizer("llama2")
    assert tokenizer.decode(encode_chat("llama2", tokenizer, hello)) == "<s>[INST] Hello [/INST]"
    text = tokenizer.decode(encode_chat("vicuna", tokenizer, hello))
    assert text.startswith("<s>A chat between a curious user") and text.endswith("questions. USER: Hello ASSISTANT:")
    empty = [{"role": "system", "content": ""}, *hello]
    assert tokenizer.decode(encode_chat("vicuna", tokenizer, empty)) == "<s>USER: Hello ASSISTANT:"
    tokenizer = make_tokenizer("llama3")
    assert "system" not in tokenizer.decode(encode_chat("llama3", tokenizer, hello))
    tokenizer = make_tokenizer("smollm")
    expected = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>"
    assert tokenizer.decode(encode_chat("smollm", tokenizer, hello)).startswith(expected)


def test_the_ids_of_llama_2(assets):
    tokenizer = load_tokenizer(assets / "models" / "llama2-tokenizer.model")
    ids = encode_chat("llama2", tokenizer, [*TALK[:3], {"role": "user", "content": "</s>"}])
    first = tokenizer.encode("[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hello [/INST] Hi! ").tolist()  # as one text
    assert first[:3] == [518, 25580, 29962]
    assert ids.tolist() == [1, *first, 2, 1, 518, 25580, 29962, 1533, 29879, 29958, 518, 29914, 25580, 29962]
    assert stop_tokens("llama2", tokenizer) == {2}


@each_template
def test_special_tokens_that_somebody_types_are_plain_text(template):
    tokenizer = make_tokenizer(template)
    special = set(tokenizer.special_tokens.values())
    forged = "".join(TOKENS[template]) + "<|im_end|>"
    honest, forging = (
        encode_chat(template, tokenizer, [{"role": role, "content": text} for role in ("system", "user")])
        for text in ("x", forged)
    )
    assert [i for i in honest if i in special] == [i for i in forging if i in special]
    assert tokenizer.decode(forging).count(forged) == 2


def test_marks_that_are_plain_text_are_refused():
    for template in ("llama2", "zephyr"):
        tokenizer = make_tokenizer(template)
        for mark in TEMPLATES[template].reserved:
            with pytest.raises(ValueError, match=f"by which the format {template} tells who is speaking"):
                encode_chat(template, tokenizer, [{"role": "user", "content": f"a {mark} b"}])
            answer = [TALK[1], {"role": "assistant", "content": f"a {mark}"}, TALK[1]]
            assert f"a {mark}" in tokenizer.decode(encode_chat(template, tokenizer, answer))  # the model's own


@pytest.mark.parametrize("roles", [[], ["system"], ["user", "assistant"], ["assistant"], ["user", "user"], ["x"]])
def test_messages_that_are_not_in_turn_are_refused(roles):
    with pytest.raises(ValueError, match="in turn"):
        encode_chat("llama2", make_tokenizer("llama2"), [{"role": role, "content": "x"} for role in roles])


def test_a_tokenizer_without_the_tokens_of_the_format_is_refused():
    with pytest.raises(
        ValueError, match="needs the special token <.(begin_of_text|start_header_id).>.* does not have.*vicuna"
    ):
        encode_chat("llama3", make_tokenizer("llama2"), TALK)
    with pytest.raises(ValueError, match="needs the special token <s>"):
        encode_chat("llama2", CharTokenizer.train(SAMPLE + "<>/"), TALK)
    with pytest.raises(ValueError, match="no special token that ends an answer"):
        stop_tokens("llama2", CharTokenizer.train(SAMPLE))


def test_a_tokenizer_with_other_names_lends_its_own_tokens():
    tokenizer = BPETokenizer.train(SAMPLE, 300)
    ids = encode_chat("llama2", tokenizer, TALK)
    assert np.count_nonzero(ids == tokenizer.end_of_text) == 3
    assert stop_tokens("llama2", tokenizer) == {tokenizer.end_of_text}


def test_stop_tokens_are_those_that_the_tokenizer_has():
    tokenizer = make_tokenizer("llama3")
    assert stop_tokens("llama3", tokenizer) == {tokenizer.special_tokens[t] for t in ("<|eot_id|>", "<|end_of_text|>")}
    tokenizer = make_tokenizer("llama2")
    assert stop_tokens("vicuna", tokenizer) == {tokenizer.special_tokens["</s>"]}


JINJA = {
    "llama2": "{% if s %}<<SYS>>{{ s }}{% endif %}[INST] {{ user }} [/INST]",
    "llama3": "<|start_header_id|>{{ role }}<|end_header_id|>\n\n{{ text }}<|eot_id|>",
    "vicuna": "USER: {{ user }} ASSISTANT:",
    "zephyr": "{{ '<|user|>\\n' + message['content'] + eos_token }}",
    "chatml": "<|im_start|>{{ role }}",
    "smollm": "{{ 'an assistant named SmolLM' }}<|im_start|>{{ role }}",
}


def recognised(path, tokenizer):
    return recognise(path, tokenizer, published_template(path))


@each_template
def test_a_template_is_known_by_what_a_folder_says(template, tmp_path):
    tokenizer, other = make_tokenizer("llama2"), {"name": "tool_use", "template": "?"}
    for value in (JINJA[template], [other, {"name": "default", "template": JINJA[template]}]):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
        assert recognised(tmp_path, tokenizer) == template
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text(JINJA[template])
    assert recognised(tmp_path, tokenizer) == template


def test_a_template_is_known_by_special_tokens_or_asked_for(tmp_path):
    for template in ("llama3", "chatml"):
        assert recognised(tmp_path / "model.bin", make_tokenizer(template)) == template
    with pytest.raises(ValueError, match="without a chat template. Choose with --template one of llama2, llama3, vicu"):
        recognised(tmp_path, make_tokenizer("llama2"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "[INST] {{ user }} [/INST]"}))
    with pytest.raises(ValueError, match="its chat template is none that is known here.*--template"):
        recognised(tmp_path, make_tokenizer("llama3"))
    (tmp_path / "tokenizer_config.json").write_text('{"chat_templ')
    with pytest.raises(ValueError, match="not complete JSON"):
        recognised(tmp_path, make_tokenizer("llama3"))
    for odd in ("[]", '{"chat_template": 3}', '{"chat_template": [3, {"name": "default"}]}'):
        (tmp_path / "tokenizer_config.json").write_text(odd)
        assert recognised(tmp_path, make_tokenizer("llama3")) == "llama3"


# Conversations


@pytest.fixture
def reads(monkeypatch):
    """How many tokens each call of a model has read so far."""
    counts, logits = [], Model.next_logits
    monkeypatch.setattr(
        Model, "next_logits", lambda self, ids, cache: counts.append(ids.size) or logits(self, ids, cache)
    )
    return counts


@each_template
def test_answers_with_the_cache_are_those_without(template, reads):
    kept = conversation_with(template, 600, max_tokens=12, seed=3)
    for i, question in enumerate(["Hello", "What is a llama?", "Be brief", "A kind animal is a llama."]):
        new = conversation_with(template, 600, max_tokens=12, seed=3)
        new.turns, new._answers = list(kept.turns), i  # the same history, and nothing read of it
        reads.clear()
        expected, from_the_beginning = say(new, question), sum(reads)
        reads.clear()
        assert say(kept, question) == expected != ""
        assert i == 0 or sum(reads) < from_the_beginning


@each_template
def test_only_what_is_new_is_read(template, reads):
    conversation = conversation_with(template, 600, max_tokens=6, top_k=1)
    only(conversation.model, conversation.tokenizer.encode("?")[0])  # an answer that is encoded as it was written
    conversation.ask("What is a llama?")
    first = conversation._prompt.tolist()
    list(conversation.answer())
    written = [*first, *[conversation.tokenizer.encode("?")[0]] * 5]  # and a last token, which nothing came after
    assert conversation._read == written
    reads.clear()
    conversation.ask("Hello")
    prompt = conversation._prompt.tolist()
    known = first if template in ("llama2", "vicuna") else written  # these put a blank before the answer
    assert prompt[: len(known)] == known
    list(conversation.answer())
    assert reads == [len(prompt) - len(known), *[1] * 5]


def test_a_conversation_reads_what_the_template_gives():
    conversation = conversation_with("llama2", 400, system="Be brief.", max_tokens=8)
    for text in ("Hello", "What is a llama?", "Hello?"):
        say(conversation, text)
        messages = [{"role": "system", "content": "Be brief."}]
        for user, answer in conversation.turns[:-1]:
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        expected = encode_chat(
            "llama2", conversation.tokenizer, [*messages, {"role": "user", "content": text}]
        ).tolist()
        assert conversation._read[: len(expected)] == expected
        assert len(conversation._read) == conversation._cache.length


def test_a_long_question_is_read_in_parts(reads, monkeypatch):
    whole, parts = (conversation_with("llama3", 400, max_tokens=10) for _ in range(2))
    expected = say(whole, "What is a llama? " * 20)
    monkeypatch.setattr("minillama.generation.chat.READ_AT_A_TIME", 30)
    reads.clear()
    assert say(parts, "What is a llama? " * 20) == expected
    assert reads.count(30) > 2 and max(reads) == 30


def test_the_oldest_turns_are_forgotten_whole_and_the_system_prompt_stays():
    conversation = conversation_with("llama3", 200, system="Be brief.", max_tokens=20)
    forgotten = 0
    for i in range(12):
        before = list(conversation.turns)
        now = conversation.ask(f"What is a llama? {i}")
        forgotten += now
        assert conversation.turns == before[now:]
        text = conversation.tokenizer.decode(conversation._prompt)
        assert text.startswith("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>")
        assert text.count("What is a llama?") == len(conversation.turns) + 1
        assert len(conversation._prompt) + 20 <= 200 and (now == 0 or len(conversation._prompt) <= 100)
        list(conversation.answer())
    assert forgotten > 2 and forgotten + len(conversation.turns) == 12


def test_a_question_that_does_not_fit_is_refused_and_the_conversation_goes_on():
    conversation = conversation_with("llama3", 128, max_tokens=5)
    answer = say(conversation, "Hello")
    with pytest.raises(ValueError, match=r"takes \d+ tokens, .* context is 128; ask in fewer words"):
        conversation.ask("What is a llama? " * 40)
    assert conversation.turns == [("Hello", answer)]
    with pytest.raises(ValueError, match="no question to answer"):
        next(conversation.answer())
    assert say(conversation, "Hello?")


@pytest.mark.parametrize(
    "context, max_tokens, least", [(128, None, 16), (400, None, 32), (400, 100, 32), (400, 7, 7), (128, 1, 1)]
)
def test_a_question_leaves_room_for_an_answer(context, max_tokens, least):
    conversation = conversation_with("llama3", context, max_tokens=max_tokens, top_k=1)
    only(conversation.model, conversation.tokenizer.encode("a")[0])
    conversation.ask("?")
    longest = "?" * (context - least - len(conversation._prompt) + 1)
    answer = say(conversation, longest)
    assert answer == "a" * least and conversation._cache.length == context - 1
    cut = f"after {max_tokens} tokens" if max_tokens == least else f"the context of {context} tokens is full"
    assert cut in conversation.cut
    conversation.reset()
    words = rf"takes {context - least + 1} tokens, .* an answer at least {least}, but the context is {context}; ask in"
    with pytest.raises(ValueError, match=words):
        conversation.ask(longest + "?")
    assert conversation.turns == []


def only(model, token):
    """The model writes this token, whatever it reads."""
    model.parameters["output"][:] = 0
    model.parameters["output"][token] = 1
    model.parameters["final_norm"][:] = 0
    model.parameters["final_norm"][0] = 100
    model.parameters["embedding"][:, 0] = 50


@pytest.mark.parametrize("token", ["<|eot_id|>", "<|end_of_text|>"])
def test_each_stop_token_ends_an_answer(token):
    conversation = conversation_with("llama3", top_k=1)
    only(conversation.model, conversation.tokenizer.special_tokens[token])
    assert say(conversation, "Hello") == "" and conversation.cut is None
    assert conversation.turns == [("Hello", "")]


def test_an_answer_that_is_not_whole_says_why():
    conversation = conversation_with("llama2", top_k=1)
    only(conversation.model, conversation.tokenizer.encode("a")[0])
    conversation.max_tokens = 7
    assert say(conversation, "Hello") == "a" * 7 and "after 7 tokens" in conversation.cut
    conversation.max_tokens = None
    assert set(say(conversation, "Hello")) == {"a"} and conversation.cut == "the context of 128 tokens is full"
    assert conversation._cache.length == 127


def test_blanks_before_an_answer_are_not_part_of_it():
    conversation = conversation_with("llama2", top_k=1, max_tokens=3)
    only(conversation.model, conversation.tokenizer.encode(" ")[0])
    assert say(conversation, "Hello") == "" and conversation.turns == []
    conversation = conversation_with("llama2", top_k=1, max_tokens=3)
    only(conversation.model, conversation.tokenizer.encode(" a")[0])
    assert say(conversation, "Hello") == "a a a"


def test_an_answer_that_is_stopped_stays_as_far_as_it_came():
    conversation = conversation_with("llama2", top_k=1)
    only(conversation.model, conversation.tokenizer.encode("a")[0])
    looks = iter([False] * 5 + [True] * 100)
    assert say(conversation, "Hello", stopped=lambda: next(looks)) == "a" * 5
    assert conversation.turns == [("Hello", "a" * 5)] and conversation.cut == "stopped"
    assert say(conversation, "Hello", stopped=lambda: True) == ""
    assert len(conversation.turns) == 1
    conversation.ask("Hello")
    pieces = conversation.answer()
    assert next(pieces) + next(pieces) == "aa"
    pieces.close()
    assert conversation.turns[1:] == [("Hello", "aa")]
    conversation.max_tokens = 4
    assert say(conversation, "Hello") == "aaaa"  # and the cache is as it should be


@pytest.mark.parametrize(
    "settings, words", [
        ({"temperature": 0}, "above 0"), ({"max_tokens": 0}, "max_tokens"), ({"seed": -1}, "seed"),
        ({"context": 0}, r"context must lie in \[1, 128\], .*; received 0"), ({"context": -3}, "received -3"),
        ({"context": 129}, "received 129"), ({"context": 9}, "a context of 9 tokens has no room for a question: "),
        ({"context": 60, "system": "Be brief. " * 30}, "has no room for a question: the system prompt and the marks"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_at_once(settings, words):
    with pytest.raises(ValueError, match=words):
        conversation_with("llama2", **settings)


# The loop


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("chat")
    tokenizer = make_tokenizer("llama3")
    save(make_model(tokenizer, 256), path, tokenizer)
    return path


@pytest.fixture
def chat(folder, monkeypatch, capsys):
    def run(text, *options):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        code = main(["chat", str(folder), "--threads", "1", *options])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_each_line_is_answered_until_the_end_of_the_input(chat):
    code, out, err = chat("Hello\n\nWhat is a llama?\n", "--max-tokens", "5")
    assert code == 0 and out and err == "[ended after 5 tokens, the most that was asked for]\n" * 2
    assert chat("Hello\n\nWhat is a llama?", "--max-tokens", "5")[1] == out  # no line end after the last line
    assert chat("Hello\nWhat is a llama?", "--max-tokens", "5", "--seed", "1")[1] != out
    assert chat("Hello\nWhat is a llama?", "--max-tokens", "5", "--system", "Be brief.")[1] != out
    assert chat("Hello\n", "--max-tokens", "5", "--int8")[0] == 0


def test_commands(chat):
    first = chat("Hello\n", "--max-tokens", "5", "--top-k", "1")[1]
    code, out, err = chat("Hello\n/reset\nHello\n/quit\nHello\n", "--max-tokens", "5", "--top-k", "1")
    assert code == 0 and out == first * 2 and "the conversation is forgotten" in err
    _, out, err = chat("/system Be brief.\nHello\n/reset\n/system\nHello\n", "--max-tokens", "5", "--top-k", "1")
    brief = chat("Hello\n", "--max-tokens", "5", "--top-k", "1", "--system", "Be brief.")[1]
    assert out == brief + first
    code, out, err = chat("/rest\n")
    assert code == 1 and "no command '/rest' here, but /system, /reset, /quit (did you mean /reset?)" in err
    for command in ("/reset", "/quit"):
        code, _, err = chat(f"{command} now\n")
        assert code == 1 and f"{command} takes no text; received 'now'. Type {command} alone" in err
    assert "but /system, /reset, /quit; put a word before" in chat("/zzzzz\n")[2]


def test_what_was_typed_is_named(chat, capsys):
    for context in ("0", "-1"):
        code, _, err = chat("Hello\n", "--context", context)
        assert code == 1 and err == f"minillama: error: --context must be at least 1; received {context}\n"
    code, _, err = chat("Hello\n", "--context", "257")
    assert code == 1 and "context must lie in [1, 256], which this model was made for; received 257" in err
    assert chat("Hello\n", "--context", "256", "--max-tokens", "3")[0] == 0
    for name, words in (("Llama3", "did you mean llama3? There are llama2"), ("zzz", "choose among llama2, llama3")):
        with pytest.raises(SystemExit):
            chat("Hello\n", "--template", name)
        assert f"there is no chat format {name!r}; {words}" in capsys.readouterr().err
    code, _, err = chat("Hello\n", "--threads", "0")
    assert code == 1 and "--threads must be a whole number of at least 1; received 0" in err


def test_turns_that_are_forgotten_are_told(chat):
    code, _, err = chat("What is a llama?\n" * 8, "--max-tokens", "20")
    assert code == 0 and "[the context is full: the oldest " in err and " forgotten]" in err


def test_errors_end_a_pipe_and_not_a_terminal(chat, capsys, monkeypatch):
    code, out, err = chat("What is a llama? " * 100 + "\nHello\n", "--max-tokens", "5")
    assert code == 1 and out == "" and "ask in fewer words" in err
    answers = iter(["What is a llama? " * 100, "/x", "Hello"])

    def type_in(prompt):
        try:
            return next(answers)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", type_in)
    conversation = conversation_with("llama3", max_tokens=5)
    converse(conversation, interactive=True)
    out, err = capsys.readouterr()
    assert len(conversation.turns) == 1 and conversation.turns[0][1].strip() in out
    assert "ask in fewer words" in err and "no command '/x'" in err and "Ctrl-C stops an answer" in err


def interrupt_at(monkeypatch, *calls):
    """Ctrl-C comes while the model computes these tokens, counted from 0."""
    logits, count = Model.next_logits, iter(range(10**6))

    def next_logits(self, ids, cache):
        for _ in range(calls.count(next(count))):
            signal.raise_signal(signal.SIGINT)
        return logits(self, ids, cache)

    monkeypatch.setattr(Model, "next_logits", next_logits)


def test_ctrl_c_stops_the_answer_and_not_the_program(chat, monkeypatch):
    interrupt_at(monkeypatch, 3)
    code, out, err = chat("Hello\nHello\n", "--max-tokens", "9")
    assert code == 0 and err == "[stopped]\n[ended after 9 tokens, the most that was asked for]\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_leaves(chat, monkeypatch):
    interrupt_at(monkeypatch, 3, 3)
    code, out, err = chat("Hello\nHello\n", "--max-tokens", "9")
    assert code == 130 and out.endswith("\n") and "Traceback" not in err


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible() as stopped:
            signal.raise_signal(signal.SIGINT)
            assert not stopped()
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_a_sample_with_a_line_end(folder, monkeypatch, capsys):
    interrupt_at(monkeypatch, 3)
    assert main(["sample", str(folder), "--prompt", "A llama", "--threads", "1"]) == 130
    out, err = capsys.readouterr()
    assert out.startswith("A llama") and out.endswith("\n") and err == ""


@pytest.mark.parametrize("last", LLAMA2)
def test_a_sample_begins_as_texts_do_and_ends_where_they_end_or_another_begins(last, monkeypatch, capsys):
    class Tokenizer(BPETokenizer):
        begin_of_text = property(lambda self: self.special_tokens["<s>"])
        end_of_text = property(lambda self: self.special_tokens["</s>"])

    tokenizer, read, logits = Tokenizer.train(SAMPLE, 300, special_tokens=LLAMA2), [], Model.next_logits
    model = make_model(tokenizer)
    only(model, tokenizer.special_tokens[last])
    monkeypatch.setattr("minillama.checkpoint.open.load", lambda path, threads: model)
    monkeypatch.setattr("minillama.checkpoint.open.load_tokenizer", lambda path, vocab_size: tokenizer)
    monkeypatch.setattr("minillama.checkpoint.open.read_generation", lambda path, vocab_size: Generation())
    monkeypatch.setattr(Model, "next_logits", lambda self, ids, cache: read.append(ids[0]) or logits(self, ids, cache))
    assert main(["sample", "x", "--prompt", "A llama", "--top-k", "1"]) == 0
    assert capsys.readouterr().out == "A llama\n"
    assert [ids.tolist() for ids in read] == [[tokenizer.begin_of_text, *tokenizer.encode("A llama")]]


def test_lines_through_a_pipe(folder, chat):
    options = ["--max-tokens", "6", "--top-k", "1"]
    expected = chat("Hello ☕\n/reset\nHello ☕\n\ufffd\n", *options)[1]
    done = subprocess.run(
        [sys.executable, "-m", "minillama", "chat", folder, "--threads", "1", *options],
        input="Hello ☕\n/reset\nHello ☕".encode() + b"\n\xff\n", capture_output=True, timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode().count("ended after 6 tokens") == 3 and b"forgotten" in done.stderr
    assert done.stdout.decode("utf-8").splitlines() == expected.splitlines()


def test_at_a_terminal(folder):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "minillama", "chat", folder, "--max-tokens", "6", "--threads", "1"]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen = b""
    for typed in (b"Hello\n", b"/rest\n", b"\x04"):  # the last one is Ctrl-D
        while not seen.endswith(b"> "):
            assert select.select([master], [], [], 60)[0], seen
            seen += os.read(master, 1000)
        os.write(master, typed)
        seen += b"."
    assert process.wait(60) == 0
    os.close(master)
    assert b"format llama3" in seen and b"no command '/rest'" in seen and seen.count(b"> ") == 3


# Runs a command in a session of its own, so that the terminal's Ctrl-C goes to it as from a keyboard.
IN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_ctrl_c_at_a_terminal_does_what_the_banner_says(folder):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "minillama", "chat", str(folder), "--max-tokens", "6", "--threads", "1"]
    process = subprocess.Popen([sys.executable, "-c", IN_TERMINAL, *command], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)

    def until_prompt(again=None):
        seen, waits = b"", 0
        while not seen.endswith(b"> "):
            if select.select([master], [], [], 20)[0]:
                seen += os.read(master, 1000)
                continue
            waits += 1
            assert waits < 4, seen
            if again is not None:
                os.write(master, again)
        return seen

    banner = until_prompt()
    assert b"Ctrl-C stops an answer (a second one leaves), or drops the line that is being typed" in banner
    for typed in (b"\x03", b"a line that is dropped\x03", b"\x03"):
        time.sleep(0.5)  # as a person does; Python's readline overlooks a Ctrl-C that comes as soon as the prompt does
        os.write(master, typed)
        assert b"[there is no answer to stop; Ctrl-D or /quit leaves]" in until_prompt(again=b"\x03")
    os.write(master, b"Hello\n")
    answered = until_prompt()
    assert b"ended after 6 tokens" in answered and b"error" not in answered  # of what was dropped nothing is left
    os.write(master, b"/quit\n")
    assert process.wait(60) == 0
    os.close(master)


def test_a_model_whose_format_is_not_known_asks_for_it(tmp_path, capsys, monkeypatch):
    tokenizer = make_tokenizer("llama2")
    save(make_model(tokenizer), tmp_path, tokenizer)
    assert main(["chat", str(tmp_path)]) == 1
    assert "Choose with --template one of llama2, llama3, vicuna" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    assert main(["chat", str(tmp_path), "--template", "vicuna", "--system", "", "--max-tokens", "3"]) == 0
    assert main(["chat", str(tmp_path), "--template", "llama3"]) == 1
    assert "the chat format llama3 needs the special token" in capsys.readouterr().err
