"""Adds who may add a user to groups, which requests were announced, and who has left which group."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from plugins.persistence.sql_directory.migrations.reentrant import add_column, create_index, create_table

revision = "0004"
down_revision = "0003"

_TEXT: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def upgrade() -> None:
    add_column("users", sa.Column("who_may_add_me", sa.String(16), nullable=False, server_default="everyone"))
    add_column("contacts", sa.Column("asked", sa.Boolean, nullable=False, server_default=sa.false()))
    contacts = sa.table("contacts", sa.column("state"), sa.column("asked", sa.Boolean))
    op.execute(contacts.update().where(contacts.c.state == "sent").values(asked=sa.true()))
    create_table(
        "departures",
        sa.Column("group_id", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.String(64), primary_key=True),
        **_TEXT,
    )
    create_index("ix_departures_user_id", "departures", ["user_id"])
