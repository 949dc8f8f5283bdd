"""The runs that there are in a folder, for a user who asked to go on with one that is not there."""

from pathlib import Path

from ..messages import command_line
from ..training.run import STATE_FILE, read_state

_SHOWN = 10  # runs that a message names, at most


def no_run(folder, named):
    """The message on a folder without a run to go on with; named: the user gave it, else it is the usual one

    It names the runs beside it, in it, in runs/ and here, the newest first, each with the command that goes on with it
    and its step. One is never chosen, be it the only one.
    """
    folder = Path(folder)
    found = {}
    for place in (Path("runs"), folder, folder.parent, Path(".")):
        for path in [*place.glob(f"*/{STATE_FILE}"), *place.glob(STATE_FILE)]:
            found.setdefault(path.resolve(), path)
    newest = sorted(found.values(), key=lambda path: path.stat().st_mtime, reverse=True)
    said = f"{folder} holds no run to resume: there is no {STATE_FILE}"
    if not named:
        said += ". Name the folder of the run with --out"
    if not newest:
        return f"{said}. Start one without --resume"
    lines = [f"{command_line('train', ('--out', path.parent), '--resume')}    {_described(path)}" for path in newest]
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [f"and {len(lines) - _SHOWN} more"]
    return "\n  ".join([f"{said}. Runs that there are, the newest first:", *lines])


def _described(path):
    try:
        state = read_state(path.parent)
        return f"step {state['step']} of {state['settings']['steps']}"
    except (ValueError, OSError):
        return f"{path.name} is damaged"
