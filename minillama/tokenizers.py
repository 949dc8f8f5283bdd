"""Text to token ids and back: single characters, or byte-level byte-pair encoding.

Byte-pair encoding (BPE) starts from single symbols and repeatedly joins the pair of neighbours that occurs
most often in the training text; encoding a new text replays those joins in the order they were learned
(Sennrich, Haddow, Birch 2016, "Neural Machine Translation of Rare Words with Subword Units", arXiv
1508.07909). GPT-2 made the symbols bytes, so that no text is ever unknown (Radford et al. 2019, section 2.2).
Llama 3 uses this kind; LLaMA 1 and 2 use BPE over characters, with bytes as a fallback, from SentencePiece.

Both classes save the tokenizer.json of Hugging Face's tokenizers library, which gives the same ids from it.
"""

import codecs
import heapq
import json
import os
import re
import reprlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, groupby
from numbers import Integral
from pathlib import Path

import numpy as np

from .files import write_text

END_OF_TEXT = "<|endoftext|>"
MASK = "<|mask|>"  # stands for a hidden token in masked language modelling

# How text is cut into words before BPE, which never merges across words. Alternatives, in the order they are
# tried: English contractions; letters, with one space before them; numbers; other signs, with one space
# before them; white space, but for its last character where a word follows; white space that is left.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same with every digit a word of its own, as in LLaMA (Touvron et al. 2023, section 2.1).
DIGITS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# A pattern is listed here once it is known to match every part of every text, as the tests try for each row.
PATTERNS = (DIGITS_PATTERN, GPT2_PATTERN)


