"""Conversations as a user sees them: `conversations.list` and `conversations.set`.

No counters are stored. Each entry carries how many messages there are up to it. The number of unread
messages is the difference between the head of the log and the user's read watermark or own last message,
so it cannot drift.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec.structs import replace

from bridge.core.access import Access
from bridge.core.ends import Generation
from bridge.core.operations import Caller, ConversationId, Message, Millis, Operations, Parameters
from bridge.handlers.conversation_details import ConversationDetails, GroupName, Peer
from bridge.handlers.messages import REPLY_BYTES
from broker.domain.conversation import group_id, group_of, log_name
from broker.domain.directory import Membership
from broker.domain.errors import RefusedError
from broker.domain.ids import Snowflakes
from broker.domain.topics import group_topic, inbox_topic, parse_topic
from broker.domain.visibility import Horizon
from broker.ports import (
    BrokerPort,
    ConversationState,
    ConversationStore,
    Directory,
    Marked,
    MessageLog,
    SaveChanges,
)

# A message gets its time before it is stored, so one that is stored after this call may carry an earlier
# time. The `since` of a result lies this far in the past, so that the next call does not miss it. It is not
# after the last change either: after a restart, time goes on from the last change that is stored.
_OVERLAP_MS = 5000
_CHUNK = 100
"""Conversations that are completed at a time: about as many as fit into a reply."""


class ListParameters(Parameters):
    """Which of the caller's conversations to list, and which page."""

    since: Millis = 0
    """Only conversations that changed after this time (Unix ms), hidden ones included. Use the `since` of
    the previous result; 0 lists all."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100
    """The most conversations a page may have."""
    cursor: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """The `next` of the previous page; empty for the first."""
    include_hidden: bool = False
    """Whether to list hidden conversations, too."""
    generation: Generation | None = None
    """The `generation` of the result that `since` and `cursor` came from. Those of another one are refused
    (`out_of_range`): list all anew."""


class ConversationView(msgspec.Struct):
    """A conversation as the caller sees it."""

    conversation_id: str
    conversation_type: str
    """`private` or `group`."""
    head_seq: int
    """The seq of the last entry."""
    read_seq: int
    """The seq up to which the caller has read the conversation; 0 if not at all."""
    unread: int
    """How many messages of others come after the last entry that the caller has read and the last message
    that the caller has sent. Edits, recalls and system entries do not count."""
    pinned: bool
    """Whether the caller has pinned it. A mark for the app, without effect on the server."""
    muted: bool
    """Whether the caller wants no notifications. A mark for the app, without effect on delivery."""
    hidden: bool
    """Whether the caller has hidden it and nothing was written since."""
    marked_unread: bool
    """Whether the caller has marked it as unread. `messages.read` removes the mark."""
    active_at: int
    """Unix ms of the last entry; 0 if there is none."""
    last_message: Message | None
    """The last message as it is now; null if there is none that the caller may see. Edits, recalls and
    system entries are no messages."""
    peer: Peer | None = None
    """Of a private conversation."""
    group: GroupName | None = None
    """Of a group's conversation."""
    peer_read_seq: int = 0
    """The seq up to which the other user has read a private conversation; 0 if not at all, or if they give
    the caller no read receipts."""
    peer_delivered_seq: int = 0
    """The same of what has arrived at a device of the other user; 0, too, if they do not let the caller see
    their presence."""
    mentioned_seq: int | None = None
    """The seq of the last unread message that mentions the caller or all; null if there is none."""


class ListResult(msgspec.Struct):
    """One page, the most recently active conversation first."""

    conversations: list[ConversationView]
    next: str
    """The `cursor` of the next page; empty on the last page."""
    since: int
    """The `since` (Unix ms) that asks for the changes after this call."""
    unread_total: int
    """The sum of `unread` over all conversations, not only this page, that are neither muted nor hidden."""
    cursors: dict[str, int]
    """Where to go on: for the inbox and the topic of each group, the offset up to which this list has
    everything. `messages.sync` with these cursors returns what came after. Only on the first page."""
    generation: int
    """The generation of the stores. A restore from a backup raises it: offsets and seqs that a device has
    from before may mean other entries. Give it back with them."""


