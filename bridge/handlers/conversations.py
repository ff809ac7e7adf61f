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
from bridge.handlers.messages import REPLY_BYTES
from broker.domain.conversation import group_id, group_of
from broker.domain.errors import RefusedError
from broker.domain.ids import Snowflakes
from broker.domain.visibility import Horizon
from broker.ports import (
    BrokerPort,
    ConversationState,
    ConversationStore,
    GroupDirectory,
    Marked,
    MessageLog,
    SaveChanges,
)

# A message gets its time before it is stored, so one that is stored after this call may carry an earlier
# time. The `since` of a result lies this far in the past, so that the next call does not miss it. It is not
# after the last change either: after a restart, time goes on from the last change that is stored.
_OVERLAP_MS = 5000
_CHUNK = 20
_VIEW_BYTES = 256
"""Roughly the size of a conversation in a reply, without its last message."""


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


class ListResult(msgspec.Struct):
    """One page, the most recently active conversation first."""

    conversations: list[ConversationView]
    next: str
    """The `cursor` of the next page; empty on the last page."""
    since: int
    """The `since` (Unix ms) that asks for the changes after this call."""
    unread_total: int
    """The sum of `unread` over all conversations, not only this page, that are neither muted nor hidden."""
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
    """A conversation, when it last changed for the user (Unix ms), and the ids of the last entry and of the
    last message that the user may see (0: none)."""

    view: ConversationView
    changed_at: int
    head_id: int
    last_id: int


class Conversations:
    """The handlers."""

    def __init__(
        self,
        log: MessageLog,
        store: ConversationStore,
        directory: GroupDirectory,
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
        every = await self._all(caller.user)
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
        page = await self._with_last(wanted[: parameters.limit])
        following = _cursor(wanted[len(page) - 1]) if len(wanted) > len(page) else ""
        last_change = max((seen.changed_at for seen in every), default=0)
        since = max(0, min(now - _OVERLAP_MS, last_change))
        return ListResult(page, following, since, unread_total, self._access.ends.generation)

    async def _with_last(self, seen: Sequence[_Seen]) -> list[ConversationView]:
        """The first views with their last messages: as many as fit into one reply, but at least one."""
        page: list[ConversationView] = []
        space = REPLY_BYTES
        for start in range(0, len(seen), _CHUNK):
            chunk = seen[start : start + _CHUNK]
            found = await self._log.locate([each.last_id for each in chunk if each.last_id])
            for each in chunk:
                located = found.get(each.last_id)
                space -= _VIEW_BYTES + (len(located.body) if located else 0)
                if space < 0 and page:
                    return page
                last = msgspec.Raw(located.body) if located else None
                page.append(replace(each.view, last_message=last))
        return page

    async def _all(self, user: str) -> list[_Seen]:
        private = await self._store.private_conversations(user)
        memberships = await self._directory.memberships(user)
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
        (view,) = await self._with_last([seen])
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
    return _Seen(view, max(active_at, state.changed_at), head_id, last_id)


def _place(seen: _Seen) -> tuple[int, str]:
    return seen.head_id, seen.view.conversation_id


def _cursor(seen: _Seen) -> str:
    return f"{seen.head_id} {seen.view.conversation_id}"


def _read_cursor(cursor: str) -> tuple[int, str]:
    head_id, _, conversation_id = cursor.partition(" ")
    if not (head_id.isascii() and head_id.isdigit()):
        raise RefusedError("invalid_params", "cursor: not the next of a page")
    return int(head_id), conversation_id
