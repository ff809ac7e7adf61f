"""The contents that the three stores share."""

import msgspec

from broker.domain.errors import StoreError
from broker.domain.message import Count
from broker.domain.publication import Properties
from broker.ports import DedupKey, Retained, SessionKey, SessionState, StoreIdentity


class Message(msgspec.Struct):
    """A message of a conversation. Inboxes hold the same objects, so an amendment shows in both."""

    id: int
    sender: str
    conversation_id: str
    seq: int
    qos: int
    body: bytes
    properties: Properties | None
    count: Count
    """Of the messages up to this one."""
    amended_by: list[int]
    """The seqs of the messages that have amended this one."""
    mentions: set[str]
    """Users, or "" for everybody."""


class KeptSession(msgspec.Struct):
    """A persistent session, when it was saved (Unix ms), and its epoch."""

    state: SessionState
    saved_at: int
    epoch: int = 0


class View(msgspec.Struct):
    """A user's watermarks and marks in a conversation: see `ConversationState`."""

    read: int = 0
    delivered: int = 0
    pinned: bool = False
    muted: bool = False
    unread: bool = False
    hidden: int = 0
    changed_at: int = 0
    floor: int = 0


class Contents:
    """All that is stored: at most `capacity` messages."""

    def __init__(self, capacity: int = 1_000_000) -> None:
        self.capacity = capacity
        self.conversations: dict[str, list[Message]] = {}
        """Conversation -> its messages; the one with seq n has the index n - 1."""
        self.inboxes: dict[str, list[Message]] = {}
        """Inbox -> the messages of its entries; the one with offset n has the index n - 1."""
        self.events: dict[str, dict[int, bytes]] = {}
        """Events topic -> the bodies of its last events by offset."""
        self.by_id: dict[int, Message] = {}
        self.by_key: dict[DedupKey, Message] = {}
        self.sessions: dict[SessionKey, KeptSession] = {}
        self.retained: dict[str, Retained] = {}
        self.views: dict[str, dict[str, View]] = {}
        """User -> conversation -> their view of it."""
        self.identity: StoreIdentity | None = None

    def event_head(self, name: str) -> int:
        """The last offset of a user's events."""
        return max(self.events.get(name, {}), default=0)

    def log(self, name: str) -> list[Message]:
        """The messages of a conversation or inbox; empty if it is unknown."""
        logs = self.inboxes if name.startswith("users/") else self.conversations
        return logs.get(name, [])

    def view(self, user: str, conversation_id: str) -> View:
        """A user's view of a conversation, created if there is none."""
        return self.views.setdefault(user, {}).setdefault(conversation_id, View())


class Opened:
    """One opening of contents that outlive it."""

    def __init__(self, contents: Contents) -> None:
        self._contents: Contents | None = contents

    @property
    def contents(self) -> Contents:
        """The contents. Raises `StoreError` once closed."""
        if self._contents is None:
            raise StoreError("the store is closed")
        return self._contents

    async def close(self) -> None:
        self._contents = None
