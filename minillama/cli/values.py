"""Values of options: numbers as people write them, known names, a part of many."""

import argparse
import re

from ..messages import unknown


def whole_number(text):
    """The int of a text; what it should be, in an ArgumentTypeError, where it is none."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number; received {text!r}{_as_whole(text)}") from None


def number(text):
    """The float of a text; what it should be, in an ArgumentTypeError, where it is none."""
    try:
        return float(text)
    except ValueError:
        comma = text.replace(",", ".", 1)
        hint = f"; did you mean {comma}?" if comma != text and _is_number(comma) else ""
        raise argparse.ArgumentTypeError(f"must be a number, such as 0.5 or 1e-3; received {text!r}{hint}") from None


def _is_number(text):
    try:
        return abs(float(text)) < 1e18
    except ValueError:
        return False


def _as_whole(text):
    plain = re.sub(r"(?<=\d)[,' ](?=\d{3})", "", text)
    return f"; did you mean {int(float(plain))}?" if _is_number(plain) and float(plain).is_integer() else ""


def named(kind, known):
    """The type of an option that takes one of the known names."""

    def name(text):
        if text not in known:
            raise argparse.ArgumentTypeError(unknown(kind, text, known))
        return text

    return name


def part(text):
    """(i, n) of "i/n"."""
    which, _, parts = text.partition("/")
    if not (which.isdecimal() and parts.isdecimal()):
        raise argparse.ArgumentTypeError(f"a part is i/n, such as 1/8; received {text!r}")
    return int(which), int(parts)
