"""The tables of the directory. To change one, add a migration to `migrations/versions`.

Every text has a greatest length and is compared byte by byte, so that a table behaves the same in every
database. A column has the name of the struct field that it stores: `columns` relies on it.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, Integer, LargeBinary, Table
from sqlmodel import Field, SQLModel

_TEXT = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


class UserRow(SQLModel, table=True):
    """An account and its profile. `created_at` is Unix milliseconds, `tokens_after` seconds."""

    __tablename__ = "users"
    __table_args__ = _TEXT

    user_id: str = Field(primary_key=True, max_length=64)
    password_hash: str | None = Field(default=None, max_length=255)
    role: str = Field(default="user", max_length=16)
    disabled: bool = False
    created_at: int = Field(sa_type=BigInteger)
    inbox_floor: int = Field(default=0, sa_type=BigInteger)
    tokens_after: int = Field(default=0, sa_type=BigInteger)
    name: str = Field(default="", max_length=255)
    avatar: str = Field(default="", max_length=2048)
    who_may_message: str = Field(default="everyone", max_length=16)
    who_may_add_me: str = Field(default="everyone", max_length=16)
    who_sees_presence: str = Field(default="contacts", max_length=16)
    read_receipts: bool = True


class RevokedTokenRow(SQLModel, table=True):
    """A token that is not accepted any more. `expires_at` is Unix seconds."""

    __tablename__ = "revoked_tokens"
    __table_args__ = _TEXT

    token_id: str = Field(primary_key=True, max_length=64)
    user_id: str = Field(max_length=64, index=True)
    expires_at: int = Field(sa_type=BigInteger, index=True)


class ContactRow(SQLModel, table=True):
    """A contact in one direction: what `user_id` has said about `peer_id`."""

    __tablename__ = "contacts"
    __table_args__ = _TEXT

    user_id: str = Field(primary_key=True, max_length=64)
    peer_id: str = Field(primary_key=True, max_length=64, index=True)
    state: str = Field(max_length=16)
    blocked: bool
    remark: str = Field(max_length=255)
    note: str = Field(max_length=1024)
    asked: bool
    updated_at: int = Field(sa_type=BigInteger)
    version: int = Field(sa_type=BigInteger)


class GroupRow(SQLModel, table=True):
    """A group."""

    __tablename__ = "groups"
    __table_args__ = _TEXT

    group_id: str = Field(primary_key=True, max_length=64)
    name: str = Field(max_length=255)
    owner: str = Field(max_length=64, index=True)
    created_at: int = Field(sa_type=BigInteger)
    avatar: str = Field(default="", max_length=2048)
    announcement: str = Field(default="", max_length=4096)
    muted_until: int = Field(default=0, sa_type=BigInteger)
    who_may_invite: str = Field(default="members", max_length=16)
    who_may_post: str = Field(default="members", max_length=16)
    join: str = Field(default="approval", max_length=16)
    history_visible: bool = False
    dismissed_at: int = Field(default=0, sa_type=BigInteger)
    floor: int = Field(default=0, sa_type=BigInteger)
    version: int = Field(default=1, sa_type=BigInteger)


class MembershipRow(SQLModel, table=True):
    """A member of a group."""

    __tablename__ = "memberships"
    __table_args__ = _TEXT

    group_id: str = Field(primary_key=True, max_length=64)
    user_id: str = Field(primary_key=True, max_length=64, index=True)
    role: str = Field(default="member", max_length=16)
    joined_seq: int = Field(sa_type=BigInteger)
    muted_until: int = Field(default=0, sa_type=BigInteger)


class BanRow(SQLModel, table=True):
    """A user who may not join a group again before `until` (Unix ms; 0 is for ever)."""

    __tablename__ = "group_bans"
    __table_args__ = _TEXT

    group_id: str = Field(primary_key=True, max_length=64)
    user_id: str = Field(primary_key=True, max_length=64, index=True)
    until: int = Field(sa_type=BigInteger)


class DepartureRow(SQLModel, table=True):
    """A user who was a member of a group: one who has left by themselves, or who was muted."""

    __tablename__ = "departures"
    __table_args__ = _TEXT

    group_id: str = Field(primary_key=True, max_length=64)
    user_id: str = Field(primary_key=True, max_length=64, index=True)
    by_self: bool = True
    muted_until: int = Field(default=0, sa_type=BigInteger)


class JoinRequestRow(SQLModel, table=True):
    """A user who asks to join a group."""

    __tablename__ = "join_requests"
    __table_args__ = _TEXT

    group_id: str = Field(primary_key=True, max_length=64)
    user_id: str = Field(primary_key=True, max_length=64, index=True)
    note: str = Field(max_length=1024)
    created_at: int = Field(sa_type=BigInteger)


class NoticeRow(SQLModel, table=True):
    """An entry that has not reached its log yet. `place` counts up in the order of writing."""

    __tablename__ = "notices"
    __table_args__ = {"sqlite_autoincrement": True, **_TEXT}

    # SQLite increments a key by itself only if its type is INTEGER.
    place: int | None = Field(
        default=None, sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    )
    id: str = Field(max_length=64, unique=True)
    sender: str = Field(max_length=64)
    topic: str = Field(max_length=255)
    content: bytes = Field(sa_column=Column(LargeBinary(2**24 - 1), nullable=False))


class StoreIdentityRow(SQLModel, table=True):
    """The identity of the store: one row."""

    __tablename__ = "store_identity"
    __table_args__ = _TEXT

    id: str = Field(primary_key=True, max_length=64)
    generation: int = Field(sa_type=BigInteger)


class UsedIdRow(SQLModel, table=True):
    """An id that a user or group has or had. `folded` is the id in lower case."""

    __tablename__ = "used_ids"
    __table_args__ = _TEXT

    kind: str = Field(primary_key=True, max_length=8)
    folded: str = Field(primary_key=True, max_length=64)
    id: str = Field(max_length=64)


class IdTwinRow(SQLModel, table=True):
    """An id that differs in case only from one in `used_ids`, from an earlier version."""

    __tablename__ = "id_twins"
    __table_args__ = _TEXT

    kind: str = Field(primary_key=True, max_length=8)
    id: str = Field(primary_key=True, max_length=64)
    folded: str = Field(max_length=64, index=True)


def _table(row: type[SQLModel]) -> Table:
    return SQLModel.metadata.tables[str(row.__tablename__)]


USERS = _table(UserRow)
REVOKED_TOKENS = _table(RevokedTokenRow)
CONTACTS = _table(ContactRow)
GROUPS = _table(GroupRow)
MEMBERSHIPS = _table(MembershipRow)
BANS = _table(BanRow)
DEPARTURES = _table(DepartureRow)
JOIN_REQUESTS = _table(JoinRequestRow)
NOTICES = _table(NoticeRow)
STORE_IDENTITY = _table(StoreIdentityRow)
USED_IDS = _table(UsedIdRow)
ID_TWINS = _table(IdTwinRow)


def columns(table: Table, fields: Iterable[str]) -> list[ColumnElement[Any]]:
    """The columns that store the given fields of a struct, in the order of the fields."""
    return [table.c[field] for field in fields]
