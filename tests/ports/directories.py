"""Directories for the suite of their port."""

import sqlite3
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import SQLModel

from broker.ports import Contact, DirectoryError, Group, GroupWrite, Membership, Notice
from plugins.persistence.sql_directory import SqlDirectory, open_directory
from plugins.persistence.sql_directory.models import USERS
from tests.servers import mariadb, postgres

NOW = 1_764_000_000_999
"""Unix ms. The last of its second."""


class Clock:
    """The directory's clock, which a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def now_ms(self) -> int:
        return self.now


async def hash_password(password: str) -> str:
    return f"hash of {password}"


Place = Path | str
"""Where a directory is: a SQLite file, or the URL of a database on a server."""


def url(place: Place) -> str:
    return f"sqlite:///{place}" if isinstance(place, Path) else place


def is_mariadb(place: Place) -> bool:
    return str(place).startswith("mysql:")


async def run_sql(place: Place, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements beside the directory; the rows of the last one."""
    if isinstance(place, Path):
        with closing(sqlite3.connect(place)) as connection, connection:
            return [connection.execute(statement).fetchall() for statement in statements][-1]
    server = mariadb if is_mariadb(place) else postgres
    return await server.run(place, *statements)


async def empty(place: str) -> None:
    """Empty the tables of a directory."""
    quote = "`" if is_mariadb(place) else '"'
    await run_sql(place, *(f"DELETE FROM {quote}{table}{quote}" for table in SQLModel.metadata.tables))


@asynccontextmanager
async def opened(place: Place, clock: Clock | None = None) -> AsyncIterator[SqlDirectory]:
    directory = await open_directory(url(place), hash_password, (clock or Clock()).now_ms)
    try:
        yield directory
    finally:
        await directory.close()


async def add(directory: SqlDirectory, *users: str) -> None:
    for user in users:
        await directory.add_account(user, None, "user")


async def add_many(place: Place, users: Sequence[str]) -> None:
    """Accounts in the database of an open directory; one by one, each of them costs a sync."""
    values = dict.fromkeys(USERS.c.keys(), "0") | {
        "password_hash": "NULL",
        "role": "'user'",
        "disabled": "FALSE",
        "name": "''",
        "avatar": "''",
        "who_may_message": "'everyone'",
        "who_may_add_me": "'everyone'",
        "who_sees_presence": "'contacts'",
        "read_receipts": "TRUE",
    }
    rows = (", ".join((values | {"user_id": f"'{user}'"}).values()) for user in users)
    await run_sql(place, f"INSERT INTO users ({', '.join(values)}) VALUES ({'), ('.join(rows)})")


def member(
    user: str, role: str = "member", group: str = "team", joined_seq: int = 0, muted_until: int = 0
) -> Membership:
    return Membership(group, user, role, joined_seq, muted_until)


def new_group(owner: str, *others: str, group: str = "team", **fields: Any) -> GroupWrite:
    """A group is made."""
    made = Group(group, f"The {group}", owner, NOW, 0, **fields)
    members = [member(owner, "owner", group), *(member(user, group=group) for user in others)]
    return GroupWrite(made, put=members)


def notice(id: str, sender: str = "system") -> Notice:
    return Notice(id, sender, f"users/{sender}/inbox", b'{"text":"\xc3\xa9"}')


async def refused(code: str, attempt: Coroutine[Any, Any, Any]) -> str:
    """What the refusal says."""
    with pytest.raises(DirectoryError) as raised:
        await attempt
    assert raised.value.code == code
    return raised.value.detail


def contact(user: str, peer: str, version: int = 1, **fields: Any) -> Contact:
    return Contact(user, peer, **{"state": "contact", **fields}, version=version)
