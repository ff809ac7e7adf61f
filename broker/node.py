"""One node: the data plane put together from its parts."""

import asyncio
import logging
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import picows

from broker import VERSION
from broker.amqtt_edge.context import BrokerView, PluginSession
from broker.amqtt_edge.host import AmqttHost
from broker.config import Config
from broker.delivery.feeder import Feeder
from broker.delivery.router import Router
from broker.delivery.subscriber import Subscriber
from broker.delivery.subscriptions import Subscriptions
from broker.domain.errors import Refusal, StoreError
from broker.domain.message import Content
from broker.domain.presence import offline_document
from broker.domain.topics import Kind, Topic, parse_topic, presence_topic
from broker.group_commit import GroupCommit
from broker.metrics import Metrics
from broker.net import tcp, websocket
from broker.net.hub import Hub
from broker.net.listeners import Listener, Slots, bind
from broker.ports import (
    Arrival,
    Directory,
    Grant,
    MessageLog,
    Retained,
    StateStore,
)
from broker.publish.committer import MessageCommitter
from broker.publish.pipeline import Pipeline
from broker.publish.sequencer import Sequencer
from broker.registry import Client, Event, Registry
from broker.rights import Rights
from broker.session.session import Session
from broker.states import States
from broker.status.presence import Presence
from broker.status.sys import SysTopics
from broker.status.typing import TypingNotices

logger = logging.getLogger(__name__)

# All devices of a node come back at once; the system lowers it to what it allows (somaxconn).
_BACKLOG = 4096
_EVENTS_WAITING = 10_000
_EVENT_BATCH = 500
_BATCH = 1000
_CURSOR_SECONDS = 0.5
_EXPIRY_SECONDS = 3600.0


class SystemClock:
    """Wall time."""

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return time.time_ns() // 1_000_000


class _PluginServices:
    """See `ports.PluginServices`."""

    def __init__(self, config: Config, directory: Directory, passwords: object) -> None:
        self.directory = directory
        self.passwords = passwords
        self.data_dir: Path = config.data_dir
        self.open_filters = config.topics.open
        self.now_ms = SystemClock().now_ms


class Services(Protocol):
    """What the node asks of the services on top of it."""

    def call(self, topic: Topic, payload: bytes) -> Refusal | None:
        """A client calls a method."""
        ...

    async def check(self, user: str, topic: Topic, content: Content) -> Refusal | None:
        """Whether what a message refers to is there."""
        ...

    async def arrived(self, batch: Sequence[Arrival]) -> None:
        """Devices acknowledged entries of their inboxes."""
        ...

    async def presence_changed(self, batch: Sequence[tuple[str, bytes]]) -> None:
        """The presence documents of users changed."""
        ...


class _Hooks:
    """See `pipeline.Hooks`."""

    def __init__(self, presence: Presence, typing: TypingNotices, services: Services) -> None:
        self.presence = presence.claim
        self.typing = typing.stamp
        self.rpc = services.call
        self.check = services.check


