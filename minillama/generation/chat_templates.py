"""Chat templates: how a conversation is written down for a model that was taught to answer. A row for each of them.

A format is a function from messages to the pieces of a text, in order. A piece is a str, which is encoded as plain text
whatever it looks like, or a Token, which becomes the id of that special token. So nobody can forge a special token by
typing it. Text between two special tokens is encoded as one, as the models were trained.

    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    ids = encode_chat("llama3", tokenizer, messages)

messages are those of transformers' apply_chat_template: perhaps one of the system, then of user and assistant in turn,
the last one by the user; the ids end where the answer begins.
"""

import json
from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

import numpy as np


class Token(str):
    """A special token, by its text."""


# Whatever begins and ends a text in the tokenizer: these in Llama 1 and 2, others in Llama 3.
BEGIN, END = Token("<s>"), Token("</s>")


class Template(NamedTuple):
    """A row of TEMPLATES."""

    pieces: Callable  # (system prompt or None, [(what the user says, answer or None)]) -> str and Token, in order
    marks: tuple[str, ...]  # all of them stand in a chat_template, of Hugging Face's folders, of this format
    stop: tuple[str, ...] = ()  # special tokens that end an answer, as does the one that ends a text
    tokens: tuple[str, ...] = ()  # special tokens by which a tokenizer without a chat_template is known
    reserved: tuple[str, ...] = ()  # plain text that has a meaning in the format, so that no message may have it
    system: str | None = None  # the system prompt that the models know, where none is given


def llama2(system, turns):
    """<s>[INST] <<SYS>>(system)<</SYS>>(user) [/INST] (answer) </s><s>[INST] (user) [/INST]

    Source: Meta's llama repository, llama/generation.py, chat_completion.
    """
    for i, (user, answer) in enumerate(turns):
        if i == 0 and system is not None:
            user = f"<<SYS>>\n{system}\n<</SYS>>\n\n{user}"
        yield BEGIN
        yield f"[INST] {user.strip()} [/INST]"
        if answer is not None:
            yield f" {answer.strip()} "
            yield END


def llama3(system, turns):
    """<|begin_of_text|>, then for each message <|start_header_id|>(role)<|end_header_id|>, empty line, text, <|eot_id|>

    Source: Meta's llama3 repository, llama/tokenizer.py, ChatFormat.
    """
    yield BEGIN
    for role, text in _messages(system, turns):
        yield Token("<|start_header_id|>")
        yield role
        yield Token("<|end_header_id|>")
        yield "\n\n"
        if text is not None:
            yield text.strip()
            yield Token("<|eot_id|>")


def vicuna(system, turns):
    """<s>(system) USER: (user) ASSISTANT: (answer)</s>USER: (user) ASSISTANT:

    Source: FastChat, fastchat/conversation.py, the template vicuna_v1.1 with the separators of ADD_COLON_TWO.
    """
    yield BEGIN
    if system is not None:
        yield f"{system} "
    for user, answer in turns:
        yield f"USER: {user.strip()} ASSISTANT:"
        if answer is not None:
            yield f" {answer.strip()}"
            yield END


def chatml(system, turns):
    """For each message <|im_start|>(role), line end, text, <|im_end|>, line end; nothing is stripped

    Source: the chat_template of HuggingFaceTB/SmolLM2-135M-Instruct; the format is OpenAI's.
    """
    for role, text in _messages(system, turns):
        yield Token("<|im_start|>")
        yield f"{role}\n"
        if text is not None:
            yield text
            yield Token("<|im_end|>")
            yield "\n"


def zephyr(system, turns):
    """For each message <|role|> as plain text, line end, text, </s>, line end; nothing is stripped

    Source: the chat_template of TinyLlama/TinyLlama-1.1B-Chat-v1.0, which is that of HuggingFaceH4/zephyr-7b-beta.
    """
    for role, text in _messages(system, turns):
        yield f"<|{role}|>\n"
        if text is not None:
            yield text
            yield END
            yield "\n"


def _messages(system, turns):
    """(role, text) one after the other; the text of the answer that is to come is None."""
    if system is not None:
        yield "system", system
    for user, answer in turns:
        yield "user", user
        yield "assistant", answer


