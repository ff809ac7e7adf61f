"""The identity of the store, in a document."""

from broker.ports import StoreIdentity
from plugins.persistence.mongodb.client import Database
from plugins.persistence.mongodb.operations import Update
from plugins.persistence.mongodb.schema import META

_IDENTITY = "identity"


class MongoIdentity:
    """See `broker.ports.Identified`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store_identity(self) -> StoreIdentity | None:
        found = await self._database.one(META, _IDENTITY)
        return None if found is None else StoreIdentity(found["id"], found["generation"])

    async def set_store_identity(self, identity: StoreIdentity) -> None:
        change = {"$set": {"id": identity.id, "generation": identity.generation}}
        await self._database.write(META, Update({"_id": _IDENTITY}, change, upsert=True))
