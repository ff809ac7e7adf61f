"""The identity of a node's stores, by which a store that was lost, emptied or exchanged is noticed."""

from typing import Protocol

import msgspec


class StoreIdentity(msgspec.Struct, frozen=True):
    """What the message store, the directory and the data directory of one node all keep."""

    id: str
    """32 hexadecimal digits, drawn at the first start."""
    generation: int
    """From 1. Offsets that a client has from an earlier generation may mean other entries, or none: a
    restore raises it, and so does going on with another message store."""


class Identified(Protocol):
    """A store that keeps the identity it was given. Both methods raise `StoreError`."""

    async def store_identity(self) -> StoreIdentity | None:
        """The identity; None for a new store, and for one of a version that knew none."""
        ...

    async def set_store_identity(self, identity: StoreIdentity) -> None:
        """Keep this identity instead. On return it is on disk."""
        ...
