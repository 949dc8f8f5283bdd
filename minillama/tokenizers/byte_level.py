"""Byte-level byte-pair encoding, the tokenizer of GPT-2 and Llama 3."""

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain
from numbers import Integral

import numpy as np

from .base import END_OF_TEXT, Tokenizer, check_special, check_text, special_splitter
from .byte_symbols import BYTE_SYMBOLS, to_bytes, to_symbols
from .description import check_settings, field, pipeline, read_merge, read_vocab, split_step
from .merging import WordCache, learn_merges
from .patterns import DIGITS_PATTERN, check_pattern, compile_pattern


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding.

    vocab maps the bytes of each ordinary token to its id and holds all 256 single bytes; merges lists the
    pairs of ids to join, the first learned first; pattern is one of PATTERNS. ValueError if they do not fit
    together.
    """

    def __init__(
        self,
        vocab: Mapping[bytes, int],
        merges: Iterable[tuple[int, int]],
        special_tokens: Mapping[str, int],
        pattern: str = DIGITS_PATTERN,
    ):
        super().__init__(vocab, special_tokens)
        check_pattern(pattern)
        self.pattern = pattern
        self.merges = [(left, right) for left, right in merges]
        ordinary = {i: token for token, i in self.vocab.items()}
        try:
            self._byte_ids = [self.vocab[bytes([byte])] for byte in range(256)]
            self._merged_ids = [self.vocab[ordinary[left] + ordinary[right]] for left, right in self.merges]
        except KeyError as error:
            raise ValueError(
                f"there is no ordinary token {error.args[0]!r}; the vocabulary must hold every single byte, "
                "and both parts and the result of every merge"
            ) from None
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._words = WordCache(self._encode_word)

    @classmethod
    def train(
        cls,
        text_or_texts: str | Iterable[str],
        vocab_size: int,
        special_tokens: tuple[str, ...] = (END_OF_TEXT,),
        pattern: str = DIGITS_PATTERN,
    ) -> "BPETokenizer":
        """Learn a vocabulary from one text or several, none of which is joined to the next.

        Ids: the special tokens, the 256 bytes in the order of BYTE_SYMBOLS, then one per merge. Special
        tokens that stand in the text separate what is before from what is after, and nothing is learned from
        them. The merges are those of the tokenizers library's BpeTrainer for the same words. A text too short
        for vocab_size gives fewer merges: the result's vocab_size says how many ids there are.
        ValueError for no text, or for a vocab_size that does not hold the special tokens and the bytes.
        """
        check_special(special_tokens)
        smallest = len(special_tokens) + 256
        if not isinstance(vocab_size, Integral) or vocab_size < smallest:
            raise ValueError(
                f"vocab_size must be an integer of at least {smallest} (256 bytes and {len(special_tokens)} "
                f"special tokens), received {vocab_size!r}"
            )
        word_counts = _count_words(text_or_texts, special_tokens, pattern)
        first_byte_id = len(special_tokens)
        byte_ids = {byte: i for i, byte in enumerate(BYTE_SYMBOLS.values(), start=first_byte_id)}
        words = [[byte_ids[byte] for byte in word.encode()] for word in word_counts]
        merges = learn_merges(words, list(word_counts.values()), smallest, int(vocab_size) - smallest)

        tokens = {i: bytes([byte]) for byte, i in byte_ids.items()}
        for i, (left, right) in enumerate(merges, start=smallest):
            tokens[i] = tokens[left] + tokens[right]
        vocab = {token: i for i, token in tokens.items()}
        return cls(vocab, merges, {text: i for i, text in enumerate(special_tokens)}, pattern)

    def encode_bytes(self, data: bytes, special: bool = True) -> np.ndarray:
        """The ids of any bytes, int32 (T,); decode_bytes gives exactly the same bytes back.

        Stretches of valid UTF-8 are encoded as text; each byte between them becomes the token of that byte.
        TypeError for anything but bytes.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"encode_bytes takes bytes, received {type(data).__name__}; use encode for a str")
        pieces = re.split("([\udc80-\udcff]+)", data.decode("utf-8", errors="surrogateescape"))
        ids = [  # surrogateescape decodes an invalid byte to U+DC00 + byte; these are the odd pieces
            np.array([self._byte_ids[ord(character) - 0xDC00] for character in piece], dtype=np.int32)
            if i % 2
            else self.encode(piece, special)
            for i, piece in enumerate(pieces)
        ]
        return np.concatenate(ids)

    def _encode_plain(self, text: str) -> Iterable[int]:
        words = map(re.Match.group, compile_pattern(self.pattern).finditer(text))
        return chain.from_iterable(map(self._words.__getitem__, words))

    def _encode_word(self, word: str) -> list[int]:
        """Join neighbours until no merge applies: each time the merge learned first, at its leftmost place.

        The queue makes this O(n log n) in the word's length, so that a million spaces are no trap.
        """
        ids: list[int | None] = [self._byte_ids[byte] for byte in word.encode()]
        n = len(ids)
        before, after = list(range(-1, n - 1)), list(range(1, n + 1))  # the neighbours of each place in use
        queue: list[tuple[int, int]] = []  # (rank of the merge, place of its left part)

        def offer(place: int) -> None:
            if place >= 0 and after[place] < n:
                rank = self._ranks.get((ids[place], ids[after[place]]))
                if rank is not None:
                    heapq.heappush(queue, (rank, place))

        for place in range(n):
            offer(place)
        while queue:
            rank, place = heapq.heappop(queue)
            right = after[place]
            if right == n or (ids[place], ids[right]) != self.merges[rank]:
                continue  # one of the two was joined to something else since this was queued
            ids[place], ids[right] = self._merged_ids[rank], None
            after[place] = after[right]
            if after[right] < n:
                before[after[right]] = place
            offer(before[place])
            offer(place)
        return [i for i in ids if i is not None]

    def to_json(self) -> dict:
        """A BPE model over the printable BYTE_SYMBOLS, as GPT-2 and Llama 3 files have it."""
        special_ids = set(self.special_tokens.values())
        symbols = [t.decode() if i in special_ids else to_symbols(t) for i, t in enumerate(self._tokens)]
        to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {symbol: i for i, symbol in enumerate(symbols)},
            "merges": [[symbols[left], symbols[right]] for left, right in self.merges],
        }
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [split_step(self.pattern), to_bytes]}
        return pipeline(self.special_tokens, pre_tokenizer, decoder, model)

    @classmethod
    def from_json(cls, data: dict) -> "BPETokenizer":
        """The tokenizer that to_json described; ValueError for anything else."""
        vocab, special_tokens = read_vocab(data)
        merges = [read_merge(merge, vocab) for merge in field(data, "model.merges", list)]
        pattern = field(data, "pre_tokenizer.pretokenizers.0.pattern.Regex", str)
        tokenizer = cls({to_bytes(text): i for text, i in vocab.items()}, merges, special_tokens, pattern)
        check_settings(data, tokenizer.to_json())
        return tokenizer


def _count_words(texts: str | Iterable[str], special_tokens: tuple[str, ...], pattern: str) -> Counter[str]:
    """How often each word of the training text occurs; special tokens separate, and are not counted."""
    check_pattern(pattern)
    if not isinstance(texts, Iterable):
        raise TypeError(f"train takes a str or several, received {type(texts).__name__}; read files first")
    find_words = compile_pattern(pattern).finditer
    splitter = special_splitter(special_tokens)
    word_counts: Counter[str] = Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        check_text(text)
        for piece in splitter.split(text)[::2]:
            word_counts.update(map(re.Match.group, find_words(piece)))
    if not word_counts:
        raise ValueError("no text to train on: received no character outside special tokens; pass some")
    return word_counts
