"""MQTT control packets as values (MQTT 3.1.1, chapter 3)."""

import enum

import msgspec

from broker.domain.publication import Publication
from broker.domain.subscription import Subscription


class Type(enum.IntEnum):
    """Control packet types (2.2.1)."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14


class ConnectCode(enum.IntEnum):
    """CONNACK return codes (3.2.2.3)."""

    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_CREDENTIALS = 4
    NOT_AUTHORIZED = 5


SUBSCRIBE_FAILURE = 0x80
"""The SUBACK return code of a refused filter (3.9.3)."""


class Connect(msgspec.Struct, frozen=True):
    """CONNECT (3.1). `level` is the protocol level, 4 for MQTT 3.1.1. `keep_alive` in seconds, 0 for none."""

    client_id: str
    level: int = 4
    clean_session: bool = True
    keep_alive: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Publication | None = None
    """The will: published when the connection ends without a DISCONNECT (3.1.2.5)."""


class Publish(Publication, frozen=True, gc=False):
    """PUBLISH (3.3). `packet_id` is 0 with QoS 0."""

    packet_id: int = 0
    dup: bool = False


class Ack(msgspec.Struct, frozen=True, gc=False):
    """PUBACK, PUBREC, PUBREL, PUBCOMP or UNSUBACK (3.4 to 3.7, 3.11)."""

    type: int
    packet_id: int


class Subscribe(msgspec.Struct, frozen=True):
    """SUBSCRIBE (3.8). `subscriptions` are in the order of the packet."""

    packet_id: int
    subscriptions: list[Subscription]


class Unsubscribe(msgspec.Struct, frozen=True):
    """UNSUBSCRIBE (3.10)."""

    packet_id: int
    filters: list[str]


class Pingreq(msgspec.Struct, frozen=True):
    """PINGREQ (3.12)."""


class Disconnect(msgspec.Struct, frozen=True):
    """DISCONNECT (3.14)."""


Packet = Connect | Publish | Ack | Subscribe | Unsubscribe | Pingreq | Disconnect
