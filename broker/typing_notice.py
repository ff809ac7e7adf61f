"""Typing notices: stamped by the server, passed on, never stored."""

import msgspec

from broker.domain import conversation
from broker.domain.errors import ReasonCode, Refusal
from broker.domain.topics import Kind, Topic


class _Notice(msgspec.Struct):
    typing: bool = True


_decode = msgspec.json.Decoder(_Notice).decode


def stamp_typing(user: str, topic: Topic, payload: bytes) -> bytes | Refusal:
    """What the others get when `user` publishes to a typing topic: an empty payload or
    `{"typing": true}` while typing, `{"typing": false}` when done."""
    try:
        notice = _decode(payload) if payload.strip() else _Notice()
    except (msgspec.DecodeError, RecursionError) as error:
        return Refusal("invalid_payload", ReasonCode.PAYLOAD_FORMAT_INVALID, f"typing: {error}")
    is_group = topic.kind is Kind.GROUP_TYPING
    where = conversation.group_id(topic.owner) if is_group else conversation.private_id(user, topic.owner)
    return msgspec.json.encode(
        {"event": "typing", "from_user_id": user, "conversation_id": where, "typing": notice.typing}
    )
