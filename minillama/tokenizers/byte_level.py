"""Byte-level byte-pair encoding, the tokenizer of GPT-2 and Llama 3."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from numbers import Integral

import numpy as np

from .added import AddedToken
from .base import END_OF_TEXT, Tokenizer, check_special, check_text, plain_parts
from .byte_symbols import BYTE_SYMBOLS, to_bytes, to_symbols
from .description import (
    check_settings,
    field,
    pipeline,
    read_added_tokens,
    read_merge,
    read_post_processor,
    read_vocab,
    refusal,
    sequence,
    split_step,
    step_settings,
)
from .merging import WordCache, learn_merges, merge
from .patterns import (
    BEFORE_SPACE,
    DIGIT_CUTS,
    DIGITS_PATTERN,
    GPT2_PATTERN,
    JOINTS,
    LLAMA3_JOINTS,
    LLAMA3_PATTERN,
    PATTERNS,
    check_pattern,
    compile_pattern,
)

_PREFIX = "prefix"  # a step of cutting: a space before every word that has none


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding.

    vocab maps the bytes of each ordinary token to its id; merges lists the pairs of ids to join, the first learned
    first; pattern is one of PATTERNS. A vocabulary should hold all 256 single bytes: one that it lacks is left out of
    a text, as the tokenizers library does (SmolLM's lacks some that few texts have). ValueError if they do not fit
    together.

    pre_tokenizer is how files describe the cutting into words, where it is more than a pattern. With ignore_merges a
    word that is a token as a whole is that token, whether merges lead to it or not; with merge_by_token the merge
    goes first that makes the token with the smallest id, which is its rank. Llama 3's tokenizer has both.
    """

    def __init__(
        self,
        vocab: Mapping[bytes, int],
        merges: Iterable[tuple[int, int]],
        special_tokens: Mapping[str, int],
        pattern: str = DIGITS_PATTERN,
        *,
        added: Iterable[AddedToken] = (),
        template: tuple[str | None, str | None] = (None, None),
        pre_tokenizer: dict | None = None,
        ignore_merges: bool = False,
        merge_by_token: bool = False,
        gaps: bool = False,
    ):
        super().__init__(((i, token) for token, i in vocab.items()), special_tokens, added, template, gaps)
        check_pattern(pattern)
        self.vocab = dict(vocab)
        self.merges = [(left, right) for left, right in merges]
        self.ignore_merges = ignore_merges
        self.pre_tokenizer = pre_tokenizer or _cut_by(pattern)
        self._steps = _read_steps(self.pre_tokenizer)
        ordinary = {i: token for token, i in self.vocab.items()}
        try:
            joined = [self.vocab[ordinary[left] + ordinary[right]] for left, right in self.merges]
        except KeyError as error:
            raise ValueError(
                f"there is no ordinary token {error.args[0]!r}; the vocabulary must hold both parts and the result of "
                "every merge"
            ) from None
        self._byte_ids = [self.vocab.get(bytes([byte])) for byte in range(256)]
        priorities = joined if merge_by_token else range(len(joined))
        self._merges = dict(zip(self.merges, zip(priorities, joined, strict=True), strict=True))
        self._words = WordCache(self._encode_word)

    @classmethod
    def from_tokens(
        cls,
        tokens: Mapping[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: Iterable[str] = (),
        pattern: str = GPT2_PATTERN,
    ) -> "BPETokenizer":
        """The tokenizer of {id: bytes} and of the merges as pairs of bytes, the first learned first

        A special token has the id that its bytes have among the tokens; those that are not there get the next ids after
        the largest, in their order. Ids may have gaps: what is saved as tokenizer.json must have none. ValueError for
        a merge whose parts, or what it makes, are not among the tokens; TypeError for what is no bytes.
        """
        ids: dict[bytes, int] = {}
        for i, token in tokens.items():
            if not isinstance(token, bytes):
                raise TypeError(f"tokens must be {{id: bytes}}; received {{{i!r}: {token!r}}}")
            if ids.setdefault(token, i) != i:
                raise ValueError(f"the token {token!r} has the ids {ids[token]} and {i}; it needs one")
        special, following = {}, max(ids.values(), default=-1) + 1
        special_tokens = special_tokens if isinstance(special_tokens, str) else tuple(special_tokens)
        check_special(special_tokens)
        for text in special_tokens:
            if text.encode() in ids:
                special[text] = ids.pop(text.encode())
            else:
                special[text], following = following, following + 1
        pairs = []
        for left, right in map(_checked_pair, merges):
            missing = [token for token in (left, right) if token not in ids]
            if missing:
                raise ValueError(f"a merge is of {left!r} and {right!r}, but {missing[0]!r} is no ordinary token")
            pairs.append((ids[left], ids[right]))
        return cls(ids, pairs, special, pattern, gaps=True)

    @classmethod
    def train(
        cls,
        text_or_texts: str | Iterable[str],
        vocab_size: int,
        special_tokens: tuple[str, ...] = (END_OF_TEXT,),
        pattern: str = DIGITS_PATTERN,
        ties: str = "oldest",
    ) -> "BPETokenizer":
        """Learn a vocabulary from one text or several, none of which is joined to the next.

        Ids: the special tokens, the 256 bytes in the order of BYTE_SYMBOLS, then one per merge. Special
        tokens that stand in the text separate what is before from what is after, and nothing is learned from
        them. The merges are those of the tokenizers library's BpeTrainer for the same words. A text too short
        for vocab_size gives fewer merges: the result's vocab_size says how many ids there are.

        ties says which pair is merged of those that occur equally often: "oldest" the one whose parts have the smallest
        ids, as in the library; "greatest" the last one in the order of the parts' bytes, as Stanford's course CS336
        has it (together with GPT2_PATTERN).

        ValueError for no text, or for a vocab_size that does not hold the special tokens and the bytes.
        """
        check_special(special_tokens)
        smallest = len(special_tokens) + 256
        if not isinstance(vocab_size, Integral) or vocab_size < smallest:
            raise ValueError(
                f"vocab_size must be an integer of at least {smallest} (256 bytes and {len(special_tokens)} "
                f"special tokens), received {vocab_size!r}"
            )
        if ties not in ("oldest", "greatest"):
            raise ValueError(f'ties must be "oldest" or "greatest", received {ties!r}')
        word_counts = _count_words(text_or_texts, special_tokens, pattern)
        first_byte_id = len(special_tokens)
        byte_ids = {byte: i for i, byte in enumerate(BYTE_SYMBOLS.values(), start=first_byte_id)}
        words = [[byte_ids[byte] for byte in word.encode()] for word in word_counts]
        tokens = {i: bytes([byte]) for byte, i in byte_ids.items()}
        by_bytes = tokens if ties == "greatest" else None
        merges = learn_merges(words, list(word_counts.values()), smallest, int(vocab_size) - smallest, by_bytes)
        for i, (left, right) in enumerate(merges, start=smallest):
            tokens[i] = tokens[left] + tokens[right]
        vocab = {token: i for i, token in tokens.items()}
        return cls(vocab, merges, {text: i for i, text in enumerate(special_tokens)}, pattern)

    def encode_bytes(self, data: bytes, special: bool | Collection[str] = True) -> np.ndarray:
        """The ids of any bytes, int32 (T,); decode_bytes gives exactly the same bytes back.

        Stretches of valid UTF-8 are encoded as text; each byte between them becomes the token of that byte.
        TypeError for anything but bytes; ValueError for a byte that the vocabulary lacks.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"encode_bytes takes bytes, received {type(data).__name__}; use encode for a str")
        missing = [byte for byte in set(data) if self._byte_ids[byte] is None]
        if missing:
            raise ValueError(f"this vocabulary has no token for the bytes {missing}; encode the text without them")
        pieces = re.split("([\udc80-\udcff]+)", data.decode("utf-8", errors="surrogateescape"))
        ids = [  # surrogateescape decodes an invalid byte to U+DC00 + byte; these are the odd pieces
            np.array([self._byte_ids[ord(character) - 0xDC00] for character in piece], dtype=np.int32)
            if i % 2
            else self.encode(piece, special)
            for i, piece in enumerate(pieces)
        ]
        return np.concatenate(ids)

    def _joints(self) -> re.Pattern | None:
        """Where letters or numbers end, and before white space, which no word but one of Llama 3's goes on with."""
        if not any(step in PATTERNS for step in self._steps):
            return None
        if _PREFIX in self._steps:  # a word that begins with a space gets none
            return compile_pattern(BEFORE_SPACE)
        return compile_pattern(LLAMA3_JOINTS if LLAMA3_PATTERN in self._steps else JOINTS)

    def _encode_plain(self, text: str, at_start: bool, goes_on: bool) -> Iterable[int]:
        words: Iterable[str] = [text]
        for step in self._steps:
            if step is _PREFIX:
                words = [word if word.startswith(" ") else " " + word for word in words]
            else:
                words = chain.from_iterable(map(compile_pattern(step).findall, words))
        return chain.from_iterable(map(self._words.__getitem__, words))

    def _encode_word(self, word: str) -> list[int]:
        data = word.encode()
        if self.ignore_merges and data in self.vocab:
            return [self.vocab[data]]
        ids = map(self._byte_ids.__getitem__, data)
        return merge([i for i in ids if i is not None], self._merges)

    def to_json(self) -> dict:
        """A BPE model over the printable BYTE_SYMBOLS, as GPT-2 and Llama 3 files have it."""
        if self.has_gaps:
            gap = next(i for i in range(self.vocab_size) if i not in self._tokens)
            raise ValueError(
                f"the id {gap} stands for no token, and tokenizer.json must have the ids 0 to {self.vocab_size - 1}, "
                f"each once; give what is missing to special tokens, such as '<|unused {gap}|>'"
            )
        added = {token.id: token.text for token in self.added_tokens}
        symbols = [added[i] if i in added else to_symbols(token) for i, token in self._tokens.items()]
        vocab = {symbol: i for i, symbol in enumerate(symbols)}
        if len(vocab) < len(symbols):
            same = next(symbol for i, symbol in enumerate(symbols) if vocab[symbol] != i)
            raise ValueError(f"an added token and an ordinary one are both written {same!r} in tokenizer.json")
        decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": self.ignore_merges,
            "vocab": vocab,
            "merges": [[symbols[left], symbols[right]] for left, right in self.merges],
        }
        return pipeline(self, model, decoder, self.pre_tokenizer)

    @classmethod
    def from_json(cls, data: dict) -> "BPETokenizer":
        """The tokenizer of a file like those of GPT-2, Llama 3 and SmolLM, or that to_json wrote

        ValueError for a file that asks for anything else.
        """
        added = read_added_tokens(data)
        symbols = read_vocab(data, added)
        merges = [read_merge(merge, symbols) for merge in field(data, "model.merges", list)]
        vocab = {to_bytes(text): i for text, i in symbols.items()}
        unknown = field(data, "model", dict).get("unk_token")
        if unknown is not None and any(bytes([byte]) not in vocab for byte in range(256)):
            raise refusal(f"model.unk_token is {unknown!r}, which is supported only where every byte has a token")
        step_settings(data.get("decoder"), "decoder", {"ByteLevel": _BYTE_LEVEL})
        tokenizer = cls(
            vocab,
            merges,
            {},
            added=added,
            template=read_post_processor(data, added),
            pre_tokenizer=field(data, "pre_tokenizer", dict),
            ignore_merges=data["model"].get("ignore_merges") is True,
        )
        check_settings(data, tokenizer.to_json(), (".decoder", ".pre_tokenizer", ".model.unk_token"))
        return tokenizer


