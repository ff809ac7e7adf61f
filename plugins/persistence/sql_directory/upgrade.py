"""Runs the migrations of an older database, with Alembic."""

import logging

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from broker.domain.errors import StoreError

# Alembic logs its own set-up at every run.
logging.getLogger("alembic").setLevel(logging.WARNING)


def upgrade(connection: Connection) -> None:
    """Run the migrations that a database lacks, all in the transaction of `connection` where the database
    can do so. If they are interrupted, the next call goes on with them (`migrations/__init__.py`).

    Raises:
        StoreError: a newer version of this program wrote the database.
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
