"""One table of MQTT 3.1.1 packets, shared by the tests of every layer.

Bytes are written as the specification draws them: fixed header, remaining length, then the fields.
"""

from typing import Any, NamedTuple

from broker.domain.publication import Publication
from broker.domain.subscription import Subscription
from broker.wire.packets import (
    Ack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Publish,
    Subscribe,
    Type,
    Unsubscribe,
)

MAX_PACKET = 256 * 1024
"""The limit the tables below are made for, in bytes of a whole packet."""


class Received(NamedTuple):
    """A packet a server receives."""

    name: str
    hex: str
    packet: Packet
    clause: str

    @property
    def data(self) -> bytes:
        return bytes.fromhex(self.hex)


class Sent(NamedTuple):
    """A packet a server sends: the encoder's function and its arguments."""

    name: str
    hex: str
    function: str
    fields: dict[str, Any]
    clause: str

    @property
    def data(self) -> bytes:
        return bytes.fromhex(self.hex)


class Malformed(NamedTuple):
    """Bytes that end a connection."""

    name: str
    hex: str
    clause: str

    @property
    def data(self) -> bytes:
        return bytes.fromhex(self.hex)


_FULL_CONNECT = Connect(
    client_id="dev",
    clean_session=False,
    keep_alive=10,
    username="alice",
    password=b"pw",
    will=Publication("a/b", b"gone", 1, True),
)

