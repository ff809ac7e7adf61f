"""The tables of the directory. To change one, add a migration to `migrations/versions`.

Every text has a greatest length and is compared byte by byte, so that a table behaves the same in every
database. A column has the name of the struct field that it stores: `columns` relies on it.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Dialect,
    Integer,
    LargeBinary,
    String,
    Table,
    TypeDecorator,
)
from sqlalchemy.types import TypeEngine
from sqlmodel import Field, SQLModel

# Not utf8mb4_bin, which takes no notice of spaces at the end.
_TEXT = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_0900_bin",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_nopad_bin",
}


class Id(TypeDecorator[str]):
    """An id of at most 64 characters, compared byte by byte. SQLite does so with every text; in PostgreSQL
    a column without a collation has that of the database, which orders as a language does."""

    impl = String
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(64)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        collation = "C" if dialect.name == "postgresql" else None
        return dialect.type_descriptor(String(64, collation))


class _JsonAsText(LargeBinary):
    """Bytes of JSON, sent as text: aiomysql 0.3 cannot send bytes with PyMySQL 1.2. A binary column stores
    the bytes of a text as they come, which is UTF-8 (`charset` in `mariadb.py`)."""

    def bind_processor(self, dialect: Dialect) -> Any:
        return bytes.decode


class UserRow(SQLModel, table=True):
    """An account and its profile. `created_at` is Unix milliseconds, `tokens_after` seconds."""

    __tablename__ = "users"
    __table_args__ = _TEXT

    user_id: str = Field(primary_key=True, sa_type=Id)
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

    token_id: str = Field(primary_key=True, sa_type=Id)
    user_id: str = Field(sa_type=Id, index=True)
    expires_at: int = Field(sa_type=BigInteger, index=True)


class ContactRow(SQLModel, table=True):
    """A contact in one direction: what `user_id` has said about `peer_id`."""

    __tablename__ = "contacts"
    __table_args__ = _TEXT

    user_id: str = Field(primary_key=True, sa_type=Id)
    peer_id: str = Field(primary_key=True, sa_type=Id, index=True)
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

    group_id: str = Field(primary_key=True, sa_type=Id)
    name: str = Field(max_length=255)
    owner: str = Field(sa_type=Id, index=True)
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

    group_id: str = Field(primary_key=True, sa_type=Id)
    user_id: str = Field(primary_key=True, sa_type=Id, index=True)
    role: str = Field(default="member", max_length=16)
    joined_seq: int = Field(sa_type=BigInteger)
    muted_until: int = Field(default=0, sa_type=BigInteger)


class BanRow(SQLModel, table=True):
    """A user who may not join a group again before `until` (Unix ms; 0 is for ever)."""

    __tablename__ = "group_bans"
    __table_args__ = _TEXT

    group_id: str = Field(primary_key=True, sa_type=Id)
    user_id: str = Field(primary_key=True, sa_type=Id, index=True)
    until: int = Field(sa_type=BigInteger)


class DepartureRow(SQLModel, table=True):
    """A user who was a member of a group: one who has left by themselves, or who was muted."""

    __tablename__ = "departures"
    __table_args__ = _TEXT

    group_id: str = Field(primary_key=True, sa_type=Id)
    user_id: str = Field(primary_key=True, sa_type=Id, index=True)
    by_self: bool = True
    muted_until: int = Field(default=0, sa_type=BigInteger)


class JoinRequestRow(SQLModel, table=True):
    """A user who asks to join a group."""

    __tablename__ = "join_requests"
    __table_args__ = _TEXT

    group_id: str = Field(primary_key=True, sa_type=Id)
    user_id: str = Field(primary_key=True, sa_type=Id, index=True)
    note: str = Field(max_length=1024)
    created_at: int = Field(sa_type=BigInteger)


_JSON = LargeBinary(2**24 - 1).with_variant(_JsonAsText(2**24 - 1), "mysql", "mariadb")


class NoticeRow(SQLModel, table=True):
    """An entry that has not reached its log yet. `place` counts up in the order of writing."""

    __tablename__ = "notices"
    __table_args__ = {"sqlite_autoincrement": True, **_TEXT}

    # SQLite increments a key by itself only if its type is INTEGER.
    place: int | None = Field(
        default=None, sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    )
    id: str = Field(sa_type=Id, unique=True)
    sender: str = Field(sa_type=Id)
    topic: str = Field(max_length=255)
    content: bytes = Field(sa_column=Column(_JSON, nullable=False))


class StoreIdentityRow(SQLModel, table=True):
    """The identity of the store: one row."""

    __tablename__ = "store_identity"
    __table_args__ = _TEXT

    id: str = Field(primary_key=True, sa_type=Id)
    generation: int = Field(sa_type=BigInteger)


class UsedIdRow(SQLModel, table=True):
    """An id that a user or group has or had. `folded` is the id in lower case."""

    __tablename__ = "used_ids"
    __table_args__ = _TEXT

    kind: str = Field(primary_key=True, max_length=8)
    folded: str = Field(primary_key=True, sa_type=Id)
    id: str = Field(sa_type=Id)


class IdTwinRow(SQLModel, table=True):
    """An id that differs in case only from one in `used_ids`, from an earlier version."""

    __tablename__ = "id_twins"
    __table_args__ = _TEXT

    kind: str = Field(primary_key=True, max_length=8)
    id: str = Field(primary_key=True, sa_type=Id)
    folded: str = Field(sa_type=Id, index=True)


class ChangeRow(SQLModel, table=True):
    """A change that other nodes have not read yet. `writer` is the directory that made it."""

    __tablename__ = "changes"
    __table_args__ = {"sqlite_autoincrement": True, **_TEXT}

    id: int | None = Field(
        default=None, sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    )
    writer: str = Field(max_length=32)
    kind: str = Field(max_length=16)
    one: str = Field(sa_type=Id)
    other: str = Field(sa_type=Id)


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
CHANGES = _table(ChangeRow)


def columns(table: Table, fields: Iterable[str]) -> list[ColumnElement[Any]]:
    """The columns that store the given fields of a struct, in the order of the fields."""
    return [table.c[field] for field in fields]
