"""Receipts: the `delivered` and `read` watermarks of users, and the events that announce them.

A watermark only goes forward. `delivered` follows from the PUBACKs of a device: when the broker stores
that the device's cursor in its inbox has moved, the entries that it moved over were delivered.
"""

import logging
from collections.abc import Sequence

import msgspec

from bridge.core.access import Access, Room, no_message
from bridge.core.ends import Generation
from bridge.core.operations import (
    After,
    Caller,
    ConversationId,
    Done,
    MessageId,
    Operations,
    PageSize,
    Parameters,
    Seq,
)
from bridge.core.paging import page_of
from bridge.core.turns import Turns
from broker.domain import permissions
from broker.domain.conversation import group_of, other_of
from broker.domain.directory import Profile
from broker.domain.errors import RefusedError, StoreError
from broker.domain.message import read_body
from broker.domain.permissions import UserOperation
from broker.ports import (
    Arrival,
    BrokerPort,
    ConversationState,
    ConversationStore,
    Directory,
    Located,
    MessageLog,
    SaveChanges,
    Seen,
)

logger = logging.getLogger(__name__)


class UptoParameters(Parameters):
    """The conversation, and how far the caller has got in it."""

    conversation_id: ConversationId
    seq: Seq
    """The seq of the last message that was read or delivered. All earlier messages count as well."""
    generation: Generation | None = None
    """The generation that the seq came with. A seq of another one is refused (`out_of_range`)."""


class ReadersParameters(Parameters):
    """The message, and which page of its readers."""

    id: MessageId
    """A message that the caller sent."""
    after: After = ""
    limit: PageSize = 100


class Reader(msgspec.Struct):
    """A user who has read the message."""

    user_id: str
    read_seq: int
    """The seq up to which the user has read the conversation."""


class ReadersResult(msgspec.Struct):
    """One page, ordered by user id."""

    readers: list[Reader]
    """May be shorter than `limit`, even empty, on a page that is not the last."""
    next: str
    """The `after` of the next page; empty on the last page."""


