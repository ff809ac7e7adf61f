"""A client's connection over TCP or WebSocket: packets in, answers out.

    waiting --CONNECT--> authenticating --CONNACK 0--> open --> closed
       |                       |                                  ^
       +-----------------------+----------------------------------+

The packets come from its `Intake` one by one.
"""

import asyncio
import enum
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Any

from broker.domain.errors import Refusal, RemoteError, StoreError
from broker.domain.publication import Publication
from broker.domain.rates import Allowance, network_of
from broker.net import handshake
from broker.net.acknowledging import acknowledge
from broker.net.expiry import announce
from broker.net.hub import Hub
from broker.net.intake import Intake
from broker.net.lifetime import Lifetime
from broker.net.listeners import file_of
from broker.net.outbox import ByteOutbox
from broker.net.subscribing import subscribe, unsubscribe
from broker.net.transport import Transport
from broker.ports import Identity, Principal
from broker.publish.committer import Outcome
from broker.publish.publisher import Publisher
from broker.session.inbound import Inbound, Slot
from broker.session.session import Session
from broker.wire import encoder
from broker.wire.decoder import UnsupportedProtocolError
from broker.wire.packets import (
    Ack,
    Connect,
    ConnectCode,
    Disconnect,
    Packet,
    Pingreq,
    Publish,
    Subscribe,
    Unsubscribe,
)

logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0
_FILTERS_COST = 10
"""A SUBSCRIBE or UNSUBSCRIBE counts as so many publishes: rights are looked up, and the session is stored."""
_SHOWN = 256
"""Characters of a client id that are logged before it is checked."""


class State(enum.IntEnum):
    """The states of a connection: see the drawing above."""

    WAITING = 0
    AUTHENTICATING = 1
    OPEN = 2
    CLOSED = 3


# As module globals, because looking up a member on its enum class costs five times as much.
_WAITING, _AUTHENTICATING, _OPEN, _CLOSED = State


