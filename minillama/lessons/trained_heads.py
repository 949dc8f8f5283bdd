"""What the heads of a trained model read, for lessons 05 and 06: a name, a colour, a number of things, the first token.

    model, tokenizer = minillama.load("data/stories260K.bin")
    sought, judging = word_groups("colour")               # half of the words to choose a head by, half to judge it
    shares = word_shares(model, tokenizer, "colour", sought)            (words, L, H)
    layer, head = best_head(shares)
    word_shares(model, tokenizer, "colour", judging)[:, layer, head]    on words that it was not chosen by

The texts are drawn from one form for each kind, in words that stories260K knows. So it is known where the sought word
stands in them. They end where it may well come again: there a head that finds it has to look.
"""

from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from ..analysis.trace import prompt_ids, trace
from ..messages import unknown

_GIRLS, _BOYS = "Lily Mia Sue Lucy Anna Sara Amy Mary".split(), "Tom Tim Ben Sam Timmy Max Jack Bob".split()
_DO, _PLACE = "play walk run sing".split(), "park garden forest sun rain snow".split()
_THEN = ["One day,", "Then,", "That day,", "After that,"]
TEXTS = 8  # of each word


class Text(NamedTuple):
    """The ids (T,) of a text, and where the sought word stands in it: a slice, as words may be several tokens."""

    ids: np.ndarray
    at: slice

    @property
    def even(self):
        """The share that the word would get if the last token read all tokens alike."""
        return (self.at.stop - self.at.start) / len(self.ids)


def _name(word, rng):
    child, who = ("girl", "She") if word in _GIRLS else ("boy", "He")
    do, place, then = map(rng.choice, (_DO, _PLACE, _THEN))
    return f"Once upon a time, there was a little {child} named", f". {who} loved to {do} in the {place}. {then}"


def _colour(word, rng):
    name, then = rng.choice(_GIRLS), rng.choice(_THEN)
    thing, kind = rng.choice("ball hat car bird toy book kite".split()), rng.choice("nice soft special new".split())
    return f"Once upon a time, {name} had a", f" {thing}. It was very {kind}. {then} {name} wanted to play with the"


def _count(word, rng):
    things, do = rng.choice("friends birds cats dogs boys girls".split()), rng.choice(_DO)
    return "Once upon a time, there were", f" {things}. They loved to {do} in the {rng.choice(_PLACE)}. The"


SOUGHT = {  # kind -> (what stands before and behind a word of it, the words)
    "name": (_name, [name for pair in zip(_GIRLS, _BOYS, strict=True) for name in pair]),
    "colour": (_colour, "red blue green yellow pink black white brown purple orange gray gold".split()),
    "count": (_count, "two three four five six seven eight nine ten twelve".split()),
}


def word_groups(kind):
    """The words of a kind in two groups: those to choose a head by, and those to judge it; of pairs, one in each."""
    words = _of(kind)[1]
    chosen = [i for i in range(len(words)) if i % 4 in (0, 3)]  # girls and boys alternate: both in both groups
    return [words[i] for i in chosen], [word for i, word in enumerate(words) if i not in chosen]


def text(model, tokenizer, kind, word, rng):
    """A Text with this word, drawn from rng; of red: Once upon a time, Anna had a red kite. ... to play with the"""
    form, words = _of(kind)
    if word not in words:
        raise ValueError(unknown(f"word of the kind {kind!r}", word, words))
    before, behind = form(word, rng)
    ids, *parts = (prompt_ids(model, tokenizer, t) for t in (f"{before} {word}{behind}", before, f"{before} {word}"))
    for part in parts:
        if not np.array_equal(ids[: len(part)], part):
            raise ValueError(
                f"this tokenizer joins {word!r} with what stands beside it, so that it has no place of its own in "
                f"{before + ' ' + word + behind!r}; give a tokenizer that splits texts at blanks, such as stories260K's"
            )
    return Text(ids, slice(*map(len, parts)))


def texts(model, tokenizer, kind, words, seed=0, each=TEXTS):
    """`each` texts of each word, word after word; a list of Text. Those of one seed are always the same."""
    rng = np.random.default_rng(seed)
    return [text(model, tokenizer, kind, word, rng) for word in words for _ in range(each)]


def word_shares(model, tokenizer, kind, words, seed=0, each=TEXTS):
    """What each head gives to the sought word at the last token: shares (words, L, H), each the mean of `each` texts

    Of one word the texts resemble each other, so an interval is that over the words (`statistics.estimate`).
    """
    found = [
        trace(model, ids).attention[:, :, -1, at].sum(axis=-1)
        for ids, at in texts(model, tokenizer, kind, words, seed, each)
    ]
    return np.reshape(found, (len(words), each, *found[0].shape)).mean(axis=1)


def even_share(model, tokenizer, kind, words, seed=0, each=TEXTS):
    """The mean share of the same words in the same texts if all tokens were read alike: the level of chance."""
    return float(np.mean([t.even for t in texts(model, tokenizer, kind, words, seed, each)]))


def best_head(shares):
    """(layer, head) with the largest mean of shares (words, L, H)."""
    mean = np.mean(shares, axis=0)
    return tuple(int(i) for i in np.unravel_index(mean.argmax(), mean.shape))


def first_token_shares(model, ids, start=1):
    """What each head gives to token 0, the mean over the queries from position `start` on: (L, H)

    ids (T,). The level of chance is `even_first_share(T, start)`. ValueError if there is no such query.
    """
    _check_start(len(ids), start)
    return trace(model, ids).attention[:, :, start:, 0].mean(axis=-1)


def even_first_share(T, start=1):
    """The mean of 1 / (t + 1) over the queries t = start ... T - 1, each of which reads t + 1 tokens."""
    _check_start(T, start)
    return float(np.mean(1 / np.arange(start + 1, T + 1)))


@contextmanager
def without(model, layer, head):
    """Inside this block the head adds nothing: the columns of w_o that carry its result to the stream are 0

    ValueError for a head that the model does not have.
    """
    L, H, D = model.config.layers, model.config.heads, model.config.head_dim
    if not (0 <= layer < L and 0 <= head < H):
        raise ValueError(f"layers are 0 to {L - 1} and heads 0 to {H - 1}; received layer {layer}, head {head}")
    columns = model.parameters[f"blocks.{layer}.w_o"][:, D * head : D * (head + 1)]
    kept = columns.copy()
    columns[:] = 0
    try:
        yield
    finally:
        columns[:] = kept


def word_probabilities(model, tokenizer, kind, words, seed=0, each=TEXTS):
    """How probable the first token of the sought word is behind the last one: (words,), means of `each` texts."""
    found = texts(model, tokenizer, kind, words, seed, each)
    ends = np.array([len(t.ids) - 1 for t in found])
    batch = np.zeros((len(found), ends.max() + 1), int)  # the zeros behind a shorter text are read by no earlier token
    for row, t in zip(batch, found, strict=True):
        row[: len(t.ids)] = t.ids
    logits = model.logits(batch)[range(len(found)), ends].astype(np.float64)  # (texts, V)
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    first = [t.ids[t.at.start] for t in found]
    return (p[range(len(found)), first] / p.sum(axis=-1)).reshape(len(words), each).mean(axis=1)


def _of(kind):
    if kind not in SOUGHT:
        raise ValueError(unknown("kind of word", str(kind), SOUGHT))
    return SOUGHT[kind]


def _check_start(T, start):
    if not 0 <= start < T:
        raise ValueError(f"a text of {T} tokens has the queries 0 to {T - 1}; received start {start}")
