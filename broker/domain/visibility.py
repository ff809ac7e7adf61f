"""What a reader may see of the entries of a log.

Offsets have no gaps, so an entry is never left out of a log that somebody reads. An edit or recall of a
message that the reader may not see is withheld: it keeps its place, and says nothing about the message.
"""

import msgspec


class Horizon(msgspec.Struct, frozen=True):
    """The messages of a log that a reader may not see."""

    seq: int = 0
    """In a group: messages up to this seq."""
    since: int = 0
    """In an inbox: messages sent before this time (Unix ms). They were for an earlier account with the
    same id."""

    def hides(self, seq: int, sent_at: int) -> bool:
        """Whether a message is hidden that has this seq and was sent at this time (Unix ms)."""
        return seq <= self.seq or sent_at < self.since


OPEN = Horizon()
"""Nothing is hidden."""


class _Place(msgspec.Struct, omit_defaults=True, gc=False):
    """What is left of an entry that is withheld."""

    id: str
    conversation_id: str
    seq: int
    type: str
    created_at: int
    n: int | None = None


class _Withheld(_Place, kw_only=True, gc=False):
    content: None
    withheld: str


class _About(msgspec.Struct, gc=False):
    target_id: str | None = None


_decode_place = msgspec.json.Decoder(_Place).decode
_decode_about = msgspec.json.Decoder(_About).decode
_encode = msgspec.json.Encoder().encode


def target_of(body: bytes) -> int | None:
    """The id of the message that an edit or recall is about; None for any other entry."""
    if b'"target_id"' not in body:  # spares most entries the decoding
        return None
    about = _decode_about(body).target_id
    return None if about is None else int(about)


def withheld(body: bytes) -> bytes:
    """The body of an entry as a reader gets it who may not see the message it is about."""
    place = _decode_place(body)
    return _encode(_Withheld(**msgspec.structs.asdict(place), content=None, withheld="not_visible"))