RECEIVED = [
    # --- 3.1 CONNECT
    Received(
        "connect",
        "10 0d 0004 4d515454 04 02 003c 0001 63",
        Connect("c", clean_session=True, keep_alive=60),
        "3.1",
    ),
    Received(
        "connect, persistent",
        "10 0d 0004 4d515454 04 00 0000 0001 63",
        Connect("c", clean_session=False),
        "MQTT-3.1.2-4",
    ),
    Received("connect, no client id", "10 0c 0004 4d515454 04 02 0000 0000", Connect(""), "MQTT-3.1.3-6"),
    Received(
        "connect, everything",
        "10 25 0004 4d515454 04 ec 000a 0003 646576 0003 612f62 0004 676f6e65 0005 616c696365 0002 7077",
        _FULL_CONNECT,
        "3.1.3",
    ),
    Received(
        "connect, will of QoS 2 with empty payload",
        "10 12 0004 4d515454 04 16 0000 0001 63 0001 77 0000",
        Connect("c", will=Publication("w", b"", 2, False)),
        "MQTT-3.1.2-14",
    ),
    Received(
        "connect, user name only",
        "10 10 0004 4d515454 04 82 0000 0001 63 0001 61",
        Connect("c", username="a"),
        "MQTT-3.1.2-19",
    ),
    Received(
        "connect, empty user name and password",
        "10 11 0004 4d515454 04 c2 0000 0001 63 0000 0000",
        Connect("c", username="", password=b""),
        "3.1.3.5",
    ),
    Received(
        "connect, password that is no text",
        "10 14 0004 4d515454 04 c2 0000 0001 63 0001 61 0002 ff00",
        Connect("c", username="a", password=b"\xff\x00"),
        "3.1.3.5",
    ),
    Received(
        "connect, greatest keep alive",
        "10 0d 0004 4d515454 04 02 ffff 0001 63",
        Connect("c", keep_alive=65535),
        "3.1.2.10",
    ),
    # --- 3.3 PUBLISH
    Received("publish 0", "30 07 0003 612f62 6869", Publish("a/b", b"hi"), "3.3"),
    Received("publish 0, empty", "30 05 0003 612f62", Publish("a/b", b""), "3.3.3"),
    Received("publish 0, retain", "31 07 0003 612f62 6869", Publish("a/b", b"hi", retain=True), "3.3.1.3"),
    Received("publish 1", "32 09 0003 612f62 000a 6869", Publish("a/b", b"hi", 1, packet_id=10), "3.3.1.2"),
    Received(
        "publish 1, empty, greatest id",
        "32 07 0003 612f62 ffff",
        Publish("a/b", b"", 1, packet_id=65535),
        "3.3.2.2",
    ),
    Received(
        "publish 1, dup, retain",
        "3b 09 0003 612f62 000a 6869",
        Publish("a/b", b"hi", 1, packet_id=10, retain=True, dup=True),
        "MQTT-3.3.1-1",
    ),
    Received("publish 2", "34 09 0003 612f62 0100 6869", Publish("a/b", b"hi", 2, packet_id=256), "3.3.1.2"),
    Received(
        "publish 2, dup",
        "3c 09 0003 612f62 0001 6869",
        Publish("a/b", b"hi", 2, packet_id=1, retain=False, dup=True),
        "MQTT-3.3.1-1",
    ),
    Received(
        "publish, two bytes of length",
        "30 cb01 0001 61" + "78" * 200,
        Publish("a", b"x" * 200),
        "2.2.3",
    ),
    Received(
        "publish, payload that is no text", "30 06 0001 61 00ff80", Publish("a", b"\x00\xff\x80"), "3.3.3"
    ),
    Received("publish, topic of letters", "30 08 0006 c3a92fe6bca2", Publish("é/漢", b""), "1.5.3"),
    Received("publish, topic with U+FEFF", "30 06 0004 efbbbf61", Publish("\ufeffa", b""), "MQTT-1.5.3-3"),
    Received("publish, topic U+10FFFF", "30 06 0004 f48fbfbf", Publish("\U0010ffff", b""), "1.5.3"),
    Received("publish, topic with a blank", "30 05 0003 612062", Publish("a b", b""), "4.7.3"),
    Received("publish, topic of a slash", "30 03 0001 2f", Publish("/", b""), "4.7.3"),
    # --- 3.4 to 3.7
    Received("puback", "40 02 0001", Ack(Type.PUBACK, 1), "3.4"),
    Received("puback, greatest id", "40 02 ffff", Ack(Type.PUBACK, 65535), "3.4"),
    Received("pubrec", "50 02 0102", Ack(Type.PUBREC, 258), "3.5"),
    Received("pubrel", "62 02 0102", Ack(Type.PUBREL, 258), "MQTT-3.6.1-1"),
    Received("pubcomp", "70 02 0102", Ack(Type.PUBCOMP, 258), "3.7"),
    # --- 3.8, 3.10
    Received("subscribe", "82 08 000a 0003 612f62 01", Subscribe(10, [Subscription("a/b", 1)]), "3.8"),
    Received(
        "subscribe, many",
        "82 12 0001 0003 612f62 00 0001 23 01 0003 2b2f2b 02",
        Subscribe(1, [Subscription("a/b", 0), Subscription("#", 1), Subscription("+/+", 2)]),
        "3.8.3",
    ),
    Received(
        "subscribe, wildcards", "82 08 0001 0003 2b2f23 00", Subscribe(1, [Subscription("+/#", 0)]), "4.7.1"
    ),
    Received("unsubscribe", "a2 07 000a 0003 612f62", Unsubscribe(10, ["a/b"]), "3.10"),
    Received("unsubscribe, many", "a2 0a 000a 0003 612f62 0001 23", Unsubscribe(10, ["a/b", "#"]), "3.10.3"),
    # --- 3.12, 3.14
    Received("pingreq", "c0 00", Pingreq(), "3.12"),
    Received("disconnect", "e0 00", Disconnect(), "3.14"),
]


def _publish(qos: int, packet_id: int, retain: bool = False, dup: bool = False) -> dict[str, Any]:
    fields = {"topic": "a/b", "payload": b"hi", "qos": qos, "packet_id": packet_id}
    return fields | {"retain": retain, "dup": dup}


