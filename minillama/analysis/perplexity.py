"""Perplexity: how well a causal model predicts a text.

    perplexity = exp(-1/N sum over the tokens of log p(token | those before it)),   N tokens

The same sum over the text's bytes compares models of different tokenizers: bits a byte = sum / (bytes ln 2).

A text longer than the context is read in windows, each `stride` tokens after the one before. A window scores what the
one before it did not reach; its first context - stride predictions only serve as left context. Every token after the
first is so scored exactly once. A stride of context is fastest, and leaves the first tokens of each window without
what came before; a stride of 1 gives every token all the context that there is, at context times the work.
Source: "Perplexity of fixed-length models", the guide of Hugging Face's transformers.
"""

import codecs
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from math import log, nan
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..model import Model
from ..ops.loss import IGNORED
from ..tokenizers import END_OF_TEXT, Tokenizer
from ..tokenizers.vocabulary import check_ids

LONGEST_CONTEXT = 2048  # tokens, unless more are asked for
_TOKENS_AT_A_TIME = 2048  # in one forward
_BYTES_AT_A_TIME = 2**20  # of a file


class Score(NamedTuple):
    """What a model makes of a text: nats, the sum of -log p over its tokens, and the size of the text in UTF-8."""

    nats: float
    tokens: int
    bytes: int

    @property
    def perplexity(self) -> float:
        """exp of the mean over tokens: among how many equally likely tokens the model would be as undecided."""
        return _exp(self.nats / self.tokens)

    @property
    def byte_perplexity(self) -> float:
        """exp of the mean over bytes; comparable between tokenizers. NaN where no token that is scored has a byte."""
        return _exp(self.nats / self.bytes) if self.bytes else nan

    @property
    def bits_per_byte(self) -> float:
        """The length of the text, in bits a byte, if it were compressed with the model (arithmetic coding); or NaN."""
        return self.nats / self.bytes / log(2) if self.bytes else nan


def _exp(x: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(x))


def perplexity(
    model: Model,
    tokenizer: Tokenizer,
    text: str | Iterable[str],
    context: int | None = None,
    stride: int | None = None,
    report: Callable[[np.ndarray], object] | None = None,
) -> Score:
    """The Score of one text, a str or an iterable of its consecutive pieces (`read_pieces` of a file)

    context: tokens in a window (default: the model's, at most LONGEST_CONTEXT); stride: between windows (default: half
    of it). begin_of_text goes before the text, so that every token of it is scored; of a tokenizer that has none the
    first token is not, nor are its bytes. report(tokens), where given, is called with the ids that were scored, some at
    a time. A ValueError for a model that reads both ways, for a text of no token to score, and for impossible windows.

    Text is plain, whatever it looks like; but where the tokenizer has the special token <|endoftext|>, this mark stands
    between documents, as in training data: a token to predict, without bytes.
    """
    require_causal(model)
    context, stride = check_windows(model, context, stride)
    count: Counter[str] = Counter()

    def parts() -> Iterator[np.ndarray]:
        if tokenizer.begin_of_text is not None:
            count["tokens"] += 1
            yield np.array([tokenizer.begin_of_text])
        for ids, size in token_parts(tokenizer, _pieces(text)):
            if not count["tokens"] and len(ids):  # the first token of the text is not predicted
                size -= len(tokenizer.decode_bytes(ids[:1]))
            count["tokens"] += len(ids)
            count["bytes"] += size
            yield ids

    known = (check_ids(ids, tokenizer, model.config.vocab_size) for ids in parts())
    nats, tokens = _sum(scored_tokens(model, known, context, stride), report)
    if not tokens:
        raise ValueError(f"a token is scored by those before it; the text has {count['tokens']}, too few for that")
    return Score(nats, tokens, count["bytes"])


