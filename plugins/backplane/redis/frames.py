"""What is published: a version byte, then a msgpack value.

Nodes of two neighbouring releases run side by side. So fields are only added, at the end and with a default;
a field that is unknown is ignored, as is a value of another version.
"""

import msgspec

VERSION = b"\x01"


class Bodies(msgspec.Struct, frozen=True, array_like=True):
    """The hints of one topic."""

    sender: str
    """Of a process: a node that has been started again is another sender."""
    number: int
    """Counts what the sender has published, so that what comes twice is taken once."""
    bodies: list[bytes]


class Letter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message to a node."""

    kind: str
    body: bytes = b""
    question: str = ""
    """An id that the answer repeats."""
    answer: str = ""
    """The id of the question that this answers."""


class Letters(msgspec.Struct, frozen=True):
    """Mail to one node."""

    node: str
    """Who sends it."""
    batch: list[Letter]
    sender: str = ""
    """The process, if it is not Redis itself."""


_encode = msgspec.msgpack.Encoder().encode
_decode_bodies = msgspec.msgpack.Decoder(Bodies).decode
_decode_letters = msgspec.msgpack.Decoder(Letters).decode


def encode_frame(frame: Bodies | Letters) -> bytes:
    """What is published."""
    return VERSION + _encode(frame)


def decode_bodies(value: bytes) -> Bodies | None:
    """None: another version, or nothing that this release can read."""
    try:
        return _decode_bodies(value[1:]) if value[:1] == VERSION else None
    except msgspec.DecodeError:
        return None


def decode_letters(value: bytes) -> Letters | None:
    """None: another version, or nothing that this release can read."""
    try:
        return _decode_letters(value[1:]) if value[:1] == VERSION else None
    except msgspec.DecodeError:
        return None


def own_beginning(sender: str) -> bytes:
    """What all hints of a sender begin with, so that it can leave out its own without reading them."""
    whole = encode_frame(Bodies(sender, 0, []))
    return whole[: whole.index(sender.encode()) + len(sender)]


FREED_KIND = "turn"
FREED = encode_frame(Letters("", [Letter(FREED_KIND)]))
"""Redis sends this letter itself, to a node that may take a log."""
