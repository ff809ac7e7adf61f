"""Adds the ids that users and groups have or had."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from plugins.persistence.sql_directory.migrations.reentrant import create_table

revision = "0005"
down_revision = "0004"

_TEXT: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def upgrade() -> None:
    used = create_table(
        "used_ids",
        sa.Column("kind", sa.String(8), primary_key=True),
        sa.Column("folded", sa.String(64), primary_key=True),
        sa.Column("id", sa.String(64), nullable=False),
        **_TEXT,
    )
    twins = create_table(
        "id_twins",
        sa.Column("kind", sa.String(8), primary_key=True),
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("folded", sa.String(64), nullable=False, index=True),
        **_TEXT,
    )
    for kind, table, key in (("user", "users", "user_id"), ("group", "groups", "group_id")):
        _fill(used, twins, kind, sa.column(key), sa.table(table, sa.column(key)))


def _fill(used: sa.Table, twins: sa.Table, kind: str, name: Any, table: sa.TableClause) -> None:
    """Of ids that differ in case only, the first is entered, and the others are its twins."""
    folded = sa.func.lower(name)
    first = sa.select(sa.literal(kind), folded, sa.func.min(name)).select_from(table).group_by(folded)
    op.execute(used.insert().from_select(["kind", "folded", "id"], first))
    here = (used.c.kind == kind) & (used.c.folded == folded)
    others = sa.select(sa.literal(kind), name, folded).select_from(table.join(used, here))
    op.execute(twins.insert().from_select(["kind", "id", "folded"], others.where(used.c.id != name)))
