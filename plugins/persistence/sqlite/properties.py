"""The column `properties` of messages and retained messages."""

import msgspec

from broker.domain.publication import Properties

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Properties).decode


def to_column(properties: Properties | None) -> bytes | None:
    """NULL for none."""
    return None if properties is None else _encode(properties)


def from_column(value: bytes | None) -> Properties | None:
    """What `to_column` made."""
    return None if value is None else _decode(value)
