"""What a reader may see of the entries of a log.

Offsets have no gaps, so an entry is never left out of a log that somebody reads. An edit or recall of a
message that the reader may not see is withheld: it keeps its place, and says nothing about the message.
"""

from collections.abc import Mapping

import msgspec


class Horizon(msgspec.Struct, frozen=True):
    """The messages of one conversation that a reader may not see."""

    seq: int = 0
    """Messages up to this seq."""
    since: int = 0
    """Messages sent before this time (Unix ms). For private conversations of which `seq` is not known."""

    def hides(self, conversation_id: str, seq: int, sent_at: int) -> bool:
        """Whether a message is hidden that has this seq and was sent at this time (Unix ms)."""
        return seq <= self.seq or sent_at < self.since

    def of(self, conversation_id: str) -> "Horizon":
        """The horizon of one conversation of the log."""
        return self


OPEN = Horizon()
"""Nothing is hidden."""


class InboxHorizon(msgspec.Struct, frozen=True):
    """The messages of an inbox that a reader may not see: they were for an earlier account with the same
    id."""

    conversations: Mapping[str, Horizon]
    """Those of which something is hidden."""

    def hides(self, conversation_id: str, seq: int, sent_at: int) -> bool:
        """Whether a message of a conversation is hidden. See `Horizon.hides`."""
        return self.of(conversation_id).hides(conversation_id, seq, sent_at)

    def of(self, conversation_id: str) -> Horizon:
        """The horizon of one conversation of the inbox."""
        return self.conversations.get(conversation_id, OPEN)


View = Horizon | InboxHorizon
"""What a reader of a log may not see."""


def inbox_view(floors: Mapping[str, int | None], since: int) -> View:
    """The view of an inbox whose user's id had an earlier account. `floors`: conversation -> the seq up to
    which its messages were for that account. Where it is not known (None), they are the messages before
    `since` (Unix ms), when the present account was made."""
    return InboxHorizon(
        {name: Horizon(since=since) if floor is None else Horizon(floor) for name, floor in floors.items()}
    )


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
