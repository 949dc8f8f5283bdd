"""Added tokens: texts with an id of their own that are found before anything else is done with a text."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

WHITE_SPACE = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
                        "\u2028\u2029\u202f\u205f\u3000")  # fmt: skip
WHITE = re.escape("".join(sorted(WHITE_SPACE)))  # the same between the brackets of a regular expression


@dataclass(frozen=True)
class AddedToken:
    """A row of tokenizer.json's added_tokens."""

    text: str
    id: int
    special: bool = True  # as the user asks, it is found in a text or not; others are always found
    lstrip: bool = False  # it takes the white space before it along
    rstrip: bool = False  # it takes the white space after it along
    normalized: bool = False  # it is found in the normalised text, not in the text as given


class AddedTokenFinder:
    """Cuts texts at added tokens: at the leftmost, and of those at the longest. tokens: text to look for -> token."""

    def __init__(self, tokens: Mapping[str, AddedToken]):
        self._tokens = dict(tokens)
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")  # (?!) never matches

    def split(self, text: str, special: bool) -> Iterator[tuple[int, str | AddedToken]]:
        """(place, what stands there) from left to right: an added token, or the text between two, never empty.

        As in the tokenizers library, tokens are looked for in the text as it is. One of white space is found although
        the token before it takes white space along, and then stands there once more; but with lstrip it begins where
        that token ends at the earliest, and where nothing is left for it there is none.
        """
        done = 0
        for match in self._any.finditer(text):
            token = self._tokens[match.group()]
            if token.special and not special:
                continue
            start, end = match.span()
            if token.lstrip:
                while start > done and text[start - 1] in WHITE_SPACE:
                    start -= 1
                start = max(start, done)
            while token.rstrip and end < len(text) and text[end] in WHITE_SPACE:
                end += 1
            if start >= end:  # white space that the token before took along
                continue
            if done < start:
                yield done, text[done:start]
            yield start, token
            done = end
        if done < len(text):
            yield done, text[done:]
