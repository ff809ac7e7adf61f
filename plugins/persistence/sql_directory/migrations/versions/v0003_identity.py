"""Adds the identity of the store."""

from typing import Any

import sqlalchemy as sa

from plugins.persistence.sql_directory.migrations.reentrant import create_table

revision = "0003"
down_revision = "0002"

_TEXT: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def upgrade() -> None:
    create_table(
        "store_identity",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
        **_TEXT,
    )
