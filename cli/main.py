"""The entry point: turns every way in which a command can end into an exit status and at most one line.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted by Ctrl-C (128 + SIGINT, as in
shells); `verify` has its own. Nothing heavy is imported before `run` handles `KeyboardInterrupt`, so that
an early Ctrl-C prints no traceback.
"""

import os
import sys
from typing import NoReturn


def run() -> NoReturn:
    """Run imctl with the process's arguments."""
    try:
        status = _flushed(_command())
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _command() -> int:
    from cli.app import app
    from cli.errors import CommandError, OutputClosedError

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app(prog_name="imctl")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    except OutputClosedError:
        return 0
    except CommandError as error:
        _complain(str(error))
        return error.status
    except UnicodeEncodeError:
        _complain("an argument is not valid UTF-8")
        return 2
    except Exception as error:
        return _complain(f"unexpected {type(error).__name__}: {error}")
    return 0


def _complain(text: str) -> int:
    from cli.output import printable

    print(f"imctl: {printable(text)}", file=sys.stderr)
    return 1


def _flushed(status: int) -> int:
    """Flush standard output here, where a failure gives one line. Python's own flush at exit would print
    a traceback."""
    try:
        sys.stdout.flush()
        return status
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return status
        return _complain(f"cannot write the output: {error.strerror}")
