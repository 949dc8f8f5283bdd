"""Look inside: what a model computes on the way from a text to its logits, as arrays.

    seen = trace(model, ids)              one forward: attention maps, and the residual stream after each layer
    seen.attention                        (L, H, T, T), row i of a map: what position i reads, in shares of 1
    seen.norms                            (2 L + 1, T), the length of the stream at each position
    logit_lens(model, seen)               (L + 1, T, V), what the model would say if it stopped after each block
    top_tokens(model, seen, 5)            the likeliest tokens there, and their probabilities

The forward is the model's own, which shows its blocks to `trace` (`Model.observe`); nothing is computed a second time
but the attention maps, which no kernel keeps. `minillama.analysis.plots` draws all of it.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..config import Config
from ..layers.attention import attention_maps
from ..model import Model
from ..runtime.shards import Shard
from ..tokenizers import Tokenizer
from ..tokenizers.vocabulary import check_ids


class Trace(NamedTuple):
    """What one forward of a text of T tokens showed

    ids (T,). streams (2 L + 1, T, C): the residual stream after the embedding, and in turn after the attention and the
    feed-forward of each block. attention (number of `layers`, H, T, T): the maps of these layers, numbered from 0 as
    the blocks of `model.parameters` are. Of a model that normalises after its layers (BERT) the stream is what comes
    out of the norm.
    """

    ids: np.ndarray
    streams: np.ndarray
    attention: np.ndarray
    layers: tuple[int, ...]

    @property
    def norms(self) -> np.ndarray:
        """|x| of the stream at each place and position: float64 (2 L + 1, T)."""
        return np.sqrt(np.square(self.streams, dtype=np.float64).sum(axis=-1))

    @property
    def after_blocks(self) -> np.ndarray:
        """The stream after the embedding and after each whole block (L + 1, T, C)."""
        return self.streams[::2]


def trace(model: Model, ids: ArrayLike, types: ArrayLike | None = None, layers: Iterable[int] | None = None) -> Trace:
    """Compute the text ids (T,) with the model and return the Trace

    types (T,): kinds of the tokens, in a model that has them. layers: the numbers of the layers whose attention maps
    are wanted, each H T T numbers (default: all). ValueError for a layer that there is not.
    """
    config, ids = model.config, np.asarray(ids)
    if ids.ndim != 1:
        raise ValueError(f"trace takes the ids of one text, (T,); received the shape {ids.shape}")
    layers = tuple(range(config.layers)) if layers is None else tuple(layers)
    for layer in layers:
        if layer not in range(config.layers):
            raise ValueError(f"this model has the layers 0 to {config.layers - 1}; received {layer}")
    T = len(ids)
    streams = np.empty((2 * config.layers + 1, T, config.dim), model.dtype)
    maps = np.empty((len(layers), config.heads, T, T), model.dtype)

    def see(op: Any, shard: Shard, i: int, x: np.ndarray, saved: Any) -> None:
        streams[2 * i + 2, shard.rows] = x
        if saved is None:
            return
        streams[2 * i + 1, shard.rows] = saved.between
        if i in layers:
            for task, p in attention_maps(op, shard, saved.attention):
                maps[layers.index(i), task.heads] = p[0]

    model.observe(see, ids[None], None if types is None else np.asarray(types)[None])
    return Trace(ids, streams, maps, layers)


def logit_lens(model: Model, seen: Trace) -> np.ndarray:
    """The stream after the embedding and after each block, read as if it were the last: logits (L + 1, T, V)

    Each goes through what follows the last block: the final norm (where there is one), the head, the output matrix. The
    last row is `model.logits`. These are (L + 1) T V numbers; `top_tokens` holds T V of them at a time.
    Source: nostalgebraist 2020, "interpreting GPT: the logit lens" (LessWrong).
    """
    return np.stack([model.logits_of_stream(x[None])[0] for x in seen.after_blocks])


def top_tokens(model: Model, seen: Trace, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` likeliest tokens of the logit lens, the likeliest first: ids and probabilities (L + 1, T, count)."""
    V = model.config.vocab_size
    if not 1 <= count <= V:
        raise ValueError(f"count must lie in [1, {V}], the tokens that there are; received {count}")
    tokens, probabilities = [], []
    for x in seen.after_blocks:
        logits = model.logits_of_stream(x[None])[0]
        best = np.argpartition(logits, V - count, axis=-1)[:, V - count :]  # in any order; sorting all V would be slow
        values = np.take_along_axis(logits, best, axis=-1)
        order = np.argsort(-values, axis=-1, kind="stable")
        best, values = (np.take_along_axis(array, order, axis=-1) for array in (best, values))
        largest = values[:, :1]
        tokens.append(best)
        probabilities.append(np.exp(values - largest) / np.exp(logits - largest).sum(axis=-1, keepdims=True))
    return np.stack(tokens), np.stack(probabilities)


