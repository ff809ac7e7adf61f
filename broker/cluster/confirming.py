"""Changes of the directory are confirmed when the other nodes have applied them, too.

Each node finds the changes of the others in the directory by itself, four times a second. Here it is asked
to look at once, before the author of a change gets the answer: so a right that was taken delivers nothing,
on whatever node.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from broker.domain.errors import StoreError
from broker.ports import Backplane

logger = logging.getLogger(__name__)

_KIND = "directory"
_SECONDS = 1.0
"""A node that does not answer in this time is dead, or cut off. What it knows may be old: it looks by
itself."""
_KNOWN_SECONDS = 1.0
"""For how long the list of the nodes is used."""


class Confirming:
    """`look` applies on this node what other nodes have changed."""

    def __init__(self, backplane: Backplane, look: Callable[[], Awaitable[None]]) -> None:
        self._backplane = backplane
        self._look = look
        self._names: list[str] = []
        self._names_until = 0.0
        backplane.mail.on_question(_KIND, self._answer)

    async def confirm(self) -> None:
        """This node has changed the directory: return when the others that live have applied it."""
        ask = self._backplane.mail.ask
        await asyncio.gather(*(ask(name, _KIND, b"", _SECONDS) for name in await self._others()))

    async def _others(self) -> list[str]:
        now = time.monotonic()
        if now >= self._names_until:
            members = await self._backplane.members.all()
            if members is not None:
                self._names = [each.name for each in members if each.name != self._backplane.name]
                self._names_until = now + _KNOWN_SECONDS
        return self._names

    async def _answer(self, _node: str, _body: bytes) -> bytes:
        try:
            await self._look()
        except StoreError as error:
            logger.warning("looking at what other nodes have changed: %s", error)
        return b""
