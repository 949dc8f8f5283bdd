"""One command, from the words that were typed to the exit code."""

import sys

from ..messages import MissingExtra
from . import idle, streams
from .commands import make_parser


def main(arguments=None):
    """Run one command; returns the exit code: 0, or 1 after an error that is explained on stderr

    130 after Ctrl-C; 128 and the number of another signal that ended a training, which is saved then.
    """
    if not streams.prepare("minillama"):
        return 1
    try:
        options = make_parser().parse_args(arguments)  # imports the command, which Ctrl-C may end as well
        idle.refuse(options)
        return options.command.run(options) or 0
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        sys.stdout = None
        return 1
    except (ValueError, ArithmeticError, OSError, MissingExtra) as error:
        message = error.strerror if isinstance(error, OSError) and error.strerror and not error.filename else error
        print(f"minillama: error: {message}", file=sys.stderr)
        return 1
    except MemoryError as error:
        wanted = f" ({error})" if str(error) else ""
        print(
            f"minillama: error: this needs more memory than there is{wanted}. Choose a smaller model, batch or "
            f"context, or fewer threads; `minillama info` tells what a model takes",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