def lens_table(model: Model, tokenizer: Tokenizer, seen: Trace, position: int, count: int) -> str:
    """The `count` likeliest tokens after the embedding and each layer at one position, a line each, as text."""
    tokens, probabilities = (array[:, position] for array in top_tokens(model, seen, count))
    lines = [f"the likeliest tokens at {token_labels(tokenizer, seen.ids[[position]])[0]}, position {position}, after"]
    for i, (row, shares) in enumerate(zip(tokens, probabilities, strict=True)):
        cells = [f"{label} {share:.1%}" for label, share in zip(token_labels(tokenizer, row), shares, strict=True)]
        lines.append(f"{'layer ' + str(i - 1) if i else 'embedding':<10}" + "".join(f"  {cell:<19}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def place_names(config: Config) -> list[str]:
    """What the 2 L + 1 rows of Trace.streams and Trace.norms come after."""
    return ["embedding", *(f"{i} {layer}" for i in range(config.layers) for layer in ("attention", "feed-forward"))]


def prompt_ids(model: Model, tokenizer: Tokenizer, text: str) -> np.ndarray:
    """The ids of a text as the model is used to them; special tokens in it count as such

    begin_of_text stands before it, and end_of_text after it in a model that reads a text as a whole (BERT's [SEP]),
    where that is another token. ValueError for no token, for more than the model's context, and for a token that the
    model does not have.
    """
    ids = [int(i) for i in tokenizer.encode(text)]
    if tokenizer.begin_of_text is not None:
        ids = [tokenizer.begin_of_text, *ids]
    if not model.config.causal and tokenizer.end_of_text not in (tokenizer.begin_of_text, None):
        ids.append(tokenizer.end_of_text)
    if not ids:
        raise ValueError("the prompt is empty, and this tokenizer has no token that a text begins with; give a prompt")
    if len(ids) > model.config.context:
        raise ValueError(
            f"a prompt of {len(ids)} tokens does not fit this model's context of {model.config.context}; shorten it"
        )
    return np.array(check_ids(ids, tokenizer, model.config.vocab_size))


def token_labels(tokenizer: Tokenizer, ids: Iterable[int], longest: int = 13) -> list[str]:
    """Each token as a line can show it: blanks and line breaks as signs, bytes that are no text in hexadecimal

    An id beyond the tokenizer's, of a row that fills the model's matrices up, is shown by its number.
    """
    known = tokenizer.vocab_size
    return [_label(tokenizer.token_bytes(int(i)), longest) if 0 <= i < known else f"id {i}" for i in ids]


def drawn(folder: str | os.PathLike, layers: Iterable[int]) -> list[Path]:
    """The paths that `draw` writes to: logit-lens.png, stream-norms.png, and attention-layer-N.png of each layer N."""
    return [
        Path(folder) / f"{name}.png"
        for name in ("logit-lens", "stream-norms", *map("attention-layer-{}".format, layers))
    ]


def draw(model: Model, tokenizer: Tokenizer, seen: Trace, folder: str | os.PathLike, positions: int = 16) -> list[Path]:
    """Draw the maps of `seen.layers`, the norms, and the logit lens of the last positions; returns the PNGs' paths."""
    from . import plots

    (lens, norms, *of_layers), ids = drawn(folder, seen.layers), seen.ids
    labels = token_labels(tokenizer, ids)
    end = slice(max(0, len(ids) - positions), None)
    tokens, probabilities = (array[:, end, 0] for array in top_tokens(model, seen, 1))
    best = [token_labels(tokenizer, row) for row in tokens]
    following = right = None
    if model.config.causal and len(ids) > 1:
        following = [*labels[end][1:], ""]
        right = tokens == [*ids[end][1:], -1]
    shown = labels[end], lens
    paths = [plots.logit_lens(best, probabilities, *shown, following, right, "the likeliest token after each layer")]
    paths.append(plots.stream_norms(seen.norms, labels, norms))
    for layer, maps, path in zip(seen.layers, seen.attention, of_layers, strict=True):
        paths.append(plots.attention_maps(maps, labels, path, f"attention of layer {layer}"))
    return paths


_SIGNS = {" ": "␣", "\n": "↵", "\t": "→", "\r": "←"}


def _label(token: bytes, longest: int) -> str:
    text = token.decode("utf-8", errors="backslashreplace")
    text = "".join(_SIGNS.get(c, c) if c in _SIGNS or c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"