class Node:
    """The broker of one process, over the stores it is given.

    Raises:
        ConfigError: a plugin refuses its configuration.
    """

    def __init__(
        self, config: Config, log: MessageLog, store: StateStore, directory: Directory, passwords: object
    ) -> None:
        self._config = config
        self._store = store
        self.clock = SystemClock()
        self._started_at = time.time()
        now_ms = self.clock.now_ms
        loop = asyncio.get_running_loop()
        self.metrics = Metrics()
        self.router: Router[Subscriber] = Router()
        self.states = States(store, self.metrics)
        view = BrokerView()
        self.host = AmqttHost(config, view, _PluginServices(config, directory, passwords))
        self.pipeline = Pipeline(self.router, self.host, self.states, self.metrics)
        self.sys = SysTopics(self.states.retained, partial(self.pipeline.broadcast, qos=0))
        may_receive = self._may_receive if self.host.screens else None
        self.feeder = Feeder(log, self.sys.retained, self.metrics, may_receive)
        self.subscriptions = Subscriptions(
            self.router,
            log,
            self.states,
            self.feeder,
            self._grant,
            now_ms,
            may_receive,
            config.limits.max_subscriptions,
        )
        self.registry = Registry(
            self.router,
            self.subscriptions,
            self.states,
            self.pipeline,
            self.metrics,
            config.limits,
            config.topics.open,
            now_ms,
        )
        self.registry.lagging = self.feeder.lagging
        self.registry.may_receive = self.host.may_receive if self.host.screens else None
        grace = config.limits.presence_grace
        self.presence = Presence(self._publish_presence, partial(loop.call_later, grace), now_ms)
        self._typing = TypingNotices(now_ms, self.registry.dropped)
        self.registry.devices_changed = self.presence.devices_changed
        self.pipeline.committer = MessageCommitter(
            log, Sequencer(config.node.id), self.clock, self.pipeline.push, config.storage.max_batch
        )
        self._events = GroupCommit(self.registry.queue_events, _EVENT_BATCH)
        self.pipeline.queue_event = self._queue_event
        self.hub = Hub(
            self.host,
            self.registry,
            self.subscriptions,
            self.pipeline,
            self.metrics,
            config.limits,
            loop,
            self.host,
        )
        self.pipeline.on_retained = self._on_retained
        self._fill_in(view)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Future[None]] = set()
        self._following: asyncio.Task[None] | None = None
        directory.on_change(Rights(self.registry, directory, self._spawn).changed)

    def join(self, services: Services) -> None:
        """Say who the services are; before `start`."""
        self.pipeline.hooks = _Hooks(self.presence, self._typing, services)
        self._arrivals = GroupCommit(services.arrived, _BATCH)
        self._presences = GroupCommit(services.presence_changed, _BATCH)
        self.registry.arrived = self._arrivals.submit

    # --- the joints ------------------------------------------------------------------

    async def _grant(self, session: Session, topic_filter: str) -> Grant | None:
        client = self.registry.online.get(session.key)
        if client is None or client.session is not session:
            return None
        return await self.host.grant(client.publisher.principal, topic_filter)

    async def _may_receive(self, session: Session, topic: str) -> bool:
        client = self.registry.online.get(session.key)
        if client is None or client.session is not session:
            return False
        return await self.host.may_receive(client.publisher.principal, topic)

    def _publish_presence(self, user: str, document: bytes, live: bool) -> None:
        self.pipeline.retain(presence_topic(user), document, 1, live=live)

    def _queue_event(self, user: str, topic: str, payload: bytes) -> None:
        if len(self._events) < _EVENTS_WAITING:
            had_it = frozenset(self.registry.users.get(user, ()))
            self._events.submit(Event(user, topic, payload, had_it))
        else:
            self.metrics.dropped["events_waiting"] += 1

    def _on_retained(self, retained: Retained) -> None:
        self.host.retained(retained)
        topic = parse_topic(retained.topic)
        if topic.kind is Kind.PRESENCE:
            self._presences.submit((topic.owner, retained.payload))

    def _fill_in(self, view: BrokerView) -> None:
        view.broadcast = self.pipeline.broadcast
        view.retain = self._plugin_retains
        view.sessions = lambda: [plugin_session(client) for client in self.registry.online.values()]
        view.retained = lambda: self.sys.values
        view.subscriptions = self._plugin_subscriptions

    def _plugin_retains(self, topic: str, payload: bytes) -> None:
        if topic.startswith("$"):
            self.sys.retain(topic, payload)
        else:
            self.pipeline.retain(topic, payload, 0)

    def _plugin_subscriptions(self) -> dict[str, list[tuple[PluginSession, int]]]:
        found: dict[str, list[tuple[PluginSession, int]]] = defaultdict(list)
        for client in self.registry.online.values():
            if client.session is not None:
                for topic_filter, qos in client.session.filters.items():
                    found[topic_filter].append((plugin_session(client), qos))
        return dict(found)

    # --- life ------------------------------------------------------------------------

    async def start(self, listeners: list[Listener]) -> list[tuple[Listener, int]]:
        """Open the ports; returns each listener with the port it got.

        Raises:
            ListenError: a port could not be opened; none is open then.
        """
        sockets = [(listener, bind(listener)) for listener in listeners]
        await self.host.starting()
        await self._mark_offline()
        await self.registry.load_away()
        for listener, bound in sockets:
            slots = Slots(listener.max_connections)
            for sock in bound:
                self._servers.append(await self._serve(listener, slots, sock))
        await self.host.started()
        self._spawn(self._every(1.0, self._tick))
        self._spawn(self._every(_CURSOR_SECONDS, self.registry.save_cursors))
        self._spawn(self._expire_sessions())
        if self._config.sys.interval:
            self._update_sys()
            self._spawn(self._every(self._config.sys.interval, self._update_sys))
        return [(listener, bound[0].getsockname()[1]) for listener, bound in sockets]

    async def _serve(self, listener: Listener, slots: Slots, sock: socket.socket) -> asyncio.Server:
        if listener.type == "tcp":
            loop = asyncio.get_running_loop()
            return await loop.create_server(
                lambda: tcp.TcpProtocol(self.hub, slots), sock=sock, backlog=_BACKLOG
            )
        limits = self._config.limits
        return await picows.ws_create_server(
            partial(websocket.accept, self.hub, slots),
            sock=sock,
            backlog=_BACKLOG,
            max_frame_size=limits.max_packet_bytes + 1024,
            websocket_handshake_timeout=limits.connect_timeout,
        )

    async def stop(self) -> None:
        """Close the ports, end all connections, commit what is under way."""
        for server in self._servers:
            server.close()
        for connection in list(self.hub.connections):
            connection.close("node shuts down")
        await self.registry.publish_wills()
        self.presence.flush()
        for task in list(self._tasks):
            task.cancel()
        await self.pipeline.committer.drain()
        await self._arrivals.drain()
        await self._presences.drain()
        await self._events.drain()
        await self.states.drain()
        await self.host.stop()

    async def _mark_offline(self) -> None:
        """Whoever was online when the node died is not any more."""
        now = self.clock.now_ms()
        changes = [
            Retained(topic, offline_document(parse_topic(topic).owner, now), 1)
            for topic in await self._store.live_retained()
        ]
        if changes:
            await self.states.save(changes)

    async def _expire_sessions(self) -> None:
        while True:
            now = self.clock.now_ms()
            keep = [
                key
                for key, client in self.registry.online.items()
                if client.session and client.session.persistent
            ]
            try:
                before = now - int(self._config.limits.session_expiry * 1000)
                if expired := await self._store.expire(before, keep, now):
                    self.metrics.dropped["session_expired"] += expired
                    await self.registry.drop_expired()
            except StoreError as error:
                logger.error("expiring sessions failed: %s", error)
            await asyncio.sleep(_EXPIRY_SECONDS)

    def _tick(self) -> None:
        self.hub.deadlines.tick(self.hub.loop.time())
        if self.host.screens:
            # Plugins that cannot say when a right changes are asked again every second.
            self.registry.forget_permits()
            self.subscriptions.forget_screens()
            if self._following is None or self._following.done():
                self._following = self._spawn(self.registry.follow_all())

    async def _every(self, seconds: float, job: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                job()
            except Exception:
                logger.exception("a periodic job failed")

    def _spawn(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a background job failed: %r", error)

    # --- what it says about itself ---------------------------------------------------

    def stats(self) -> dict[str, int]:
        """Counters and gauges, by flat names."""
        return self.metrics.as_dict() | {
            "bytes_sent": self.hub.flusher.bytes_written,
            "uptime_seconds": int(time.time() - self._started_at),
            "clients_connected": len(self.registry.online),
            "users_online": len(self.registry.users),
            "subscriptions": len(self.router),
            "sessions_catching_up": len(self.feeder),
            "commits_waiting": len(self.pipeline.committer),
            "rss_bytes": resident_bytes(),
        }

    def _update_sys(self) -> None:
        stats = self.stats()
        self.sys.update(
            {
                "version": f"Parley {VERSION}",
                "uptime": stats["uptime_seconds"],
                "clients/connected": stats["clients_connected"],
                "clients/total": stats["connections"],
                "subscriptions/count": stats["subscriptions"],
                "messages/received": stats["published"],
                "messages/sent": stats["delivered"],
                "messages/stored": stats["stored"],
                "messages/dropped": sum(self.metrics.dropped.values()),
                "messages/refused": sum(self.metrics.refused.values()),
                "load/bytes/received": stats["bytes_received"],
                "load/bytes/sent": stats["bytes_sent"],
                "heap/current": stats["rss_bytes"],
            }
        )


def plugin_session(client: Client) -> PluginSession:
    """A client as amqtt's plugins see it."""
    return cast("PluginSession", client.publisher.principal.plugin_session)


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
