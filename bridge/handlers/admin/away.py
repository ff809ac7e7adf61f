"""Sessions that are away, and what waits for them."""

from collections.abc import Sequence

from broker.domain.conversation import group_id
from broker.domain.topics import any_match, group_topic, inbox_topic
from broker.ports import Directory, MessageLog, SessionKey, StateStore, StoredSession


class AwaySessions:
    """Reads the stored sessions. A session that is connected is stored, too: the caller leaves it out."""

    def __init__(self, directory: Directory, log: MessageLog, states: StateStore) -> None:
        self._directory = directory
        self._log = log
        self._states = states

    async def page(self, user: str, after: str, limit: int) -> list[StoredSession]:
        """The first `limit` sessions after a `Device.sort_key`. `user` "" means all users."""
        owner, _, client_id = after.partition(" ")
        return await self._states.sessions(user or None, SessionKey(owner, client_id), limit)

    async def backlogs(self, sessions: Sequence[StoredSession]) -> list[int]:
        """How many messages each of them would get if it came back now."""
        places = [await self._places(each) for each in sessions]
        heads = await self._log.heads(list({log for each in places for log in each}))
        return [
            session.waiting + sum(max(heads[log] - offset, 0) for log, offset in each.items())
            for session, each in zip(sessions, places, strict=True)
        ]

    async def _places(self, session: StoredSession) -> dict[str, int]:
        """Log -> the offset after which the session goes on, as `Subscriptions` will determine it."""
        user = session.key.user
        filters = [name for name, subscription in session.filters.items() if subscription.qos]
        own = (inbox_topic(user), f"users/{user}/events")
        places = {
            log: session.cursors[log] for log in own if log in session.cursors and any_match(filters, log)
        }
        if not any(name.startswith(("groups/", "+/", "#")) for name in filters):
            return places
        for member in await self._directory.memberships(user):
            if any_match(filters, group_topic(member.group_id)):
                log, floor = group_id(member.group_id), member.joined_seq
                places[log] = max(session.cursors.get(log, floor), floor)
        return places
