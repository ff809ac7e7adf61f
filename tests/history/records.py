"""What the clients of a run have recorded, and what the nodes say at its end.

All of it can be written as JSON, so that a run can be kept and checked again.
"""

from typing import Any, NamedTuple

import msgspec

Entry = dict[str, Any]
"""A message, as the nodes send it."""


class Answer(NamedTuple):
    """What a node has returned for a message."""

    id: str
    seq: int


class Sent(msgspec.Struct):
    """A message that a client wants stored. It is sent again until it is acknowledged."""

    mark: str
    """The first word of its content, unlike all others of the run."""
    sender: str
    conversation_id: str
    number: int
    """Its place among the pipelined publishes of its sender to the conversation, from 1; 0: it is none of
    them."""
    client_msg_id: str | None = None
    tries: int = 0
    acknowledged: bool = False
    answers: list[Answer] = []


class Edit(msgspec.Struct):
    """A change of a message's content. Each try that succeeds is an entry."""

    target_id: str
    conversation_id: str
    content: str
    tries: int = 0
    acknowledged: bool = False


class Read(NamedTuple):
    """A user has marked a conversation as read, and a node has confirmed it."""

    user: str
    conversation_id: str
    seq: int


class Delivery(NamedTuple):
    """An entry as it came to a reader."""

    connection: int
    """Counts the connections of the reader."""
    topic: str
    offset: int
    seq: int
    id: str
    client_msg_id: str | None
    again: bool
    """The DUP flag."""


class Reader(msgspec.Struct):
    """A persistent session, and what it was sent, in that order. What a QoS 2 session gets twice by the rules
    of MQTT, with one packet id, is here once."""

    user: str
    client_id: str
    qos: int
    topics: list[str]
    deliveries: list[Delivery] = []
    connections: int = 0
    lost: int = 0
    """How often the nodes did not know the session any more."""


class Start(NamedTuple):
    """Where a conversation stood when the run began: its last seq, and how many messages it had."""

    seq: int
    n: int


class View(msgspec.Struct):
    """What a user sees at the end. Logs and histories are what came after the start."""

    user: str
    logs: dict[str, list[Entry]]
    """Topic -> entries, of the inbox and of each group."""
    histories: dict[str, list[Entry]]
    listed: dict[str, Entry]
    """Conversation -> how `conversations.list` shows it."""


class Run(msgspec.Struct):
    """A whole run."""

    offsets: dict[str, int]
    """Topic -> its head at the start."""
    starts: dict[str, Start]
    sent: list[Sent] = []
    edits: list[Edit] = []
    reads: list[Read] = []
    readers: list[Reader] = []
    views: list[View] = []
    may_repeat: bool = False
    """Nodes or stores failed meanwhile. Then readers with QoS 2, too, may get their last entries again
    (ARCHITECTURE.md, Known limits)."""
