"""Messages of any conversation, for operators: `admin.messages.…`."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from bridge.core.operations import Caller, Id, Message, Operations, Parameters
from bridge.core.posting import stored
from bridge.core.tails import head, tail
from bridge.handlers.admin.existing import need_account, need_enabled_account, need_group
from bridge.handlers.sending import MAX_PAYLOAD, SentResult
from broker.domain import conversation
from broker.domain.errors import RefusedError
from broker.domain.ids import is_id
from broker.domain.message import Entry
from broker.domain.topics import LOG_KINDS, Kind, Topic, parse_topic
from broker.ports import BrokerPort, Directory, MessageLog, Post

HISTORY = 20
"""How many messages `history` returns when `limit` is 0."""
HISTORY_BYTES = 1024 * 1024
"""Roughly the most bytes of messages that `history` returns."""

_END = 2**62
"""A seq beyond every entry."""


class SendParameters(Parameters):
    """The sender, the topic and the payload to publish."""

    sender: Id
    topic: str
    """`users/<id>/inbox` or `groups/<id>`."""
    payload: bytes


class TailParameters(Parameters):
    """The log, and where to start."""

    topic: str
    """`users/<id>/inbox` or `groups/<id>`."""
    after: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Start after this offset. Without it, start with the next entry to be stored. An offset beyond the end
    of the log is refused (`out_of_range`)."""


class TailEntry(msgspec.Struct):
    """An entry of a log."""

    json: Message


class HistoryParameters(Parameters):
    """The conversation, and which of its messages."""

    conversation_id: str
    """`p:<user>:<user>`, the users in either order, or `g:<group>`."""
    before_seq: Annotated[int, msgspec.Meta(ge=0)] = 0
    """The last messages with a smaller seq; 0: the last messages of the conversation."""
    limit: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    """0 means 20."""


class HistoryResult(msgspec.Struct):
    """Messages by ascending seq, without `offset`."""

    messages: list[Message]


class MessageAdministration:
    """The handlers."""

    def __init__(self, directory: Directory, log: MessageLog, broker: BrokerPort) -> None:
        self._directory = directory
        self._log = log
        self._broker = broker

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("admin.messages.send", self.send)
        operations.add("admin.messages.tail", self.tail)
        operations.add("admin.messages.history", self.history)

    async def send(self, caller: Caller, parameters: SendParameters) -> SentResult:
        """Send a message as a user. The permissions of that user apply, as if they had published it."""
        await need_enabled_account(self._directory, parameters.sender)
        _log_topic(parameters.topic)
        size = len(parameters.payload)
        if size > MAX_PAYLOAD:
            raise RefusedError(
                "invalid_payload", f"a payload may have at most {MAX_PAYLOAD} bytes, not {size}"
            )
        (posted,) = await self._broker.publish(
            parameters.sender, [Post(parameters.topic, parameters.payload)]
        )
        body = stored(posted)
        return SentResult(body.id, body.conversation_id, body.seq, body.created_at)

    async def tail(self, caller: Caller, parameters: TailParameters) -> AsyncIterator[TailEntry]:
        """Stream the entries of an inbox or group topic, then new ones as they are stored. No entry that is
        stored after this returns is missed."""
        topic = _log_topic(parameters.topic)
        last = await head(self._log, topic.name)
        if last == 0:  # empty, perhaps because the user or group does not exist
            await (need_group if topic.kind is Kind.GROUP else need_account)(self._directory, topic.owner)
        after = last if parameters.after is None else parameters.after
        if after > last:
            raise RefusedError(
                "out_of_range", f"{topic.name} has no entry {after}: the last is {last}", {"head": last}
            )
        entries = tail(self._log, self._broker, topic.name, after)
        return (TailEntry(msgspec.Raw(entry)) async for entry in entries)

    async def history(self, caller: Caller, parameters: HistoryParameters) -> HistoryResult:
        """Read messages of a conversation: at most about `HISTORY_BYTES`, but at least one if there is one.
        Messages of dismissed groups and of removed users can be read, too."""
        log = _conversation_log(parameters.conversation_id)
        before = parameters.before_seq
        limit = parameters.limit or HISTORY
        entries = await self._log.read_back(log, before or _END, limit, HISTORY_BYTES)
        if not entries and not before:
            await self._need_parties(log)
        return HistoryResult([msgspec.Raw(body) for body in _newest(entries, HISTORY_BYTES)])

    async def _need_parties(self, conversation_id: str) -> None:
        group = conversation.group_of(conversation_id)
        if group is not None:
            await need_group(self._directory, group)
        for user in conversation.participants(conversation_id) or ():
            await need_account(self._directory, user)


def _log_topic(topic: str) -> Topic:
    parsed = parse_topic(topic)
    if parsed.kind not in LOG_KINDS:
        raise RefusedError(
            "invalid_params",
            f"{topic[:200]!r} is not an inbox or group topic: expected users/<id>/inbox or groups/<id>",
        )
    return parsed


def _conversation_log(conversation_id: str) -> str:
    """The log of a conversation. The id of a private one may name its users in either order."""
    match conversation_id.split(":"):
        case ["p", one, other] if is_id(one) and is_id(other):
            return conversation.private_id(one, other)
        case ["g", group] if is_id(group):
            return conversation_id
    raise RefusedError(
        "invalid_params",
        f"{conversation_id[:200]!r} is not a conversation id: expected p:<user>:<user> or g:<group>",
    )


def _newest(entries: list[Entry], max_bytes: int) -> list[bytes]:
    """The bodies of the last entries: as many as fit into `max_bytes`, but at least one."""
    size = 0
    first = len(entries)
    while first > 0:
        size += len(entries[first - 1].body)
        if size > max_bytes and first < len(entries):
            break
        first -= 1
    return [entry.body for entry in entries[first:]]
