"""Directory on any SQL database SQLAlchemy speaks to; the embedded default is a SQLite file."""

from plugins.persistence.sql_directory.directory import SqlDirectory, open_directory

__all__ = ["SqlDirectory", "open_directory"]
