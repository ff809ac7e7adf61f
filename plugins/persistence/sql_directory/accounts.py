"""Accounts, profiles and tokens: the port's methods, then the statements they run in a transaction."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, case, delete, select, update

from broker.ports import (
    Account,
    AccountChanged,
    Contact,
    ContactChanged,
    DirectoryChange,
    DirectoryError,
    MembershipChanged,
    Notice,
    Profile,
    ProfileChanged,
    TokenRevoked,
)
from plugins.persistence.sql_directory.database import Database, SqlPart
from plugins.persistence.sql_directory.models import (
    BANS,
    CONTACTS,
    DEPARTURES,
    GROUPS,
    JOIN_REQUESTS,
    MEMBERSHIPS,
    REVOKED_TOKENS,
    USERS,
    columns,
)
from plugins.persistence.sql_directory.notices import add_notices
from plugins.persistence.sql_directory.statements import chunks, insert_new, no_user
from plugins.persistence.sql_directory.used_ids import use_user_id, user_is_gone

_DAY = 86400

_ACCOUNTS = select(*columns(USERS, Account.__struct_fields__))


class SqlAccounts(SqlPart):
    """See `broker.ports.AccountDirectory`. `hash_password` returns the hash that is stored for a password;
    `now_ms` returns Unix milliseconds."""

    def __init__(
        self, database: Database, hash_password: Callable[[str], Awaitable[str]], now_ms: Callable[[], int]
    ) -> None:
        super().__init__(database)
        self._hash_password = hash_password
        self._now_ms = now_ms

    def _now(self) -> int:
        return self._now_ms() // 1000

    async def account(self, user_id: str) -> Account | None:
        return await self._database.read(_select_account, user_id)

    async def accounts(self, after: str, limit: int) -> list[Account]:
        return await self._database.read(_select_accounts, after, limit)

    async def add_account(
        self,
        user_id: str,
        password: str | None,
        role: str,
        inbox_floor: int = 0,
        *,
        reuse_id: bool = False,
    ) -> Account:
        """Tokens issued before now belong to an earlier user with this id, so they are not accepted."""
        hashed = None if password is None else await self._hash_password(password)
        account = Account(user_id, role, False, hashed, self._now_ms(), inbox_floor, self._now())
        await self._database.write(_insert_account, account, reuse_id)
        return account

    async def set_password(self, user_id: str, password: str) -> None:
        """Tokens issued in the same second are not accepted either: somebody who knows the old password
        may have got one just before."""
        hashed = await self._hash_password(password)
        await self._database.write(_set_password, user_id, hashed, self._now() + 1)

    async def set_disabled(self, user_id: str, disabled: bool) -> None:
        await self._database.write(_update_account, user_id, {"disabled": disabled}, 0)

    async def remove_account(
        self, user_id: str, groups: Sequence[str] | None = None, notices: Sequence[Notice] = ()
    ) -> None:
        await self._database.write(_delete_account, user_id, groups, notices)

    async def profiles(self, user_ids: Sequence[str]) -> dict[str, Profile]:
        return await self._database.read(select_profiles, user_ids)

    async def write_profile(self, profile: Profile) -> None:
        await self._database.write(_update_profile, profile)

    async def revoke_token(self, user_id: str, token_id: str, expires_at: int) -> None:
        await self._database.write(_revoke_token, user_id, token_id, expires_at, self._now())

    async def is_revoked(self, token_id: str) -> bool:
        return await self._database.read(_is_revoked, token_id)

    async def revoke_tokens(self, user_id: str, before: int) -> None:
        """An earlier call with a later `before` stays in force."""
        await self._database.write(_update_account, user_id, {}, before)


def _select_account(connection: Connection, user_id: str) -> Account | None:
    row = connection.execute(_ACCOUNTS.where(USERS.c.user_id == user_id)).first()
    return None if row is None else Account(*row)


def select_accounts_by_id(connection: Connection, user_ids: Sequence[str]) -> dict[str, Account]:
    found = [
        Account(*row)
        for chunk in chunks(user_ids)
        for row in connection.execute(_ACCOUNTS.where(USERS.c.user_id.in_(chunk)))
    ]
    return {account.user_id: account for account in found}


def _select_accounts(connection: Connection, after: str, limit: int) -> list[Account]:
    query = _ACCOUNTS.where(USERS.c.user_id > after).order_by(USERS.c.user_id).limit(limit)
    return [Account(*row) for row in connection.execute(query)]


def _insert_account(connection: Connection, account: Account, reuse_id: bool) -> list[DirectoryChange]:
    user = account.user_id
    use_user_id(connection, user, reuse=reuse_id)
    insert_new(connection, USERS, _new_row(account), "exists", f"user {user} exists already")
    return [AccountChanged(user, account)]


def _new_row(account: Account) -> dict[str, Any]:
    return msgspec.structs.asdict(Profile(account.user_id)) | msgspec.structs.asdict(account)


def _update_account(
    connection: Connection, user_id: str, values: dict[str, Any], tokens_after: int = 0
) -> list[DirectoryChange]:
    """Set columns of an account. `tokens_after` (Unix s) never moves back, because a revoked token
    stays revoked."""
    kept = USERS.c.tokens_after
    later = case((kept < tokens_after, tokens_after), else_=kept)
    _set_columns(connection, user_id, {**values, "tokens_after": later})
    return [AccountChanged(user_id, _select_account(connection, user_id))]


def _set_password(
    connection: Connection, user_id: str, hashed: str, tokens_after: int
) -> list[DirectoryChange]:
    """`tokens_after` (Unix s) grows, whatever the wall clock says."""
    _lock_user(connection, user_id)
    before = connection.scalar(select(USERS.c.tokens_after).where(USERS.c.user_id == user_id)) or 0
    later = max(tokens_after, before + 1)
    return _update_account(connection, user_id, {"password_hash": hashed}, later)


def _lock_user(connection: Connection, user_id: str) -> None:
    """No other transaction changes or removes the user until this one ends."""
    query = select(USERS.c.user_id).where(USERS.c.user_id == user_id)
    if connection.scalar(query.with_for_update()) is None:
        raise no_user(user_id)


def _set_columns(connection: Connection, user_id: str, values: dict[str, Any]) -> None:
    if connection.execute(update(USERS).where(USERS.c.user_id == user_id).values(values)).rowcount != 1:
        raise no_user(user_id)


def _delete_account(
    connection: Connection, user_id: str, known: Sequence[str] | None, notices: Sequence[Notice]
) -> list[DirectoryChange]:
    # Delete the user first. From here on no other process can make them the owner of a group.
    if connection.execute(delete(USERS).where(USERS.c.user_id == user_id)).rowcount != 1:
        raise no_user(user_id)
    owned = connection.scalar(
        select(GROUPS.c.group_id).where(GROUPS.c.owner == user_id, GROUPS.c.dismissed_at == 0).limit(1)
    )
    if owned is not None:
        raise DirectoryError("is_owner", f"{user_id} owns group {owned}: dismiss it first")
    user_is_gone(connection, user_id)
    # Whoever gets the id next does not get these groups with it: an owner may use their ids again.
    dismissed = update(GROUPS).where(GROUPS.c.owner == user_id)
    connection.execute(dismissed.values(owner="", version=GROUPS.c.version + 1))
    joined = select(MEMBERSHIPS.c.group_id).where(MEMBERSHIPS.c.user_id == user_id)
    groups = connection.scalars(joined.order_by(MEMBERSHIPS.c.group_id)).all()
    if known is not None and set(known) != set(groups):
        raise DirectoryError("conflict", f"{user_id} has joined or left groups meanwhile")
    linked = select(CONTACTS.c.user_id).where(CONTACTS.c.peer_id == user_id)
    peers = connection.scalars(linked.order_by(CONTACTS.c.user_id)).all()
    for chunk in chunks(groups):
        changed = update(GROUPS).where(GROUPS.c.group_id.in_(chunk))
        connection.execute(changed.values(version=GROUPS.c.version + 1))
    for table in (MEMBERSHIPS, BANS, DEPARTURES, JOIN_REQUESTS, CONTACTS, REVOKED_TOKENS):
        connection.execute(delete(table).where(table.c.user_id == user_id))
    connection.execute(delete(CONTACTS).where(CONTACTS.c.peer_id == user_id))
    add_notices(connection, notices)
    return [
        AccountChanged(user_id, None),
        *(MembershipChanged(group, user_id, False) for group in groups),
        *(ContactChanged(Contact(peer, user_id)) for peer in peers),
    ]


def select_profiles(connection: Connection, user_ids: Sequence[str]) -> dict[str, Profile]:
    query = select(*columns(USERS, Profile.__struct_fields__))
    found = [
        Profile(*row)
        for chunk in chunks(user_ids)
        for row in connection.execute(query.where(USERS.c.user_id.in_(chunk)))
    ]
    return {profile.user_id: profile for profile in found}


def _update_profile(connection: Connection, profile: Profile) -> list[DirectoryChange]:
    _set_columns(connection, profile.user_id, msgspec.structs.asdict(profile))
    return [ProfileChanged(profile)]


def _revoke_token(
    connection: Connection, user_id: str, token_id: str, expires_at: int, now: int
) -> list[DirectoryChange]:
    """Revoke a token, and forget revoked tokens that expired a day before `now` (Unix s): the wall clock may
    be ahead, and be set back."""
    _lock_user(connection, user_id)
    ended = (REVOKED_TOKENS.c.expires_at < now - _DAY) | (REVOKED_TOKENS.c.token_id == token_id)
    connection.execute(delete(REVOKED_TOKENS).where(ended))
    row = {"token_id": token_id, "user_id": user_id, "expires_at": expires_at}
    connection.execute(REVOKED_TOKENS.insert(), row)
    return [TokenRevoked(user_id, token_id)]


def _is_revoked(connection: Connection, token_id: str) -> bool:
    query = select(REVOKED_TOKENS.c.token_id).where(REVOKED_TOKENS.c.token_id == token_id)
    return connection.scalar(query) is not None
