"""ConversationStore in memory."""

from collections.abc import Sequence

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

    async def states(self, user: str, conversation_ids: Sequence[str]) -> list[ConversationState]:
        contents = self._opened.contents
        return [_state(contents, user, name) for name in conversation_ids]

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

    async def arrivals(self, user: str, after: int, upto: int) -> dict[str, int]:
        entries = self._opened.contents.log(inbox_topic(user))[max(0, after) : max(0, upto)]
        # Entries ascend, so the last message of each conversation wins.
        return {message.conversation_id: message.seq for message in entries if message.sender != user}


def _state(contents: Contents, user: str, conversation_id: str) -> ConversationState:
    messages = contents.conversations.get(conversation_id, [])
    view = contents.views.get(user, {}).get(conversation_id, View())
    return ConversationState(
        conversation_id,
        head_seq=len(messages),
        own_seq=next((message.seq for message in reversed(messages) if message.sender == user), 0),
        read_seq=view.read,
        delivered_seq=view.delivered,
        pinned=view.pinned,
        muted=view.muted,
        unread=view.unread,
        hidden_seq=view.hidden,
        changed_at=view.changed_at,
        last_id=messages[-1].id if messages else 0,
        floor_seq=view.floor,
    )
