"""Single characters as tokens."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np

from .added import WHITE, AddedToken
from .base import Tokenizer, check_special, check_text, plain_parts
from .description import check_settings, pipeline, read_added_tokens, read_post_processor, read_vocab, split_step


class CharTokenizer(Tokenizer):
    """One token per character: vocab maps each character, as UTF-8, to its id."""

    def __init__(
        self,
        vocab: Mapping[bytes, int],
        special_tokens: Mapping[str, int],
        added: Iterable[AddedToken] = (),
        template: tuple[str | None, str | None] = (None, None),
    ):
        super().__init__(((i, token) for token, i in vocab.items()), special_tokens, added, template)
        self.vocab = dict(vocab)
        self._ids = {token.decode(): i for token, i in self.vocab.items()}
        for character in self._ids:
            if len(character) != 1:
                raise ValueError(f"tokens of a CharTokenizer are single characters, received {character!r}")

    @classmethod
    def train(cls, text: str, special_tokens: tuple[str, ...] = ()) -> "CharTokenizer":
        """The distinct characters of a text in the order of their code points, then the special tokens.

        Special tokens that stand in the text are not counted as characters of it. ValueError for no text.
        """
        check_special(special_tokens)
        check_text(text)
        characters = sorted(set().union(*plain_parts(text, special_tokens)))
        if not characters:
            raise ValueError("no text to train on: received no character outside special tokens; pass some")
        return cls(
            {character.encode(): i for i, character in enumerate(characters)},
            {text: i for i, text in enumerate(special_tokens, start=len(characters))},
        )

    def encode(self, text: str, special: bool | Collection[str] = True) -> np.ndarray:
        """As Tokenizer.encode, one id per character; ValueError for a character not in the vocabulary."""
        try:
            return super().encode(text, special)
        except KeyError:
            as_given, _, special = self._finders(special)
            parts = [(place, part) for place, part in as_given.split(text, special) if isinstance(part, str)]
            characters = (place for start, part in parts for place in range(start, start + len(part)))
            position = next(place for place in characters if text[place] not in self._ids)
            raise ValueError(
                f"character {text[position]!r} (U+{ord(text[position]):04X}) at position {position} is not "
                f"among the {len(self._ids)} characters of this tokenizer; train it on text that has the "
                "character, remove the character, or use BPETokenizer, which encodes any text"
            ) from None

    def encode_iterable(self, texts: Iterable[str], special: bool | Collection[str] = True) -> Iterator[int]:
        """As Tokenizer.encode_iterable; ValueError for a character not in the vocabulary."""
        try:
            yield from super().encode_iterable(texts, special)
        except KeyError as error:
            raise ValueError(
                f"character {error.args[0]!r} (U+{ord(error.args[0]):04X}) is not among the {len(self._ids)} "
                "characters of this tokenizer; train it on text that has the character, or use BPETokenizer"
            ) from None

    def _encode_plain(self, text: str, at_start: bool, goes_on: bool) -> Iterable[int]:
        return map(self._ids.__getitem__, text)

    def _joints(self) -> re.Pattern:
        return re.compile(rf"[^{WHITE}](?=[\s\S])")

    def to_json(self) -> dict:
        """A WordLevel model whose words are single characters, line breaks included.

        The model's unknown token is a text that is in no vocabulary, so that the tokenizers library refuses
        an unknown character as this class does.
        """
        vocab = {token.decode(): i for i, token in self._tokens.items()}
        model = {"type": "WordLevel", "vocab": vocab, "unk_token": ""}
        return pipeline(self, model, {"type": "Fuse"}, split_step(r"[\s\S]"))

    @classmethod
    def from_json(cls, data: dict) -> "CharTokenizer":
        """The tokenizer that to_json described; ValueError for anything else."""
        added = read_added_tokens(data)
        vocab = {token.encode(): i for token, i in read_vocab(data, added).items()}
        tokenizer = cls(vocab, {}, added, read_post_processor(data, added))
        check_settings(data, tokenizer.to_json())
        return tokenizer
