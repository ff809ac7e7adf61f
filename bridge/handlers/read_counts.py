"""`messages.read_counts`: how many users have read messages, for groups too large to be told of each."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Annotated

import msgspec

from bridge.core.access import Access, Room
from bridge.core.operations import Caller, ConversationId, MessageId, Operations, Parameters
from broker.domain.message import Body, read_body
from broker.domain.permissions import UserOperation
from broker.domain.visibility import Horizon
from broker.ports import ConversationStore, GroupDirectory, MessageLog, Watermark

_WATERMARKS = 5000
"""Watermarks read at a time. The store sorts all of a conversation each time."""
_USERS = 1000
"""Users looked up at a time, so that other calls get their turn in the directory in between."""


class ReadCountsParameters(Parameters):
    """A conversation, and messages in it."""

    conversation_id: ConversationId
    ids: Annotated[list[MessageId], msgspec.Meta(min_length=1, max_length=100)]
    """Messages that the caller sent."""


class ReadCountsResult(msgspec.Struct):
    """The numbers of readers."""

    counts: dict[str, int]
    """Message id -> how many other users have read it, without users who give no read receipts."""
    missing: list[str]
    """Those of `ids` that are no messages of the caller in this conversation."""


class ReadCounts:
    """The handler."""

    def __init__(
        self, log: MessageLog, store: ConversationStore, directory: GroupDirectory, access: Access
    ) -> None:
        self._log = log
        self._store = store
        self._directory = directory
        self._access = access

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("messages.read_counts", self.read_counts)

    async def read_counts(self, caller: Caller, parameters: ReadCountsParameters) -> ReadCountsResult:
        """Count the users who have read messages that the caller sent. `messages.readers` lists them."""
        room = await self._access.room(caller, parameters.conversation_id)
        ids = list(dict.fromkeys(parameters.ids))
        own = await self._own(caller, room, ids)
        counts = await self._count(caller, room, list(own.values())) if own else []
        return ReadCountsResult(
            dict(zip(own, counts, strict=True)), [each for each in ids if each not in own]
        )

    async def _own(self, caller: Caller, room: Room, ids: Sequence[str]) -> dict[str, Body]:
        """The caller's messages among those with the `ids`, by seq."""
        found = await self._log.locate([int(each) for each in ids])
        bodies = {
            each: read_body(located.body)
            for each in ids
            if (located := found.get(int(each))) is not None
            and located.conversation_id == room.conversation_id
        }
        floor = 0 if caller.is_system else await self._access.own_floor(caller, room.conversation_id)
        own = {
            each: body
            for each, body in bodies.items()
            if (caller.is_system or (body.from_user_id == caller.user and body.seq > floor))
            and not room.hides(body.seq, body.created_at)
        }
        return dict(sorted(own.items(), key=lambda item: item[1].seq))

    async def _count(self, caller: Caller, room: Room, messages: Sequence[Body]) -> list[int]:
        """How many have read each message. The messages are in ascending order."""
        seqs = [message.seq for message in messages]
        # A reader counts for the messages from one index to another: +1 there and -1 here.
        changes = [0] * (len(messages) + 1)
        after = ""
        while marks := await self._store.watermarks(room.conversation_id, seqs[0], after, _WATERMARKS):
            after = marks[-1].user
            for start in range(0, len(marks), _USERS):
                some = [mark for mark in marks[start : start + _USERS] if mark.user != caller.user]
                for mark, horizon in await self._readers(caller, room, some):
                    first = _first_visible(messages, seqs, horizon)
                    last = bisect_right(seqs, mark.read)
                    if first < last:
                        changes[first] += 1
                        changes[last] -= 1
            if len(marks) < _WATERMARKS:
                break
        return list(accumulate(changes[:-1]))

    async def _readers(
        self, caller: Caller, room: Room, marks: Sequence[Watermark]
    ) -> list[tuple[Watermark, Horizon]]:
        """Those who show the caller what they have read, and what is hidden from them."""
        users = [mark.user for mark in marks]
        shown = await self._access.those_letting(caller.user, users, UserOperation.SEE_READ)
        horizons = await self._horizons(room, [user for user in users if user in shown])
        return [(mark, horizons[mark.user]) for mark in marks if mark.user in horizons]

    async def _horizons(self, room: Room, users: Sequence[str]) -> Mapping[str, Horizon]:
        """What is hidden from users, without those who are not in the conversation any more."""
        if room.seat is not None:
            members = await self._directory.members_by_id(room.seat.group.group_id, users)
            return {user: Horizon(member.joined_seq) for user, member in members.items()}
        views = {user: (await self._access.inbox(user))[1] for user in users}
        return {user: view.of(room.conversation_id) for user, view in views.items()}


def _first_visible(messages: Sequence[Body], seqs: Sequence[int], horizon: Horizon) -> int:
    """The index of the first message that is not hidden."""
    first = bisect_right(seqs, horizon.seq)
    while first < len(messages) and messages[first].created_at < horizon.since:
        first += 1
    return first