class Receipts:
    """The handlers, and the receipts for what devices acknowledge."""

    def __init__(
        self,
        log: MessageLog,
        store: ConversationStore,
        directory: Directory,
        access: Access,
        broker: BrokerPort,
        save: SaveChanges,
    ) -> None:
        self._log = log
        self._store = store
        self._directory = directory
        self._access = access
        self._broker = broker
        self._save = save
        # By user and conversation: the events of a watermark are sent in the order in which it moves.
        self._turns: Turns[tuple[str, str]] = Turns()

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("messages.read", self.read)
        operations.add("messages.delivered", self.delivered)
        operations.add("messages.readers", self.readers)

    async def read(self, caller: Caller, parameters: UptoParameters) -> Done:
        """Mark a conversation as read up to a message. All devices of the caller get a `receipt` event. So do
        the other user of a private conversation, and the members of a group of at most
        `messages.group_receipts` members (100 by default), if they are connected and the caller gives read
        receipts (`users.update`). For larger groups see `messages.read_counts`."""
        room = await self._access.room(caller, parameters.conversation_id)
        async with self._turns.of((caller.user, room.conversation_id)):
            state = await self._state(caller, room, parameters)
            if parameters.seq > state.read_seq or state.unread:
                await self._read(caller, room, state, parameters.seq)
        return Done()

    async def _read(self, caller: Caller, room: Room, state: ConversationState, seq: int) -> None:
        now = self._access.growing_ms()
        delivered = 0 if room.seat else seq
        await self._save([Seen(caller.user, room.conversation_id, now, seq, delivered)])
        # A lower seq only removes the mark `marked_unread`; the watermark stays.
        event = _event("read", room.conversation_id, caller.user, max(seq, state.read_seq))
        await self._broker.emit([caller.user], event, keep=False)
        if seq > state.read_seq:
            others = room.peers or await self._members_online(caller, room, seq)
            told = await self._access.those_let(caller, others, UserOperation.SEE_READ) if others else ()
            if told and not caller.is_system:
                await self._broker.emit(sorted(told), event, keep=False)

    async def _members_online(self, caller: Caller, room: Room, seq: int) -> list[str]:
        """The other members of a small group who are connected and can see the message. Nobody in a large
        group: a message that all of them read would cost the square of their number in events."""
        most = self._access.group_receipts
        if room.seat is None or room.seat.group.members > most:
            return []
        members = await self._directory.members(room.seat.group.group_id, "", most)
        others = [each.user_id for each in members if each.joined_seq < seq and each.user_id != caller.user]
        return list(await self._broker.devices(others))

    async def _state(self, caller: Caller, room: Room, parameters: UptoParameters) -> ConversationState:
        where, seq = room.conversation_id, parameters.seq
        (state,) = await self._store.states(caller.user, [where])
        if seq <= room.horizon.seq or not state.head_seq:
            raise RefusedError("not_found", f"{where} has no message {seq}")
        self._access.ends.check(where, seq, state.head_seq, parameters.generation)
        return state

    async def delivered(self, caller: Caller, parameters: UptoParameters) -> Done:
        """Mark a private conversation as delivered up to a message. The other user gets a `receipt` event if
        they may see the caller's presence (`users.update`), because it tells that the caller is online.
        Only devices that read by `messages.sync` need this: for subscribers, their PUBACKs do it. It has no
        effect in a group."""
        room = await self._access.room(caller, parameters.conversation_id)
        key = (caller.user, room.conversation_id)
        async with self._turns.of(key):
            state = await self._state(caller, room, parameters)
            if not room.seat and parameters.seq > state.delivered_seq:
                await self._deliver({key: parameters.seq})
        return Done()

    async def readers(self, caller: Caller, parameters: ReadersParameters) -> ReadersResult:
        """List the users who have read a message that the caller sent, without users who give no read
        receipts."""
        message_id = int(parameters.id)
        located = (await self._log.locate([message_id])).get(message_id)
        if located is None:
            raise no_message(parameters.id)
        body = read_body(located.body)
        room = await self._access.room_of(caller, parameters.id, body)
        if room.hides(located.seq, body.created_at):
            raise no_message(parameters.id)
        if not caller.is_system and not await self._access.is_from(caller, body):
            raise RefusedError("not_authorized", "only the sender of a message may ask who has read it")
        marks = await self._store.watermarks(
            located.conversation_id, located.seq, parameters.after, parameters.limit + 1
        )
        page, following = page_of(marks, parameters.limit, lambda mark: mark.user)
        users = [mark.user for mark in page if mark.user != caller.user]
        shown = await self._access.those_letting(caller.user, users, UserOperation.SEE_READ)
        group = group_of(located.conversation_id)
        if group is not None:  # a member who joined later has never seen the message
            members = await self._directory.members_by_id(group, users)
            shown = {user for user in shown if user in members and members[user].joined_seq < located.seq}
        else:  # nor has a newer account with the id of the user it was sent to
            shown = {user for user in shown if await self._was_told(user, located, body.created_at)}
        readers = [Reader(mark.user, mark.read) for mark in page if mark.user in shown]
        return ReadersResult(readers, following)

    async def _was_told(self, user: str, located: Located, sent_at: int) -> bool:
        """Whether a private message was said to this account, not to an earlier one with the same id."""
        _, view = await self._access.inbox(user)
        return not view.hides(located.conversation_id, located.seq, sent_at)

    # --- from devices ----------------------------------------------------------------

    async def arrived(self, batch: Sequence[Arrival]) -> None:
        """Devices acknowledged entries of their inboxes: move the `delivered` watermarks. A failure is only
        logged: the next acknowledgement in the conversation makes up for it."""
        try:
            reached: dict[tuple[str, str], int] = {}
            for arrival in batch:
                places = await self._store.arrivals(arrival.user, arrival.after, arrival.upto)
                for conversation_id, seq in places.items():
                    key = (arrival.user, conversation_id)
                    reached[key] = max(seq, reached.get(key, 0))
            async with self._turns.of_all(sorted(reached)):  # sorted, so that batches cannot deadlock
                await self._deliver(await self._news(reached))
        except (StoreError, RefusedError) as error:
            logger.error("%d delivery receipts were not sent: %s", len(batch), error)

    async def _news(self, reached: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
        """Those that move a watermark. Another device of the user may have moved it before."""
        by_user: dict[str, list[str]] = {}
        for user, conversation_id in reached:
            by_user.setdefault(user, []).append(conversation_id)
        news = {}
        for user, conversations in by_user.items():
            for state in await self._store.states(user, conversations):
                key = (user, state.conversation_id)
                if reached[key] > state.delivered_seq:
                    news[key] = reached[key]
        return news

    async def _deliver(self, reached: dict[tuple[str, str], int]) -> None:
        if not reached:
            return
        now = self._access.growing_ms()
        await self._save(
            [
                Seen(user, conversation_id, now, delivered=seq)
                for (user, conversation_id), seq in reached.items()
            ]
        )
        peers = {(user, where): other_of(where, user) for user, where in reached}
        pairs = [pair for (user, _), peer in peers.items() for pair in permissions.both_ways(user, [peer])]
        contacts = await self._directory.contacts_between(pairs)
        profiles = await self._directory.profiles(list({user for user, _ in reached}))
        for (user, where), seq in reached.items():
            peer, profile = peers[user, where], profiles.get(user) or Profile(user)
            if peer != user and permissions.lets(profile, peer, UserOperation.SEE_DELIVERED, contacts):
                event = _event("delivered", where, user, seq)
                await self._broker.emit([peer], event, keep=False)


def _event(status: str, conversation_id: str, user: str, seq: int) -> dict[str, object]:
    return {
        "event": "receipt",
        "status": status,
        "conversation_id": conversation_id,
        "user_id": user,
        "seq": seq,
    }
