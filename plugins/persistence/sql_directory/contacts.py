"""Contacts: the port's methods, then the statements they run in a transaction."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, or_, select, update

from broker.ports import Contact, ContactChanged, DirectoryChange, DirectoryError, Notice
from plugins.persistence.sql_directory.database import SqlPart
from plugins.persistence.sql_directory.models import CONTACTS, columns
from plugins.persistence.sql_directory.notices import add_notices
from plugins.persistence.sql_directory.statements import chunks, insert_new, need_users

_CONTACTS = select(*columns(CONTACTS, Contact.__struct_fields__))

_PAIRS = 50
"""Pairs in one statement. With more of them, building the statement takes longer than running it."""

_SHARED = 20
"""From so many pairs of the same user on, they are looked for together."""


class SqlContacts(SqlPart):
    """See `broker.ports.ContactDirectory`."""

    async def contacts_between(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Contact]:
        return await self._database.read(select_between, pairs)

    async def contacts(self, user_id: str, after: str, limit: int) -> list[Contact]:
        return await self._database.read(_select_page, user_id, after, limit)

    async def write_contacts(self, contacts: Sequence[Contact], notices: Sequence[Notice]) -> None:
        await self._database.write(_write_contacts, contacts, notices)


def select_between(
    connection: Connection, pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Contact]:
    found = [
        Contact(*row)
        for condition in _conditions(pairs)
        for row in connection.execute(_CONTACTS.where(condition))
    ]
    return {(contact.user_id, contact.peer_id): contact for contact in found}


def _conditions(pairs: Sequence[tuple[str, str]]) -> Iterator[ColumnElement[bool]]:
    """The conditions of few statements, which find all pairs by the primary key."""
    users, peers = Counter(user for user, _ in pairs), Counter(peer for _, peer in pairs)
    peers_of: defaultdict[str, list[str]] = defaultdict(list)
    users_of: defaultdict[str, list[str]] = defaultdict(list)
    rest = []
    for user, peer in pairs:
        if users[user] >= _SHARED:
            peers_of[user].append(peer)
        elif peers[peer] >= _SHARED:
            users_of[peer].append(user)
        else:
            rest.append((user, peer))
    for user, known in peers_of.items():
        for chunk in chunks(known):
            yield and_(CONTACTS.c.user_id == user, CONTACTS.c.peer_id.in_(chunk))
    for peer, known in users_of.items():
        for chunk in chunks(known):
            yield and_(CONTACTS.c.peer_id == peer, CONTACTS.c.user_id.in_(chunk))
    for some in chunks(rest, _PAIRS):
        # OR, because SQLite reads the whole table for (user, peer) IN (...).
        yield or_(*(_is(user, peer) for user, peer in some))


def _is(user_id: str, peer_id: str) -> ColumnElement[bool]:
    return and_(CONTACTS.c.user_id == user_id, CONTACTS.c.peer_id == peer_id)


def _select_page(connection: Connection, user_id: str, after: str, limit: int) -> list[Contact]:
    mine = _CONTACTS.where(CONTACTS.c.user_id == user_id, CONTACTS.c.peer_id > after)
    query = mine.order_by(CONTACTS.c.peer_id).limit(limit)
    return [Contact(*row) for row in connection.execute(query)]


def _write_contacts(
    connection: Connection, contacts: Sequence[Contact], notices: Sequence[Notice]
) -> list[DirectoryChange]:
    need_users(connection, [user for contact in contacts for user in (contact.user_id, contact.peer_id)])
    for contact in contacts:
        _write_contact(connection, contact)
    add_notices(connection, notices)
    return [ContactChanged(contact) for contact in contacts]


def _write_contact(connection: Connection, contact: Contact) -> None:
    row = msgspec.structs.asdict(contact)
    detail = f"{contact.user_id}'s contact {contact.peer_id} has changed meanwhile"
    if contact.version == 1:
        insert_new(connection, CONTACTS, row, "conflict", detail)
        return
    before = update(CONTACTS).where(
        _is(contact.user_id, contact.peer_id), CONTACTS.c.version == contact.version - 1
    )
    if connection.execute(before.values(row)).rowcount != 1:
        raise DirectoryError("conflict", detail)
