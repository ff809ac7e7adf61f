"""Directories for the suite of their port."""

import sqlite3
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.ports import Contact, DirectoryError, Group, GroupWrite, Membership, Notice
from plugins.persistence.sql_directory import SqlDirectory, open_directory
from plugins.persistence.sql_directory.models import USERS

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


def url(path: Path) -> str:
    return f"sqlite:///{path}"


@asynccontextmanager
async def opened(path: Path, clock: Clock | None = None) -> AsyncIterator[SqlDirectory]:
    """The directory of a SQLite file."""
    directory = open_directory(url(path), hash_password, (clock or Clock()).now_ms)
    try:
        yield directory
    finally:
        await directory.close()


async def add(directory: SqlDirectory, *users: str) -> None:
    for user in users:
        await directory.add_account(user, None, "user")


def add_many(path: Path, users: Sequence[str]) -> None:
    """Accounts in the file of an open directory; one by one, each of them costs a sync."""
    connection = sqlite3.connect(path)
    values = dict.fromkeys(USERS.c.keys(), "0") | {
        "user_id": "?",
        "password_hash": "NULL",
        "role": "'user'",
        "name": "''",
        "avatar": "''",
        "who_may_message": "'everyone'",
        "who_may_add_me": "'everyone'",
        "who_sees_presence": "'contacts'",
        "read_receipts": "1",
    }
    with connection:
        connection.executemany(
            f"INSERT INTO users ({', '.join(values)}) VALUES ({', '.join(values.values())})",
            [(user,) for user in users],
        )
    connection.close()


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
