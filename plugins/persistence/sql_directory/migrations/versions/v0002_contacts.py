"""Adds profiles, revoked tokens, contacts, the settings of groups, bans, join requests and notices."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from plugins.persistence.sql_directory.migrations.reentrant import add_column, create_index, create_table

revision = "0002"
down_revision = "0001"

_TEXT: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def upgrade() -> None:
    _widen()
    _extend_users()
    _extend_groups()
    _create_contacts()
    _create_group_tables()
    _create_notices()


def _widen() -> None:
    """Milliseconds need 64 bits. In SQLite every integer has them, and a column cannot be altered."""
    if op.get_context().dialect.name == "sqlite":
        return
    for table, column in (
        ("users", "created_at"),
        ("users", "inbox_floor"),
        ("groups", "created_at"),
        ("memberships", "joined_seq"),
        ("memberships", "muted_until"),
    ):
        op.alter_column(table, column, type_=sa.BigInteger, existing_type=sa.Integer, existing_nullable=False)


def _text(name: str, length: int, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False, server_default=default)


def _number(name: str, default: str = "0") -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=default)


def _extend_users() -> None:
    for column in (
        _number("tokens_after"),
        _text("name", 255),
        _text("avatar", 2048),
        _text("who_may_message", 16, "everyone"),
        _text("who_sees_presence", 16, "contacts"),
        sa.Column("read_receipts", sa.Boolean, nullable=False, server_default=sa.true()),
    ):
        add_column("users", column)
    create_table(
        "revoked_tokens",
        sa.Column("token_id", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        **_TEXT,
    )
    create_index("ix_revoked_tokens_user_id", "revoked_tokens", ["user_id"])
    create_index("ix_revoked_tokens_expires_at", "revoked_tokens", ["expires_at"])


def _extend_groups() -> None:
    for column in (
        _text("avatar", 2048),
        _text("announcement", 4096),
        _number("muted_until"),
        _text("who_may_invite", 16, "members"),
        _text("who_may_post", 16, "members"),
        _text("join", 16, "approval"),
        sa.Column("history_visible", sa.Boolean, nullable=False, server_default=sa.false()),
        _number("dismissed_at"),
        _number("floor"),
        _number("version", "1"),
    ):
        add_column("groups", column)
    create_index("ix_groups_owner", "groups", ["owner"])
    _find_floors()


def _find_floors() -> None:
    """The floor of a group is the offset after which its first member may read."""
    groups = sa.table("groups", sa.column("group_id"), sa.column("floor"))
    members = sa.table("memberships", sa.column("group_id"), sa.column("joined_seq"))
    first = sa.select(sa.func.coalesce(sa.func.min(members.c.joined_seq), 0))
    mine = first.where(members.c.group_id == groups.c.group_id).scalar_subquery()
    op.execute(groups.update().values(floor=mine))


def _create_contacts() -> None:
    create_table(
        "contacts",
        sa.Column("user_id", sa.String(64), primary_key=True),
        sa.Column("peer_id", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("blocked", sa.Boolean, nullable=False),
        sa.Column("remark", sa.String(255), nullable=False),
        sa.Column("note", sa.String(1024), nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        **_TEXT,
    )
    create_index("ix_contacts_peer_id", "contacts", ["peer_id"])


def _create_group_tables() -> None:
    create_table(
        "group_bans",
        sa.Column("group_id", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.String(64), primary_key=True),
        sa.Column("until", sa.BigInteger, nullable=False),
        **_TEXT,
    )
    create_index("ix_group_bans_user_id", "group_bans", ["user_id"])
    create_table(
        "join_requests",
        sa.Column("group_id", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.String(64), primary_key=True),
        sa.Column("note", sa.String(1024), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        **_TEXT,
    )
    create_index("ix_join_requests_user_id", "join_requests", ["user_id"])


def _create_notices() -> None:
    place = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    create_table(
        "notices",
        sa.Column("place", place, primary_key=True),
        sa.Column("id", sa.String(64), nullable=False, unique=True),
        sa.Column("sender", sa.String(64), nullable=False),
        sa.Column("topic", sa.String(255), nullable=False),
        sa.Column("content", sa.LargeBinary(2**24 - 1), nullable=False),
        sqlite_autoincrement=True,
        **_TEXT,
    )
