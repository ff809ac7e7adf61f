"""What all connections of a node share."""

import asyncio
from typing import Protocol

from broker.delivery.subscriptions import Subscriptions
from broker.metrics import Metrics
from broker.net.deadlines import Deadlines
from broker.net.outbox import Flusher
from broker.ports import Gate, PluginEvents
from broker.publish.pipeline import Pipeline
from broker.registry import Client, Registry


class ConnectionLimits(Protocol):
    """Bounds of a connection: bytes and seconds."""

    max_packet_bytes: int
    max_packet_bytes_before_connect: int
    outbox_bytes: int
    uncommitted_bytes: int
    connect_timeout: float


class Hub:
    """What all connections of a node share."""

    def __init__(
        self,
        gate: Gate,
        registry: Registry,
        subscriptions: Subscriptions,
        pipeline: Pipeline,
        metrics: Metrics,
        limits: ConnectionLimits,
        loop: asyncio.AbstractEventLoop,
        events: PluginEvents,
    ) -> None:
        self.gate = gate
        self.registry = registry
        self.subscriptions = subscriptions
        self.pipeline = pipeline
        self.metrics = metrics
        self.totals = metrics.totals
        self.limits = limits
        self.loop = loop
        self.events = events
        self.flusher = Flusher(loop.call_soon)
        self.deadlines = Deadlines()
        self.connections: set[Client] = set()
