"""A session alone, driven by `connect`, `follow` and `feed` over a wire written by hand."""

import re
from collections.abc import Sequence

import msgspec

from broker.domain.publication import Publication
from broker.ports import (
    Identity,
    SessionKey,
    SessionState,
)
from broker.session.session import Session
from broker.session.tail import Tail
from broker.wire.decoder import Decoder
from broker.wire.encoder import Outgoing
from broker.wire.packets import Packet, Publish

KEY = SessionKey("alice", "phone")
INBOX = "users/alice/inbox"
TEAM = "groups/team"
NOTES = "notes"
"""An open topic, no log."""


class Limits(msgspec.Struct):
    max_inflight: int = 3
    max_queued: int = 2
    max_queued_bytes: int = 1000
    connections_per_user: int = 1000
    sessions_per_user: int = 1000


class Wire:
    """The outbox and the watcher of a session, and the client that reads it all."""

    def __init__(self) -> None:
        self.full = False
        self.queue_room = 1 << 20
        self.bytes_queued = 0
        self.bytes = b""
        self.was_told: list[str] = []

    def send(self, data: bytes) -> None:
        self.bytes += data

    def send_publish(self, head: bytes, packet_id: bytes, payload: bytes) -> None:
        self.send(head + packet_id + payload)

    def queued(self, size: int) -> None:
        self.bytes_queued = size

    def lagging(self, _session: Session) -> None:
        self.was_told.append("lagging")

    def moved(self, _session: Session) -> None:
        self.was_told.append("moved")

    def ids_wanted(self, session: Session) -> None:
        """What is asked for is on disk at once."""
        reserve(session)
        session.refill()

    def dropped(self, reason: str) -> None:
        self.was_told.append(reason)

    def take(self) -> list[Packet]:
        """The packets that came since the last time."""
        decoder = Decoder(1 << 20)
        decoder.feed(self.bytes)
        self.bytes = b""
        packets = []
        while (packet := decoder.next_packet()) is not None:
            packets.append(packet)
        return packets

    def numbers(self) -> list[int]:
        """Those of the PUBLISH packets that came since the last time."""
        return [number(packet) for packet in self.take() if isinstance(packet, Publish)]

    def told(self) -> list[str]:
        told, self.was_told = self.was_told, []
        return told


def number(packet: Publish) -> int:
    """What tells entries apart: the offset, as number or in the JSON that a reader gets."""
    found = re.search(rb"\d+", packet.payload)
    assert found is not None
    return int(found[0])


# --- a session alone ------------------------------------------------------------------------


def connect(
    wire: Wire, limits: Limits | None = None, state: SessionState | None = None, persistent: bool = True
) -> Session:
    """A session whose packet ids are reserved."""
    session = Session(KEY, Identity("alice"), persistent, wire, limits or Limits(), wire)
    if state is not None:
        session.restore(state)
    reserve(session)
    return session


def reserve(session: Session) -> None:
    """Let packet ids be reserved, as if the store answered at once."""
    ids = session.window.reserve_ids()
    if ids is not None:
        session.window.ids.reserved(ids.reserved)


def log_of(topic: str) -> str:
    return topic if topic.startswith("users/") else "g:" + topic.removeprefix("groups/")


def open_tail(session: Session, topic: str = INBOX, qos: int = 1, floor: int = 0) -> Tail:
    """Start reading a log where the session left it, as `Subscriptions` does."""
    log = log_of(topic)
    tail = Tail(topic, log, max(session.parked.get(log, 0), floor), qos)
    session.add_tail(tail)
    return tail


def follow(session: Session, topic: str = INBOX, position: int = 0, qos: int = 1) -> Tail:
    """Subscribe to a log; the tail is live, as after the reader has looked."""
    tail = Tail(topic, log_of(topic), position, qos)
    session.add_tail(tail)
    session.logs.caught_up(tail)
    return tail


def entry(topic: str, offset: int, qos: int) -> Outgoing:
    return Outgoing(Publication(topic, b"%d" % offset, qos))


def offer(session: Session, *offsets: int, topic: str = INBOX, qos: int = 1) -> None:
    for offset in offsets:
        session.offer_entry(topic, offset, entry(topic, offset, qos))


def read(session: Session, tail: Tail, *offsets: int, qos: int = 1) -> None:
    """Send the entries after the tail's position, as the feeder does."""
    for offset in offsets:
        assert session.window.room_for(tail) > 0
        session.send_entry(tail, offset, entry(tail.topic, offset, qos))


def feed(session: Session, tail: Tail, log: Sequence[int]) -> None:
    """As the feeder does, all at once: the QoS of each entry of the log is given."""
    for offset in sorted(offset for offset in tail.resend if offset <= tail.position):
        session.send_entry(tail, offset, entry(tail.topic, offset, log[offset - 1]))
    while tail.position < len(log) and session.window.room_for(tail):
        offset = tail.position + 1
        session.send_entry(tail, offset, entry(tail.topic, offset, log[offset - 1]))
    if tail.position == len(log):
        session.logs.caught_up(tail)


def kept(session: Session) -> SessionState:
    """What the session leaves if its connection ends now, through the store's eyes."""
    at_end = session.window.ids.snapshot(at_end=True)
    return through_store(msgspec.structs.replace(session.snapshot(), packet_ids=at_end))


def through_store(state: SessionState) -> SessionState:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=SessionState)


def sent(offset: int, qos: int, packet_id: int, dup: bool = False, topic: str = INBOX) -> Publish:
    return Publish(topic, b"%d" % offset, qos, packet_id=packet_id, dup=dup)


def note(text: str, qos: int = 1) -> Outgoing:
    return Outgoing(Publication("sensors/1", text.encode(), qos))
