"""A request to stop, which ends what is being done at the next good place and not in the middle of it."""

import signal
import sys
import threading
from contextlib import contextmanager, suppress

# Ctrl-C; a batch system or a computer that is shut down; a terminal that is closed; Ctrl-Break and a console that is
# closed (Windows). Those that a system lacks are left out.
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


def exit_code(number):
    """What a process that ended because of a signal gives back to its shell: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + int(number)


@contextmanager
def interruptible(message=None, signals=(signal.SIGINT,)):
    """Inside this block the given function returns the number of the first of the signals that came, else 0

    Signals that ask to stop (STOPS) are only noted; a second Ctrl-C interrupts at once, while others are often sent
    more than once (to a process and to its group) and then mean the same. The message, if there is one, is written to
    stderr at the first. Python delivers signals to the main thread alone; elsewhere nothing changes, nor for a signal
    that this process was started to ignore, as Ctrl-C is in the background of a shell's script, and SIGHUP by nohup.
    """
    seen = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return

    def handle(number, stack):
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen.append(number)
        if message is not None and len(seen) == 1:
            with suppress(OSError, ValueError, AttributeError):  # the terminal may have gone, which is why we stop
                print(message, file=sys.stderr)

    before = {number: signal.getsignal(number) for number in signals}
    heeded = [number for number in signals if before[number] not in (signal.SIG_IGN, None)]  # None: not Python's
    for number in heeded:
        signal.signal(number, handle)
    try:
        yield lambda: seen[0] if seen else 0
    finally:
        for number in heeded:
            signal.signal(number, before[number])
