"""One client's connection, whatever it came by: packets in, answers out.

    waiting --CONNECT--> authenticating --CONNACK 0--> open --> closed
       |                       |                                  ^
       +-----------------------+----------------------------------+

Packets are taken one by one in the order they came. One that something must be awaited for
(an authentication, a first publish to a topic, a SUBSCRIBE) suspends the connection: nothing
more is read from it until that is done.
"""

import asyncio
import enum
import logging
import secrets
from collections.abc import Awaitable
from functools import partial

from broker.domain.errors import Refusal, RemoteError, StoreError
from broker.domain.topics import parse_topic
from broker.net.hub import Hub
from broker.net.outbox import ByteOutbox
from broker.net.transport import Transport
from broker.ports import Credentials, Principal, SessionKey
from broker.publish.committer import Outcome
from broker.publish.pipeline import Publisher
from broker.session.inbound import Inbound, Slot
from broker.session.session import Session
from broker.wire import encoder
from broker.wire.decoder import Decoder, UnsupportedProtocolError
from broker.wire.packets import (
    Ack,
    Connect,
    ConnectCode,
    Disconnect,
    Packet,
    Pingreq,
    Publish,
    Subscribe,
    Type,
    Unsubscribe,
    Will,
)

logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0
_MAX_CLIENT_ID = 256
_READ_AHEAD = 16 * 1024


class State(enum.IntEnum):
    """See the module's drawing."""

    WAITING = 0
    AUTHENTICATING = 1
    OPEN = 2
    CLOSED = 3


# Names of their own, as a member costs five times as much to look up on its class.
_WAITING, _AUTHENTICATING, _OPEN, _CLOSED = State