class SetParameters(Parameters):
    """The conversation, and the marks to change. A mark that is not given stays as it is."""

    conversation_id: ConversationId
    pinned: bool | None = None
    muted: bool | None = None
    hidden: bool | None = None
    """A hidden conversation shows again with its next entry."""
    marked_unread: bool | None = None


class _Seen(msgspec.Struct):
    """A conversation, when it last changed for the user (Unix ms), the ids of the last entry and of the last
    message that the user may see (0: none), and the seq up to which its messages count as seen."""

    view: ConversationView
    changed_at: int
    head_id: int
    last_id: int
    seen_seq: int


class Conversations:
    """The handlers."""

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
        self._details = ConversationDetails(store, directory)
        self._access = access
        self._broker = broker
        self._save = save

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("conversations.list", self.list_conversations)
        operations.add("conversations.set", self.set_conversation)

    async def list_conversations(self, caller: Caller, parameters: ListParameters) -> ListResult:
        """List the caller's conversations, the most recently active first. A reply holds about 128 KiB, so
        a page may have fewer conversations than `limit`."""
        if parameters.since or parameters.cursor:
            self._access.ends.check_generation(parameters.generation)
        now = self._access.growing_ms()
        memberships = await self._directory.memberships(caller.user)
        # Before the conversations are read: an entry that is stored meanwhile is in the list, or after these
        # cursors, or both. Further pages are read later, and are covered by the cursors of the first.
        cursors = {} if parameters.cursor else await self._cursors(caller.user, memberships)
        every = await self._all(caller.user, memberships)
        unread_total = sum(seen.view.unread for seen in every if not (seen.view.muted or seen.view.hidden))
        wanted = [
            seen
            for seen in every
            if seen.changed_at > parameters.since
            # A device that asks for changes must learn that another device has hidden a conversation.
            and (parameters.include_hidden or parameters.since or not seen.view.hidden)
        ]
        wanted.sort(key=_place, reverse=True)
        if parameters.cursor:
            wanted = [seen for seen in wanted if _place(seen) < _read_cursor(parameters.cursor)]
        space = REPLY_BYTES - len(msgspec.json.encode(cursors))
        page = await self._shown(caller.user, wanted[: parameters.limit], space)
        following = _cursor(wanted[len(page) - 1]) if len(wanted) > len(page) else ""
        last_change = max((seen.changed_at for seen in every), default=0)
        since = max(0, min(now - _OVERLAP_MS, last_change))
        return ListResult(page, following, since, unread_total, cursors, self._access.ends.generation)

    async def _cursors(self, user: str, memberships: Sequence[Membership]) -> dict[str, int]:
        """The heads of the logs that a user reads."""
        topics = [inbox_topic(user), *(group_topic(each.group_id) for each in memberships)]
        logs = {topic: log_name(parse_topic(topic)) for topic in topics}
        heads = await self._log.heads(list(logs.values()))
        return {topic: heads[log] for topic, log in logs.items()}

    async def _shown(self, user: str, seen: Sequence[_Seen], space: int) -> list[ConversationView]:
        """The first views with their last messages and details: as many as fit into `space` bytes, but at
        least one."""
        page: list[ConversationView] = []
        for start in range(0, len(seen), _CHUNK):
            for view in await self._completed(user, seen[start : start + _CHUNK]):
                space -= len(msgspec.json.encode(view))
                if space < 0 and page:
                    return page
                page.append(view)
        return page

    async def _completed(self, user: str, seen: Sequence[_Seen]) -> list[ConversationView]:
        names = [each.view.conversation_id for each in seen]
        unread = {each.view.conversation_id: each.seen_seq for each in seen if each.view.unread}
        found = await self._log.locate([each.last_id for each in seen if each.last_id])
        views = []
        for each, details in zip(seen, await self._details.of(user, names, unread), strict=True):
            located = found.get(each.last_id)
            last = msgspec.Raw(located.body) if located else None
            views.append(replace(each.view, last_message=last, **msgspec.structs.asdict(details)))
        return views

    async def _all(self, user: str, memberships: Sequence[Membership]) -> list[_Seen]:
        private = await self._store.private_conversations(user)
        floors = {group_id(membership.group_id): membership.joined_seq for membership in memberships}
        states = await self._store.states(user, [*private, *floors], floors)
        _, inbox = await self._access.inbox(user)
        groups = {name: Horizon(floor) for name, floor in floors.items()}
        every = (
            _view(state, groups.get(state.conversation_id) or inbox.of(state.conversation_id))
            for state in states
        )
        return [seen for seen in every if seen is not None]

    async def set_conversation(self, caller: Caller, parameters: SetParameters) -> ConversationView:
        """Pin, mute or hide a conversation, or mark it as unread. All devices of the caller get a
        `conversation` event."""
        room = await self._access.room(caller, parameters.conversation_id)
        (state,) = await self._store.states(caller.user, [room.conversation_id])
        if not state.head_seq:
            raise RefusedError("not_found", f"there is no conversation {room.conversation_id}")
        hidden = None
        if parameters.hidden is not None:
            hidden = state.head_seq if parameters.hidden else 0
        now = self._access.growing_ms()
        marked = Marked(
            caller.user,
            room.conversation_id,
            now,
            pinned=parameters.pinned,
            muted=parameters.muted,
            unread=parameters.marked_unread,
            hidden=hidden,
        )
        await self._save([marked])
        floors = {room.conversation_id: room.horizon.seq}
        (state,) = await self._store.states(caller.user, [room.conversation_id], floors)
        seen = _view(state, room.horizon)
        if seen is None:
            raise RefusedError("not_found", f"there is no conversation {room.conversation_id}")
        (view,) = await self._completed(caller.user, [seen])
        event = {
            "event": "conversation",
            "conversation_id": view.conversation_id,
            "pinned": view.pinned,
            "muted": view.muted,
            "hidden": view.hidden,
            "marked_unread": view.marked_unread,
        }
        await self._broker.emit([caller.user], event)
        return view


