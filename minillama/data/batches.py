"""Windows of a stream of token ids: the batches of a training, and all of a stream for an evaluation.

A stream has a token before, between and after its documents (minillama.data.corpora), by which windows find where a
document begins.
"""

import numpy as np

from ..ops.loss import IGNORED


def document_start(tokenizer):
    """The token that stands before every document of a stream; None where the tokenizer has none for that."""
    begin = tokenizer.begin_of_text
    return tokenizer.end_of_text if begin is None else begin


class Batches:
    """The training batches of a stream of tokens: batch t is a function of (seed, t) alone

    An epoch cuts the stream into windows of `context` tokens, from an offset of its own, and takes them in random
    order. A window moves back to where its document begins (the token `document_start`), if that is at most half a
    window away: a short document is then seen from its beginning, as it is when text is generated. What the cut leaves
    before the first window and behind the last one ends the epoch: three windows, moved inside of the stream where
    they would reach beyond it, so that both ends of a text are learned in every epoch.
    """

    def __init__(self, tokens, context, batch_size, seed, document_start=None):
        if len(tokens) < context + 1:
            raise ValueError(
                f"the training text has {len(tokens)} tokens and one window of context {context} needs {context + 1}; "
                f"use more text or a smaller --context"
            )
        self.tokens, self.context, self.batch_size, self.seed = tokens, context, batch_size, seed
        self._cut = max(1, (len(tokens) - 1) // context - 1)  # windows; one less than fit leaves room for the offset
        self.windows = self._cut + 3  # of an epoch: less than a context is left before the cut, and than two behind it
        self._documents = np.flatnonzero(tokens == document_start)
        self._epoch, self._starts = None, None

    def __getitem__(self, step):
        """ids, targets (batch_size, context) of batch number `step`, counted from 0."""
        first = step * self.batch_size
        if self.batch_size * self.context >= 2**60:  # as in memory.aligned_zeros
            raise MemoryError(f"a batch of {self.batch_size:,} sequences")
        ids, targets = np.empty((2, self.batch_size, self.context), self.tokens.dtype)
        for i in range(self.batch_size):
            start = self._start(*divmod(first + i, self.windows))
            ids[i] = self.tokens[start : start + self.context]
            targets[i] = self.tokens[start + 1 : start + 1 + self.context]
        return ids, targets

    def _start(self, epoch, i):
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            slack = len(self.tokens) - 1 - self._cut * self.context
            offset = rng.integers(min(slack, self.context - 1) + 1)
            cut = offset + self.context * rng.permutation(self._cut)
            last = len(self.tokens) - 1 - self.context  # where a window begins that reaches the end
            ends = [0, min(offset + self.context * self._cut, last), last]
            starts = np.concatenate([_document_starts(cut, self._documents, self.context // 2), ends])
            self._epoch, self._starts = epoch, starts
        return self._starts[i]


def evaluation_batches(tokens, context, batch_size, document_start=None):
    """All of a stream, window by window: yields ids, targets (up to batch_size, context)

    Every token but the first is predicted once. A window begins where the one before it ended or, if that is at most
    half a window away, where the document of its first token begins; what it then reads a second time, and what it
    lacks at the end of the stream, has the target IGNORED.
    """
    documents = np.flatnonzero(tokens == document_start)
    starts, firsts, first = [], [], 1  # first: the token that is to be predicted next
    while first < len(tokens):
        firsts.append(first)
        starts.append(int(_document_starts(np.array([first - 1]), documents, context // 2)[0]))
        first = starts[-1] + context + 1
    padded = np.concatenate([tokens, np.zeros(context, tokens.dtype)])
    for i in range(0, len(starts), batch_size):
        places = np.array(starts[i : i + batch_size])[:, None] + np.arange(context + 1)
        windows, wanted = (
            padded[places],
            (places >= np.array(firsts[i : i + batch_size])[:, None]) & (places < len(tokens)),
        )
        yield windows[:, :-1], np.where(wanted, windows, IGNORED)[:, 1:]


def _document_starts(places, documents, furthest):
    """Each place, moved back to the beginning of its document if that is at most `furthest` tokens away."""
    if len(documents) == 0:
        return places
    begin = documents[np.maximum(np.searchsorted(documents, places, side="right") - 1, 0)]
    return np.where((begin <= places) & (places - begin <= furthest), begin, places)
