"""How many devices the users of a node have on all nodes, and what they say of themselves."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from broker.ports import Backplane
from broker.tasks import Tasks

_CLAIM = "claim"
_RETRY_SECONDS = 1.0

_encode = msgspec.msgpack.encode


class _Claim(msgspec.Struct, frozen=True, array_like=True):
    """A client has published a presence for its user."""

    user: str
    status: str


_decode_claim = msgspec.msgpack.Decoder(_Claim).decode


class Presence(Protocol):
    """See `broker.status.presence.Presence`."""

    def devices_changed(
        self, user: str, devices: int, here: int | None = None, claimed: str | None = None
    ) -> None: ...

    def knows(self, user: str) -> bool: ...

    def claimed_elsewhere(self, user: str, status: str) -> None: ...

    def gone(self, user: str) -> None: ...


class Counting:
    """Tells `presence`. `here(user)` counts the devices of this node, which must do while the other nodes
    cannot be reached. `status_of(user)` is the status in the user's retained presence."""

    def __init__(
        self,
        backplane: Backplane,
        presence: Presence,
        here: Callable[[str], int],
        status_of: Callable[[str], Awaitable[str | None]],
        tasks: Tasks,
    ) -> None:
        self._backplane = backplane
        self._presence = presence
        self._here = here
        self._status_of = status_of
        self._tasks = tasks
        backplane.mail.on(_CLAIM, lambda _node, body: self._claimed(body))

    def count(self, user: str, devices: int | None) -> None:
        """A user has so many devices on all nodes now. None: unknown."""
        if not user:
            return
        here = self._here(user)
        if devices is None or devices <= here or self._presence.knows(user):
            self._presence.devices_changed(user, here if devices is None else devices, here)
        else:
            self._tasks.spawn(self._count_with_claim(user, devices))

    async def _count_with_claim(self, user: str, devices: int) -> None:
        """Other nodes know what the user has claimed to be, and this one does not."""
        claimed = await self._status_of(user)
        self._presence.devices_changed(user, devices, self._here(user), claimed)

    async def leave(self, user: str, left: Callable[[], None]) -> None:
        """The grace period of a user ends: call `left`, unless the user is connected to another node by now,
        which has said so."""
        found = await self._backplane.devices.of([user])
        while found is None:  # who is online elsewhere must not be set offline
            await asyncio.sleep(_RETRY_SECONDS)
            found = await self._backplane.devices.of([user])
        if found.get(user):
            self._presence.gone(user)
        else:
            left()

    def is_here(self, user: str) -> bool:
        """Whether a device of the user is connected to this node."""
        return bool(self._here(user))

    def tell_claim(self, user: str, status: str) -> None:
        """A client of this node has published a presence."""
        self._backplane.mail.send(None, _CLAIM, _encode(_Claim(user, status)))

    def _claimed(self, body: bytes) -> None:
        claim = _decode_claim(body)
        self._presence.claimed_elsewhere(claim.user, claim.status)
