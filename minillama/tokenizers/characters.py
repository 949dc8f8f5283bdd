"""Single characters as tokens."""

from collections.abc import Iterable, Mapping

import numpy as np

from .base import Tokenizer, check_special, check_text, special_splitter
from .description import check_settings, pipeline, read_vocab, split_step


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
        check_special(special_tokens)
        check_text(text)
        characters = sorted(set().union(*special_splitter(special_tokens).split(text)[::2]))
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
        return pipeline(self.special_tokens, split_step(r"[\s\S]"), {"type": "Fuse"}, model)

    @classmethod
    def from_json(cls, data: dict) -> "CharTokenizer":
        """The tokenizer that to_json described; ValueError for anything else."""
        vocab, special_tokens = read_vocab(data)
        tokenizer = cls({token.encode(): i for token, i in vocab.items()}, special_tokens)
        check_settings(data, tokenizer.to_json())
        return tokenizer