TEMPLATES = {
    "llama2": Template(
        llama2,
        marks=("[INST]", "<<SYS>>"),
        reserved=("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
    ),
    "llama3": Template(
        llama3,
        marks=("<|start_header_id|>", "<|eot_id|>"),
        stop=("<|eot_id|>", "<|eom_id|>"),
        tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "vicuna": Template(
        vicuna,
        marks=("USER:", "ASSISTANT:"),
        system="A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions.",
    ),
    "zephyr": Template(
        zephyr,
        marks=("<|user|>", "message['content'] + eos_token"),
        reserved=("<|system|>", "<|user|>", "<|assistant|>"),
    ),
    "chatml": Template(chatml, marks=("<|im_start|>",), stop=("<|im_end|>",), tokens=("<|im_start|>", "<|im_end|>")),
    "smollm": Template(
        chatml,
        marks=("<|im_start|>", "named SmolLM"),
        stop=("<|im_end|>",),
        system="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    ),
}


def encode_chat(template, tokenizer, messages):
    """The ids int32 (T,) of a conversation, up to where the answer begins; template is a name of TEMPLATES

    ValueError for messages that are not in turn, for text that has a mark of the format in it, and for a tokenizer
    without the special tokens of the format.
    """
    row = TEMPLATES[template]
    system, turns = _turns(messages)
    for text in [system or "", *(user for user, _ in turns)]:
        found = [mark for mark in row.reserved if mark in text]
        if found:
            raise ValueError(
                f"the text has {found[0]} in it, by which the format {template} tells who is speaking; leave it out"
            )
    system = row.system if system is None else system or None
    parts = []
    for special, pieces in groupby(row.pieces(system, turns), key=lambda piece: isinstance(piece, Token)):
        if special:
            parts.append([_special(tokenizer, template, piece) for piece in pieces])
        else:
            parts.append(tokenizer.encode("".join(pieces), special=False))
    return np.concatenate(parts).astype(np.int32)


def stop_tokens(template, tokenizer, others=()):
    """The ids of the tokens that end an answer, and of others that are known to; ValueError where there is none."""
    named = {tokenizer.special_tokens.get(name) for name in TEMPLATES[template].stop}
    stop = named | {tokenizer.end_of_text, *others}
    if stop == {None}:
        raise ValueError(
            f"the tokenizer has no special token that ends an answer: none that ends a text, and none of those of the "
            f"format {template} ({', '.join(TEMPLATES[template].stop) or 'it has no others'})"
        )
    return stop - {None}


def recognise(path, tokenizer, published):
    """The name of the template that a model's files speak of, or ValueError with the names there are

    path: where the model is, for the message; published: the Jinja text that comes with it, or None, where the
    tokenizer's special tokens may tell.
    """
    if published is not None:
        names = [name for name, row in TEMPLATES.items() if all(mark in published for mark in row.marks)]
    else:
        known = tokenizer.special_tokens
        names = [name for name, row in TEMPLATES.items() if row.tokens and all(token in known for token in row.tokens)]
    if names:
        return max(names, key=lambda name: len(TEMPLATES[name].marks))  # the more special one
    reason = "it comes without a chat template" if published is None else "its chat template is none that is known here"
    raise ValueError(
        f"in which format {path} was taught to chat cannot be told: {reason}. Choose with --template one of "
        f"{', '.join(TEMPLATES)}; a model that was taught no chat, but to continue texts, is for minillama sample"
    )


def published_template(folder):
    """The Jinja text of the chat template in a Hugging Face folder, or None."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["chat_template"]
    except (KeyError, TypeError):
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not complete JSON in UTF-8 ({error}); fetch it again") from error
    if isinstance(found, list):  # several, by name
        found = next(
            (row.get("template") for row in found if isinstance(row, dict) and row.get("name") == "default"), None
        )
    return found if isinstance(found, str) else None


def _special(tokenizer, template, token):
    """The id of a special token."""
    roles = {BEGIN: tokenizer.begin_of_text, END: tokenizer.end_of_text}
    found = roles[token] if token in roles else tokenizer.special_tokens.get(token)
    if found is None:
        raise ValueError(
            f"the chat format {template} needs the special token {token}, which the tokenizer of this model does not "
            f"have; was the model taught another format? There are {', '.join(TEMPLATES)}"
        )
    return found


def _turns(messages):
    """(text of the system or None, [(text of the user, answer or None)])"""
    messages = list(messages)
    system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else None
    roles = [message["role"] for message in messages]
    if len(roles) % 2 == 0 or roles != (["user", "assistant"] * len(roles))[: len(roles)]:
        raise ValueError(
            f"messages must be of user and assistant in turn, after one of the system if any, and end with one of the "
            f"user; received {', '.join(message['role'] for message in messages) or 'none'}"
        )
    texts = [message["content"] for message in messages] + [None]
    return system, list(zip(texts[::2], texts[1::2], strict=True))
