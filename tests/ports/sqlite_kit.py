"""Questions to the SQLite file itself."""

import sqlite3
from collections.abc import Callable

from broker.domain.message import Entry, read_body
from plugins.persistence.sqlite import (
    SqliteMessageLog,
)

MUCH = 1 << 30


def asking(sql: str) -> Callable[[sqlite3.Connection], list[tuple[object, ...]]]:
    return lambda connection: connection.execute(sql).fetchall()


def texts_of(entries: list[Entry]) -> list[str]:
    return [bytes(read_body(entry.body).content).decode().strip('"') for entry in entries]


async def texts(log: SqliteMessageLog, name: str) -> list[str]:
    return texts_of(await log.read(name, 0, 1000, MUCH))
