"""Brings a database to the newest tables, when it is opened."""

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select
from sqlmodel import SQLModel

NEWEST = "0002"
"""The last step of `migrations`."""

_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def migrate(connection: Connection) -> None:
    """Make the tables of a new database; take the steps an older one lacks.

    Raises:
        StoreError: the database was written by a newer version.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        SQLModel.metadata.create_all(connection)
        _VERSION.create(connection)
        connection.execute(insert(_VERSION).values(version_num=NEWEST))
    elif _VERSION.name not in tables or connection.scalar(select(_VERSION)) != NEWEST:
        from plugins.persistence.sql_directory.upgrade import upgrade

        upgrade(connection)
