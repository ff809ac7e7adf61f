"""The parts of a node that all its connections share."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol, cast

from broker.delivery.fanout import Fanout
from broker.delivery.subscriptions import Subscriptions
from broker.domain.rates import Allowances
from broker.metrics import Metrics
from broker.net.budget import Budget
from broker.net.deadlines import Deadlines
from broker.net.outbox import Flusher
from broker.net.reachability import Reachability
from broker.net.turns import Turns
from broker.outage import Outage
from broker.ports import Gate, PluginEvents, Principal
from broker.publish.pipeline import Pipeline
from broker.registry import Registry

logger = logging.getLogger(__name__)


class ConnectionLimits(Protocol):
    """The limits of a connection, in bytes and seconds."""

    max_packet_bytes: int
    max_packet_bytes_before_connect: int
    outbox_bytes: int
    outboxes_bytes: int
    uncommitted_bytes: int
    connect_timeout: float
    unreachable_after: float
    publishes_per_second: int
    packets_per_turn: int


class Connected(Protocol):
    """A connection as the hub sees it."""

    @property
    def file(self) -> int | None: ...

    @property
    def closed(self) -> bool: ...

    @property
    def principal(self) -> Principal | None:
        """The client, once authenticated."""
        ...

    def close(self, reason: str) -> None:
        """End the connection."""
        ...


class Hub:
    """The parts of a node that all its connections share, and the set of these connections."""

    def __init__(
        self,
        gate: Gate,
        registry: Registry,
        subscriptions: Subscriptions,
        pipeline: Pipeline,
        fanout: Fanout,
        metrics: Metrics,
        limits: ConnectionLimits,
        loop: asyncio.AbstractEventLoop,
        events: PluginEvents,
        outage: Outage,
        busy: Callable[[bool], None],
    ) -> None:
        """`busy`: see `Turns`."""
        self.gate = gate
        self.registry = registry
        self.subscriptions = subscriptions
        self.pipeline = pipeline
        self.fanout = fanout
        self.metrics = metrics
        self.totals = metrics.totals
        self.limits = limits
        self.loop = loop
        self.events = events
        self.outage = outage
        self.flusher = Flusher(loop.call_soon, self._packets_sent if events.packets else None)
        self.budget = Budget(limits.outbox_bytes, limits.outboxes_bytes, metrics.limited)
        self.deadlines = Deadlines()
        self.reachability = Reachability(limits.unreachable_after)
        self.publishes = Allowances(limits.publishes_per_second)
        self.turns = Turns(loop.call_soon, limits.packets_per_turn, metrics.totals, busy)
        self.connections: set[Connected] = set()

    def turn_away(self, no_room: str) -> None:
        """Count and log a connection for which there is no room; `no_room` says of what."""
        self.metrics.refused[no_room] += 1
        about = {"client": "", "reason": no_room}
        logger.warning("a connection is refused: %s", no_room.replace("_", " "), extra=about)

    def _packets_sent(self, owner: object, packets: bytes) -> None:
        self.events.packets_sent(packets, cast("Connected", owner).principal)
