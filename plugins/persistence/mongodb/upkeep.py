"""Checks of the database. Copies are MongoDB's own business."""

from collections.abc import AsyncGenerator
from pathlib import Path

from broker.domain.errors import StoreError
from broker.ports import Verified
from plugins.persistence.mongodb.client import Database
from plugins.persistence.mongodb.verify import verification


class MongoUpkeep:
    """See `broker.ports.Upkeep`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def verify(self) -> AsyncGenerator[Verified]:
        """See `Upkeep`."""
        return verification(self._database)

    async def copy(self, folder: Path) -> None:
        """Always refused: no file in a folder is a replica set."""
        raise StoreError("messages are on MongoDB: copy them with mongodump, or by snapshots of its volumes")
