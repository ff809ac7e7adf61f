"""The codec, by the golden table and against all other bytes."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.domain.errors import RemoteError
from broker.domain.publication import Publication
from broker.wire import encoder
from broker.wire.decoder import Decoder, MalformedPacketError, UnsupportedProtocolError
from broker.wire.encoder import Outgoing, remaining_length
from broker.wire.packets import Ack, Packet, Publish, Type
from tests.unit.golden import MALFORMED, MAX_PACKET, RECEIVED, SENT, UNSUPPORTED, Malformed, Received, Sent

ALL = [*RECEIVED, *SENT, *MALFORMED, *UNSUPPORTED]

received = pytest.mark.parametrize("row", RECEIVED, ids=lambda row: row.name)
sent = pytest.mark.parametrize("row", SENT, ids=lambda row: row.name)
malformed = pytest.mark.parametrize("row", MALFORMED, ids=lambda row: row.name)


def decode(*chunks: bytes, limit: int = MAX_PACKET) -> tuple[list[Packet], str]:
    """Decode a stream: its packets, and the error that ended it, or ""."""
    decoder = Decoder(limit)
    packets: list[Packet] = []
    for chunk in chunks:
        decoder.feed(chunk)
        try:
            while (packet := decoder.next_packet()) is not None:
                packets.append(packet)
                assert len(packets) <= sum(map(len, chunks)), "packets out of nothing"
        except RemoteError as error:
            return packets, f"{type(error).__name__}: {error.reason}"
    return packets, ""


# --- the golden table -----------------------------------------------------------------------


@received
def test_decodes(row: Received) -> None:
    assert decode(row.data) == ([row.packet], ""), row.clause


@received
def test_split_anywhere_decodes_the_same(row: Received) -> None:
    data = row.data
    for i in range(len(data) + 1):
        assert decode(data[:i], data[i:]) == ([row.packet], "")
    assert decode(*(data[i : i + 1] for i in range(len(data)))) == ([row.packet], "")


@received
def test_nothing_comes_of_a_part(row: Received) -> None:
    for i in range(len(row.data)):
        assert decode(row.data[:i]) == ([], "")


@malformed
def test_refuses(row: Malformed) -> None:
    decoder = Decoder(MAX_PACKET)
    decoder.feed(row.data)
    with pytest.raises(MalformedPacketError):
        decoder.next_packet()


@malformed
def test_refuses_in_pieces_too(row: Malformed) -> None:
    data = row.data
    packets, error = decode(*(data[i : i + 1] for i in range(len(data))))
    assert packets == [], row.clause
    assert error.startswith("MalformedPacketError")


@malformed
def test_packets_before_a_malformed_one_count(row: Malformed) -> None:
    packets, error = decode(RECEIVED[0].data + bytes.fromhex("c0 00") + row.data + RECEIVED[0].data)
    assert packets == [RECEIVED[0].packet, decode(b"\xc0\x00")[0][0]]
    assert error.startswith("MalformedPacketError")


@pytest.mark.parametrize("row", UNSUPPORTED, ids=lambda row: row.name)
def test_other_protocol_versions(row: Malformed) -> None:
    decoder = Decoder(MAX_PACKET)
    decoder.feed(row.data)
    with pytest.raises(UnsupportedProtocolError):
        decoder.next_packet()


@sent
def test_encodes(row: Sent) -> None:
    if row.function != "publish":
        assert getattr(encoder, row.function)(**row.fields) == row.data, row.clause
        return
    fields = row.fields
    outgoing = Outgoing(
        Publication(fields["topic"], fields["payload"], fields["qos"]), retain=fields["retain"]
    )
    if not fields["qos"]:
        assert outgoing.frame() == row.data
    else:
        assert outgoing.packet(fields["qos"], fields["packet_id"], fields["dup"]) == row.data


def test_pingresp() -> None:
    assert bytes.fromhex("d0 00") == encoder.PINGRESP


# --- framing --------------------------------------------------------------------------------


def test_a_stream_of_all_packets() -> None:
    stream = b"".join(row.data for row in RECEIVED)
    wanted = [row.packet for row in RECEIVED]
    assert decode(stream) == (wanted, "")
    for size in (1, 2, 3, 5, 7, 64, 1000):
        chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
        assert decode(*chunks) == (wanted, ""), f"in chunks of {size}"


def test_packets_may_be_taken_later() -> None:
    """The caller of the decoder stops between two packets, and more bytes arrive meanwhile."""
    stream = b"".join(row.data for row in RECEIVED)
    decoder = Decoder(MAX_PACKET)
    taken = []
    for i in range(0, len(stream), 10):
        decoder.feed(stream[i : i + 10])
        if i % 40 == 0 and (packet := decoder.next_packet()) is not None:
            taken.append(packet)
    while (packet := decoder.next_packet()) is not None:
        taken.append(packet)
    assert taken == [row.packet for row in RECEIVED]


def test_bytes_of_the_last_packet() -> None:
    decoder = Decoder(MAX_PACKET)
    decoder.feed(b"".join(row.data for row in RECEIVED))
    for row in RECEIVED:
        assert decoder.next_packet() == row.packet
        assert decoder.packet == row.data


def test_a_packet_as_large_as_the_limit() -> None:
    payload = bytes(MAX_PACKET - 4 - 3)
    data = Outgoing(Publication("a", payload, 0)).frame()
    assert len(data) == MAX_PACKET
    assert decode(data) == ([Publish("a", payload)], "")
    assert decode(data[:1000], data[1000:]) == ([Publish("a", payload)], "")
    assert decode(data, limit=MAX_PACKET - 1)[1].startswith("MalformedPacketError")


def test_an_oversize_packet_is_refused_by_its_header() -> None:
    assert decode(b"\x30\x65" + b"\0\1a", limit=100)[1].startswith("MalformedPacketError")
    assert decode(b"\x30\x62" + b"\0\1a", limit=100) == ([], "")


def test_the_limit_may_be_raised_between_packets() -> None:
    decoder = Decoder(20)
    big = Outgoing(Publication("a", b"x" * 100, 0)).frame()
    decoder.feed(RECEIVED[0].data + big)
    assert decoder.next_packet() == RECEIVED[0].packet
    decoder.allow(1000)
    assert decoder.next_packet() == Publish("a", b"x" * 100)


def test_remaining_length_examples() -> None:
    """The borders of 2.2.3, table 2.4."""
    borders = {0: "00", 127: "7f", 128: "8001", 16383: "ff7f", 16384: "808001", 2097151: "ffff7f"}
    borders |= {2097152: "80808001", 268435455: "ffffff7f"}
    for length, wanted in borders.items():
        assert remaining_length(length).hex() == wanted


# --- any bytes ------------------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Packets, most of them good, some with a few bytes changed, cut off or put in."""
    data = bytearray()
    for row in draw(st.lists(st.sampled_from(ALL), min_size=1, max_size=6)):
        data += row.data
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data) - 1)) if data else 0
        match draw(st.sampled_from(["set", "cut", "put"])):
            case "set" if data:
                data[place] = draw(st.integers(0, 255))
            case "cut":
                del data[place : place + draw(st.integers(1, 4))]
            case _:
                data[place:place] = draw(st.binary(min_size=1, max_size=4))
    return bytes(data)