class Connection:
    """A connection of a client."""

    __slots__ = (
        "_connect_by",
        "_decoder",
        "_hub",
        "_is_lost",
        "_keep_alive",
        "_last_seen",
        "_paused",
        "_principal",
        "_state",
        "_suspended",
        "_task",
        "_transport",
        "outbox",
        "peer",
        "publisher",
        "session",
        "will",
    )

    def __init__(self, hub: Hub, transport: Transport, peer: tuple[str, int]) -> None:
        self._hub = hub
        self._transport = transport
        self.peer = peer
        limits = hub.limits
        self.outbox = ByteOutbox(transport, hub.flusher, limits.outbox_bytes, self._room_again, self)
        self._decoder = Decoder(limits.max_packet_bytes_before_connect)
        self._state = _WAITING
        self.session: Session | None = None
        self._principal: Principal | None = None
        self.publisher: Publisher
        self.will: Will | None = None
        self._suspended = False
        self._paused = False
        self._is_lost = False
        self._task: asyncio.Task[None] | None = None
        self._keep_alive = 0.0
        self._last_seen = hub.loop.time()
        self._connect_by = self._last_seen + limits.connect_timeout
        hub.connections.add(self)
        hub.deadlines.watch(self, self._connect_by)

    # --- from the transport ----------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes came."""
        hub = self._hub
        hub.totals["bytes_received"] += len(data)
        self._last_seen = hub.loop.time()
        self._decoder.feed(data)
        if not self._suspended:
            self._take_packets()
        if not self._paused and (self._suspended or self.outbox.is_overfull):
            self._regulate()

    def drained(self) -> None:
        """The transport's buffer has emptied."""
        self.outbox.drained()

    def _room_again(self) -> None:
        if self._paused:
            self._regulate()
        if self.session is not None:
            self.session.refill()

    def lost(self) -> None:
        """The transport is gone."""
        self._is_lost = True
        if self._suspended and self._state is _OPEN:
            # What it sent before it went is still taken: publishes, and perhaps a DISCONNECT.
            self.outbox.close()
            return
        self.close("connection lost")
        self._hub.connections.discard(self)
        self._hub.deadlines.forget(self)

    def check(self, now: float) -> float | None:
        """See `deadlines.Watched`."""
        if self._state is _CLOSED:
            self._transport.abort()  # the peer does not take what is left for it
            return None
        if self._state is not _OPEN:
            if now >= self._connect_by:
                self.close("no CONNECT in time")
                return now + _CLOSE_SECONDS
            return self._connect_by
        due = []
        if self._paused:
            self._last_seen = now  # it is this side that does not read
        if self._keep_alive:
            silent_until = self._last_seen + self._keep_alive
            if now >= silent_until:  # [MQTT-3.1.2-24]
                self.close("keep-alive timeout")
                return now + _CLOSE_SECONDS
            due.append(silent_until)
        expires_in = self._hub.registry.expires_in(self)
        if expires_in is not None:
            if expires_in <= 0:
                self.close("token expired")
                return now + _CLOSE_SECONDS
            due.append(now + expires_in)
        return min(due, default=None)

    # --- packets ---------------------------------------------------------------------

    def _take_packets(self) -> None:
        next_packet = self._decoder.next_packet
        try:
            while (packet := next_packet()) is not None:
                self._take(packet)
                if self._suspended or self._state is _CLOSED:
                    return
        except UnsupportedProtocolError as error:
            if self._state is _WAITING:  # [MQTT-3.1.2-2]
                self.outbox.send(encoder.connack(ConnectCode.UNACCEPTABLE_PROTOCOL))
            self.close(f"protocol error: {error.reason}")
        except RemoteError as error:
            self.close(f"protocol error: {error.reason}")
        except Exception:  # a bug of ours; it must not leave the connection hanging
            logger.exception("a packet of %s", self._name())
            self.close("internal error")

    def _take(self, packet: Packet) -> None:
        hub = self._hub
        if hub.events.packets:
            hub.events.packet_received(self._decoder.packet, self.principal)
        session = self.session
        if session is None:
            if self._state is not _WAITING or not isinstance(packet, Connect):
                raise RemoteError("first packet is not CONNECT")  # [MQTT-3.1.0-1]
            self._state = _AUTHENTICATING
            self._await(self._connect(packet))
        elif isinstance(packet, Publish):
            self._publish(packet, session)
        elif isinstance(packet, Ack):
            self._acknowledged(packet, session)
        elif isinstance(packet, Pingreq):
            self.outbox.send(encoder.PINGRESP)
        elif isinstance(packet, Subscribe):
            self._await(self._subscribe(packet, session))
        elif isinstance(packet, Unsubscribe):
            self._await(self._unsubscribe(packet, session))
        elif isinstance(packet, Disconnect):
            self.will = None  # [MQTT-3.1.2-10]
            self.close("disconnected")
        else:
            raise RemoteError("second CONNECT")  # [MQTT-3.1.0-2]

    @property
    def principal(self) -> Principal | None:
        """Who the client is, once authenticated."""
        return self._principal

    def _acknowledged(self, packet: Ack, session: Session) -> None:
        packet_id = packet.packet_id
        match packet.type:
            case Type.PUBACK:
                session.puback(packet_id)
            case Type.PUBREC:
                session.pubrec(packet_id)
            case Type.PUBCOMP:
                session.pubcomp(packet_id)
            case Type.PUBREL:
                session.inbound.pubrel(packet_id)

    def _await(self, step: Awaitable[None]) -> None:
        """Suspend until `step` is done."""
        self._suspended = True
        self._task = self._hub.loop.create_task(self._go_on_after(step))

    async def _go_on_after(self, step: Awaitable[None]) -> None:
        try:
            await step
        except RemoteError as error:
            self.close(f"protocol error: {error.reason}")
        except StoreError as error:
            self.close(f"store failed: {error}")
        except Exception:  # as in _take_packets
            logger.exception("a packet of %s", self._name())
            self.close("internal error")
        finally:
            self._task = None
            self._suspended = False
        if self._state is not _CLOSED:
            if self._paused:
                self._regulate()
            self._take_packets()
        if self._is_lost and not self._suspended:
            self.lost()

    def _regulate(self) -> None:
        """Read from the socket only while what was read can be worked on: not far ahead of the
        store, nor of a step that is awaited, nor of a client that does not take its answers."""
        if self._is_lost:
            return
        limit = self._hub.limits.uncommitted_bytes
        uncommitted = self.session.inbound.uncommitted if self.session is not None else 0
        should_pause = (
            uncommitted > (limit // 2 if self._paused else limit)
            or (self._suspended and self._decoder.buffered > _READ_AHEAD)
            or self.outbox.is_overfull
        )
        if should_pause != self._paused:
            self._paused = should_pause
            if should_pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # --- CONNECT ---------------------------------------------------------------------

    async def _connect(self, packet: Connect) -> None:
        hub = self._hub
        client_id = packet.client_id
        if not client_id:
            if not packet.clean_session:  # [MQTT-3.1.3-8]
                self._refuse_connect(
                    ConnectCode.IDENTIFIER_REJECTED, "persistent session without a client id"
                )
                return
            client_id = f"auto-{secrets.token_hex(8)}"
        elif len(client_id) > _MAX_CLIENT_ID:
            self._refuse_connect(ConnectCode.IDENTIFIER_REJECTED, "client id of more than 256 characters")
            return
        credentials = Credentials(client_id, packet.username, packet.password, *self.peer)
        is_attached = False
        while not is_attached:
            epoch = hub.registry.epoch
            principal = await self._admit(packet, credentials)
            if principal is None:
                return
            self._principal = principal
            self.publisher = Publisher(principal, epoch)
            self.will = packet.will
            self._keep_alive = packet.keep_alive * 1.5
            key = SessionKey(principal.identity.user, client_id)
            is_attached = await hub.registry.attach(self, key, packet.clean_session, self._accept)

    async def _admit(self, packet: Connect, credentials: Credentials) -> Principal | None:
        gate = self._hub.gate
        try:
            principal = await gate.authenticate(credentials)
        except StoreError as error:
            self._refuse_connect(ConnectCode.SERVER_UNAVAILABLE, str(error))
            return None
        if principal is None:
            self._refuse_connect(ConnectCode.NOT_AUTHORIZED, f"authentication of {packet.username!r} failed")
            return None
        if packet.will is not None:
            refusal = await gate.may_publish(principal, parse_topic(packet.will.topic))
            if refusal is not None:
                reason = f"will on {packet.will.topic[:256]!r}: {refusal.detail[:512]!r}"
                self._refuse_connect(ConnectCode.NOT_AUTHORIZED, reason)
                return None
        return principal

    def _accept(self, session_present: bool) -> None:
        hub = self._hub
        self._state = _OPEN
        self._decoder.allow(hub.limits.max_packet_bytes)
        self.outbox.send(encoder.connack(ConnectCode.ACCEPTED, session_present))
        again = self.check(hub.loop.time())
        if again is None:
            hub.deadlines.forget(self)
        else:
            hub.deadlines.watch(self, again)
        hub.events.connected(self.publisher.principal)

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._state is _CLOSED

    def _refuse_connect(self, code: ConnectCode, reason: str) -> None:
        self._hub.metrics.refused[f"connect_{code.name.lower()}"] += 1
        if self._state is not _CLOSED:
            self.outbox.send(encoder.connack(code))
        self.close(f"refused: {reason}")

    # --- PUBLISH ---------------------------------------------------------------------

    def _publish(self, packet: Publish, session: Session) -> None:
        hub = self._hub
        if hub.events.messages:
            hub.events.message_received(packet, self.publisher.principal)
        inbound = session.inbound
        if packet.qos < 2:
            if not inbound.unanswered and self._forward_fast(packet, inbound):
                return
        elif inbound.is_repeated(packet):
            return
        done = partial(self._published, packet, inbound, inbound.expect(packet))
        waiting = hub.pipeline.publish(self.publisher, packet, done)
        if waiting is not None:
            self._await(waiting)
        elif inbound.uncommitted > hub.limits.uncommitted_bytes:
            self._regulate()

    def _forward_fast(self, packet: Publish, inbound: Inbound) -> bool:
        """Fast path, see `Pipeline.forward_fast`. Answered at once: nothing is before it."""
        pipeline = self._hub.pipeline
        if not pipeline.forward_fast(self.publisher, packet):
            return False
        if pipeline.offline:
            pipeline.store_offline(partial(self._published, packet, inbound, inbound.expect(packet)))
        else:
            if packet.qos:
                self.outbox.send(encoder.puback(packet.packet_id))
            if self._hub.events.messages:
                self._hub.events.message_accepted(packet, self.publisher.principal)
        return True

    def _published(
        self, packet: Publish, inbound: Inbound, slot: Slot | None, outcome: Outcome | None
    ) -> None:
        """The pipeline is done with a publish."""
        if isinstance(outcome, StoreError):
            # There is no PUBACK for "not stored". The client sends it again on a new connection
            # [MQTT-4.4.0-1]; on this one it would wait for ever.
            self.close(f"store failed: {outcome}")
            return
        if self._hub.events.messages and not isinstance(outcome, Refusal):
            self._hub.events.message_accepted(packet, self.publisher.principal)
        if self._state is _CLOSED:
            return
        inbound.done(packet, slot)
        if self._paused:
            self._regulate()

    # --- SUBSCRIBE, UNSUBSCRIBE ------------------------------------------------------

    async def _subscribe(self, packet: Subscribe, session: Session) -> None:
        hub = self._hub
        codes = await hub.subscriptions.subscribe(session, packet.filters)
        self.outbox.send(encoder.suback(packet.packet_id, codes))
        pairs = list(zip(packet.filters, codes, strict=True))
        granted = {topic_filter: qos for (topic_filter, qos), code in pairs if code <= 2}
        hub.subscriptions.send_retained(session, granted)
        hub.events.subscribed(list(granted.items()), self.publisher.principal)
        refused = [topic_filter for (topic_filter, _), code in pairs if code > 2]
        if refused:
            hub.metrics.refused["subscribe"] += len(refused)
            shown = ", ".join(f"{topic_filter:.100}" for topic_filter in refused[:3])
            logger.info("refused %s subscribing to %r, %d in all", self._name(), shown, len(refused))

    async def _unsubscribe(self, packet: Unsubscribe, session: Session) -> None:
        hub = self._hub
        await hub.subscriptions.unsubscribe(session, packet.filters)
        self.outbox.send(encoder.unsuback(packet.packet_id))
        hub.events.unsubscribed(packet.filters, self.publisher.principal)

    # --- the end ---------------------------------------------------------------------

    def close(self, reason: str) -> None:
        """End the connection. Its session is detached before this returns."""
        if self._state is _CLOSED:
            return
        was_open = self.session is not None
        level = logging.DEBUG if reason in ("disconnected", "connection lost") else logging.INFO
        if logger.isEnabledFor(level):
            logger.log(level, "closing %s: %s", self._name(), reason)
        self._state = _CLOSED
        if was_open:
            self._hub.registry.detach(self, reason.partition(":")[0])
            self._hub.events.disconnected(self.publisher.principal)
        else:
            self._hub.metrics.disconnects["before_connect"] += 1
        self.outbox.close()
        self._transport.close()
        self._hub.deadlines.watch(self, self._hub.loop.time() + _CLOSE_SECONDS)

    def _name(self) -> str:
        address = f"{self.peer[0]}:{self.peer[1]}"
        if self.session is None:
            return address
        key = self.session.key
        return f"{address} (user {key.user or 'anonymous'}, client {key.client_id!r})"