class Tokenizer:
    """What the tokenizers share: ids to bytes, special tokens, files. Use CharTokenizer or BPETokenizer.

    vocab maps the bytes of each ordinary token to its id, special_tokens the text of each special token to
    its id; together the ids are 0 to vocab_size - 1, each once, or a ValueError says so.
    """

    def __init__(self, vocab: Mapping[bytes, int], special_tokens: Mapping[str, int]):
        _check_special(tuple(special_tokens))
        tokens = {i: token for token, i in vocab.items()}
        tokens |= {i: text.encode() for text, i in special_tokens.items()}
        if sorted(tokens) != list(range(len(vocab) + len(special_tokens))):
            raise ValueError(
                f"{len(vocab) + len(special_tokens)} tokens need the ids 0 to "
                f"{len(vocab) + len(special_tokens) - 1}, each once; received {reprlib.repr(sorted(tokens))}"
            )
        self.vocab = dict(vocab)
        self.special_tokens = dict(special_tokens)
        self._tokens = [tokens[i] for i in range(len(tokens))]
        self._splitter = _special_splitter(self.special_tokens)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self._tokens)

    @property
    def end_of_text(self) -> int | None:
        """The id of END_OF_TEXT, or None if the vocabulary has no such special token."""
        return self.special_tokens.get(END_OF_TEXT)

    @property
    def begin_of_text(self) -> int | None:
        """The id that goes before a text, or None: the end of the text before it, as in the training."""
        return self.end_of_text

    @property
    def mask_token(self) -> int | None:
        """The id of MASK, or None if the vocabulary has no such special token."""
        return self.special_tokens.get(MASK)

    def encode(self, text: str, special: bool = True) -> np.ndarray:
        """The ids of a text, int32 (T,). Nothing is stripped, added or normalised.

        special=True turns the text of a special token into its id; False treats it as plain text, which is
        what text from outside should get. TypeError for anything but a str; ValueError for a lone surrogate.
        """
        _check_text(text)
        pieces = self._splitter.split(text) if special else [text]
        ids: list[Iterable[int]] = []
        for i, piece in enumerate(pieces):  # split() puts what its group matched at the odd places
            ids.append([self.special_tokens[piece]] if i % 2 else self._encode_plain(piece))
        return np.fromiter(chain.from_iterable(ids), dtype=np.int32)

    def _encode_plain(self, text: str) -> Iterable[int]:
        raise NotImplementedError

    def decode_bytes(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The bytes that ids (T,) stand for, special tokens included; ValueError for an id out of range."""
        ids = np.asarray(ids)
        if ids.size == 0:
            return b""
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ValueError(
                f"ids must be a sequence of integers, received shape {ids.shape} and dtype {ids.dtype}; "
                "pass one row of ids at a time"
            )
        outside = (ids < 0) | (ids >= self.vocab_size)
        if outside.any():
            position = int(outside.argmax())
            raise ValueError(
                f"id {ids[position]} at position {position} is outside 0 to {self.vocab_size - 1}; "
                "were these ids made by another tokenizer?"
            )
        return b"".join(map(self._tokens.__getitem__, ids.tolist()))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text that ids (T,) stand for; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token; ValueError for an id out of range."""
        return self.decode_bytes([id])

    def stream(self) -> "TokenStream":
        """A decoder for ids that arrive one at a time, as in generation."""
        return TokenStream(self)

    def to_json(self) -> dict:
        """The contents of tokenizer.json."""
        raise NotImplementedError

    def save(self, folder: str | os.PathLike) -> None:
        """Write tokenizer.json and tokenizer_config.json into a folder, made if missing.

        load_tokenizer and transformers' AutoTokenizer.from_pretrained open the folder. Each file is replaced
        as a whole: a crash leaves the old one or the new one.
        """
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        if self.end_of_text is not None:
            config["eos_token"] = END_OF_TEXT
        for name, data in ("tokenizer.json", self.to_json()), ("tokenizer_config.json", config):
            write_text(Path(folder) / name, json.dumps(data, ensure_ascii=False, indent=2) + "\n")


class TokenStream:
    """Decodes ids one at a time, and holds back the bytes of a character that is not complete yet.

    All the pieces joined, finish() included, are the tokenizer's decode() of all the ids.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, id: int) -> str:
        """The text that this id completes, possibly empty; ValueError for an id out of range."""
        return self._decoder.decode(self._tokenizer.token_bytes(id))

    def finish(self) -> str:
        """What is left at the end: U+FFFD for an incomplete character, or nothing. The stream starts anew."""
        return self._decoder.decode(b"", final=True)


class CharTokenizer(Tokenizer):
    """One token per character: vocab maps each character, as UTF-8, to its id."""

    def __init__(self, vocab: Mapping[bytes, int], special_tokens: Mapping[str, int]):
        super().__init__(vocab, special_tokens)
        self._ids = {token.decode(): i for token, i in self.vocab.items()}
        for character in self._ids:
            if len(character) != 1:
                raise ValueError(f"tokens of a CharTokenizer are single characters, received {character!r}")

    @classmethod
    def train(cls, text: str, special_tokens: tuple[str, ...] = ()) -> "CharTokenizer":
        """The distinct characters of a text in the order of their code points, then the special tokens.

        Special tokens that stand in the text are not counted as characters of it. ValueError for no text.
        """
        _check_special(special_tokens)
        _check_text(text)
        characters = sorted(set().union(*_special_splitter(special_tokens).split(text)[::2]))
        if not characters:
            raise ValueError("no text to train on: received no character outside special tokens; pass some")
        return cls(
            {character.encode(): i for i, character in enumerate(characters)},
            {text: i for i, text in enumerate(special_tokens, start=len(characters))},
        )

    def encode(self, text: str, special: bool = True) -> np.ndarray:
        """As Tokenizer.encode, one id per character; ValueError for a character not in the vocabulary."""
        try:
            return super().encode(text, special)
        except KeyError:
            known = next(iter(self._ids))
            plain = self._splitter.sub(lambda m: known * len(m.group()), text) if special else text
            position = next(i for i, character in enumerate(plain) if character not in self._ids)
            raise ValueError(
                f"character {text[position]!r} (U+{ord(text[position]):04X}) at position {position} is not "
                f"among the {len(self._ids)} characters of this tokenizer; train it on text that has the "
                "character, remove the character, or use BPETokenizer, which encodes any text"
            ) from None

    def _encode_plain(self, text: str) -> Iterable[int]:
        return map(self._ids.__getitem__, text)

    def to_json(self) -> dict:
        """A WordLevel model whose words are single characters, line breaks included.

        The model's unknown token is a text that is in no vocabulary, so that the tokenizers library refuses
        an unknown character as this class does.
        """
        vocab = {token.decode(): i for i, token in enumerate(self._tokens)}
        model = {"type": "WordLevel", "vocab": vocab, "unk_token": ""}
        return _pipeline(self.special_tokens, _split_step(r"[\s\S]"), {"type": "Fuse"}, model)

    @classmethod
    def from_json(cls, data: dict) -> "CharTokenizer":
        """The tokenizer that to_json described; ValueError for anything else."""
        vocab, special_tokens = _read_vocab(data)
        tokenizer = cls({token.encode(): i for token, i in vocab.items()}, special_tokens)
        _check_settings(data, tokenizer.to_json())
        return tokenizer


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
        _check_pattern(pattern)
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
        self._words = _WordCache(self._encode_word)

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
        _check_special(special_tokens)
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
        symbols = [t.decode() if i in special_ids else _to_symbols(t) for i, t in enumerate(self._tokens)]
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
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [_split_step(self.pattern), to_bytes]}
        return _pipeline(self.special_tokens, pre_tokenizer, decoder, model)

    @classmethod
    def from_json(cls, data: dict) -> "BPETokenizer":
        """The tokenizer that to_json described; ValueError for anything else."""
        vocab, special_tokens = _read_vocab(data)
        merges = [_read_merge(merge, vocab) for merge in _field(data, "model.merges", list)]
        pattern = _field(data, "pre_tokenizer.pretokenizers.0.pattern.Regex", str)
        tokenizer = cls({_to_bytes(text): i for text, i in vocab.items()}, merges, special_tokens, pattern)
        _check_settings(data, tokenizer.to_json())
        return tokenizer


def _count_words(texts: str | Iterable[str], special_tokens: tuple[str, ...], pattern: str) -> Counter[str]:
    """How often each word of the training text occurs; special tokens separate, and are not counted."""
    _check_pattern(pattern)
    if not isinstance(texts, Iterable):
        raise TypeError(f"train takes a str or several, received {type(texts).__name__}; read files first")
    find_words = compile_pattern(pattern).finditer
    splitter = _special_splitter(special_tokens)
    word_counts: Counter[str] = Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        _check_text(text)
        for piece in splitter.split(text)[::2]:
            word_counts.update(map(re.Match.group, find_words(piece)))
    if not word_counts:
        raise ValueError("no text to train on: received no character outside special tokens; pass some")
    return word_counts


def learn_merges(
    words: list[list[int]], counts: Sequence[int], first_id: int, max_merges: int
) -> list[tuple[int, int]]:
    """At most max_merges BPE merges (Sennrich et al. 2016, algorithm 1): pairs of ids in the order learned.

    words are distinct sequences of ids, rewritten in place; counts says how often each occurs. A merge gets
    the next id from first_id on. The pair counted most often is merged; of equal ones the smallest pair of
    ids, as in the tokenizers library. "aaa" counts the pair (a, a) twice, and merging it leaves "aa" + "a".
    Two merges never spell the same token: as each is made everywhere, equal stretches are joined alike.

    Rewriting only the words that contain the pair, and correcting only the counts of the pairs around it,
    makes a merge cost what it changes. A count only falls once its pair is in the heap: what comes up with
    too high a count is put back with the right one, and what comes up with the right count is the maximum.
    """
    pair_counts: Counter[tuple[int, int]] = Counter()
    words_with: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for w, word in enumerate(words):
        for pair in zip(word, word[1:], strict=False):
            pair_counts[pair] += counts[w]
            words_with[pair].add(w)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)

    merges: list[tuple[int, int]] = []
    while heap and len(merges) < max_merges:
        negative_count, pair = heapq.heappop(heap)
        if -negative_count != pair_counts[pair]:
            if pair_counts[pair]:
                heapq.heappush(heap, (-pair_counts[pair], pair))
            continue
        new_id = first_id + len(merges)
        merges.append(pair)
        new_pairs = set()
        for w in words_with.pop(pair):
            words[w], lost, gained = _merge_pair(words[w], pair, new_id)
            for old in lost:
                pair_counts[old] -= counts[w]
            for new in gained:
                pair_counts[new] += counts[w]
                words_with[new].add(w)
            new_pairs.update(gained)
        for new in new_pairs:
            if pair_counts[new]:
                heapq.heappush(heap, (-pair_counts[new], new))
    return merges


def _merge_pair(word: list[int], pair: tuple[int, int], new_id: int) -> tuple[list[int], list, list]:
    """The word with the pair joined from left to right; the pairs beside it that are lost and gained."""
    merged: list[int] = []
    lost, gained = [], []
    left, right = pair
    i = 0
    while i < len(word):
        if word[i] == left and i + 1 < len(word) and word[i + 1] == right:
            if merged:
                lost.append((merged[-1], left))
                gained.append((merged[-1], new_id))
            if i + 2 < len(word):
                lost.append((right, word[i + 2]))
                gained.append((new_id, word[i + 2]))
            merged.append(new_id)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged, lost, gained


class _WordCache(dict):
    """word -> its ids, computed when first asked for. Text repeats its words: most are found here."""

    MAX_WORDS = 1 << 16
    MAX_LENGTH = 64  # in characters; longer words are rare and would make the bound above a loose one

    def __init__(self, encode_word):
        super().__init__()
        self.encode_word = encode_word

    def __missing__(self, word: str) -> list[int]:
        ids = self.encode_word(word)
        if len(word) <= self.MAX_LENGTH:
            if len(self) >= self.MAX_WORDS:
                self.clear()
            self[word] = ids
        return ids


def _byte_symbols() -> dict[str, int]:
    """GPT-2's character for each byte: its own if printable Latin-1, else the next one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


# character -> byte, in the order of the characters' code points; files show bytes in this way
BYTE_SYMBOLS = _byte_symbols()
_SYMBOL_OF_BYTE = {byte: symbol for symbol, byte in BYTE_SYMBOLS.items()}


def _to_symbols(token: bytes) -> str:
    return "".join(map(_SYMBOL_OF_BYTE.__getitem__, token))


def _to_bytes(symbols: str) -> bytes:
    try:
        return bytes(map(BYTE_SYMBOLS.__getitem__, symbols))
    except KeyError as error:
        character = error.args[0]
        raise _refusal(f"model.vocab has {symbols!r}, but {character!r} stands for no byte") from None


@lru_cache(maxsize=1)
def _character_classes() -> dict[str, str]:
    r"""What \p{L}, \p{N} and \s stand for inside [] of Python's re: ranges of characters.

    Letters and numbers are those of this Python's Unicode version: characters younger than it count as signs.
    White space is the White_Space property, which unicodedata lacks and which has not changed since Unicode
    6.3; Python's own \s has U+001C to U+001F too.
    """
    ranges: dict[str, list[str]] = defaultdict(list)
    code_points = range(0x40000)  # the planes from 4 on have no letters and no numbers
    for kind, run in groupby(code_points, key=lambda code: unicodedata.category(chr(code))[0]):
        first, *rest = run
        ranges[kind].append(f"\\U{first:08x}-\\U{(rest[-1] if rest else first):08x}")
    white_space = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    return {r"\p{L}": "".join(ranges["L"]), r"\p{N}": "".join(ranges["N"]), r"\s": white_space}


@lru_cache(maxsize=len(PATTERNS))
def compile_pattern(pattern: str) -> re.Pattern:
    r"""One of PATTERNS for Python's re, with \p{L}, \p{N}, \s and \S as the tokenizers library means them."""
    classes = _character_classes()

    def in_python(match: re.Match) -> str:
        found = match.group()
        if found == r"\S":
            return "[^" + classes[r"\s"] + "]"
        if found in classes:
            return "[" + classes[found] + "]"
        return re.sub(r"\\p\{[LN]\}|\\s", lambda inner: classes[inner.group()], found)

    return re.compile(re.sub(r"\[[^]]*\]|\\p\{[LN]\}|\\[sS]", in_python, pattern))


def _check_pattern(pattern: str) -> None:
    if pattern not in PATTERNS:
        raise ValueError(f"pre-tokenization pattern {pattern!r} is not supported, choose from {PATTERNS}")


def _special_splitter(special_tokens: Iterable[str]) -> re.Pattern:
    """A regex whose one group matches special tokens: the leftmost, and of those the longest."""
    longest_first = sorted(special_tokens, key=len, reverse=True)
    return re.compile("(" + ("|".join(map(re.escape, longest_first)) or "(?!)") + ")")  # (?!) never matches


def _check_text(text: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, received {type(text).__name__}; decode bytes first")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text has a lone surrogate, {text[error.start]!r}, at position {error.start}, which is no "
            "character; read files with encoding='utf-8', or give their bytes to BPETokenizer.encode_bytes"
        ) from None


def _check_special(special_tokens: tuple[str, ...]) -> None:
    if isinstance(special_tokens, str):
        raise TypeError(f"special_tokens must be a tuple of str, received {special_tokens!r}; add a comma")
    for text in special_tokens:
        _check_text(text)
        if len(text) < 2 or (not text.isascii() and BYTE_SYMBOLS.keys() >= set(text)):
            raise ValueError(
                f"special token {text!r} can be taken for a character of plain text, or for bytes as "
                f"tokenizer.json shows them; write it in two or more ASCII characters, like {END_OF_TEXT!r}"
            )
    if len(set(special_tokens)) != len(special_tokens):
        raise ValueError(f"special_tokens must differ from each other, received {special_tokens!r}")


def _refusal(reason: str) -> ValueError:
    remedy = "use a tokenizer saved by minillama, or open this one with the tokenizers library"
    return ValueError(f"{reason}; {remedy}")


_TEXT_ALONE = [{"Sequence": {"id": "A", "type_id": 0}}]


def _split_step(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _pipeline(special_tokens: Mapping[str, int], pre_tokenizer: dict, decoder: dict, model: dict) -> dict:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    by_id = sorted(special_tokens.items(), key=lambda item: item[1])
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **flags} for text, i in by_id],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def _field(data, path: str, kind: type):
    """The value at a dotted path of parsed JSON; ValueError unless it is there and of this kind."""
    value = data
    for key in path.split("."):
        if isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            value = value.get(key) if isinstance(value, dict) else None
    if type(value) is not kind:
        raise _refusal(f"{path} is {reprlib.repr(value)}, expected: {kind.__name__}")
    return value


