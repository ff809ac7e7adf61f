"""What changes say to other nodes: a row for each, in the transaction of the change.

A row names what has changed. The state is read when the row is: so it is the newest one, in whatever order
the rows are found.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, select

from broker.ports import (
    AccountChanged,
    Contact,
    ContactChanged,
    DirectoryChange,
    GroupChanged,
    MembershipChanged,
    ProfileChanged,
    TokenRevoked,
)
from plugins.persistence.sql_directory.accounts import select_accounts_by_id, select_profiles
from plugins.persistence.sql_directory.contacts import select_between
from plugins.persistence.sql_directory.groups import select_groups_by_id, select_members_of
from plugins.persistence.sql_directory.models import CHANGES
from plugins.persistence.sql_directory.statements import chunks


class Key(NamedTuple):
    """What has changed: `one` is a user or a group, `other` a user or a token."""

    kind: str
    one: str
    other: str = ""


class Row(NamedTuple):
    """A row of `changes`, written by the directory `writer`."""

    id: int
    writer: str
    key: Key


def key_of(change: DirectoryChange) -> Key:
    match change:
        case AccountChanged(user_id):
            return Key("account", user_id)
        case ProfileChanged(profile):
            return Key("profile", profile.user_id)
        case ContactChanged(contact):
            return Key("contact", contact.user_id, contact.peer_id)
        case MembershipChanged(group_id, user_id):
            return Key("member", group_id, user_id)
        case GroupChanged(group):
            return Key("group", group.group_id)
        case TokenRevoked(user_id, token_id):
            return Key("token", user_id, token_id)


def write_rows(connection: Connection, writer: str, changes: Sequence[DirectoryChange]) -> None:
    """Write the rows of changes, in their transaction."""
    if changes:
        rows = [{"writer": writer, **key._asdict()} for key in dict.fromkeys(map(key_of, changes))]
        connection.execute(CHANGES.insert(), rows)


def newest_id(connection: Connection) -> int:
    return connection.scalar(select(func.max(CHANGES.c.id))) or 0


def select_rows(connection: Connection, after: int, missing: Sequence[int], limit: int) -> list[Row]:
    """At most `limit` rows after an id, and those of earlier ids that were missing."""
    query = select(CHANGES.c.id, CHANGES.c.writer, CHANGES.c.kind, CHANGES.c.one, CHANGES.c.other)
    found = [
        row for chunk in chunks(missing) for row in connection.execute(query.where(CHANGES.c.id.in_(chunk)))
    ]
    found += connection.execute(query.where(CHANGES.c.id > after).order_by(CHANGES.c.id).limit(limit))
    return [Row(id, writer, Key(*key)) for id, writer, *key in found]


def delete_rows(connection: Connection, up_to: int) -> list[DirectoryChange]:
    connection.execute(delete(CHANGES).where(CHANGES.c.id <= up_to))
    return []


def read_states(connection: Connection, keys: Iterable[Key]) -> list[DirectoryChange]:
    """The changes with the states of now, in the order of the keys."""
    by_kind: dict[str, list[Key]] = {}
    for key in dict.fromkeys(keys):
        by_kind.setdefault(key.kind, []).append(key)
    changes = {
        key: change
        for kind, same in by_kind.items()
        for key, change in _READERS[kind](connection, same).items()
    }
    return [changes[key] for key in dict.fromkeys(keys) if key in changes]


_Found = dict[Key, Any]


def _accounts(connection: Connection, keys: Sequence[Key]) -> _Found:
    found = select_accounts_by_id(connection, [key.one for key in keys])
    return {key: AccountChanged(key.one, found.get(key.one)) for key in keys}


def _profiles(connection: Connection, keys: Sequence[Key]) -> _Found:
    found = select_profiles(connection, [key.one for key in keys])
    return {key: ProfileChanged(found[key.one]) for key in keys if key.one in found}


def _contacts(connection: Connection, keys: Sequence[Key]) -> _Found:
    found = select_between(connection, [(key.one, key.other) for key in keys])
    return {
        key: ContactChanged(found.get((key.one, key.other)) or Contact(key.one, key.other)) for key in keys
    }


def _members(connection: Connection, keys: Sequence[Key]) -> _Found:
    users: dict[str, list[str]] = {}
    for key in keys:
        users.setdefault(key.one, []).append(key.other)
    found = {group: select_members_of(connection, group, some) for group, some in users.items()}
    return {key: MembershipChanged(key.one, key.other, key.other in found[key.one]) for key in keys}


def _groups(connection: Connection, keys: Sequence[Key]) -> _Found:
    found = select_groups_by_id(connection, [key.one for key in keys])
    return {key: GroupChanged(found[key.one]) for key in keys if key.one in found}


def _tokens(_connection: Connection, keys: Sequence[Key]) -> _Found:
    return {key: TokenRevoked(key.one, key.other) for key in keys}


_READERS: dict[str, Callable[[Connection, Sequence[Key]], _Found]] = {
    "account": _accounts,
    "profile": _profiles,
    "contact": _contacts,
    "member": _members,
    "group": _groups,
    "token": _tokens,
}
