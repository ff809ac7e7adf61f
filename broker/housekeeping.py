"""The periodic jobs of a node, and the repairs at its start."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from broker import VERSION
from broker.delivery.away import AwaySessions
from broker.delivery.online import Online
from broker.domain.errors import StoreError
from broker.domain.presence import offline_document
from broker.domain.topics import parse_topic
from broker.metrics import Metrics
from broker.ports import Retained, SessionKey
from broker.registry import Client, Registry
from broker.states import States
from broker.status.sys import SysTopics
from broker.tasks import Tasks

logger = logging.getLogger(__name__)

_CURSOR_SECONDS = 0.5
_EXPIRY_SECONDS = 3600.0


Connected = Callable[[Sequence[str]], Awaitable[Collection[str]]]
"""Which of some users are connected to other nodes."""

ConnectedSessions = Callable[[Sequence[SessionKey]], Awaitable[Collection[SessionKey] | None]]
"""Which of some sessions are connected, to whatever node. None: unknown."""

_MOST_EXPIRING = 1_000_000


class SessionLimits(Protocol):
    """How long sessions are kept."""

    session_expiry: float
    """Seconds for which a session without a connection is kept."""


class Housekeeping:
    """Saves cursors, expires sessions, updates `$SYS`.

    `now_ms` is wall time; `steady_ms` is Unix ms that steps of the wall clock do not change.
    `sys_interval`: seconds between updates of `$SYS`, 0 for none. `stats` returns the node's figures.
    `each_second` is called once a second."""

    def __init__(
        self,
        registry: Registry,
        online: Online[Client],
        away: AwaySessions,
        states: States,
        sys: SysTopics,
        metrics: Metrics,
        tasks: Tasks,
        now_ms: Callable[[], int],
        steady_ms: Callable[[], int],
        stats: Callable[[], dict[str, int]],
        each_second: Callable[[], None],
        limits: SessionLimits,
        sys_interval: float,
        connected: ConnectedSessions | None = None,
    ) -> None:
        """`connected`: None if there are no other nodes."""
        self._registry = registry
        self._online = online
        self._away = away
        self._states = states
        self._sys = sys
        self._metrics = metrics
        self._tasks = tasks
        self._now_ms = now_ms
        self._steady_ms = steady_ms
        self._stats = stats
        self._each_second = each_second
        self._limits = limits
        self._sys_interval = sys_interval
        self._connected = connected

    async def mark_offline(self, connected: Connected) -> None:
        """At the start: set users offline who were online when the node died, but for those who are
        `connected` to other nodes. Raises `StoreError`."""
        now = self._now_ms()
        topics = {parse_topic(topic).owner: topic for topic in await self._states.store.live_retained()}
        elsewhere = await connected(list(topics))
        changes = [
            Retained(topic, offline_document(user, now), 1)
            for user, topic in topics.items()
            if user not in elsewhere
        ]
        if changes:
            await self._states.save(changes)

    def start(self) -> None:
        """Start the periodic jobs."""
        self._tasks.spawn(_every(1.0, self._each_second))
        self._tasks.spawn(_every(_CURSOR_SECONDS, self._registry.save_cursors))
        self._tasks.spawn(self._expire_sessions())
        if self._sys_interval:
            self._update_sys()
            self._tasks.spawn(_every(self._sys_interval, self._update_sys))

    async def _expire_sessions(self) -> None:
        while True:
            try:
                await self.expire_sessions()
            except StoreError as error:
                logger.error("expiring sessions failed: %s", error)
            await asyncio.sleep(_EXPIRY_SECONDS)

    async def expire_sessions(self) -> None:
        """Delete the sessions that have been away for too long. Raises `StoreError`."""
        now = self._steady_ms()
        before = now - int(self._limits.session_expiry * 1000)
        # A connected session may have been saved long ago: it must not expire.
        keep = [key for key, client in self._online.items() if client.session and client.session.persistent]
        if self._connected is not None:
            elsewhere = await self._connected(await self._states.store.expiring(before, _MOST_EXPIRING))
            if elsewhere is None:
                return  # the next time, or another node
            # One that connects from here on counts as saved when it is claimed.
            keep += elsewhere
        if expired := await self._states.store.expire(before, keep, now):
            self._metrics.dropped["session_expired"] += expired
            await self._away.drop_expired()

    def _update_sys(self) -> None:
        stats = self._stats()
        self._sys.update(
            {
                "version": f"Parley {VERSION}",
                "uptime": stats["uptime_seconds"],
                "clients/connected": stats["clients_connected"],
                "clients/total": stats["connections"],
                "subscriptions/count": stats["subscriptions"],
                "messages/received": stats["published"],
                "messages/sent": stats["delivered"],
                "messages/stored": stats["stored"],
                "messages/dropped": sum(self._metrics.dropped.values()),
                "messages/refused": sum(self._metrics.refused.values()),
                "load/bytes/received": stats["bytes_received"],
                "load/bytes/sent": stats["bytes_sent"],
                "heap/current": stats["rss_bytes"],
            }
        )


async def _every(seconds: float, job: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            job()
        except Exception:
            logger.exception("a periodic job failed")
