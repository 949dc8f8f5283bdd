"""A conversation with a model: history that fits the context, a cache that is kept between turns, the loop around it.

What the model reads is written anew by the template for every answer (minillama.generation.chat_templates), so it is
always the text that the template gives; of that, only what the cache does not hold already is computed.
"""

import sys
from contextlib import suppress

import numpy as np

from ..interrupts import interruptible
from ..messages import near
from ..tokenizers.vocabulary import check_ids
from .chat_templates import encode_chat, stop_tokens
from .generate import check_sampling, generate

CONTEXT = 8192  # tokens of a conversation, at most: its cache is made at once, and models may have a much longer one
LEAST_ANSWER = 32  # tokens that a question leaves for its answer; an eighth of the context, if that is fewer
READ_AT_A_TIME = 256  # tokens of a question between two looks at Ctrl-C
CHAT_COMMANDS = {
    "/system": "TEXT gives another system prompt from the next answer on, without TEXT none",
    "/reset": "forgets the conversation, but for the system prompt",
    "/quit": "leaves, as Ctrl-D does",
}


class Conversation:
    """What was said so far, and the model that answers

        conversation = Conversation(model, tokenizer, "llama3", system="Be brief.")
        conversation.ask("Hello")
        for text in conversation.answer():
            print(text, end="")

    An answer takes at most max_tokens tokens (default: what the context leaves). context: tokens of the whole text, at
    most, not more than the model's (default: the model's, at most CONTEXT). stop: ids that end an answer besides those
    of the template and the tokenizer. The other settings are those of `generate`. turns are [(what the user said, the
    answer)]. After an answer, cut says why it is not whole, or is None.
    """

    def __init__(
        self, model, tokenizer, template, system=None, max_tokens=None, temperature=0.8, top_k=None, top_p=0.95, seed=0,
        context=None, repetition_penalty=1.0, stop=(),
    ):  # fmt: skip
        check_sampling(temperature, top_k, top_p, max_tokens, seed, repetition_penalty)
        self.model, self.tokenizer, self.template, self.system = model, tokenizer, template, system
        self.max_tokens, self.seed = max_tokens, seed
        self._settings = {
            "temperature": temperature, "top_k": top_k, "top_p": top_p, "repetition_penalty": repetition_penalty,
        }  # fmt: skip
        longest = model.config.cached_context
        if context is not None and not 1 <= context <= longest:
            raise ValueError(f"context must lie in [1, {longest}], which this model was made for; received {context}")
        self.context = min(longest, CONTEXT) if context is None else context
        self._cache, self._read = model.new_cache(room=self.context), []  # _read: the tokens that the cache holds
        self.turns, self.cut, self._answers = [], None, 0
        self._question = self._prompt = None
        marks = len(self._encode("", []))  # a tokenizer without the tokens of the format is reported now
        if marks + self._least >= self.context:
            raise ValueError(
                f"a context of {self.context} tokens has no room for a question: the system prompt and the marks of "
                f"the format take {marks}, and an answer {self._least}"
            )
        self._stop = stop_tokens(template, tokenizer, stop)

    @property
    def _least(self):
        """The fewest tokens that there must be for an answer."""
        least = min(LEAST_ANSWER, max(1, self.context // 8))
        return least if self.max_tokens is None else min(least, self.max_tokens)

    def reset(self):
        """Forget what was said; the system prompt stays."""
        self.turns.clear()

    def ask(self, text):
        """Put a question, which the next `answer` is to; returns how many of the oldest turns were forgotten for it

        Where the text no longer leaves room for max_tokens, or for a quarter of the context, turns are forgotten, each
        as a whole, until it takes at most half of the context: what comes after them has to be read again, and so
        that is seldom. ValueError for a question that even alone does not fit, or leaves too little for an answer.
        """
        context, turns = self.context, list(self.turns)
        prompt = self._encode(text, turns)
        room = min(self.max_tokens or context // 4, context // 2)
        if len(prompt) + room > context:
            while turns and len(prompt) > context // 2:
                turns.pop(0)
                prompt = self._encode(text, turns)
        if len(prompt) + self._least > context:
            raise ValueError(
                f"this question takes {len(prompt)} tokens, with the system prompt and the marks of the format, and an "
                f"answer at least {self._least}, but the context is {context}; ask in fewer words"
            )
        forgotten = len(self.turns) - len(turns)
        self.turns, self._question, self._prompt = turns, text, prompt
        return forgotten

    def answer(self, stopped=lambda: False):
        """Yield the answer in pieces of text, as they come; ends early once stopped() is true

        What was said of it by then is the answer that the history holds; a question without any is not kept.
        """
        if self._prompt is None:
            raise ValueError("there is no question to answer; ask one first")
        text, pieces, self._prompt = self._prompt.tolist(), [], None
        try:
            for piece in self._pieces(text, stopped):
                piece = piece if pieces else piece.lstrip()  # the blank between the format's last mark and the answer
                if piece:
                    pieces.append(piece)
                    yield piece
        finally:
            self._read = text[: self._cache.length]
            if pieces or self.cut is None:
                self.turns.append((self._question, "".join(pieces)))

    def _pieces(self, text, stopped):
        """Read the tokens of a text and yield what is written after it; the tokens are added to the text."""
        room = self.context - len(text)
        limit = min(self.max_tokens or room, room)
        self.cut = "stopped"
        self._read_nearly_all(text, stopped)
        if stopped():
            return
        stream, seed = self.tokenizer.stream(), self.seed + self._answers
        self._answers += 1
        for token in generate(
            self.model, text, limit, **self._settings, seed=seed, stop=self._stop, cache=self._cache,
            vocab_size=self.tokenizer.vocab_size,
        ):  # fmt: skip
            text.append(token)
            if token in self._stop:
                self.cut = None
                break
            yield stream.feed(token)
            if stopped():
                break
        else:
            full = f"the context of {self.context} tokens is full"
            self.cut = f"ended after {limit} tokens, the most that was asked for" if limit == self.max_tokens else full
        yield stream.finish()

    def _read_nearly_all(self, text, stopped):
        """Let the cache hold a text, but for a few tokens of its end; what it holds of it already is not read again."""
        same = 0
        while same < min(len(self._read), len(text) - 1) and self._read[same] == text[same]:
            same += 1
        cache = self._cache
        cache.length = same
        while len(text) - cache.length > READ_AT_A_TIME and not stopped():
            self.model.next_logits(np.array([text[cache.length :][:READ_AT_A_TIME]]), cache)

    def _encode(self, text, turns):
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        for user, answer in turns:
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        ids = encode_chat(self.template, self.tokenizer, [*messages, {"role": "user", "content": text}])
        return check_ids(ids, self.tokenizer, self.model.config.vocab_size)


def converse(conversation, interactive=None):
    """Answer the lines of standard input until it ends, or until /quit

    The answers go to standard output, everything else to standard error. At a terminal (interactive; default: whether
    standard input is one) an error is printed and the conversation goes on; else it is raised.
    """
    interactive = sys.stdin.isatty() if interactive is None else interactive
    if interactive:
        for line in [
            f"format {conversation.template}",
            *map(" ".join, CHAT_COMMANDS.items()),
            "Ctrl-C stops an answer (a second one leaves), or drops the line that is being typed",
        ]:
            print(line, file=sys.stderr)
    for line in _lines(interactive):
        text = line.strip()
        try:
            if text.startswith("/"):
                if text == "/quit":
                    return
                _obey(conversation, *text.split(maxsplit=1))
            elif text:
                _exchange(conversation, text)
        except ValueError as error:
            if not interactive:
                raise
            print(f"minillama: error: {error}", file=sys.stderr)


def _lines(interactive):
    if not interactive:
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(encoding="utf-8", errors="replace")
        yield from sys.stdin
        return
    with suppress(ImportError):
        import readline  # noqa: F401, with it input() has a line editor and a history
    while True:
        if not sys.stdout.isatty():  # which gets the answers alone then
            print("> ", end="", file=sys.stderr, flush=True)
        try:
            line = input("> " if sys.stdout.isatty() else "")
        except EOFError:
            print(file=sys.stderr)
            return
        except KeyboardInterrupt:
            print("\n[there is no answer to stop; Ctrl-D or /quit leaves]", file=sys.stderr)
            continue
        yield line


def _obey(conversation, command, text=None):
    if command == "/reset" and text is None:
        conversation.reset()
        print("the conversation is forgotten", file=sys.stderr)
    elif command == "/system":
        conversation.system = text or ""
        print("the system prompt is changed" if text else "there is no system prompt", file=sys.stderr)
    elif command in CHAT_COMMANDS:
        raise ValueError(
            f"{command} takes no text; received {text!r}. Type {command} alone, or put a word before a question that "
            f"begins with /"
        )
    else:
        meant = near(command, CHAT_COMMANDS)
        hint = f" (did you mean {meant[0]}?)" if meant else ""
        raise ValueError(
            f"there is no command {command!r} here, but {', '.join(CHAT_COMMANDS)}{hint}; put a word before a text "
            f"that begins with /"
        )


def _exchange(conversation, text):
    forgotten = conversation.ask(text)
    if forgotten:
        turns = "turn is" if forgotten == 1 else f"{forgotten} turns are"
        print(f"[the context is full: the oldest {turns} forgotten]", file=sys.stderr)
    with interruptible() as stopped:
        for piece in conversation.answer(stopped):
            print(piece, end="", flush=True)
    print()
    if conversation.cut is not None:
        print(f"[{conversation.cut}]", file=sys.stderr)