class Connection:
    """A connection of a client, from its socket to its session."""

    __slots__ = (
        "_allowance",
        "_hub",
        "_intake",
        "_lifetime",
        "_publishes",
        "_state",
        "_stream",
        "_transport",
        "outbox",
        "peer",
        "principal",
        "publisher",
        "session",
        "will",
    )

    def __init__(
        self,
        hub: Hub,
        transport: Transport,
        peer: tuple[str, int],
        stream: asyncio.BaseTransport,
        wait: float = 0.0,
    ) -> None:
        """`stream`: the TCP connection below `transport`; `wait`: seconds until the CONNECT may be read."""
        self._hub = hub
        self._transport = transport
        self.peer = peer
        self._stream = stream
        limits = hub.limits
        self.outbox = ByteOutbox(transport, hub.flusher, hub.budget, self._room_again, self)
        self._intake = Intake(hub, transport, self, peer[0], limits.max_packet_bytes_before_connect)
        self._state = _WAITING
        self.session: Session | None = None
        """The session; None unless the connection is open."""
        self.principal: Principal | None = None
        """The client, once authenticated."""
        self.publisher: Publisher
        self.will: Publication | None = None
        # Of the user, once there was a publish.
        self._allowance: Allowance | None = None
        self._publishes = 0
        begins = hub.loop.time() + wait
        self._lifetime = Lifetime(begins, limits.connect_timeout)
        hub.connections.add(self)
        hub.deadlines.watch(self, begins + limits.connect_timeout)
        if wait:
            self._intake.hold(wait)

    # --- from the transport ----------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes have arrived."""
        hub = self._hub
        hub.totals["bytes_received"] += len(data)
        self._lifetime.seen(hub.loop.time())
        self._intake.received(data)

    def _room_again(self) -> None:
        if self._intake.is_paused:
            self._intake.regulate()
        if self.session is not None:
            self.session.refill()

    def lost(self) -> None:
        """The transport is gone."""
        if self._intake.end() and self._state is _OPEN:
            # Packets received before the loss are still handled: publishes, and perhaps a DISCONNECT,
            # which discards the will. Then the intake calls this method again.
            self.outbox.close()
            return
        self.close("connection lost")
        self._hub.connections.discard(self)
        self._hub.deadlines.forget(self)

    @property
    def file(self) -> int | None:
        """See `reachability.Reachable`."""
        return None if self._intake.is_lost else file_of(self._stream)

    def check(self, now: float) -> float | None:
        """See `deadlines.Watched`."""
        if self._state is _CLOSED:
            self._transport.abort()  # the client has not read the last bytes within _CLOSE_SECONDS
            return None
        if self._intake.is_paused:
            # This side has stopped reading, so silence is not the client's fault.
            self._lifetime.seen(now)
        expires_in = None
        if self.session is not None:
            expires_in = self._hub.registry.expires_in(self)
            if self._lifetime.is_ending(expires_in) and announce(self.session, self.publisher.principal):
                self._lifetime.announced()
        found = self._lifetime.check(now, expires_in)
        if isinstance(found, str):
            self.close(found)
            return now + _CLOSE_SECONDS
        return found

    # --- packets ---------------------------------------------------------------------

    def failed(self, error: Exception) -> None:
        """See `intake.Consumer`. The client gets the answer of the specification, and the connection ends."""
        if isinstance(error, RemoteError):
            if isinstance(error, UnsupportedProtocolError) and self._state is _WAITING:  # [MQTT-3.1.2-2]
                self.outbox.send(encoder.connack(ConnectCode.UNACCEPTABLE_PROTOCOL))
            self.close(f"protocol error: {error.reason}")
        elif isinstance(error, StoreError):
            self.close(f"store failed: {error}")
        else:  # a bug in the broker: close the connection rather than leave it hanging
            logger.exception("handling a packet of %s failed", str(self), extra=self._summed_up("bug"))
            self.close("internal error")

    def taken(self) -> None:
        """See `intake.Consumer`."""
        if self._publishes:
            self._count_publishes()

    def take(self, packet: Packet) -> None:
        """See `intake.Consumer`."""
        hub = self._hub
        if hub.events.packets:
            hub.events.packet_received(self._intake.packet, self.principal)
        session = self.session
        if session is None:
            if self._state is not _WAITING or not isinstance(packet, Connect):
                raise RemoteError("first packet is not CONNECT")  # [MQTT-3.1.0-1]
            self._state = _AUTHENTICATING
            self._intake.wait_for(self._connect(packet))
        elif isinstance(packet, Publish):
            self._publish(packet, session)
        elif isinstance(packet, Ack):
            acknowledge(packet, session)
        elif isinstance(packet, Pingreq):
            self.outbox.send(encoder.PINGRESP)
        elif isinstance(packet, Subscribe):
            self._change_filters(subscribe(hub, self, session, packet))
        elif isinstance(packet, Unsubscribe):
            self._change_filters(unsubscribe(hub, self, session, packet))
        elif isinstance(packet, Disconnect):
            self.drop_will()  # [MQTT-3.1.2-10]
            self.close("disconnected")
        else:
            raise RemoteError("second CONNECT")  # [MQTT-3.1.0-2]

    def _change_filters(self, change: Coroutine[Any, Any, None]) -> None:
        """A SUBSCRIBE or UNSUBSCRIBE. Nobody waits for its answer if the client is gone."""
        if self._intake.is_lost:
            change.close()
            return
        self._publishes += _FILTERS_COST
        self._intake.wait_for(change)

    # --- CONNECT ---------------------------------------------------------------------

    async def _connect(self, packet: Connect) -> None:
        hub = self._hub
        refusal = await handshake.connect(self, packet, self.peer, hub.gate, hub.registry)
        if refusal is not None:
            hub.metrics.refused[f"connect_{refusal.code.name.lower()}"] += 1
            if refusal.counter:
                hub.metrics.refused[refusal.counter] += 1
            if self._state is not _CLOSED:
                self.outbox.send(encoder.connack(refusal.code))
            self.close(f"refused: {refusal.reason}, client {packet.client_id[:_SHOWN]!r}")

    def introduce(self, publisher: Publisher, will: Publication | None) -> None:
        """See `handshake.Applicant`."""
        self.principal = publisher.principal
        self.publisher = publisher
        self.will = will

    def accept(self, keep_alive: int, session_present: bool) -> None:
        """See `handshake.Applicant`."""
        hub = self._hub
        self._state = _OPEN
        # Anonymous clients are strangers to each other.
        self._intake.opened(self.publisher.principal.identity.user or self.peer, hub.limits.max_packet_bytes)
        self._lifetime.opened(keep_alive)
        self.outbox.send(encoder.connack(ConnectCode.ACCEPTED, session_present))
        self._watch()
        hub.events.connected(self.publisher.principal)

    def _watch(self) -> None:
        """Act on the deadlines, and be called for the next one."""
        hub = self._hub
        hub.deadlines.watch(self, self.check(hub.loop.time()))

    def renew(self, identity: Identity) -> bool:
        """See `registry.Client`."""
        if self.session is None or not self.publisher.principal.renew(identity):
            return False
        self._lifetime.renewed()
        self._watch()
        return True

    # --- from the registry -----------------------------------------------------------

    @property
    def is_paused(self) -> bool:
        """Whether this side does not read what the client sends."""
        return self._intake.is_paused

    @property
    def uncommitted(self) -> int:
        """See `intake.Consumer`."""
        return self.session.inbound.uncommitted if self.session is not None else 0

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._state is _CLOSED

    def adopt(self, session: Session) -> None:
        """Serve this session from now on."""
        self.session = session

    def release_session(self) -> None:
        """Serve no session from now on."""
        self.session = None

    def drop_will(self) -> None:
        """Publish no will when the connection ends."""
        self.will = None

    # --- PUBLISH ---------------------------------------------------------------------

    def _publish(self, packet: Publish, session: Session) -> None:
        hub, inbound = self._hub, session.inbound
        events, pipeline = hub.events, hub.pipeline
        self._publishes += 1
        if events.messages:
            events.message_received(packet, packet.packet_id, self.publisher.principal)
        if packet.qos == 2:
            if inbound.is_repeated(packet):  # [MQTT-4.3.3-2]: a packet id is published once
                return
        elif not inbound.unanswered:
            # Fast path, see `Pipeline.forward_fast`. The PUBACK may be sent at once because no earlier
            # publish is unanswered: PUBACKs keep the order of the publishes [MQTT-4.6.0-2].
            changes = pipeline.forward_fast(self.publisher, packet)
            if changes:
                hub.fanout.keep(changes, partial(self._published, packet, inbound, inbound.expect(packet)))
                return
            if changes is not None:
                if packet.qos:
                    self.outbox.send(encoder.puback(packet.packet_id))
                if events.messages:
                    events.message_accepted(packet, packet.packet_id, self.publisher.principal)
                return
        done = partial(self._published, packet, inbound, inbound.expect(packet))
        waiting = pipeline.publish(self.publisher, packet, done)
        if waiting is not None:
            self._intake.wait_for(waiting)
        elif inbound.uncommitted > hub.limits.uncommitted_bytes or hub.outage.is_on:
            self._intake.regulate()

    def _count_publishes(self) -> None:
        """Take the publishes handled since the last call from the user's allowance: at once for all that
        arrived together. If there were too many, the next packets are taken later."""
        taken, self._publishes = self._publishes, 0
        allowance = self._allowance
        if allowance is None:
            hub = self._hub
            user = self.publisher.principal.identity.user
            allowance = self._allowance = hub.publishes.hold(user, hub.loop.time())
        if not allowance.take(taken) and (wait := allowance.wait(self._hub.loop.time())):
            self._hub.metrics.limited["publishes_per_second"] += 1
            self._intake.hold(wait)

    def _published(
        self, packet: Publish, inbound: Inbound, slot: Slot | None, outcome: Outcome | None
    ) -> None:
        """The pipeline has finished a publish."""
        if isinstance(outcome, StoreError):
            # MQTT 3.1.1 has no PUBACK for "not stored". The client sends the message again on a new
            # connection [MQTT-4.4.0-1]; on this one it would wait for ever.
            self.close(f"store failed: {outcome}")
            return
        if self._hub.events.messages and not isinstance(outcome, Refusal):
            self._hub.events.message_accepted(packet, packet.packet_id, self.publisher.principal)
        if self._state is _CLOSED:
            return
        inbound.done(packet, slot)
        if self._intake.is_paused:
            self._intake.regulate()

    # --- the end ---------------------------------------------------------------------

    def close(self, reason: str) -> None:
        """End the connection. Its session is detached before this returns."""
        if self._state is _CLOSED:
            return
        was_open = self.session is not None
        if self._publishes:
            self._count_publishes()
        level = logging.DEBUG if reason in ("disconnected", "connection lost") else logging.INFO
        if logger.isEnabledFor(level):
            about = " ".join(reason.split(" ", 2)[:2])  # such as "protocol error:"
            logger.log(level, "closing %s: %s", str(self), reason, extra=self._summed_up(about))
        self._state = _CLOSED
        self._intake.stop()
        if was_open:
            if self._allowance is not None:
                self._hub.publishes.release(self._allowance)
            self._hub.registry.detach(self, reason.partition(":")[0])
            self._hub.events.disconnected(self.publisher.principal)
        else:
            self._hub.metrics.disconnects["before_connect"] += 1
        self.outbox.close()
        if not self._intake.is_lost:
            self._transport.close()
            self._hub.deadlines.watch(self, self._hub.loop.time() + _CLOSE_SECONDS)

    def _summed_up(self, reason: str) -> dict[str, str]:
        """As whose line, and for what reason, a log line is summed up."""
        principal = self.principal
        client = network_of(self.peer[0]) if principal is None else principal.counted_as
        return {"client": client, "reason": reason}

    def __str__(self) -> str:
        """For log lines."""
        address = f"{self.peer[0]}:{self.peer[1]}"
        if self.session is None:
            return address
        key = self.session.key
        return f"{address} (user {key.user or 'anonymous'}, client {key.client_id!r})"
