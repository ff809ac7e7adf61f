"""Opens a directory again and again, killed after each of its statements once: `dying_migration URL SKIPPED`.

Each attempt runs in a process of its own, which ends with SIGKILL after the first statement that no earlier
attempt has done, or after SKIPPED more. So what each statement has left is there at the next attempt, and
nothing of the next statement. Prints the number of attempts.
"""

import asyncio
import os
import signal
import sys
from typing import Any

from sqlalchemy import Engine, event

from plugins.persistence.sql_directory import (
    mariadb,
    open_directory,
    postgres,
    server_database,
    upgrade,
)

_IMPORTED_ONCE = (mariadb, postgres, server_database, upgrade)
"""By the parent, since each takes longer than an attempt."""

_MOST = 500
_READING = ("SELECT", "SHOW", "DESCRIBE", "ROLLBACK")


async def _hash_password(password: str) -> str:
    return password


async def _open(url: str) -> None:
    directory = await open_directory(url, _hash_password, lambda: 0)
    await directory.close()


def _attempt(url: str, survived: set[str], skipped: int, dying: int) -> None:
    """Tells the parent what it does that is not in `survived`, and dies."""
    new: list[str] = []

    def after(_c: object, _cursor: object, statement: str, parameters: object, *_: Any) -> None:
        step = " ".join(f"{statement} {parameters}".split())
        if not statement.lstrip().startswith(_READING) and step not in survived:
            new.append(step)
            os.write(dying, f"{step}\n".encode())
            if len(new) > skipped:
                os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "after_cursor_execute", after)
    asyncio.run(_open(url))


def main(url: str, skipped: int) -> None:
    survived: set[str] = set()
    for attempt in range(1, _MOST):
        dying, told = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                _attempt(url, survived, skipped, told)
                status = 0
            finally:
                os._exit(status)
        os.close(told)
        with open(dying, "rb") as pipe:
            steps = pipe.read().decode().splitlines()
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            print(attempt)
            sys.exit(os.waitstatus_to_exitcode(status))
        survived.update(steps)
    raise AssertionError(f"{_MOST} attempts, and no end")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