def _read_vocab(data: dict) -> tuple[dict[str, int], dict[str, int]]:
    """The ordinary and the special tokens of a tokenizer.json, each text -> id."""
    added = _field(data, "added_tokens", list)
    special_tokens = {_field(token, "content", str): _field(token, "id", int) for token in added}
    vocab = dict(_field(data, "model.vocab", dict))
    for text, i in vocab.items():
        _check_text(text)
        if type(i) is not int or special_tokens.get(text, i) != i:
            expected = special_tokens.get(text, "an int")
            raise _refusal(f"model.vocab gives {text!r} the id {reprlib.repr(i)}, expected {expected}")
    return {text: i for text, i in vocab.items() if text not in special_tokens}, special_tokens


def _read_merge(merge, vocab: Mapping[str, int]) -> tuple[int, int]:
    """The ids of a merge, which is ["a", "b"] or, in older files, "a b"."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if isinstance(parts, list) and len(parts) == 2 and all(type(p) is str and p in vocab for p in parts):
        return vocab[parts[0]], vocab[parts[1]]
    raise _refusal(f"model.merges has {reprlib.repr(merge)}, expected two ordinary tokens of model.vocab")


def _check_settings(found, expected, path: str = "") -> None:
    """Compare a file with what its tokenizer writes: a setting that differs is one it would not follow.

    A setting that is missing, null, false or empty is off.
    """
    if path in (".model.vocab", ".model.merges"):
        return  # read before, in whichever of their forms
    if path == ".post_processor" and isinstance(found, dict) and found.get("single") == _TEXT_ALONE:
        return  # transformers writes this template, which adds nothing to a text
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            _check_settings(found.get(key), expected.get(key), f"{path}.{key}")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            _check_settings(one, other, f"{path}.{i}")
    elif (found or None) != (expected or None):
        raise _refusal(f"{path[1:]} is {reprlib.repr(found)}, supported: {reprlib.repr(expected)}")


# (model.type, decoder.type) of a tokenizer.json -> the class that reads it
_READERS = {
    ("WordLevel", "Fuse"): CharTokenizer,
    ("BPE", "ByteLevel"): BPETokenizer,
}


def load_tokenizer(path: str | os.PathLike) -> CharTokenizer | BPETokenizer:
    """The tokenizer of a tokenizer.json, or of a folder that has one.

    FileNotFoundError if there is none; ValueError, with the file's name, if it is not complete JSON or asks
    for something that no class here does.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; pass a tokenizer.json, or a folder that save() wrote into")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not complete JSON in UTF-8 ({error}); save or fetch it again") from error
    try:
        kind = _field(data, "model.type", str), _field(data, "decoder.type", str)
        if kind not in _READERS:
            supported = ", ".join(f"{model} with {decoder}" for model, decoder in _READERS)
            raise _refusal(f"it has a {kind[0]} model with a {kind[1]} decoder, supported: {supported}")
        return _READERS[kind].from_json(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
