"""The header of the PROXY protocol, versions 1 and 2, sans-IO.

A proxy sends it first on each connection that it opens on behalf of a client, and so tells the client's
address. The sections that are named here are those of HAProxy's specification ("The PROXY protocol").
"""

import re
import struct
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

_V1 = b"PROXY "
_V1_MOST = 107
"""Bytes of a line, with its end (2.1)."""
_LINE = re.compile(rb"PROXY (TCP4|TCP6) ([!-~]+) ([!-~]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})")
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?")

_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED = 16
"""Bytes of the signature, the version and command, the family and transport, and the length (2.2)."""
_LOCAL, _PROXY = 0x20, 0x21
_FAMILIES = {0x0: 0, 0x1: 12, 0x2: 36, 0x3: 216}
"""AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX -> the bytes of both ends' addresses."""
_MOST_TRANSPORT = 2
_STREAMS = {0x11: struct.Struct("!4s4xH2x"), 0x21: struct.Struct("!16s16xH2x")}
"""TCP over IPv4 and IPv6 -> the client's address and port."""
_KEPT = 36


class ProxyHeaderError(Exception):
    """What came is not a header. The text says why."""


class Source(NamedTuple):
    """The address and port of a client."""

    address: str
    port: int


class Found(NamedTuple):
    """A whole header. `source` is None if the proxy speaks for itself, or does not know the client: then the
    connection's own address counts. `rest`: the bytes after the header."""

    source: Source | None
    rest: bytes


class HeaderReader:
    """Reads the header from the first bytes of a connection, in whatever pieces they come."""

    __slots__ = ("_data", "_skip")

    def __init__(self) -> None:
        self._data = b""
        self._skip = 0
        """How many bytes of the header are still to come that nobody needs. Then `_data` is complete."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come."""
        return not self._data

    def feed(self, data: bytes) -> Found | None:
        """More bytes have come. Returns the header when it is whole.

        Raises:
            ProxyHeaderError: this is no header, whatever comes next.
        """
        if self._skip:
            return self._skipped(data)
        self._data += data
        if self._data.startswith(_V1[: len(self._data)]):
            return self._line()
        if self._data.startswith(_V2[: len(self._data)]):
            return self._binary()
        raise ProxyHeaderError("it does not begin with a PROXY header")

    # --- version 1 -------------------------------------------------------------------

    def _line(self) -> Found | None:
        line, end, rest = self._data.partition(b"\r\n")
        if not end:
            if len(self._data) >= _V1_MOST:
                raise ProxyHeaderError(f"a PROXY line of more than {_V1_MOST} bytes")
            return None
        if len(line) + len(end) > _V1_MOST:
            raise ProxyHeaderError(f"a PROXY line of more than {_V1_MOST} bytes")
        return Found(_parse_line(line), rest)

    # --- version 2 -------------------------------------------------------------------

    def _binary(self) -> Found | None:
        if len(self._data) < _V2_FIXED:
            return None
        command, family = self._data[12], self._data[13]
        length = int.from_bytes(self._data[14:16], "big")
        needed = _addresses(command, family, length)
        if len(self._data) < _V2_FIXED + min(needed, _KEPT):
            return None
        end = _V2_FIXED + length
        if len(self._data) >= end:
            return Found(self._source(), self._data[end:])
        # What follows are addresses of a kind that is not used, and TLVs.
        self._skip = end - len(self._data)
        self._data = self._data[: _V2_FIXED + _KEPT]
        return None

    def _skipped(self, data: bytes) -> Found | None:
        if len(data) < self._skip:
            self._skip -= len(data)
            return None
        return Found(self._source(), data[self._skip :])

    def _source(self) -> Source | None:
        """None also for transports other than TCP: the specification asks for that (2.2)."""
        stream = _STREAMS.get(self._data[13]) if self._data[12] == _PROXY else None
        if stream is None:
            return None
        packed, port = stream.unpack_from(self._data, _V2_FIXED)
        address = IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
        return Source(str(address), port)


def _addresses(command: int, family: int, length: int) -> int:
    """The bytes of the addresses that must be there."""
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"a PROXY header of version and command {command:#04x}")
    if command == _LOCAL:
        return 0
    needed = _FAMILIES.get(family >> 4)
    if needed is None or family & 0xF > _MOST_TRANSPORT:
        raise ProxyHeaderError(f"a PROXY header of family and transport {family:#04x}")
    if length < needed:
        raise ProxyHeaderError(f"a PROXY header of {length} bytes, too few for its addresses")
    return needed


def _parse_line(line: bytes) -> Source | None:
    if _UNKNOWN.fullmatch(line):
        return None
    found = _LINE.fullmatch(line)
    if found is None:
        raise ProxyHeaderError("a PROXY line that is not well-formed")
    kind, source, destination, *ports = (part.decode() for part in found.groups())
    read = IPv4Address if kind == "TCP4" else IPv6Address
    try:
        address, _ = read(source), read(destination)
    except AddressValueError:
        raise ProxyHeaderError(f"a PROXY line whose addresses are not of {kind}") from None
    if "%" in source + destination or max(map(int, ports)) > 65535:
        raise ProxyHeaderError("a PROXY line that is not well-formed")
    return Source(str(address), int(ports[0]))