any_bytes = st.one_of(st.binary(max_size=300), streams())


@given(any_bytes)
@example(b"\x32\x04\x00\x02ab")
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    decode(data, limit=1000)  # anything but RemoteError fails the test


@given(any_bytes, st.lists(st.integers(0, 400), max_size=12))
def test_any_chunking_gives_the_same(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    chunks = [data[a:b] for a, b in pairwise(places)]
    assert decode(*chunks, limit=1000) == decode(data, limit=1000)


@given(st.binary(max_size=40), st.sampled_from(range(0, 256, 16)), st.integers(0, 15))
def test_any_body_of_any_type(body: bytes, kind: int, flags: int) -> None:
    packets, error = decode(bytes((kind | flags, len(body))) + body)
    assert len(packets) == 1 or error


# --- messages out and back ------------------------------------------------------------------

names = st.text(st.characters(codec="utf-8", exclude_characters="\0+#"), min_size=1, max_size=100)
payloads = st.one_of(st.binary(max_size=300), st.sampled_from([bytes(n) for n in (16370, 16380, 16390)]))


@given(names, payloads, st.integers(0, 2), st.integers(1, 65535), st.booleans(), st.booleans())
def test_outgoing_decodes_to_the_same(
    topic: str, payload: bytes, qos: int, packet_id: int, dup: bool, retain: bool
) -> None:
    outgoing = Outgoing(Publication(topic, payload, qos), retain=retain)
    if qos:
        data = outgoing.packet(qos, packet_id, dup)
        wanted = Publish(topic, payload, qos, packet_id=packet_id, retain=retain, dup=dup)
    else:
        data = outgoing.frame()
        wanted = Publish(topic, payload, 0, packet_id=0, retain=retain)
    assert decode(data) == ([wanted], "")


@given(names, payloads, st.integers(1, 65535))
def test_one_outgoing_serves_every_qos(topic: str, payload: bytes, packet_id: int) -> None:
    """Receivers of several QoS share one message; DUP for one must not show at another."""
    outgoing = Outgoing(Publication(topic, payload, 2))
    data = b"".join(
        (
            outgoing.packet(2, packet_id, dup=True),
            outgoing.frame(),
            outgoing.packet(1, packet_id),
            outgoing.head(2) + packet_id.to_bytes(2, "big") + payload,
            outgoing.frame(),
        )
    )
    assert decode(data) == (
        [
            Publish(topic, payload, 2, packet_id=packet_id, dup=True),
            Publish(topic, payload),
            Publish(topic, payload, 1, packet_id=packet_id),
            Publish(topic, payload, 2, packet_id=packet_id),
            Publish(topic, payload),
        ],
        "",
    )


@given(st.integers(1, 65535))
def test_acks_decode_to_the_same(packet_id: int) -> None:
    data = b"".join(f(packet_id) for f in (encoder.puback, encoder.pubrec, encoder.pubrel, encoder.pubcomp))
    kinds = (Type.PUBACK, Type.PUBREC, Type.PUBREL, Type.PUBCOMP)
    assert decode(data) == ([Ack(kind, packet_id) for kind in kinds], "")
