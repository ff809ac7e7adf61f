"""One node: constructs the parts of the broker, in the order of their dependencies."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import picows

from broker.amqtt_edge.context import BrokerView
from broker.amqtt_edge.host import AmqttHost
from broker.clock import SystemClock
from broker.cluster.meeting import meet
from broker.cluster.others import Others
from broker.cluster.sweep import Sweep
from broker.config import Config, Limits
from broker.delivery.away import AwaySessions
from broker.delivery.fanout import Fanout
from broker.delivery.feeder import Feeder
from broker.delivery.interest import Interest
from broker.delivery.moves import Moves
from broker.delivery.online import Online
from broker.delivery.readers import Readers
from broker.delivery.reopening import reopen
from broker.delivery.router import Router
from broker.delivery.subscriber import Subscriber
from broker.delivery.subscriptions import Subscriptions
from broker.domain.attempts import Attempts
from broker.domain.publication import Publication
from broker.domain.topics import Kind, parse_topic, presence_topic
from broker.housekeeping import Housekeeping
from broker.metrics import Metrics
from broker.net import tcp, websocket
from broker.net.addresses import Addresses
from broker.net.hub import Hub
from broker.net.listeners import Door, Listener, Slots, bind, highest_file
from broker.net.proxied import BehindProxy, ProxiedDoor
from broker.net.reachability import keep_asking
from broker.ports import Backplane, ConversationStore, Directory, MessageLog, PresenceChange, Retained
from broker.publish.committer import MessageCommitter
from broker.publish.events import Events
from broker.publish.for_services import ForServices
from broker.publish.pipeline import Pipeline
from broker.publish.references import References
from broker.publish.retained_space import RetainedLimits, RetainedSpace
from broker.publish.sequencer import Sequencer
from broker.registry import Client, Registry
from broker.rights import Rights
from broker.session.session import Session
from broker.states import States
from broker.status.presence import Presence
from broker.status.sys import SysTopics
from broker.status.typing import TypingNotices
from broker.switching import Switching
from broker.tasks import Tasks

# Connections that wait to be accepted. After a restart all devices connect at once. The system lowers the
# value to its own limit (somaxconn).
_BACKLOG = 4096


class _PluginServices:
    """See `ports.PluginServices`."""

    def __init__(self, config: Config, directory: Directory, passwords: object, attempts: Attempts) -> None:
        self.directory = directory
        self.passwords = passwords
        self.attempts = attempts
        self.data_dir: Path = config.data_dir
        self.now_ms = SystemClock().now_ms
        self._topics = config.topics

    @property
    def open_filters(self) -> Sequence[str]:
        return self._topics.open


class Node:
    """The broker of one process, on the given stores. `for_services.serve` must be called before
    `start`.

    Raises:
        ConfigError: a plugin refuses its configuration.
    """

    def __init__(
        self,
        config: Config,
        log: MessageLog,
        states: States,
        conversations: ConversationStore,
        directory: Directory,
        passwords: object,
        attempts: Attempts,
        metrics: Metrics,
        clock: SystemClock,
        backplane: Backplane | None = None,
    ) -> None:
        self._config = config
        self._started_at = time.monotonic()
        limits = config.limits
        loop = asyncio.get_running_loop()
        self.metrics = metrics
        self._states = states
        self._tasks = Tasks()
        self.for_services = ForServices(limits.rpc_concurrency, limits.calls_per_user, metrics)
        # Delivery: from a publication to its readers.
        hints = None if backplane is None else backplane.hints
        interest = None if hints is None else Interest(hints)
        moves = None if hints is None else Moves(clock.steady_ms, secrets.randbits(30) << 32)
        self._router: Router[Subscriber] = Router(interest)
        self.online: Online[Client] = Online()
        self._away = AwaySessions(
            states,
            config.topics.open,
            limits.max_queued,
            limits.max_queued_bytes,
            has_epochs=backplane is not None,
        )
        self.fanout = Fanout(self._router, self._away, states, metrics, hints, interest, moves)
        self._sys = SysTopics(states.retained, partial(self.fanout.broadcast, qos=0))
        turns = None if backplane is None else backplane.turns
        self.events = Events(log, self.fanout, metrics, limits.events_kept, loop.call_later, turns)
        # Who may do what.
        view = BrokerView(self.fanout, self._sys, self.online)
        self.host = AmqttHost(config, view, _PluginServices(config, directory, passwords, attempts))
        gate = self.host.gate
        readers = Readers(self.online, gate)
        may_receive = readers.may_receive if gate.screens else None
        self._feeder = Feeder(log, self._sys.retained, metrics, may_receive)
        self._subscriptions = Subscriptions(
            self._router,
            log,
            states,
            self._feeder,
            readers.grant,
            conversations.floors,
            clock.steady_ms,
            may_receive,
            limits.max_subscriptions,
            interest,
        )
        # Publishing: from a packet to a stored message.
        switching = Switching()
        self.committer = MessageCommitter(
            log,
            Sequencer(config.node.id),
            clock,
            self.fanout.push,
            config.storage.max_batch,
            states.outage,
            limits.held_bytes,
            metrics.limited,
            config.storage.max_batch_bytes,
            lambda: metrics.totals["delivered"],
            switching.busy,
            turns,
        )
        self._presence = Presence(
            self._publish_presence,
            self._leave_later,
            clock.now_ms,
            self._tell_claim,
        )
        self._others = self._meet(backplane, interest, moves)
        self._retained = RetainedSpace(*_retained_limits(limits), metrics.limited)
        self.pipeline = Pipeline(
            gate,
            References(log, conversations, directory),
            self.committer,
            self.fanout,
            self.events,
            self.for_services,
            self._presence,
            TypingNotices(clock.steady_ms, metrics.drop),
            self._retained,
            metrics,
        )
        # Connections and their sessions.
        self.registry = Registry(
            self.online,
            self._away,
            self._subscriptions,
            self._feeder,
            states,
            self.pipeline,
            metrics,
            limits,
            clock,
            self._presence.devices_changed if self._others is None else _ignored,
            self.for_services.arrived,
            gate.may_receive if gate.screens else None,
            self._others,
        )
        self._hub = Hub(
            gate,
            self.registry,
            self._subscriptions,
            self.pipeline,
            self.fanout,
            metrics,
            limits,
            loop,
            self.host.events,
            states.outage,
            switching.busy,
        )
        self.publishes = self._hub.publishes
        self._rights = Rights(
            self.registry,
            self.online,
            self._away,
            self._subscriptions,
            self._router,
            states,
            directory,
            self._tasks,
        )
        self._housekeeping = Housekeeping(
            self.registry,
            self.online,
            self._away,
            states,
            self._sys,
            metrics,
            self._tasks,
            clock.now_ms,
            clock.steady_ms,
            self.stats,
            self._tick,
            limits,
            config.sys.interval,
            None if self._others is None else self._others.connected_sessions,
        )
        self._sweep: Sweep | None = None
        if backplane is not None and self._others is not None:
            self._others.serve(self.registry)
            self._sweep = Sweep(log, self._sessions)
            backplane.on_break(self._sweep.hints_are_lost)
            backplane.on_return(self._sweep.hints_are_back)
        self._all_addresses: list[Addresses] = []
        self._addresses = self._new_addresses()
        self._servers: list[asyncio.Server] = []
        self._following: asyncio.Task[None] | None = None
        self.fanout.on_retained(self.host.events.retained)
        self.fanout.on_retained(self._tell_services)
        self.fanout.on_retained(self._retained.retained)
        directory.on_change(self._rights.changed)

    def _meet(
        self, backplane: Backplane | None, interest: Interest | None, moves: Moves | None
    ) -> Others | None:
        """The other nodes of the cluster. What they tell is delivered here from now on."""
        if backplane is None or interest is None or moves is None:
            return None
        backplane.on_hint(self.fanout.receive)
        return meet(
            backplane,
            self._states,
            self._away,
            self.online,
            self._presence,
            moves,
            interest,
            self._tasks,
        )

    def _tell_claim(self, user: str, status: str) -> None:
        if self._others is not None:
            self._others.tell_claim(user, status)

    def _leave_later(self, user: str, left: Callable[[], None]) -> asyncio.TimerHandle:
        def leave() -> None:
            if self._others is None:
                left()
            else:
                self._tasks.spawn(self._others.leave(user, left))

        return asyncio.get_running_loop().call_later(self._config.limits.presence_grace, leave)

    def _publish_presence(self, user: str, document: bytes, live: bool) -> None:
        self.fanout.retain(Publication(presence_topic(user), document, 1), live=live)

    def _tell_services(self, retained: Retained) -> None:
        topic = parse_topic(retained.topic)
        if topic.kind is Kind.PRESENCE:
            self.for_services.presence_changed(PresenceChange(topic.owner, retained.payload))

    # --- life ------------------------------------------------------------------------

    async def start(self, listeners: list[Listener]) -> list[tuple[Listener, int]]:
        """Open the ports. Returns each listener with its port.

        Raises:
            ListenError: a port could not be opened. No listener accepts connections then.
            StoreError: the stored sessions could not be read.
        """
        # All ports are bound first: an error must come before anything else has started.
        sockets = [(listener, bind(listener)) for listener in listeners]
        await self.host.starting()
        await self._housekeeping.mark_offline(self._connected_elsewhere)
        await self.registry.load()
        if self._others is not None:
            await self._others.start()
        held = await self._states.store.held()
        self._retained.load({topic: each for topic, each in held.items() if not topic.startswith("$")})
        opened = [(listener, bound[0].getsockname()[1]) for listener, bound in sockets]
        for listener, bound in sockets:
            slots = self._slots(
                self._addresses,
                listener.max_connections,
                self._config.limits.reserved_files,
                proxy_protocol=listener.proxy_protocol,
            )
            for sock in bound:
                keep_asking(sock, self._config.limits.unreachable_after)
                self._servers.append(await self._serve(listener, slots, sock))
        await self.host.started()
        self._housekeeping.start()
        if self._sweep is not None:
            self._tasks.spawn(self._sweep.run())
        return opened

    async def _connected_elsewhere(self, users: Sequence[str]) -> Collection[str]:
        return () if self._others is None else await self._others.connected(users)

    def _sessions(self) -> list[Session]:
        return [client.session for client in self.online if client.session is not None]

    async def _serve(self, listener: Listener, slots: Slots, sock: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if listener.type == "tcp":
            make = partial(tcp.TcpProtocol, self._hub, slots)
            begin = partial(slots.begin, make) if isinstance(slots, BehindProxy) else make
            return await loop.create_server(begin, sock=sock, backlog=_BACKLOG)
        limits = self._config.limits
        door = ProxiedDoor(sock, slots, loop) if isinstance(slots, BehindProxy) else Door(sock, slots)
        return await picows.ws_create_server(
            partial(websocket.accept, self._hub, door),
            sock=door,
            backlog=_BACKLOG,
            # The largest packet must fit into one frame.
            max_frame_size=limits.max_packet_bytes + 1024,
            websocket_handshake_timeout=limits.connect_timeout,
        )

    def slots(self, reserved_files: int, *, proxy_protocol: bool) -> Slots:
        """The slots of a port that somebody else listens on. Its connections are counted by themselves: the
        clients of an address do not keep out who calls from there. `reserved_files` are left for others.
        `proxy_protocol`: each connection begins with a PROXY header."""
        return self._slots(self._new_addresses(), 0, reserved_files, proxy_protocol=proxy_protocol)

    def _slots(self, addresses: Addresses, limit: int, reserved_files: int, *, proxy_protocol: bool) -> Slots:
        highest, turn_away = highest_file(reserved_files), self._hub.turn_away
        if not proxy_protocol:
            return Slots(limit, addresses, highest, turn_away)
        seconds = self._config.limits.connect_timeout
        return BehindProxy(limit, addresses, highest, turn_away, self.metrics.refuse, seconds)

    def _new_addresses(self) -> Addresses:
        limits = self._config.limits
        addresses = Addresses(
            limits.connections_per_address,
            limits.connects_per_second,
            limits.connect_timeout,
            self._config.trusted_proxies,
            self.metrics.limited,
        )
        self._all_addresses.append(addresses)
        return addresses

    def reload(self, *, topics_changed: bool) -> None:
        """The configuration has changed (`Config.reload`): tell the parts that do not read it each time.
        `topics_changed`: other topics are open now, so that permits and grants must be asked for again."""
        limits = self._config.limits
        self._hub.budget.resize(limits.outbox_bytes)
        now = self._hub.loop.time()
        self._hub.publishes.allow(limits.publishes_per_second, now)
        self._hub.turns.allow(limits.packets_per_turn)
        for addresses in self._all_addresses:
            addresses.allow(limits.connections_per_address, limits.connects_per_second, now)
        self._retained.allow(*_retained_limits(limits))
        self.for_services.allow_calls(limits.calls_per_user)
        self.events.keep_last(limits.events_kept)
        self._subscriptions.allow_filters(limits.max_subscriptions)
        self._away.allow_queued(limits.max_queued, limits.max_queued_bytes)
        if topics_changed:
            self._rights.forget_permits()
            self._subscriptions.rights_changed()
            self._tasks.spawn(reopen(self._away, lambda: self._config.topics.open, self.online))
            self._tasks.spawn(self._rights.follow_all())

    async def stop(self) -> None:
        """Close the ports, end all connections, commit all that was accepted."""
        # In the order of a publish, so that each part still finds the parts it hands over to.
        for server in self._servers:
            server.close()
        for connection in list(self._hub.connections):
            connection.close("node shuts down")
        await self.registry.publish_wills()
        self._presence.flush()
        self._tasks.cancel()
        await self.for_services.close()
        await self.committer.drain()  # after the calls: they may store messages
        await self.events.drain()
        await self._states.drain()
        await self.host.stop()

    def _tick(self) -> None:
        self._hub.deadlines.tick(self._hub.loop.time())
        self._hub.budget.look_again()
        self._hub.reachability.tick(self._hub.connections)
        if self.host.gate.screens:
            # Plugins that cannot say when a right changes are asked again every second.
            self._rights.forget_permits()
            self._subscriptions.forget_screens()
            if self._following is None or self._following.done():
                self._following = self._tasks.spawn(self._rights.follow_all())

    def stats(self) -> dict[str, int]:
        """Flat names -> counters and gauges."""
        return self.metrics.as_dict() | {
            "bytes_sent": self._hub.flusher.bytes_written,
            "uptime_seconds": int(time.monotonic() - self._started_at),
            "clients_connected": len(self.online),
            "users_online": self.online.users,
            "subscriptions": len(self._router) + self._away.subscriptions,
            "sessions_catching_up": len(self._feeder),
            "commits_waiting": len(self.committer),
            "store_outage": int(self._states.outage.is_on),
            "outboxes_bytes": self._hub.budget.held,
            "rss_bytes": resident_bytes(),
        }


def _ignored(_user: str, _devices: int) -> None:
    """Of a cluster's nodes, `Others` counts the devices on all."""


def resident_bytes() -> int:
    """The resident memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _retained_limits(limits: Limits) -> tuple[RetainedLimits, RetainedLimits]:
    """For retained messages: of all, and of each user."""
    return (
        RetainedLimits(limits.retained_messages, limits.retained_bytes),
        RetainedLimits(limits.retained_messages_per_user, limits.retained_bytes_per_user),
    )
