"""The steps from older tables to the newest, by Alembic. Imported only when there are some to take:
it is large, and most starts need none."""

import logging

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from broker.domain.errors import StoreError

# It tells of itself whenever it runs.
logging.getLogger("alembic").setLevel(logging.WARNING)


def upgrade(connection: Connection) -> None:
    """Take the steps a database lacks, all within the transaction of `connection`. MySQL and MariaDB
    commit each of their statements: interrupted there, a migration has to be repaired by hand.

    Raises:
        StoreError: the database was written by a newer version.
    """
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", f"{__package__}:migrations")
    scripts = ScriptDirectory.from_config(config)
    version = MigrationContext.configure(connection).get_current_revision()
    if version not in {None, *(step.revision for step in scripts.walk_revisions())}:
        raise StoreError(
            f"the database has version {version}, this program knows {scripts.get_current_head()}: "
            "use a newer one"
        )
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(str(error)) from error
