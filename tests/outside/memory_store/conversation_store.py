"""ConversationStore in memory."""

from collections.abc import Mapping, Sequence

from broker.domain.message import Count
from broker.domain.topics import inbox_topic
from broker.ports import ConversationState, Watermark

from .contents import Contents, Opened, View


class MemoryConversationStore:
    """See `broker.ports.ConversationStore`."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    async def private_conversations(self, user: str) -> list[str]:
        views = self._opened.contents.views.get(user, {})
        return sorted(name for name in views if name.startswith("p:"))

    async def states(
        self, user: str, conversation_ids: Sequence[str], floors: Mapping[str, int] | None = None
    ) -> list[ConversationState]:
        contents = self._opened.contents
        return [_state(contents, user, name, (floors or {}).get(name, 0)) for name in conversation_ids]

    async def floors(self, user: str) -> dict[str, int | None]:
        views = self._opened.contents.views.get(user, {})
        return {name: view.floor for name, view in views.items() if view.floor and name.startswith("p:")}

    async def last_change(self) -> int:
        views = self._opened.contents.views.values()
        return max((view.changed_at for user in views for view in user.values()), default=0)

    async def watermarks(
        self, conversation_id: str, least_read: int, after: str, limit: int
    ) -> list[Watermark]:
        found = [
            Watermark(user, view.read, view.delivered)
            for user, views in self._opened.contents.views.items()
            if user > after and (view := views.get(conversation_id)) is not None
            if view.read >= least_read and (view.read > 0 or view.delivered > 0)
        ]
        return sorted(found, key=lambda mark: mark.user)[:limit]

    async def watermarks_of(self, users: Mapping[str, str]) -> dict[str, Watermark]:
        views = self._opened.contents.views
        found = {
            name: (user, view)
            for name, user in users.items()
            if (view := views.get(user, {}).get(name)) is not None
        }
        return {
            name: Watermark(user, *(seq if seq > view.floor else 0 for seq in (view.read, view.delivered)))
            for name, (user, view) in found.items()
            if max(view.read, view.delivered) > view.floor
        }

    async def mentions(self, user: str, after: Mapping[str, int]) -> dict[str, int]:
        conversations = self._opened.contents.conversations
        found = {
            name: [
                message.seq for message in conversations.get(name, [])[seq:] if message.mentions & {user, ""}
            ]
            for name, seq in after.items()
        }
        return {name: seqs[-1] for name, seqs in found.items() if seqs}

    async def arrivals(self, user: str, after: int, upto: int) -> dict[str, int]:
        entries = self._opened.contents.log(inbox_topic(user))[max(0, after) : max(0, upto)]
        # Entries ascend, so the last message of each conversation wins.
        return {message.conversation_id: message.seq for message in entries if message.sender != user}


def _state(contents: Contents, user: str, conversation_id: str, floor: int) -> ConversationState:
    messages = contents.conversations.get(conversation_id, [])
    view = contents.views.get(user, {}).get(conversation_id, View())
    own = [
        message.seq
        for message in messages[view.floor :]
        if message.sender == user and message.count.last == message.seq
    ]
    own_seq = own[-1] if own else 0
    count = messages[-1].count if messages else Count()
    seen = messages[: max(own_seq, view.read, floor)]
    return ConversationState(
        conversation_id,
        head_seq=len(messages),
        own_seq=own_seq,
        read_seq=view.read,
        delivered_seq=view.delivered,
        pinned=view.pinned,
        muted=view.muted,
        unread=view.unread,
        hidden_seq=view.hidden,
        changed_at=view.changed_at,
        head_id=messages[-1].id if messages else 0,
        last_seq=count.last,
        last_id=messages[count.last - 1].id if count.last else 0,
        messages=count.n,
        seen=seen[-1].count.n if seen else 0,
        floor_seq=view.floor,
    )
