"""Payloads as messages, and as readers get them."""

import json

from broker.domain.message import (
    Content,
    Count,
    draft,
    parse_payload,
    read_body,
    says_the_same,
    stamp,
    with_offset,
)
from broker.domain.topics import parse_topic

INBOX = parse_topic("users/bob/inbox")
GROUP = parse_topic("groups/team")


def accepted(payload: bytes) -> Content:
    content = parse_payload(payload)
    assert isinstance(content, Content), content
    return content


def raw(payload: bytes) -> bytes:
    return bytes(accepted(payload).content)


def delivered(content: Content, topic: str = "users/bob/inbox", offset: int = 34) -> dict[str, object]:
    stamped = stamp(
        draft("alice", parse_topic(topic), content), 7251, 12, (offset, 5), 1764000000123, Count(9, 12)
    )
    value = json.loads(with_offset(stamped.body, offset))
    assert isinstance(value, dict)
    return value


# --- the same again? ------------------------------------------------------------------------


def same(one: bytes, other: bytes) -> bool:
    body = stamp(draft("alice", INBOX, accepted(one)), 1, 1, (1, 1), 0).body
    return says_the_same(read_body(body), accepted(other))