def pseudo_perplexity(
    model: Model,
    tokenizer: Tokenizer,
    text: str | Iterable[str],
    context: int | None = None,
    report: Callable[[np.ndarray], object] | None = None,
) -> Score:
    """The Score of one text under a model that reads both ways: each token is hidden in turn, the others are read

    pseudo-perplexity = exp(-1/N sum over the tokens of log p(token | the others in its window)): no probability of the
    text, and not to be compared with a perplexity; it compares such models with each other. The text is cut into
    windows of `context` tokens (default: the model's, at most LONGEST_CONTEXT), each with begin_of_text before it, and
    end_of_text after it where that is another token; a window is read once for each of its tokens. text and report are
    those of `perplexity`.
    Source: Salazar et al. 2020 (arXiv 1910.14659), equations 1 and 3.
    """
    if model.config.causal:
        raise ValueError(
            "this model reads only what comes before a token, so it has a perplexity; leave out the pseudo"
        )
    if tokenizer.mask_token is None:
        raise ValueError("pseudo-perplexity hides each token in turn, and this tokenizer has no token that marks a gap")
    check_ids([tokenizer.mask_token], tokenizer, model.config.vocab_size)
    context, _ = check_windows(model, context, None)
    begin, end = tokenizer.begin_of_text, tokenizer.end_of_text
    before, behind = [token for token in [begin] if token is not None], [end] if end not in (begin, None) else []
    if context <= len(before) + len(behind):
        raise ValueError(f"a context of {context} has no room for a token of the text; ask for more")
    count: Counter[str] = Counter()

    def windows() -> Iterator[np.ndarray]:
        rest, room = np.empty(0, np.int64), context - len(before) - len(behind)
        for ids, size in token_parts(tokenizer, _pieces(text)):
            count["bytes"] += size
            rest = np.concatenate([rest, ids])
            while len(rest) > room:
                yield rest[:room]
                rest = rest[room:]
        if len(rest):
            yield rest

    def hidden() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for window in windows():
            ids = check_ids(np.array([*before, *window, *behind]), tokenizer, model.config.vocab_size)
            places = len(before) + np.arange(len(window))
            for some in np.split(places, range(0, len(places), max(1, _TOKENS_AT_A_TIME // len(ids)))[1:]):
                rows = np.arange(len(some))
                shown, targets = np.tile(ids, (len(some), 1)), np.full((len(some), len(ids)), IGNORED)
                shown[rows, some], targets[rows, some] = tokenizer.mask_token, ids[some]
                yield ids[some], model.losses(shown, targets)[rows, some]

    nats, tokens = _sum(hidden(), report)
    if not tokens:
        raise ValueError("the text has no token to score")
    return Score(nats, tokens, count["bytes"])


def _pieces(text: str | Iterable[str]) -> Iterable[str]:
    return [text] if isinstance(text, str) else text


def _sum(
    scored: Iterable[tuple[np.ndarray, np.ndarray]], report: Callable[[np.ndarray], object] | None
) -> tuple[float, int]:
    """The sum of -log p of what `scored` yields, and the number of tokens."""
    nats, tokens = 0.0, 0
    for ids, losses in scored:
        nats += float(losses.sum(dtype=np.float64))
        tokens += len(ids)
        if report is not None:
            report(ids)
    return nats, tokens


def token_losses(model: Model, ids: ArrayLike, context: int | None = None, stride: int | None = None) -> np.ndarray:
    """-log p in nats of each token of ids (N,) after the first: (N - 1,), read in windows as by `perplexity`."""
    require_causal(model)
    windows = check_windows(model, context, stride)
    losses = [losses for _, losses in scored_tokens(model, [np.asarray(ids)], *windows)]
    return np.concatenate(losses) if losses else np.empty(0, model.dtype)


def scored_tokens(
    model: Model, parts: Iterable[np.ndarray], context: int, stride: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the tokens of a stream of ids after the first, in order, and their -log p: (n,), (n,), some at a time."""
    for ids, targets in window_batches(parts, context, stride, max(1, _TOKENS_AT_A_TIME // context)):
        wanted = targets != IGNORED
        yield targets[wanted], model.losses(ids, targets)[wanted]


def window_batches(
    parts: Iterable[np.ndarray], context: int, stride: int, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The windows of a stream of ids, given in parts: yields ids, targets (up to batch_size, context)

    Window w reads tokens w stride to w stride + context and predicts the token after each, IGNORED where the window
    before has done so. Windows of a batch are equally long: a shorter one, which can only be the last, comes alone, as
    a rotation can depend on the length. One part and one batch are held at a time.
    """
    rest, known, batch = np.empty(0, np.int64), 0, []  # known: how many of its targets a window need not predict
    for part in parts:
        rest = np.concatenate([rest, part])
        while len(rest) > context:
            batch.append(_window(rest[: context + 1], known))
            rest, known = rest[stride:], context - stride
            if len(batch) == batch_size:
                yield _stacked(batch)
                batch = []
    if batch:
        yield _stacked(batch)
    if len(rest) - 1 > known:
        yield _stacked([_window(rest, known)])


def _window(tokens: np.ndarray, known: int) -> tuple[np.ndarray, np.ndarray]:
    targets = tokens[1:].copy()
    targets[:known] = IGNORED
    return tokens[:-1], targets


def _stacked(windows: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    ids, targets = zip(*windows, strict=True)
    return np.stack(ids), np.stack(targets)


def token_parts(tokenizer: Tokenizer, pieces: Iterable[str]) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the ids of a text that comes in pieces, some at a time, and how many bytes of text they are."""
    marked = END_OF_TEXT in tokenizer.special_tokens
    for piece in pieces:
        for i, document in enumerate(piece.split(END_OF_TEXT) if marked else [piece]):
            ids = tokenizer.encode(document, special=False)
            if i:
                ids = np.concatenate([[tokenizer.special_tokens[END_OF_TEXT]], ids])
            yield ids, len(document.encode())


# Where a text can be cut without a change in its tokens: after a line break or before a blank, a single one between
# signs. No word of a tokenizer's pattern goes across such a place. (SentencePiece puts a blank before what it encodes:
# with it, each piece of a million bytes has one token more.)
_CUT = re.compile(r"(?<=\S)(?:\n(?=\S)|(?= \S))")


def read_pieces(path: str | os.PathLike, size: int = _BYTES_AT_A_TIME) -> Generator[str, None, None]:
    """Yield the text of a UTF-8 file in pieces of about `size` bytes, so that a file of any length can be read

    A path may be a pipe, and "-" is standard input. As in training data a byte order mark is left out and line ends are
    \\n. ValueError for an empty file, and for bytes that are not UTF-8; FileNotFoundError or IsADirectoryError where
    there is no file.
    """
    position, undecoded, text, line_end, pieces = 0, b"", "", "", 0
    with _opened(path) as file:
        while True:
            block = file.read(size)
            undecoded += block
            try:
                new, used = codecs.utf_8_decode(undecoded, "strict", not block)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} is not UTF-8: byte {undecoded[error.start]:#04x} at position {position + error.start}. "
                    f"Save it as UTF-8 (in most editors: Save with Encoding)"
                ) from error
            if position == 0:
                new = new.removeprefix("\ufeff")
            position, undecoded, new = position + used, undecoded[used:], line_end + new
            line_end = "\r" if block and new.endswith("\r") else ""  # its \n may be in the next block
            text += new[: len(new) - len(line_end)].replace("\r\n", "\n")
            cut = _last_cut(text) if block else len(text)
            if not cut and len(text) > 8 * size:
                cut = len(text)  # a text without blanks is cut anywhere
            if cut:
                yield text[:cut]
                pieces, text = pieces + 1, text[cut:]
            if not block:
                break
    if not pieces:
        raise ValueError(f"{path} is empty; there is nothing to score")


def _opened(path: str | os.PathLike) -> AbstractContextManager[BinaryIO]:
    """The file at a path, or standard input, from its beginning, as a context; what was not opened here stays open."""
    if str(path) == "-":
        if sys.stdin is None:
            raise ValueError("standard input is closed, so there is no text in it; name a file")
        return nullcontext(sys.stdin.buffer)
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {path}")
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a folder; name its files")
    file = open(path, "rb")
    if file.seekable():  # on macOS /dev/stdin begins where it was left
        file.seek(0)
    return file


def check_readable(paths: Sequence[str | os.PathLike]) -> Iterator[tuple[str | os.PathLike, int | None, Iterable[str]]]:
    """An iterator of (path, its size in bytes or None, the pieces of its text), once the beginning of each was read

    So a file that cannot be read is reported before another is scored. An ordinary file is opened again for that, as
    there may be more of them than can be open at once. A pipe cannot be: it goes on after the piece that was read.
    """
    texts = []
    for i, path in enumerate(paths):
        ordinary = Path(path).is_file() and str(path) != "-"
        if not ordinary and path in paths[:i]:
            raise ValueError(f"{path} is no file but a pipe, which can be read once; it is named twice")
        pieces = read_pieces(path)
        first = next(pieces)
        if ordinary:
            pieces.close()
        texts.append((path, None if ordinary else chain([first], pieces)))
    return (
        (path, Path(path).stat().st_size, read_pieces(path)) if pieces is None else (path, None, pieces)
        for path, pieces in texts
    )


def _last_cut(text: str) -> int:
    """The last place near the end of the text where it can be cut; 0 if there is none."""
    return max((match.end() for match in _CUT.finditer(text, max(0, len(text) - 2**12))), default=0)


def check_windows(model: Model, context: int | None, stride: int | None) -> tuple[int, int]:
    """context and stride, with their defaults, or ValueError."""
    longest = model.config.context
    context = min(longest, LONGEST_CONTEXT) if context is None else context
    if not 1 <= context <= longest:
        raise ValueError(f"context must lie in [1, {longest}], which this model was made for; received {context}")
    stride = max(1, context // 2) if stride is None else stride
    if not 1 <= stride <= context:
        raise ValueError(
            f"stride must lie in [1, {context}]: with more than the context, tokens between windows would be left "
            f"out; received {stride}"
        )
    return context, stride


def require_causal(model: Model) -> None:
    """ValueError for a model that reads what comes after a token."""
    if not model.config.causal:
        raise ValueError(
            f"perplexity multiplies the probabilities of each token after those before it; a model with the mask "
            f"{model.config.mask!r} reads what comes after a token too, and has no such probabilities. Compare it by "
            f"its loss on hidden tokens, or by pseudo-perplexity (--pseudo)"
        )


def table(scores: Iterable[tuple[str, Score]]) -> str:
    """The scores [(name, Score)], one a line under a head, and the sum where there are several."""
    rows: list[tuple[str, ...]] = [("", "tokens", "bytes", "perplexity", "a byte", "nats a token", "bits a byte")]
    named = list(scores)
    if len(named) > 1:
        named.append(("all", Score(*map(sum, zip(*(score for _, score in scores), strict=True)))))
    for name, score in named:
        numbers = score.perplexity, score.byte_perplexity, score.nats / score.tokens, score.bits_per_byte
        cells = [f"{number:,.4f}" for number in numbers]
        if not score.bytes:  # marks between documents alone
            cells[1] = cells[3] = "-"
        rows.append((name, f"{score.tokens:,}", f"{score.bytes:,}", *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join("  ".join(line) for line in lines)
