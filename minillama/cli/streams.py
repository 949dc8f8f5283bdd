"""Standard input, output and error as a command needs them, however it was started."""

import os
import sys


def prepare(command):
    """Make the streams fit for text and names of any kind; False, after an error that is explained, if none can answer

    Text is UTF-8, which Windows consoles by default have not. A file's name may be bytes that are no text: it is shown
    with escapes, and never an error. Where standard error is closed there is nobody to tell anything.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: without this the next file that is opened would get its number
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    if sys.stdout is None:
        print(
            f"{command}: error: standard output is closed, and nobody could read what comes of this; send it to a "
            f"file, or to {os.devnull}",
            file=sys.stderr,
        )
    return sys.stdout is not None


def standard_input():
    """sys.stdin; ValueError where it is closed."""
    if sys.stdin is None:
        raise ValueError("standard input is closed, and there is nothing else to read; send in a text or a file")
    return sys.stdin
