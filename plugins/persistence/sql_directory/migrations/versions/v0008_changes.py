"""Adds the changes that other nodes have not read yet."""

from typing import Any

import sqlalchemy as sa

from plugins.persistence.sql_directory.migrations.reentrant import create_table

revision = "0008"
down_revision = "0007"

_TEXT: dict[str, Any] = {
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_0900_bin",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_nopad_bin",
}


def upgrade() -> None:
    key = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
    create_table(
        "changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("writer", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("one", key, nullable=False),
        sa.Column("other", key, nullable=False),
        sqlite_autoincrement=True,
        **_TEXT,
    )
