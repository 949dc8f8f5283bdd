"""Ctrl-C that ends what is being done at the next good place, and not in the middle of it."""

import signal
import sys
import threading
from contextlib import contextmanager


@contextmanager
def interruptible(message=None):
    """Inside this block the first Ctrl-C only makes the given function return True; a second one interrupts.

    The message, if there is one, is written to stderr at the first. Python delivers signals to the main thread alone;
    elsewhere nothing changes, nor in a process that was started so that it ignores Ctrl-C, as a shell's script does in
    the background.
    """
    seen = []
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def handle(number, stack):
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        if message is not None:
            print(message, file=sys.stderr)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(seen)
    finally:
        signal.signal(signal.SIGINT, before)
