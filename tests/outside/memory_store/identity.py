"""The identity of the store in memory."""

from broker.ports import StoreIdentity

from .contents import Opened


class MemoryIdentity:
    """See `broker.ports.Identified`."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    async def store_identity(self) -> StoreIdentity | None:
        return self._opened.contents.identity

    async def set_store_identity(self, identity: StoreIdentity) -> None:
        self._opened.contents.identity = identity
