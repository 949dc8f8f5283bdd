"""What a trained model can do on text that it has not seen: predict, restore a missing token, tell a story.

The same questions for every model, whether it writes or fills gaps, so that the answers can stand side by side.
"""

import numpy as np

from ..data import stories
from ..generation.generate import fill, generate
from ..training.trainer import evaluate

GAPS = 4000  # gaps that are tried with windows of each size
STORIES = 40  # that each model writes
_DRAWS = 0  # seed of the gaps and of the stories, the same for every model


def measure(model, corpus, windows):
    """What the model can do on the validation text."""
    row = {
        "loss": evaluate(model, corpus.validation, corpus.tokenizer),  # of its own objective, nats a predicted token
        "loss_per_character": None,  # of those that predict every token
        "gaps": {str(width): gap_accuracy(model, corpus, width) for width in windows},
        "stories": None,  # of those that write, where the text is stories
    }
    if not model.config.causal:
        return row | {"text": filled_text(model, corpus)}
    row["loss_per_character"] = corpus.per_character(row["loss"])
    if corpus.source["data"] == "stories":
        texts = list(written(model, corpus, STORIES))
        return row | {"stories": judge(texts), "text": texts[0][0]}
    return row | {"text": next(written(model, corpus, 1))[0]}


def gap_accuracy(model, corpus, width):
    """The share of single missing tokens that the model's first guess restores, in windows of `width` tokens

    A bidirectional model reads the whole window, a causal one what stands before the gap. Gaps stand at ordinary
    tokens, and no special token is a guess. The windows and gaps are the same for every model.
    """
    tokens, mask_token = corpus.validation, corpus.tokenizer.mask_token
    special = list(corpus.tokenizer.special_tokens.values())
    rng = np.random.default_rng([_DRAWS, width])
    ordinary = 1 + np.flatnonzero(~np.isin(tokens[1:], special))  # something stands before every gap
    places = rng.choice(ordinary, GAPS)
    # A gap is as likely at any place of its window but the first, as far as the text reaches.
    gaps = rng.integers(np.maximum(1, places + width - len(tokens)), np.minimum(width - 1, places) + 1)
    windows = tokens[(places - gaps)[:, None] + np.arange(width)]
    right = 0
    for first in range(0, GAPS, 100):
        part, gap = windows[first : first + 100].copy(), gaps[first : first + 100]
        rows = np.arange(len(part))
        expected = part[rows, gap]
        if model.config.causal:
            logits = model.logits(part)[rows, gap - 1]
        else:
            part[rows, gap] = mask_token
            logits = model.logits(part)[rows, gap]
        logits[:, special] = -np.inf
        logits[:, corpus.tokenizer.vocab_size :] = -np.inf  # rows that stand for no text
        right += np.count_nonzero(logits.argmax(axis=1) == expected)
    return right / GAPS


def written(model, corpus, count):
    """(text, whether the model ended it) of texts by a causal model; the others reach as far as its context."""
    tokenizer, end = corpus.tokenizer, corpus.tokenizer.end_of_text
    for seed in range(_DRAWS, _DRAWS + count):
        tokens = list(generate(model, [end], seed=seed, stop={end}, vocab_size=tokenizer.vocab_size))
        ended = tokens[-1] == end
        yield tokenizer.decode(tokens[:-1] if ended else tokens), ended


def judge(texts):
    """How good stories (text, whether it was ended) are: counts, and the characters told before mistakes, in total

    complete: stories from beginning to end without a mistake. A story with a mistake counts up to it, another whole;
    so characters / mistakes grows as a writer makes fewer of them, however short its stories are.
    """
    told = [characters_told(*text) for text in texts]
    return {
        "count": len(texts),
        "complete": sum(_is_story(text) for text, _ in texts),
        "mistakes": sum(mistake for _, mistake in told),  # stories with one: nothing after the first is read
        "characters": sum(characters for characters, _ in told),
    }


def characters_told(text, ended=True):
    """(characters, whether a mistake follows them): how far a text is one that the source of stories could have told

    Counted to the end of the last choice that the source has. A text that was not ended by its writer makes no mistake
    by ending early.
    """
    reader = _Reader(text)
    try:
        stories.tell(reader)
    except ValueError:
        if ended or not reader.cut_off:
            return reader.position, True
        return len(text), False
    return reader.position, reader.position < len(text)


class _Reader(stories.Reader):
    """Knows whether a text that it cannot follow could go on so that it can."""

    cut_off = False

    def write(self, text):
        self._expect([text])
        super().write(text)

    def pick(self, options, weights, say):
        self._expect([say(option) for option in options])
        return super().pick(options, weights, say)

    def _expect(self, possible):
        rest = self.text[self.position :]
        self.cut_off = any(words.startswith(rest) for words in possible)


def _is_story(text):
    try:
        stories.log_probability(text)
    except ValueError:
        return False
    return True


def filled_text(model, corpus, gaps=6):
    """The beginning of the validation text with what the model puts in some gaps, in [brackets]."""
    tokenizer = corpus.tokenizer
    special = list(tokenizer.special_tokens.values())
    start = int(corpus.validation[0] in special)
    ids = corpus.validation[start : start + min(model.config.context, 64)].copy()
    ordinary = np.flatnonzero(~np.isin(ids, special))
    places = np.random.default_rng(_DRAWS).choice(ordinary, min(gaps, len(ordinary)), replace=False)
    ids[places] = tokenizer.mask_token
    filled, _ = fill(model, ids, tokenizer.mask_token, tokenizer.vocab_size)
    shown = [tokenizer.decode([token]) for token in filled]
    for place in places:
        shown[place] = f"[{shown[place]}]"
    return "".join(shown)
