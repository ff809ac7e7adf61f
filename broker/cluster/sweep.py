"""Looks for entries that no hint has announced.

Hints may be lost. So the heads of all logs with live readers are compared with the store: every 10 s, every
second while the other nodes cannot be reached, and at once when they can be reached again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from broker.domain.errors import StoreError
from broker.ports import MessageLog
from broker.session.session import Session
from broker.session.tail import Tail

logger = logging.getLogger(__name__)

_SECONDS = 10.0
_SECONDS_WITHOUT_HINTS = 1.0
_LOGS_AT_ONCE = 1000


class Sweep:
    """`sessions()` are the connected ones."""

    def __init__(self, log: MessageLog, sessions: Callable[[], Iterable[Session]]) -> None:
        self._log = log
        self._sessions = sessions
        self._wanted = asyncio.Event()
        self._seconds = _SECONDS

    def hints_are_lost(self) -> None:
        """Look every second from now on."""
        self._seconds = _SECONDS_WITHOUT_HINTS
        self._wanted.set()

    def hints_are_back(self) -> None:
        """Look once more at once, for what was missed, then every 10 s."""
        self._seconds = _SECONDS
        self._wanted.set()

    async def run(self) -> None:
        """Look again and again."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._seconds)
            self._wanted.clear()
            try:
                await self.look()
            except StoreError as error:
                logger.warning("comparing readers with their logs: %s", error)

    async def look(self) -> None:
        """Compare all live tails once. Those with more entries in their logs read them. Raises
        `StoreError`."""
        tails: dict[str, list[tuple[Session, Tail]]] = {}
        for session in self._sessions():
            for tail in session.tails.values():
                if tail.live:
                    tails.setdefault(tail.log, []).append((session, tail))
        logs = list(tails)
        for first in range(0, len(logs), _LOGS_AT_ONCE):
            heads = await self._log.heads(logs[first : first + _LOGS_AT_ONCE])
            for log, head in heads.items():
                for session, tail in tails[log]:
                    session.grown(tail, head)
