"""`imctl` that dies at a commit and is started again: `python -m tests.integration.dying_node FILE serve ...`

Each line of FILE, while it is there, is one death: `before 3` in place of the third commit since the
file appeared or the process started, `after 3` when that commit is on disk and nobody has heard of it.
The line is taken out first. Both databases are counted together; a commit of a transaction that wrote
nothing does not count. Whoever dies so is followed by a new process, which has nothing of it but its files.
"""

import contextlib
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cli.app  # noqa: F401
import server.app  # noqa: F401 - read once, for all processes that follow
from cli.main import run


class Doom:
    """Counts commits until the one the process dies at."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._count = 0

    @contextlib.contextmanager
    def around_commit(self) -> Iterator[None]:
        with self._lock:
            moment, number = self._next()
            self._count = self._count + 1 if moment else 0
            dies_here = moment and self._count == number
            if dies_here and moment == "before":
                self._die()
            yield
            if dies_here:
                self._die()

    def _next(self) -> tuple[str, int]:
        try:
            moment, number = self._file.read_text().splitlines()[0].split()
        except FileNotFoundError:
            return "", 0
        return moment, int(number)

    def _die(self) -> None:
        _, *rest = self._file.read_text().splitlines()
        if rest:
            self._file.write_text("\n".join(rest))
        else:
            self._file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


class DyingConnection(sqlite3.Connection):
    """Both ways to commit: the statement, and SQLAlchemy's call of the driver."""

    doom: Doom
    _written = 0

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql != "COMMIT":
            return super().execute(sql, *parameters)
        with self._committing():
            return super().execute(sql)

    def commit(self) -> None:
        with self._committing():
            super().commit()

    @contextlib.contextmanager
    def _committing(self) -> Iterator[None]:
        if self.total_changes == self._written:
            yield
            return
        with self.doom.around_commit():
            yield
        self._written = self.total_changes


def main() -> None:
    DyingConnection.doom = Doom(Path(sys.argv.pop(1)))
    # SQLAlchemy finds it in the one module, everybody else in the other.
    sqlite3.connect = partial(sqlite3.connect, factory=DyingConnection)
    sqlite3.dbapi2.connect = sqlite3.connect
    while True:
        node = os.fork()
        if not node:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            run()
        signal.signal(signal.SIGTERM, lambda *_, node=node: os.kill(node, signal.SIGTERM))
        _, status = os.waitpid(node, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
