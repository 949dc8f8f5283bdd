"""How text is cut into words before byte-pair encoding: GPT-2's regular expression and its kin, for Python's re."""

import re
import unicodedata
from functools import lru_cache

# How text is cut into words before BPE, which never merges across words. Alternatives, in the order they are
# tried: English contractions; letters, with one space before them; numbers; other signs, with one space
# before them; white space, but for its last character where a word follows; white space that is left.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same as it stands in files
GPT2_PATTERN_IN_FULL = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same with every digit a word of its own, as in LLaMA (Touvron et al. 2023, section 2.1).
DIGITS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Llama 3's (tokenizer.py of the published code): contractions in capitals too; any one sign may lead letters; numbers
# in threes; line breaks end the signs before them.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# A pattern is listed here once it is known to match every part of every text, as the tests try for each row.
PATTERNS = (DIGITS_PATTERN, GPT2_PATTERN, GPT2_PATTERN_IN_FULL, LLAMA3_PATTERN)
# What the tokenizers library calls Digits: numbers, each alone or together, are cut from what is between them.
DIGIT_CUTS = {True: r"\p{N}|[^\p{N}]+", False: r"\p{N}+|[^\p{N}]+"}
# Where a text may be parted before it is cut by one of PATTERNS, without another cut: see Tokenizer._joints. Signs take
# the line breaks behind them along in Llama 3's.
BEFORE_SPACE = r"\S(?= )"
JOINTS = r"[\p{L}\p{N}](?=[^\p{L}\p{N}])|\S(?=\s)"
LLAMA3_JOINTS = r"[\p{L}\p{N}](?=[^\p{L}\p{N}])|\S(?= )"


@lru_cache(maxsize=1)
def _character_classes() -> dict[str, str]:
    r"""What \p{L}, \p{N} and \s stand for inside [] of Python's re: ranges of characters.

    Letters and numbers are those of this Python's Unicode version: characters younger than it count as signs.
    White space is the White_Space property, which unicodedata lacks and which has not changed since Unicode
    6.3; Python's own \s has U+001C to U+001F too.
    """
    code_points = range(0x40000)  # the planes from 4 on have no letters and no numbers
    kinds = "".join([category[0] for category in map(unicodedata.category, map(chr, code_points))])

    def ranges(kind: str) -> str:
        runs = re.finditer(f"{kind}+", kinds)
        return "".join(f"\\U{run.start():08x}-\\U{run.end() - 1:08x}" for run in runs)

    white_space = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    return {r"\p{L}": ranges("L"), r"\p{N}": ranges("N"), r"\s": white_space}


@lru_cache(maxsize=len(PATTERNS) + len(DIGIT_CUTS) + 3)
def compile_pattern(pattern: str) -> re.Pattern:
    r"""One of the patterns above for Python's re, with \p{L}, \p{N}, \s and \S as the tokenizers library means them."""
    classes = _character_classes()

    def in_python(match: re.Match) -> str:
        found = match.group()
        if found == r"\S":
            return "[^" + classes[r"\s"] + "]"
        if found in classes:
            return "[" + classes[found] + "]"
        return re.sub(r"\\p\{[LN]\}|\\s", lambda inner: classes[inner.group()], found)

    return re.compile(re.sub(r"\[[^]]*\]|\\p\{[LN]\}|\\[sS]", in_python, pattern))


def check_pattern(pattern: str) -> None:
    if pattern not in PATTERNS:
        raise ValueError(f"pre-tokenization pattern {pattern!r} is not supported, choose from {PATTERNS}")
