"""Compares ids byte by byte: in PostgreSQL instead of as the language of the database does, in MariaDB and
MySQL with the spaces at their ends. SQLite does so already."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_IDS = {
    "users": ["user_id"],
    "revoked_tokens": ["token_id", "user_id"],
    "contacts": ["user_id", "peer_id"],
    "groups": ["group_id", "owner"],
    "memberships": ["group_id", "user_id"],
    "group_bans": ["group_id", "user_id"],
    "departures": ["group_id", "user_id"],
    "join_requests": ["group_id", "user_id"],
    "notices": ["id", "sender"],
    "store_identity": ["id"],
    "used_ids": ["folded", "id"],
    "id_twins": ["id", "folded"],
}
_COLLATIONS = {"mysql": "utf8mb4_0900_bin", "mariadb": "utf8mb4_nopad_bin"}


def upgrade() -> None:
    dialect = op.get_context().dialect.name
    if dialect == "postgresql":
        for table, columns in _IDS.items():
            for column in columns:
                op.alter_column(table, column, type_=sa.String(64, collation="C"))
    elif dialect in _COLLATIONS:
        for table in _IDS:
            _convert(table, _COLLATIONS[dialect])


def _convert(table: str, collation: str) -> None:
    """Copies the table, so not again if an attempt that was interrupted has done it."""
    of_table = sa.text(
        "SELECT table_collation FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name = :table"
    )
    if op.get_bind().scalar(of_table, {"table": table}) != collation:
        name = op.get_context().dialect.identifier_preparer.quote(table)
        op.execute(f"ALTER TABLE {name} CONVERT TO CHARACTER SET utf8mb4 COLLATE {collation}")
