"""StateStore in memory."""

from collections.abc import Iterable, Sequence

from broker.domain.errors import StoreError
from broker.domain.topics import matches
from broker.ports import (
    Applied,
    Claimed,
    Enqueued,
    Forgotten,
    Held,
    Marked,
    Moved,
    Retained,
    Saved,
    Seen,
    SessionKey,
    SessionState,
    StateChange,
    StoredSession,
    Subscribed,
    Unseen,
)

from .contents import Contents, KeptSession, Opened, View


class MemoryStateStore:
    """See `broker.ports.StateStore`."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    async def apply(self, changes: Sequence[StateChange]) -> Applied:
        contents = self._opened.contents
        for number in (number for change in changes for number in _numbers(change)):
            if not -(1 << 63) <= number < 1 << 63:
                raise StoreError(f"{number} is beyond 64 bits")
        # Nothing can fail after this, so the changes are atomic.
        dropped, stale = 0, []
        for change in changes:
            if isinstance(change, Saved | Moved | Enqueued) and _is_stale(contents, change):
                stale.append(change)
            else:
                dropped += _apply(contents, change)
        return Applied(dropped, stale)

    async def load(self, key: SessionKey) -> SessionState | None:
        kept = self._opened.contents.sessions.get(key)
        return None if kept is None else _copy(kept.state)

    async def claim(self, key: SessionKey, at: int) -> Claimed:
        sessions = self._opened.contents.sessions
        kept = sessions.get(key)
        if kept is None:
            sessions[key] = KeptSession(SessionState({}, {}, [], [], []), at, at)
            return Claimed(at, None)
        kept.epoch += 1
        kept.saved_at = at
        return Claimed(kept.epoch, _copy(kept.state))

    async def subscriptions(self, user: str | None = None) -> list[Subscribed]:
        sessions = self._opened.contents.sessions
        return [
            Subscribed(key, dict(kept.state.filters), kept.epoch)
            for key, kept in sessions.items()
            if user is None or key.user == user
        ]

    async def sessions(self, user: str | None, after: SessionKey, limit: int) -> list[StoredSession]:
        kept = self._opened.contents.sessions
        beyond = (after.user, after.client_id) if user in (None, after.user) else ("", "")
        keys = sorted((key.user, key.client_id) for key in kept if user in (None, key.user))
        first = [SessionKey(*key) for key in keys if key > beyond][:limit]
        return [_listed(key, kept[key]) for key in first]

    async def client_ids(self, user: str, limit: int) -> list[str]:
        sessions = self._opened.contents.sessions
        return [key.client_id for key in sessions if key.user == user][:limit]

    async def expiring(self, before: int, limit: int) -> list[SessionKey]:
        sessions = self._opened.contents.sessions
        return [key for key, kept in sessions.items() if kept.saved_at < before][:limit]

    async def expire(self, before: int, keep: Sequence[SessionKey], now: int) -> int:
        sessions = self._opened.contents.sessions
        for key in keep:
            if key in sessions:
                sessions[key].saved_at = now
        expired = [key for key, kept in sessions.items() if kept.saved_at < before]
        for key in expired:
            del sessions[key]
        return len(expired)

    async def retained(self, topic_filter: str, after: str, limit: int) -> list[Retained]:
        retained = self._opened.contents.retained
        topics = sorted(topic for topic in retained if topic > after and matches(topic_filter, topic))
        return [retained[topic] for topic in topics[:limit]]

    async def retained_on(self, topics: Sequence[str]) -> dict[str, Retained]:
        retained = self._opened.contents.retained
        return {topic: retained[topic] for topic in topics if topic in retained}

    async def held(self) -> dict[str, Held]:
        return {
            topic: Held(message.owner, len(topic.encode()) + len(message.payload))
            for topic, message in self._opened.contents.retained.items()
            if not topic.startswith("users/")
        }

    async def live_retained(self) -> list[str]:
        return [message.topic for message in self._opened.contents.retained.values() if message.live]


def _numbers(change: StateChange) -> Iterable[int]:
    """The seqs and offsets in a change."""
    match change:
        case Saved(_, state):
            return state.cursors.values()
        case Moved(_, cursors):
            return cursors.values()
        case Seen(_, _, _, read, delivered):
            return (read, delivered)
        case Marked(hidden=int(hidden)):
            return (hidden,)
    return ()


def _is_stale(contents: Contents, change: Saved | Moved | Enqueued) -> bool:
    if change.epoch is None:
        return False
    kept = contents.sessions.get(change.key)
    return kept is None or kept.epoch != change.epoch


def _apply(contents: Contents, change: StateChange) -> int:
    """Make one change; returns how many queued messages it dropped."""
    sessions = contents.sessions
    match change:
        case Saved(key, state, at):
            epoch = sessions[key].epoch if key in sessions else 0
            sessions[key] = KeptSession(_copy(state), at, epoch)
        case Moved(key, cursors, packet_ids) if key in sessions:
            sessions[key].state.cursors.update(cursors)
            if packet_ids is not None:
                sessions[key].state.packet_ids = packet_ids
        case Enqueued(key, message, limit, max_bytes) if key in sessions:
            queue = sessions[key].state.queue
            queue.append(message)
            dropped = max(0, len(queue) - limit)
            while sum(len(each.payload) for each in queue[dropped:-1]) + len(message.payload) > max_bytes:
                if dropped == len(queue) - 1:
                    break
                dropped += 1
            del queue[:dropped]
            return dropped
        case Forgotten(user, client_id):
            for key in [k for k in sessions if k.user == user and client_id in (None, k.client_id)]:
                del sessions[key]
        case Retained(topic, payload):
            contents.retained.pop(topic, None)
            if payload:
                contents.retained[topic] = change
        case Seen() | Marked() | Unseen():
            _observe(contents, change)
    return 0


def _observe(contents: Contents, change: Seen | Marked | Unseen) -> None:
    match change:
        case Seen(user, conversation_id, at, read, delivered) if read > 0 or delivered > 0:
            view = contents.view(user, conversation_id)
            if read > view.read or delivered > view.delivered or (view.unread and read > 0):
                view.read, view.delivered = max(view.read, read), max(view.delivered, delivered)
                view.unread = view.unread and read <= 0
                view.changed_at = at
        case Marked(user, conversation_id, at, pinned, muted, unread, hidden):
            view = contents.view(user, conversation_id)
            view.pinned = view.pinned if pinned is None else pinned
            view.muted = view.muted if muted is None else muted
            view.unread = view.unread if unread is None else unread
            view.hidden = view.hidden if hidden is None else hidden
            view.changed_at = at
        case Unseen(user):
            # Private conversations stay listed and count as read up to the head.
            before = contents.views.pop(user, {}).items()
            kept = {name for name, view in before if view.floor or name.startswith("p:")}
            kept |= {each.conversation_id for each in contents.by_id.values() if each.sender == user}
            for name in kept:
                head = len(contents.log(name))
                seen = head if name.startswith("p:") else 0
                contents.views.setdefault(user, {})[name] = View(seen, seen, floor=head)
            for key in [key for key in contents.by_key if key.sender == user]:
                del contents.by_key[key]
            for message in contents.by_id.values():
                message.mentions.discard(user)


def _listed(key: SessionKey, kept: KeptSession) -> StoredSession:
    state = kept.state
    sent = [each for each in state.inflight if each.packet_id and not each.released]
    return StoredSession(
        key, kept.saved_at, dict(state.filters), dict(state.cursors), len(state.queue) + len(sent)
    )


def _copy(state: SessionState) -> SessionState:
    """A copy, because the session goes on changing its own state."""
    return SessionState(
        dict(state.filters),
        dict(state.cursors),
        list(state.inflight),
        list(state.received),
        list(state.queue),
        state.packet_ids,
        state.lost,
    )