def _view(state: ConversationState, horizon: Horizon) -> _Seen | None:
    """A conversation as seen by a user with this horizon. None if all entries of a private one are hidden."""
    floor, since = horizon.seq, horizon.since
    head_id = state.head_id if state.head_seq > floor else 0
    active_at = Snowflakes.created_ms(head_id) if head_id else 0
    is_group = group_of(state.conversation_id) is not None
    if not is_group and (not head_id or active_at < since):
        return None  # it belonged to an earlier account with the same id
    view = ConversationView(
        conversation_id=state.conversation_id,
        conversation_type="group" if is_group else "private",
        head_seq=state.head_seq,
        read_seq=state.read_seq,
        unread=max(0, state.messages - state.seen),
        pinned=state.pinned,
        muted=state.muted,
        hidden=state.hidden_seq >= state.head_seq > 0,
        marked_unread=state.unread,
        active_at=active_at,
        last_message=None,
    )
    last_id = state.last_id if state.last_seq > floor else 0
    if last_id and Snowflakes.created_ms(last_id) < since:
        last_id = 0
    seen_seq = max(state.read_seq, state.own_seq, floor)
    return _Seen(view, max(active_at, state.changed_at), head_id, last_id, seen_seq)


def _place(seen: _Seen) -> tuple[int, str]:
    return seen.head_id, seen.view.conversation_id


def _cursor(seen: _Seen) -> str:
    return f"{seen.head_id} {seen.view.conversation_id}"


def _read_cursor(cursor: str) -> tuple[int, str]:
    head_id, _, conversation_id = cursor.partition(" ")
    if not (head_id.isascii() and head_id.isdigit()):
        raise RefusedError("invalid_params", "cursor: not the next of a page")
    return int(head_id), conversation_id
