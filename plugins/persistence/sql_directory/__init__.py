"""The directory on any SQL database that SQLAlchemy supports. The default is an SQLite file."""

from plugins.persistence.sql_directory.directory import SqlDirectory, open_directory

__all__ = ["SqlDirectory", "open_directory"]
