"""A session with a hand-written outbox and watcher, for the tests of `broker.session`."""

import msgspec

from broker.ports import Identity, SessionKey, SessionState
from broker.session.session import Session
from broker.session.tail import Tail
from broker.wire.decoder import Decoder
from broker.wire.encoder import Outgoing
from broker.wire.packets import Packet, Publish

KEY = SessionKey("alice", "phone")
INBOX = "users/alice/inbox"
TEAM = "groups/team"


class Limits(msgspec.Struct):
    max_inflight: int = 3
    max_queued: int = 2


class Wire:
    """The outbox and the watcher of a session, and the client that reads it all."""

    def __init__(self) -> None:
        self.full = False
        self.bytes = b""
        self.was_told: list[str] = []

    def send(self, data: bytes) -> None:
        self.bytes += data

    def lagging(self, _session: Session) -> None:
        self.was_told.append("lagging")

    def moved(self, _session: Session) -> None:
        self.was_told.append("moved")

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

    def told(self) -> list[str]:
        told, self.was_told = self.was_told, []
        return told


def connect(
    wire: Wire, limits: Limits | None = None, state: SessionState | None = None, persistent: bool = True
) -> Session:
    session = Session(KEY, Identity("alice"), persistent, wire, limits or Limits(), wire)
    if state is not None:
        session.restore(state)
    return session


def follow(session: Session, topic: str = INBOX, position: int = 0, qos: int = 1) -> Tail:
    """Subscribe to a log; the tail is live, as after the reader has looked."""
    log = topic if topic.startswith("users/") else "g:" + topic.removeprefix("groups/")
    tail = Tail(topic, log, position, qos)
    session.add_tail(tail)
    session.caught_up(tail)
    return tail


def entry(topic: str, offset: int, qos: int) -> Outgoing:
    return Outgoing(topic, b"%d" % offset, qos)


def offer(session: Session, *offsets: int, topic: str = INBOX, qos: int = 1) -> None:
    for offset in offsets:
        session.offer_entry(topic, offset, entry(topic, offset, qos))


def read(session: Session, tail: Tail, *offsets: int, qos: int = 1) -> None:
    for offset in offsets:
        assert session.room > 0
        session.send_entry(tail, offset, entry(tail.topic, offset, qos))


def kept(session: Session) -> SessionState:
    """What the session leaves, through the store's eyes."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(session.snapshot()), type=SessionState)


def sent(offset: int, qos: int, packet_id: int, dup: bool = False, topic: str = INBOX) -> Publish:
    return Publish(topic, b"%d" % offset, qos, packet_id, dup=dup)


def note(text: str, qos: int = 1) -> Outgoing:
    return Outgoing("sensors/1", text.encode(), qos)
