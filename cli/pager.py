"""The pager, for output that is longer than the terminal: `PAGER`, or less."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress


def is_wanted(lines: int) -> bool:
    """Whether so many lines are too many for the terminal. False if the output or the input is none."""
    streams = (sys.stdout, sys.stdin)
    if not all(stream.isatty() for stream in streams) or os.environ.get("TERM", "dumb") == "dumb":
        return False
    return lines >= shutil.get_terminal_size().lines


def show(text: str) -> bool:
    """Show a text in the pager, until the user leaves it. Returns False if there is no pager."""
    command = _command()
    if not command:
        return False
    sys.stdout.flush()
    try:
        # LESS: leave if all fits the screen, and do not clear the screen (as git does).
        environment = {"LESS": "FRX"} | os.environ
        pager = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)  # noqa: S603 - the user's
    except OSError:
        return False
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pager
    try:
        with pager, suppress(BrokenPipeError):  # the user left before the end
            pager.communicate(text.encode(errors="backslashreplace"))
    finally:
        signal.signal(signal.SIGINT, before)
    return True


def _command() -> list[str]:
    """The command of the pager; empty if none is wanted."""
    try:
        command = shlex.split(os.environ.get("PAGER", "less"))
    except ValueError:  # an unbalanced quote
        return []
    return [] if command == ["cat"] else command