SENT = [
    Sent("connack", "20 02 00 00", "connack", {"code": 0}, "3.2"),
    Sent("connack, known", "20 02 01 00", "connack", {"code": 0, "session_present": True}, "MQTT-3.2.2-2"),
    Sent("connack, protocol", "20 02 00 01", "connack", {"code": 1}, "MQTT-3.1.2-2"),
    Sent("connack, refused", "20 02 00 05", "connack", {"code": 5}, "MQTT-3.2.2-5"),
    Sent("publish 0", "30 07 0003 612f62 6869", "publish", _publish(0, 0), "3.3"),
    Sent("publish 0, retain", "31 07 0003 612f62 6869", "publish", _publish(0, 0, True), "MQTT-3.3.1-8"),
    Sent("publish 1", "32 09 0003 612f62 0001 6869", "publish", _publish(1, 1), "3.3.1.2"),
    Sent("publish 1, dup", "3a 09 0003 612f62 ffff 6869", "publish", _publish(1, 65535, dup=True), "3.3.1.1"),
    Sent("publish 2", "34 09 0003 612f62 0001 6869", "publish", _publish(2, 1), "3.3.1.2"),
    Sent("publish 2, all", "3d 09 0003 612f62 0102 6869", "publish", _publish(2, 258, True, True), "3.3.1"),
    Sent("puback", "40 02 000a", "puback", {"packet_id": 10}, "3.4"),
    Sent("pubrec", "50 02 000a", "pubrec", {"packet_id": 10}, "3.5"),
    Sent("pubrel", "62 02 ffff", "pubrel", {"packet_id": 65535}, "MQTT-3.6.1-1"),
    Sent("pubcomp", "70 02 000a", "pubcomp", {"packet_id": 10}, "3.7"),
    Sent("suback", "90 03 000a 01", "suback", {"packet_id": 10, "codes": [1]}, "3.9"),
    Sent(
        "suback, many",
        "90 06 000a 00 01 02 80",
        "suback",
        {"packet_id": 10, "codes": [0, 1, 2, 0x80]},
        "MQTT-3.9.3-1",
    ),
    Sent(
        "suback, two bytes of length",
        "90 8201 000a" + "00" * 128,
        "suback",
        {"packet_id": 10, "codes": [0] * 128},
        "2.2.3",
    ),
    Sent("unsuback", "b0 02 000a", "unsuback", {"packet_id": 10}, "3.11"),
]

UNSUPPORTED = [
    Malformed("level 5", "10 0d 0004 4d515454 05 02 003c 0001 63", "MQTT-3.1.2-2"),
    Malformed("level 3", "10 0d 0004 4d515454 03 02 003c 0001 63", "MQTT-3.1.2-2"),
    Malformed("level 0", "10 0d 0004 4d515454 00 02 003c 0001 63", "MQTT-3.1.2-2"),
    Malformed("bridge bit", "10 0d 0004 4d515454 84 02 003c 0001 63", "MQTT-3.1.2-2"),
    Malformed("MQTT 3.1", "10 0f 0006 4d5149736470 03 02 003c 0001 63", "MQTT-3.1.2-2"),
]

