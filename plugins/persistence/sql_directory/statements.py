"""Helpers that the statements of several tables share."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, select
from sqlalchemy.exc import IntegrityError

from broker.ports import DirectoryError
from plugins.persistence.sql_directory.models import USERS

T = TypeVar("T")

_CHUNK = 500
"""Values in one statement. Databases limit them, and planning a longer statement takes longer."""


def chunks(items: Sequence[T], size: int = _CHUNK) -> Iterator[Sequence[T]]:
    """The items in slices of `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def insert_new(connection: Connection, table: Table, row: Mapping[str, Any], code: str, detail: str) -> None:
    """Insert a row. If its key exists already, refuse with `DirectoryError(code, detail)`."""
    try:
        connection.execute(table.insert(), row)
    except IntegrityError as error:
        raise DirectoryError(code, detail) from error


def need_users(connection: Connection, users: Sequence[str]) -> None:
    """Refuse with `not_found` if one of the users does not exist, and name the first of them.

    Locks the others until the transaction ends, so that nobody removes them meanwhile."""
    wanted = list(dict.fromkeys(users))
    known: set[str] = set()
    for chunk in chunks(wanted):
        query = select(USERS.c.user_id).where(USERS.c.user_id.in_(chunk))
        known.update(connection.scalars(query.with_for_update(read=True, key_share=True)))
    for user in wanted:
        if user not in known:
            raise no_user(user)


def no_user(user_id: str) -> DirectoryError:
    return DirectoryError("not_found", f"no user {user_id}")
