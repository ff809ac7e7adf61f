"""Reading stored messages: `messages.sync` by log, `messages.history` by conversation, `messages.get` by
id."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import msgspec

from bridge.core.access import Access, Room
from bridge.core.ends import Generation
from bridge.core.operations import (
    Caller,
    ConversationId,
    Message,
    MessageId,
    Operations,
    Parameters,
    Seq,
)
from broker.domain import permissions
from broker.domain.conversation import group_of, log_name
from broker.domain.directory import Membership
from broker.domain.errors import RefusedError
from broker.domain.message import Entry, read_body
from broker.domain.permissions import GroupOperation
from broker.domain.topics import LOG_KINDS, Kind, group_topic, inbox_topic, parse_topic
from broker.domain.visibility import Horizon, View
from broker.ports import GroupDirectory, MessageLog, shown, shown_each

# A reply travels as one MQTT message, so it must stay below the packet limit of clients and of the node.
REPLY_BYTES = 128 * 1024
_MAX_TOPICS = 10_000
_PLACES = ("before_seq", "after_seq", "around_seq", "before_id", "after_id", "around_id")
_BEYOND = (1 << 32) - 1
"""Beyond the last seq."""


class SyncParameters(Parameters):
    """Which logs to read, and from which offsets."""

    cursors: dict[str, Annotated[int, msgspec.Meta(ge=0, lt=2**53)]] | None = None
    """For each topic (`users/<me>/inbox` or `groups/<id>`, at most 10,000) the last `offset` that the device
    has; 0 if it has none. Without it, all logs of the caller are read from the beginning."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    """The most entries to return, over all topics."""
    generation: Generation | None = None
    """The `generation` of the result that the cursors came from. Cursors of another one are refused
    (`out_of_range`), even where the log has grown past them."""


class SyncResult(msgspec.Struct):
    """Entries, the new cursors, and whether there are more entries."""

    messages: list[Message]
    """The entries of each log, in its order. An edit or recall of a message that the caller may not see has
    `content` null and `withheld`."""
    cursors: dict[str, int]
    """The cursors for the next call, for each topic that was read."""
    more: bool
    """Whether there are more entries after these cursors."""
    generation: int
    """The generation of the stores, to be kept with the cursors. A restore from a backup raises it: offsets
    from before may mean other entries."""


class HistoryParameters(Parameters):
    """The conversation, and which of its messages: before, after or around one of them, which is given by its
    seq or id. At most one of these parameters may be given; without one, the last messages are returned."""

    conversation_id: ConversationId
    before_seq: Seq | None = None
    """Return the last messages with a smaller seq."""
    after_seq: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] | None = None
    """Return the first messages with a larger seq."""
    around_seq: Seq | None = None
    """Return the message with this seq, up to half of `limit` before it, and the others after it."""
    before_id: MessageId | None = None
    """As `before_seq`, with the id of a message of the conversation."""
    after_id: MessageId | None = None
    """As `after_seq`, with an id."""
    around_id: MessageId | None = None
    """As `around_seq`, with an id."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    """The most messages to return."""
    generation: Generation | None = None
    """The generation that the seq came with. A seq of another one is refused (`out_of_range`)."""


class HistoryResult(msgspec.Struct):
    """Messages as they are now."""

    messages: list[Message]
    """By ascending seq. An edited message has `edited_at`. A recalled one has `recalled_at` and no content.
    An edit or recall of a message that the caller may not see has `content` null and `withheld`. Messages
    of a private conversation have no `offset`, as it would differ between the two inboxes."""


class GetParameters(Parameters):
    """The messages."""

    ids: Annotated[list[MessageId], msgspec.Meta(min_length=1, max_length=100)]


class GetResult(msgspec.Struct):
    """Messages as they are now."""

    messages: list[Message]
    """In the order of `ids`; as in [messages.history](#messageshistory)."""
    missing: list[str]
    """Ids of messages that do not exist, or that the caller may not see."""
    rest: list[str]
    """Ids that did not fit into the reply. Ask for them again."""


class _Start(msgspec.Struct, frozen=True):
    """Where a caller may begin to read a log."""

    floor: int
    """The last offset that is not for the caller."""
    horizon: View


class Messages:
    """The handlers. They return only what the caller may read. `withheld` counts entries that are
    withheld."""

    def __init__(
        self, log: MessageLog, directory: GroupDirectory, access: Access, withheld: Callable[[int], None]
    ) -> None:
        self._log = log
        self._withheld = withheld
        self._directory = directory
        self._access = access

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("messages.sync", self.sync)
        operations.add("messages.history", self.history)
        operations.add("messages.get", self.get)

    async def sync(self, caller: Caller, parameters: SyncParameters) -> SyncResult:
        """Read the entries of one or several logs after the device's cursors. A reply holds about 128 KiB:
        while `more` is true, call again with the returned `cursors`. A cursor beyond the end of its log, or
        of another `generation`, is refused (`out_of_range`): after a restore of the node, what the device
        has may differ. The error has `heads`, the ends of these logs by `topic`."""
        wanted = parameters.cursors
        own = {group.group_id: group for group in await self._directory.memberships(caller.user)}
        if wanted is None:
            wanted = dict.fromkeys([inbox_topic(caller.user), *map(group_topic, own)], 0)
        elif len(wanted) > _MAX_TOPICS:
            raise RefusedError("invalid_params", f"cursors: at most {_MAX_TOPICS} topics")
        starts = {topic: await self._start(caller, topic, own) for topic in wanted}
        cursors = {topic: max(cursor, starts[topic].floor) for topic, cursor in wanted.items()}
        logs = {topic: log_name(parse_topic(topic)) for topic in cursors}
        heads = await self._log.heads(list(logs.values()))
        ends = {topic: heads[log] for topic, log in logs.items()}
        self._access.ends.check_cursors(wanted, ends, parameters.generation)
        messages: list[msgspec.Raw] = []
        more = False
        space = REPLY_BYTES
        for topic, log in logs.items():
            room = parameters.limit - len(messages)
            if heads[log] > cursors[topic] and room > 0 and space > 0:
                found = await self._log.read(log, cursors[topic], room, space)
                entries = await shown(self._log, found, starts[topic].horizon, self._withheld)
                taken = _fitting(entries, room, space, at_least_one=not messages)
                if taken:
                    messages += [msgspec.Raw(entry.payload) for entry in taken]
                    cursors[topic] = taken[-1].offset
                    space -= sum(len(entry.body) for entry in taken)
            more = more or heads[log] > cursors[topic]
        return SyncResult(messages, cursors, more, self._access.ends.generation)

    async def _start(self, caller: Caller, topic_name: str, own: Mapping[str, Membership]) -> "_Start":
        """Where the caller may begin to read a topic. `own` are the caller's memberships by group.

        Raises:
            RefusedError: `invalid_params`, `not_found`, `not_member`, `not_authorized`.
        """
        topic = parse_topic(topic_name)
        if topic.kind not in LOG_KINDS:
            raise RefusedError(
                "invalid_params", f"cursors: {topic_name[:100]!r} is not an inbox or group topic"
            )
        if topic.kind is Kind.GROUP:
            membership = own.get(topic.owner)
            if membership is not None and permissions.may_read(membership):
                floor = membership.joined_seq
            else:
                floor = (await self._access.seat(caller, topic.owner, GroupOperation.READ)).floor
            return _Start(floor, Horizon(seq=floor))
        if topic.owner != caller.user and not caller.is_system:
            raise RefusedError("not_authorized", f"{topic_name} is not your inbox")
        return _Start(*await self._access.inbox(topic.owner))

    async def history(self, caller: Caller, parameters: HistoryParameters) -> HistoryResult:
        """Read part of a conversation. A reply holds about 128 KiB, so it may have fewer messages than
        `limit`. To read after or around a seq beyond the end of the conversation is refused
        (`out_of_range`)."""
        room = await self._access.room(caller, parameters.conversation_id)
        side, seq = await self._place(room, parameters)
        if self._access.ends.is_other(parameters.generation):
            await self._check_end(room, 0 if seq == _BEYOND else seq, parameters.generation)
        match side:
            case "before":
                entries = await self._before(room, seq, parameters.limit, REPLY_BYTES)
            case "after":
                entries = await self._after(room, seq, parameters.limit, REPLY_BYTES)
            case _:
                entries = await self._around(room, seq, parameters.limit)
        if side != "before" and not any(entry.offset >= seq for entry in entries):
            await self._check_end(room, seq, None)
        entries = list(await shown(self._log, entries, room.horizon, self._withheld))
        if room.seat is not None:
            return HistoryResult([msgspec.Raw(entry.payload) for entry in entries])
        return HistoryResult([msgspec.Raw(entry.body) for entry in entries])

    async def _check_end(self, room: Room, seq: int, generation: int | None) -> None:
        where = room.conversation_id
        self._access.ends.check(where, seq, (await self._log.heads([where]))[where], generation)

    async def _place(self, room: Room, parameters: HistoryParameters) -> tuple[str, int]:
        """`before`, `after` or `around`, and the seq."""
        given = {name: value for name in _PLACES if (value := getattr(parameters, name)) is not None}
        if not given:
            return "before", _BEYOND
        if len(given) > 1:
            raise RefusedError("invalid_params", f"{' and '.join(given)} exclude each other")
        ((name, value),) = given.items()
        side, _, kind = name.partition("_")
        return side, value if kind == "seq" else await self._seq_of(room, value)

    async def _seq_of(self, room: Room, message_id: str) -> int:
        located = (await self._log.locate([int(message_id)])).get(int(message_id))
        # Ids can be guessed: a message of another conversation is as one that does not exist.
        if (
            located is None
            or located.conversation_id != room.conversation_id
            or room.hides(located.seq, read_body(located.body).created_at)
        ):
            raise RefusedError("not_found", f"no message {message_id} in {room.conversation_id}")
        return located.seq

    async def _before(self, room: Room, before: int, limit: int, space: int) -> list[Entry]:
        """The last entries before a seq that the caller may read."""
        found = await self._log.read_back(room.conversation_id, before, limit, space)
        return [entry for entry in found if _is_for(room, entry)]

    async def _after(self, room: Room, after: int, limit: int, space: int) -> list[Entry]:
        """The first entries after a seq that the caller may read. Pages of hidden entries are skipped, so
        that an empty result means that there are no more."""
        after = max(after, room.horizon.seq)
        while True:
            found = await self._log.read(room.conversation_id, after, limit, space)
            entries = [entry for entry in found if _is_for(room, entry)]
            if entries or not found:
                return entries
            after = found[-1].offset

    async def _around(self, room: Room, seq: int, limit: int) -> list[Entry]:
        """The entry with a seq, half of `limit` before it, and the others after it."""
        half = limit // 2
        following = await self._after(room, seq - 1, limit - half, REPLY_BYTES // 2)
        before = await self._before(room, seq, half, REPLY_BYTES // 2) if half else []
        space = REPLY_BYTES - sum(len(entry.body) for entry in following)
        # The nearest ones stay if they do not all fit.
        return [*_fitting(before[::-1], half, space, at_least_one=not following)[::-1], *following]

    async def get(self, caller: Caller, parameters: GetParameters) -> GetResult:
        """Get messages by their ids, whichever conversations they are in. A reply holds about 128 KiB: while
        `rest` is not empty, call again with it."""
        ids = list(dict.fromkeys(parameters.ids))
        located = await self._log.locate([int(each) for each in ids])
        horizons = await self._access.horizons(caller, {each.conversation_id for each in located.values()})
        visible = {
            each: (Entry(found.seq, found.body), horizon)
            for each in ids
            if (found := located.get(int(each))) is not None
            and (horizon := horizons.get(found.conversation_id)) is not None
            and not horizon.hides(found.conversation_id, found.seq, read_body(found.body).created_at)
        }
        entries = await shown_each(self._log, list(visible.values()), self._withheld)
        taken = _fitting(entries, len(entries), REPLY_BYTES, at_least_one=True)
        messages = [
            entry.payload if group_of(located[int(each)].conversation_id) else entry.body
            for each, entry in zip(visible, taken, strict=False)
        ]
        return GetResult(
            messages=list(map(msgspec.Raw, messages)),
            missing=[each for each in ids if each not in visible],
            rest=list(visible)[len(taken) :],
        )


def _is_for(room: Room, entry: Entry) -> bool:
    if not room.horizon.since:  # the rule: the body need not be read
        return entry.offset > room.horizon.seq
    return not room.hides(entry.offset, read_body(entry.body).created_at)


def _fitting(entries: Sequence[Entry], count: int, size: int, *, at_least_one: bool) -> list[Entry]:
    taken: list[Entry] = []
    for entry in entries[:count]:
        size -= len(entry.body)
        if size < 0 and (taken or not at_least_one):
            break
        taken.append(entry)
    return taken