MALFORMED = [
    # --- 2.2 fixed header
    Malformed("type 0", "00 00", "2.2.1"),
    Malformed("type 15", "f0 00", "2.2.1"),
    Malformed("length of five bytes", "30 80 80 80 80 01", "2.2.3"),
    Malformed("length of five bytes, PINGREQ", "c0 80 80 80 80 00", "2.2.3"),
    Malformed("greatest length", "30 ff ff ff 7f", "limits.max_packet_bytes"),
    Malformed("one byte over the limit", "30 fd ff 0f", "limits.max_packet_bytes"),
    Malformed("CONNECT flags", "11 0d 0004 4d515454 04 02 003c 0001 63", "MQTT-2.2.2-2"),
    Malformed("PUBACK flags", "41 02 0001", "MQTT-2.2.2-2"),
    Malformed("PUBREC flags", "58 02 0001", "MQTT-2.2.2-2"),
    Malformed("PUBREL without its flags", "60 02 0001", "MQTT-3.6.1-1"),
    Malformed("PUBREL flags", "63 02 0001", "MQTT-3.6.1-1"),
    Malformed("PUBCOMP flags", "72 02 0001", "MQTT-2.2.2-2"),
    Malformed("SUBSCRIBE flags", "80 08 000a 0003 612f62 01", "MQTT-3.8.1-1"),
    Malformed("UNSUBSCRIBE flags", "a0 07 000a 0003 612f62", "MQTT-3.10.1-1"),
    Malformed("PINGREQ flags", "c1 00", "MQTT-2.2.2-2"),
    Malformed("DISCONNECT flags", "e8 00", "MQTT-3.14.1-1"),
    # --- packets of a server
    Malformed("CONNACK", "20 02 00 00", "3.2"),
    Malformed("SUBACK", "90 03 0001 00", "3.9"),
    Malformed("UNSUBACK", "b0 02 0001", "3.11"),
    Malformed("PINGRESP", "d0 00", "3.13"),
    # --- 3.1 CONNECT
    Malformed("protocol name MQTX", "10 0d 0004 4d515458 04 02 003c 0001 63", "MQTT-3.1.2-1"),
    Malformed("protocol name mqtt", "10 0d 0004 6d717474 04 02 003c 0001 63", "MQTT-3.1.2-1"),
    Malformed("protocol name empty", "10 09 0000 04 02 003c 0001 63", "MQTT-3.1.2-1"),
    Malformed("CONNECT reserved flag", "10 0d 0004 4d515454 04 03 003c 0001 63", "MQTT-3.1.2-3"),
    Malformed("will QoS 3", "10 12 0004 4d515454 04 1e 0000 0001 63 0001 77 0000", "MQTT-3.1.2-14"),
    Malformed("will QoS without will", "10 0d 0004 4d515454 04 0a 0000 0001 63", "MQTT-3.1.2-13"),
    Malformed("will retain without will", "10 0d 0004 4d515454 04 22 0000 0001 63", "MQTT-3.1.2-15"),
    Malformed("will, missing", "10 0d 0004 4d515454 04 06 0000 0001 63", "MQTT-3.1.2-9"),
    Malformed("will topic empty", "10 11 0004 4d515454 04 06 0000 0001 63 0000 0000", "MQTT-4.7.3-1"),
    Malformed("will topic wild", "10 12 0004 4d515454 04 06 0000 0001 63 0001 23 0000", "MQTT-3.3.2-2"),
    Malformed("will topic U+0000", "10 12 0004 4d515454 04 06 0000 0001 63 0001 00 0000", "MQTT-1.5.3-2"),
    Malformed("password, no user name", "10 0f 0004 4d515454 04 42 0000 0001 63 0000", "MQTT-3.1.2-22"),
    Malformed("user name, missing", "10 0d 0004 4d515454 04 82 0000 0001 63", "MQTT-3.1.2-19"),
    Malformed("password, missing", "10 0f 0004 4d515454 04 c2 0000 0001 63 0000", "MQTT-3.1.2-21"),
    Malformed("user name, surrogate", "10 12 0004 4d515454 04 82 0000 0001 63 0003 eda080", "MQTT-3.1.3-11"),
    Malformed("client id, missing", "10 0a 0004 4d515454 04 02 003c", "MQTT-3.1.3-3"),
    Malformed("client id, U+0000", "10 0d 0004 4d515454 04 02 003c 0001 00", "MQTT-3.1.3-4"),
    Malformed("client id, overlong", "10 0e 0004 4d515454 04 02 003c 0002 c080", "MQTT-3.1.3-4"),
    Malformed("CONNECT with more", "10 0e 0004 4d515454 04 02 003c 0001 63 00", "3.1.3"),
    Malformed("CONNECT empty", "10 00", "3.1"),
    # --- 3.3 PUBLISH
    Malformed("QoS 3", "36 09 0003 612f62 0001 6869", "MQTT-3.3.1-4"),
    Malformed("DUP with QoS 0", "38 07 0003 612f62 6869", "MQTT-3.3.1-2"),
    Malformed("topic with +", "30 05 0003 612f2b", "MQTT-3.3.2-2"),
    Malformed("topic with #", "30 05 0003 612f23", "MQTT-3.3.2-2"),
    Malformed("topic with # inside", "32 06 0002 6123 0001", "MQTT-3.3.2-2"),
    Malformed("topic empty", "30 04 0000 6869", "MQTT-4.7.3-1"),
    Malformed("topic with U+0000", "30 05 0003 610062", "MQTT-1.5.3-2"),
    Malformed("topic, overlong slash", "30 04 0002 c0af", "MQTT-1.5.3-1"),
    Malformed("topic, overlong U+0000", "30 05 0003 e08080", "MQTT-1.5.3-1"),
    Malformed("topic, high surrogate", "30 05 0003 eda080", "MQTT-1.5.3-1"),
    Malformed("topic, low surrogate", "30 05 0003 edbfbf", "MQTT-1.5.3-1"),
    Malformed("topic, surrogate pair", "30 08 0006 eda0bdedb880", "MQTT-1.5.3-1"),
    Malformed("topic, above U+10FFFF", "30 06 0004 f4908080", "MQTT-1.5.3-1"),
    Malformed("topic, cut off letter", "30 04 0002 61c3", "MQTT-1.5.3-1"),
    Malformed("topic, lone continuation", "30 03 0001 80", "MQTT-1.5.3-1"),
    Malformed("topic longer than the packet", "30 04 0003 6162", "3.3.2.1"),
    Malformed("topic, length cut off", "30 01 00", "3.3.2.1"),
    Malformed("PUBLISH empty", "30 00", "3.3.2.1"),
    Malformed("PUBLISH 1 without a packet id", "32 05 0003 612f62", "3.3.2.2"),
    Malformed("PUBLISH 1, packet id cut off", "32 06 0003 612f62 00", "3.3.2.2"),
    Malformed("PUBLISH 1, packet id 0", "32 09 0003 612f62 0000 6869", "MQTT-2.3.1-1"),
    Malformed("PUBLISH 2, packet id 0", "34 09 0003 612f62 0000 6869", "MQTT-2.3.1-1"),
    # --- 3.4 to 3.7
    Malformed("PUBACK, packet id 0", "40 02 0000", "2.3.1"),
    Malformed("PUBREC, packet id 0", "50 02 0000", "2.3.1"),
    Malformed("PUBREL, packet id 0", "62 02 0000", "2.3.1"),
    Malformed("PUBCOMP, packet id 0", "70 02 0000", "2.3.1"),
    Malformed("PUBACK too short", "40 01 00", "3.4.2"),
    Malformed("PUBACK empty", "40 00", "3.4.2"),
    Malformed("PUBACK with a reason code", "40 03 0001 00", "3.4.1"),
    Malformed("PUBREL with more", "62 04 0001 0002", "3.6.1"),
    # --- 3.8, 3.10
    Malformed("SUBSCRIBE without a filter", "82 02 000a", "MQTT-3.8.3-3"),
    Malformed("SUBSCRIBE, packet id 0", "82 08 0000 0003 612f62 01", "MQTT-2.3.1-1"),
    Malformed("SUBSCRIBE, QoS 3", "82 08 000a 0003 612f62 03", "MQTT-3-8.3-4"),
    Malformed("SUBSCRIBE, reserved bits", "82 08 000a 0003 612f62 81", "MQTT-3-8.3-4"),
    Malformed("SUBSCRIBE, QoS missing", "82 07 000a 0003 612f62", "3.8.3"),
    Malformed("SUBSCRIBE, second filter cut off", "82 0a 000a 0003 612f62 01 0003", "3.8.3"),
    Malformed("SUBSCRIBE, filter empty", "82 05 000a 0000 01", "MQTT-4.7.3-1"),
    Malformed("SUBSCRIBE, a#", "82 07 000a 0002 6123 01", "MQTT-4.7.1-2"),
    Malformed("SUBSCRIBE, #/a", "82 08 000a 0003 232f61 01", "MQTT-4.7.1-2"),
    Malformed("SUBSCRIBE, a+", "82 07 000a 0002 612b 01", "MQTT-4.7.1-3"),
    Malformed("SUBSCRIBE, U+0000", "82 06 000a 0001 00 01", "MQTT-4.7.3-2"),
    Malformed("SUBSCRIBE, surrogate", "82 08 000a 0003 eda080 01", "MQTT-3.8.3-1"),
    Malformed("UNSUBSCRIBE without a filter", "a2 02 000a", "MQTT-3.10.3-2"),
    Malformed("UNSUBSCRIBE, packet id 0", "a2 07 0000 0003 612f62", "MQTT-2.3.1-1"),
    Malformed("UNSUBSCRIBE, a#", "a2 06 000a 0002 6123", "MQTT-4.7.1-2"),
    Malformed("UNSUBSCRIBE, overlong", "a2 06 000a 0002 c0af", "MQTT-3.10.3-1"),
    # --- 3.12, 3.14
    Malformed("PINGREQ with a body", "c0 01 00", "3.12.1"),
    Malformed("DISCONNECT with a reason code", "e0 01 00", "3.14.1"),
]
