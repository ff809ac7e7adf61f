"""`messages.sync` and `messages.history`: reading the logs on request."""

from typing import Annotated

import msgspec

from bridge.rpc import RpcError, RpcServer
from broker.domain.conversation import group_of, log_name, participants
from broker.domain.message import Entry, read_body
from broker.domain.topics import LOG_KINDS, Kind, group_topic, inbox_topic, parse_topic
from broker.ports import Account, Directory, MessageLog

# One reply must pass where one message does: the logs are read until it would be this large.
_REPLY_BYTES = 128 * 1024
_MAX_TOPICS = 1000


class SyncParameters(msgspec.Struct, forbid_unknown_fields=True):
    """`cursors`: topic -> the last offset the device has; without it, all the user's logs from
    their beginning."""

    cursors: dict[str, Annotated[int, msgspec.Meta(ge=0, lt=2**53)]] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class SyncResult(msgspec.Struct):
    """Entries in the order of each log, the cursors to go on from, and whether there is more."""

    messages: list[msgspec.Raw]
    cursors: dict[str, int]
    more: bool


class HistoryParameters(msgspec.Struct, forbid_unknown_fields=True):
    """The messages just before `before_seq` or just after `after_seq`; neither: the last ones."""

    conversation_id: str
    before_seq: Annotated[int, msgspec.Meta(ge=1)] | None = None
    after_seq: Annotated[int, msgspec.Meta(ge=0)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20


class HistoryResult(msgspec.Struct):
    """Messages by ascending seq."""

    messages: list[msgspec.Raw]


class Messages:
    """The handlers; both give a user what they may read and nothing else."""

    def __init__(self, log: MessageLog, directory: Directory) -> None:
        self._log = log
        self._directory = directory

    def register(self, server: RpcServer) -> None:
        """Offer the methods."""
        server.add("messages.sync", SyncParameters, self.sync)
        server.add("messages.history", HistoryParameters, self.history)

    async def sync(self, user: str, parameters: SyncParameters) -> SyncResult:
        """Entries after the device's cursors."""
        wanted = parameters.cursors
        if wanted is None:
            groups = await self._directory.memberships(user)
            wanted = {inbox_topic(user): 0} | {group_topic(group.group_id): 0 for group in groups}
        if len(wanted) > _MAX_TOPICS:
            raise RpcError("invalid_params", f"cursors: at most {_MAX_TOPICS} topics")
        cursors = {topic: max(cursor, await self._floor(user, topic)) for topic, cursor in wanted.items()}
        logs = {topic: log_name(parse_topic(topic)) for topic in cursors}
        heads = await self._log.heads(list(logs.values()))
        result = SyncResult([], cursors, more=False)
        space = _REPLY_BYTES
        for topic, log in logs.items():
            room = parameters.limit - len(result.messages)
            if heads[log] > cursors[topic] and room > 0 and space > 0:
                entries = await self._log.read(log, cursors[topic], room, space)
                taken = _fitting(entries, room, space, at_least_one=not result.messages)
                if taken:
                    result.messages += [msgspec.Raw(entry.payload) for entry in taken]
                    cursors[topic] = taken[-1].offset
                    space -= sum(len(entry.body) for entry in taken)
            result.more = result.more or heads[log] > cursors[topic]
        return result

    async def _floor(self, user: str, topic_name: str) -> int:
        """The offset at which the user's right to read the topic begins."""
        topic = parse_topic(topic_name)
        if topic.kind not in LOG_KINDS:
            raise RpcError("invalid_params", f"cursors: {topic_name[:100]!r} is not an inbox or group topic")
        if topic.kind is Kind.GROUP:
            return await self._joined(user, topic.owner)
        if topic.owner != user:
            raise RpcError("not_authorized", f"{topic_name} is not your inbox")
        return (await self._account(user)).inbox_floor

    async def _account(self, user: str) -> Account:
        # Who is authenticated by other plugins than the platform's may have no account.
        return await self._directory.account(user) or Account(user)

    async def _joined(self, user: str, group: str) -> int:
        membership = await self._directory.membership(group, user)
        if membership is None:
            raise RpcError("not_member", f"you are not a member of group {group}")
        return membership.joined_seq

    async def history(self, user: str, parameters: HistoryParameters) -> HistoryResult:
        """A piece of a conversation."""
        floor = await self._first(user, parameters.conversation_id)
        before, after = parameters.before_seq, parameters.after_seq
        if before is not None and after is not None:
            raise RpcError("invalid_params", "give before_seq or after_seq, not both")
        log = parameters.conversation_id
        if after is not None:
            entries = await self._log.read(log, max(after, floor), parameters.limit, _REPLY_BYTES)
        else:
            last = (1 << 32) - 1 if before is None else before
            entries = await self._log.read_back(log, last, parameters.limit, _REPLY_BYTES)
            entries = [entry for entry in entries if entry.offset > floor]
        if group_of(log) is not None:
            return HistoryResult([msgspec.Raw(entry.payload) for entry in entries])
        # A private conversation is no topic: its messages have offsets in the two inboxes only. And
        # what is older than the account was said to another who had the id.
        since = (await self._account(user)).created_at
        mine = [entry.body for entry in entries if read_body(entry.body).created_at >= since]
        return HistoryResult([msgspec.Raw(body) for body in mine])

    async def _first(self, user: str, conversation_id: str) -> int:
        users = participants(conversation_id)
        group = group_of(conversation_id)
        if group is not None:
            return await self._joined(user, group)
        if users is None:
            raise RpcError("invalid_params", f"{conversation_id[:140]!r} is not a conversation id")
        if user not in users:
            raise RpcError("not_authorized", f"you are not part of {conversation_id}")
        return 0


def _fitting(entries: list[Entry], count: int, size: int, *, at_least_one: bool) -> list[Entry]:
    taken: list[Entry] = []
    for entry in entries[:count]:
        size -= len(entry.body)
        if size < 0 and (taken or not at_least_one):
            break
        taken.append(entry)
    return taken
