"""The header of the PROXY protocol, in whatever pieces it comes."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.net.proxy_header import Found, HeaderReader, ProxyHeaderError, Source

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
HOME = IPv4Address("192.0.2.1").packed + IPv4Address("198.51.100.7").packed + struct.pack("!HH", 5000, 1883)
HOME_6 = IPv6Address("2001:db8::1").packed + IPv6Address("::1").packed + struct.pack("!HH", 5000, 1883)
TLV = bytes.fromhex("04 0003 000000")  # PP2_TYPE_NOOP


def v2(body: bytes, command: int = 0x21, family: int = 0x11, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return SIGNATURE + bytes((command, family)) + size.to_bytes(2, "big") + body


WELL_FORMED = {
    "v1": (b"PROXY TCP4 192.0.2.1 198.51.100.7 5000 1883\r\n", Source("192.0.2.1", 5000)),
    "v1, least": (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 65535\r\n", Source("0.0.0.0", 0)),
    "v1, IPv6": (b"PROXY TCP6 2001:DB8:0::1 ::1 5000 1883\r\n", Source("2001:db8::1", 5000)),
    "v1, longest": (
        b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n",
        Source("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535),
    ),
    "v1, unknown": (b"PROXY UNKNOWN\r\n", None),
    "v1, unknown with addresses": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    "v1, 107 bytes": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
    "v2": (v2(HOME), Source("192.0.2.1", 5000)),
    "v2, TLVs": (v2(HOME + TLV * 3), Source("192.0.2.1", 5000)),
    "v2, many TLVs": (v2(HOME + TLV * 5000), Source("192.0.2.1", 5000)),
    "v2, IPv6": (v2(HOME_6, family=0x21), Source("2001:db8::1", 5000)),
    "v2, IPv6 and TLVs": (v2(HOME_6 + TLV, family=0x21), Source("2001:db8::1", 5000)),
    "v2, local": (v2(b"", command=0x20, family=0), None),
    "v2, local with addresses": (v2(HOME, command=0x20), None),
    "v2, unspecified": (v2(b"", family=0), None),
    "v2, unspecified with TLVs": (v2(TLV, family=0), None),
    "v2, datagrams": (v2(HOME, family=0x12), None),
    "v2, Unix": (v2(bytes(216), family=0x31), None),
    "v2, Unix and TLVs": (v2(bytes(216) + TLV, family=0x31), None),
}

MALFORMED = {
    "MQTT": bytes.fromhex("101000044d5154540402000000046e616d65"),
    "a byte before it": b" PROXY UNKNOWN\r\n",
    "lower case": b"proxy TCP4 192.0.2.1 198.51.100.7 5000 1883\r\n",
    "kind": b"PROXY UDP4 192.0.2.1 198.51.100.7 5000 1883\r\n",
    "kind and more": b"PROXY UNKNOWNS\r\n",
    "two spaces": b"PROXY TCP4  192.0.2.1 198.51.100.7 5000 1883\r\n",
    "no port": b"PROXY TCP4 192.0.2.1 198.51.100.7 5000\r\n",
    "one more": b"PROXY TCP4 192.0.2.1 198.51.100.7 5000 1883 7\r\n",
    "port beyond": b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 1883\r\n",
    "other port beyond": b"PROXY TCP4 192.0.2.1 198.51.100.7 5000 70000\r\n",
    "port with a zero": b"PROXY TCP4 192.0.2.1 198.51.100.7 05000 1883\r\n",
    "port with a sign": b"PROXY TCP4 192.0.2.1 198.51.100.7 +500 1883\r\n",
    "address": b"PROXY TCP4 192.0.2.256 198.51.100.7 5000 1883\r\n",
    "address with a zero": b"PROXY TCP4 192.0.2.01 198.51.100.7 5000 1883\r\n",
    "address of the other kind": b"PROXY TCP4 ::1 ::1 5000 1883\r\n",
    "destination": b"PROXY TCP6 ::1 localhost 5000 1883\r\n",
    "scope": b"PROXY TCP6 fe80::1%eth0 ::1 5000 1883\r\n",
    "line feed only": b"PROXY TCP4 192.0.2.1 198.51.100.7 5000 1883\nPROXY\r\n",
    "108 bytes": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "no end": b"PROXY UNKNOWN " + b"x" * 93,
    "signature": b"\r\n\r\n\0\r\nQUIT\r",
    "version": v2(HOME, command=0x11),
    "command": v2(HOME, command=0x22),
    "family": v2(HOME, family=0x41),
    "transport": v2(HOME, family=0x13),
    "too short": v2(HOME[:-1]),
    "too short for IPv6": v2(HOME, family=0x21),
    "too short for Unix": v2(bytes(215), family=0x31),
}


@pytest.mark.parametrize("rest", [b"", b"\x10\x00and more"])
@pytest.mark.parametrize("name", WELL_FORMED)
def test_a_header_is_read_wherever_it_is_cut(name: str, rest: bytes) -> None:
    header, source = WELL_FORMED[name]
    assert HeaderReader().feed(header + rest) == Found(source, rest)
    for cut in range(1, len(header)):
        reader = HeaderReader()
        assert reader.feed(header[:cut]) is None, f"complete with {cut} of {len(header)} bytes"
        assert not reader.is_empty
        assert reader.feed(header[cut:] + rest) == Found(source, rest)


@pytest.mark.parametrize("name", WELL_FORMED)
def test_a_header_is_read_byte_by_byte(name: str) -> None:
    header, source = WELL_FORMED[name]
    reader = HeaderReader()
    found = [reader.feed(header[at : at + 1]) for at in range(len(header))]
    assert found == [None] * (len(header) - 1) + [Found(source, b"")]


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_header_is_refused(name: str) -> None:
    data = MALFORMED[name]
    with pytest.raises(ProxyHeaderError):
        HeaderReader().feed(data)
    assert outcome([data[at : at + 1] for at in range(len(data))]) == "refused"


def test_little_is_kept_of_a_long_header() -> None:
    header = v2(HOME + bytes(65_535 - len(HOME)))
    reader = HeaderReader()
    for at in range(len(header) - 1):
        assert reader.feed(header[at : at + 1]) is None
    assert len(reader._data) < 100
    assert reader.feed(header[-1:]) == Found(Source("192.0.2.1", 5000), b"")


BEGINNINGS = st.sampled_from(
    [b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY UNKNOWN", SIGNATURE, SIGNATURE + b"\x21\x11"]
)


def outcome(pieces: list[bytes]) -> Found | str | None:
    """What a reader makes of pieces; the bytes of later ones come after the header."""
    reader = HeaderReader()
    for at, piece in enumerate(pieces):
        try:
            found = reader.feed(piece)
        except ProxyHeaderError:
            return "refused"
        if found is not None:
            return found._replace(rest=found.rest + b"".join(pieces[at + 1 :]))
    return None


@given(BEGINNINGS, st.binary(max_size=400), st.lists(st.integers(1, 40), max_size=30))
def test_whatever_comes_is_read_the_same_in_pieces(beginning: bytes, data: bytes, sizes: list[int]) -> None:
    data = beginning + data
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    pieces = [piece for piece in [*pieces, data[at:]] if piece]
    assert outcome(pieces) == outcome([data] if data else [])


@given(st.ip_addresses(), st.integers(0, 65535), st.binary(max_size=300), st.binary(max_size=20))
def test_each_address_comes_back(
    address: IPv4Address | IPv6Address, port: int, tlvs: bytes, rest: bytes
) -> None:
    ends = address.packed * 2 + struct.pack("!HH", port, 1883)
    family = 0x10 * (1 if address.version == 4 else 2) + 1
    found = Found(Source(str(address), port), rest)
    assert HeaderReader().feed(v2(ends + tlvs, family=family) + rest) == found
    line = f"PROXY TCP{address.version} {address} {address} {port} 1883\r\n".encode()
    if "%" not in str(address):
        assert HeaderReader().feed(line + rest) == found
