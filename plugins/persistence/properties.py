"""The properties of messages and retained messages as they are stored: msgpack, None for none."""

import msgspec

from broker.domain.publication import Properties

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Properties).decode


def to_column(properties: Properties | None) -> bytes | None:
    """The value to store."""
    return None if properties is None else _encode(properties)


def from_column(value: bytes | None) -> Properties | None:
    """The properties in a stored value."""
    return None if value is None else _decode(value)
