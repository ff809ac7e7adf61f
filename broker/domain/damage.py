"""What is handed out in place of a stored body that is damaged.

The entry keeps its place in its logs, so that no reader stops there and no offset is missing. Its content is
gone, and `withheld` says why.
"""

import re

import msgspec

from broker.domain import conversation
from broker.domain.ids import Snowflakes
from broker.domain.message import SERVER_TYPES, Body, encode_body, read_body

_NOTHING = msgspec.Raw(b"null")
_TYPE = re.compile(rb'"type":"([a-z]+)"')
_MESSAGE_TYPES = frozenset(("text", "image", "file", "audio", "video", "location", "binary", "custom"))


def is_sound(body: bytes) -> bool:
    """Whether bytes can be handed out as a body. For bodies of a time when none had a checksum."""
    try:
        body.decode()
        read_body(body)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return False
    return True


def replacement(
    message_id: int,
    conversation_id: str,
    seq: int,
    sender: str,
    damaged: bytes,
    *,
    n: int | None = None,
    is_message: bool = True,
) -> bytes:
    """The body that is handed out instead of the bytes `damaged`. The other values are what the store still
    knows of the entry: 0 or "" for what is lost. `is_message`: it is no edit, recall or system entry."""
    group = conversation.group_of(conversation_id)
    users = conversation.participants(conversation_id) or ()
    return encode_body(
        Body(
            id=str(message_id),
            conversation_id=conversation_id,
            conversation_type="private" if group is None else "group",
            seq=seq,
            from_user_id=sender,
            type=_type_in(damaged, is_message=is_message),
            content=_NOTHING,
            created_at=Snowflakes.created_ms(message_id) if message_id else 0,
            n=n,
            to_user_id=next((user for user in users if user != sender), sender) if users else None,
            group_id=group,
            withheld="damaged",
        )
    )


def _type_in(damaged: bytes, *, is_message: bool) -> str:
    """The type, if it can still be read and is one of those that such an entry may have."""
    found = _TYPE.search(damaged)
    named = found[1].decode() if found else ""
    if is_message:
        return named if named in _MESSAGE_TYPES else "custom"
    return named if named in SERVER_TYPES else "system"