_BYTE_LEVEL = {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}
_CUTS: dict[str, Mapping[str, object]] = {
    "Split": {"pattern": {}, "behavior": "", "invert": False},
    "Digits": {"individual_digits": False},
    "ByteLevel": _BYTE_LEVEL,
}


def _cut_by(pattern: str) -> dict:
    """Cutting by one pattern, as tokenizer.json describes it."""
    to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split_step(pattern), to_bytes]}


def _read_steps(pre_tokenizer: dict) -> list[str]:
    """The steps of cutting a text into words, one after the other: patterns to find all of, and _PREFIX."""
    steps, kinds = [], []
    for path, step in sequence(pre_tokenizer, "pre_tokenizer", "pretokenizers"):
        settings = step_settings(step, path, _CUTS)
        kinds.append(settings["type"])
        if kinds[-1] == "Split":
            if settings["behavior"] != "Isolated" or settings["invert"]:
                raise refusal(f"{path} is {step!r}, supported: behavior Isolated, not inverted")
            if settings["pattern"].keys() != {"Regex"}:
                raise refusal(f"{path}.pattern is {settings['pattern']!r}, supported: a Regex")
            check_pattern(settings["pattern"]["Regex"])
            steps.append(settings["pattern"]["Regex"])
        elif kinds[-1] == "Digits":
            steps.append(DIGIT_CUTS[settings["individual_digits"]])
        else:
            steps += [_PREFIX] * settings["add_prefix_space"] + [GPT2_PATTERN] * settings["use_regex"]
    if kinds.count("ByteLevel") != 1 or kinds[-1] != "ByteLevel":
        raise refusal(f"pre_tokenizer has the steps {kinds}, supported: those that end with the only ByteLevel")
    return steps


def _count_words(texts: str | Iterable[str], special_tokens: tuple[str, ...], pattern: str) -> Counter[str]:
    """How often each word of the training text occurs; special tokens separate, and are not counted."""
    check_pattern(pattern)
    if not isinstance(texts, Iterable):
        raise TypeError(f"train takes a str or several, received {type(texts).__name__}; read files first")
    find_words = compile_pattern(pattern).findall
    word_counts: Counter[str] = Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        check_text(text)
        for piece in plain_parts(text, special_tokens):
            word_counts.update(find_words(piece))
    if not word_counts:
        raise ValueError("no text to train on: received no character outside special tokens; pass some")
    return word_counts


def _checked_pair(merge):
    """The merge, or TypeError where it is no pair of bytes."""
    if not isinstance(merge, tuple | list) or [type(part) for part in merge] != [bytes, bytes]:
        raise TypeError(f"a merge must be a pair of bytes; received {merge!r}")
    return merge
