"""A pseudo-terminal of a given size, in which imctl runs as users run it."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from types import TracebackType
from typing import Self

from tests.cli.imctl import COMMAND, ENVIRONMENT, ROOT

SECONDS = 20.0
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


class Terminal:
    """imctl in a terminal of so many columns and lines."""

    def __init__(self, *arguments: str, columns: int, lines: int = 1000, **environment: str) -> None:
        self.leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        kept = {name: value for name, value in ENVIRONMENT.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            (*COMMAND, *arguments),
            stdin=follower,
            stdout=follower,
            stderr=follower,
            cwd=ROOT,
            env=kept | {"TERM": "xterm"} | environment,
            start_new_session=True,
        )
        os.close(follower)
        self._bytes = b""

    @property
    def seen(self) -> str:
        """What was printed so far."""
        return self._bytes.decode(errors="replace")  # a character may be half there

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.leader)

    def _read(self, deadline: float) -> bool:
        """Read what comes next. False at the end."""
        left = deadline - time.monotonic()
        came, _, _ = select.select([self.leader], [], [], max(left, 0))
        assert came, f"only {self.seen!r} came"
        more = b""
        with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
            more = os.read(self.leader, 65536)
        self._bytes += more
        return bool(more)

    def expect(self, text: str) -> None:
        """Read until a text has come."""
        deadline = time.monotonic() + SECONDS
        while text not in self.seen:
            assert self._read(deadline), f"{text!r} did not come, only {self.seen!r}"

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.leader, text.encode())

    def end(self) -> int:
        """Read to the end. Returns the exit status."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline):
            pass
        return self.process.wait(SECONDS)

    @property
    def lines(self) -> list[str]:
        """What was printed, without control sequences."""
        return _CONTROL.sub("", self.seen).replace("\r\n", "\n").splitlines()


def printed(*arguments: str, columns: int, **environment: str) -> list[str]:
    """The lines that a command prints, which must succeed."""
    with Terminal(*arguments, columns=columns, **environment) as terminal:
        assert terminal.end() == 0, terminal.seen
        return terminal.lines
