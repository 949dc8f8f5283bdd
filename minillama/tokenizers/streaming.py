"""Encoding a text that is never held as a whole."""

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import chain

BLOCK = 2**13  # characters that are read before some of them are encoded
_NEAR = 2**8  # characters in which a joint is looked for first


def encode_blocks(tokenizer, blocks: Iterable[str], special: bool | Collection[str]) -> Iterator[int]:
    """The ids of all blocks joined, as a tokenizer encodes that text, from a part of it at a time

    A part ends at a joint, where the tokenizer says that no token reaches across, or behind an added token. What comes
    after the last such place of the text so far is held for the next part.
    """
    ends = _Ends(tokenizer, special)
    held, at_start, goes_on, new, size = "", True, False, [], 0
    for block in blocks:
        new.append(block)
        size += len(block)
        if size < max(BLOCK, len(held)):  # so that what has no end is looked through a few times only
            continue
        held += "".join(new)
        new, size = [], 0
        end, joined = ends.last(held)
        if end > 0:
            yield from chain.from_iterable(tokenizer._encode_parts(held[:end], special, at_start, goes_on))
            held, at_start, goes_on = held[end:], False, joined
    held += "".join(new)
    yield from chain.from_iterable(tokenizer._encode_parts(held, special, at_start, goes_on))


class _Ends:
    """Finds where a part of a text can end, whatever follows what is known of the text."""

    def __init__(self, tokenizer, special: bool | Collection[str]):
        self._joints = tokenizer._joints()
        self._finder, _, self._special = tokenizer._finders(special)
        texts = sorted((token.text for token in tokenizer.added_tokens), key=len, reverse=True)
        self._longest = len(texts[0]) if texts else 1
        # The longest added token at each place where one begins, special or not: they may overlap.
        self._added = re.compile(f"(?=({'|'.join(map(re.escape, texts)) or '(?!)'}))")

    def last(self, text: str) -> tuple[int, bool]:
        """The last end of a part, 0 if there is none, and whether it is a joint of plain text."""
        joint = self._last_joint(text)
        return (joint, True) if joint else (self._last_token_end(text), False)

    def _last_joint(self, text: str) -> int:
        # An added token that begins before this place is in the text with all of its characters.
        known = len(text) - self._longest + 1
        start, length = known, _NEAR
        while self._joints is not None and start > 0:
            stop, start = start, max(0, known - length)
            for match in reversed(list(self._joints.finditer(text, start, stop + 1))):
                if match.end() <= stop and not self._in_added(text, match.end(), match.end()):
                    return match.end()
            length *= 4
        return 0

    def _last_token_end(self, text: str) -> int:
        """Behind the last added token, and the white space that it takes along, that is known as a whole."""
        end, after_token = 0, False
        for place, part in self._finder.split(text, self._special):
            if place > len(text) - self._longest:
                break
            if after_token and not self._in_added(text, place, place + 1):
                end = place
            after_token = not isinstance(part, str)
        return end

    def _in_added(self, text: str, place: int, least_end: int) -> bool:
        """Whether an added token begins before a place and ends at least_end or behind it."""
        near = self._added.finditer(text, max(0, place - self._longest), place + self._longest)
        return any(match.start() < place and match.start() + len(match[1]) >= least_end for match in near)
