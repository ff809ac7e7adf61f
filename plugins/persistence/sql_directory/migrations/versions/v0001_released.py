"""Accounts, groups and memberships, as they were before there were migrations.

A database of that time has these tables already, or the first of them if its creation was interrupted.
Tables that exist are left as they are.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from plugins.persistence.sql_directory.migrations.reentrant import finish_index

revision = "0001"
down_revision = None

_TEXT: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def upgrade() -> None:
    there = sa.inspect(op.get_bind()).get_table_names()
    if "users" not in there:
        op.create_table(
            "users",
            sa.Column("user_id", sa.String(64), primary_key=True),
            sa.Column("password_hash", sa.String(255)),
            sa.Column("role", sa.String(16), nullable=False),
            sa.Column("disabled", sa.Boolean, nullable=False),
            sa.Column("created_at", sa.Integer, nullable=False),
            sa.Column("inbox_floor", sa.Integer, nullable=False),
            **_TEXT,
        )
    if "groups" not in there:
        op.create_table(
            "groups",
            sa.Column("group_id", sa.String(64), primary_key=True),
            sa.Column("name", sa.String(255), nullable=False),
            sa.Column("owner", sa.String(64), nullable=False),
            sa.Column("created_at", sa.Integer, nullable=False),
            **_TEXT,
        )
    if "memberships" not in there:
        op.create_table(
            "memberships",
            sa.Column("group_id", sa.String(64), primary_key=True),
            sa.Column("user_id", sa.String(64), primary_key=True),
            sa.Column("role", sa.String(16), nullable=False),
            sa.Column("joined_seq", sa.Integer, nullable=False),
            sa.Column("muted_until", sa.Integer, nullable=False),
            **_TEXT,
        )
        op.create_index("ix_memberships_user_id", "memberships", ["user_id"])
    else:
        finish_index("ix_memberships_user_id", "memberships", ["user_id"])
