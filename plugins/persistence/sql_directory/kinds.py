"""What differs between the servers: connecting, errors, and the lock for migrations."""

from typing import Any, Protocol

from sqlalchemy import Connection

from plugins.persistence.sql_directory.pool import Pool


class Kind(Protocol):
    """A kind of database server."""

    driver: str
    """The dialect and the driver of its URLs, which `check` may change."""
    errors: tuple[type[Exception], ...]
    """What the driver raises itself, so that it does not come as an error of SQLAlchemy."""

    def options(self, pool: Pool) -> dict[str, Any]:
        """Arguments of the driver's `connect` for the jobs of a node."""
        ...

    def migration_options(self, pool: Pool) -> dict[str, Any]:
        """The same for migrations, which may take long."""
        ...

    def check(self, connection: Connection) -> None:
        """Raises `StoreError` if the server or the database cannot hold the directory."""
        ...

    def lock(self, connection: Connection) -> None:
        """Wait until no other node migrates the database; then no other does until the connection ends.

        Raises:
            StoreError: waited too long.
        """
        ...

    def failed_together(self, error: BaseException) -> bool:
        """Whether a transaction has failed only because another one ran at the same time, so that it may be
        run again. Nothing of it was written."""
        ...

    def may_pass(self, error: BaseException) -> bool:
        """Whether the server cannot be reached or does not work now, and may later."""
        ...

    def reason(self, error: BaseException) -> str:
        """What the server says, without values of the statement: they can be personal data."""
        ...
