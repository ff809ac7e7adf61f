"""The topic rules of contract.md, "Topics": who may publish and subscribe where.

One table says who may publish, by kind of topic; one method says what a filter comes to.
Answers of the directory are remembered while they hold: a change drops them.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from broker.domain.errors import ReasonCode, Refusal
from broker.domain.topics import (
    Kind,
    Topic,
    any_match,
    group_topics,
    is_wild,
    matches,
    overlaps,
    parse_topic,
    user_topics,
)
from broker.ports import (
    AccountChanged,
    Directory,
    DirectoryChange,
    Grant,
    Identity,
    Membership,
)

V = TypeVar("V")

_REMEMBERED = 20_000

# What a wildcard in the place of an id may come to match later, when a group is joined or a
# contact made.
_PERHAPS_LATER = ("groups/+", "groups/+/typing", "users/+/presence")


def _no(code: str, detail: str) -> Refusal:
    return Refusal(code, ReasonCode.NOT_AUTHORIZED, detail)


class ContractRules:
    """See `broker.ports.TopicRules`. `open_filters`: the topics outside the table that anybody may
    use (`topics.open`)."""

    def __init__(self, directory: Directory, open_filters: Sequence[str], now_ms: Callable[[], int]) -> None:
        self._directory = directory
        self._open = tuple(open_filters)
        self._now_ms = now_ms
        self._accounts: dict[str, bool] = {}
        self._memberships: dict[str, dict[str, Membership]] = {}
        self._changes = 0
        directory.on_change(self._changed)
        self._rules: dict[Kind, Callable[[Identity, Topic], Awaitable[Refusal | None]]] = {
            Kind.INBOX: self._may_write_to_user,
            Kind.TYPING: self._may_write_to_user,
            Kind.GROUP: self._may_write_to_group,
            Kind.GROUP_TYPING: self._may_write_to_group,
            Kind.PRESENCE: self._is_own,
            Kind.RPC: self._is_own,
            Kind.EVENTS: self._is_server,
            Kind.REPLIES: self._is_server,
            Kind.SYS: self._is_server,
        }

    async def may_publish(self, identity: Identity, topic: Topic) -> Refusal | None:
        """See `broker.ports.TopicRules`."""
        if topic.kind is Kind.OTHER:
            if any_match(self._open, topic.name):
                return None
            return _no("unknown_topic", f"{topic.name} is not a topic of this platform")
        if not identity.user:
            return _no("anonymous", "anonymous clients may use open topics only")
        return await self._rules[topic.kind](identity, topic)

    async def _may_write_to_user(self, _identity: Identity, topic: Topic) -> Refusal | None:
        if await self._exists(topic.owner):
            return None
        return _no("not_found", f"there is no user {topic.owner}")

    async def _may_write_to_group(self, identity: Identity, topic: Topic) -> Refusal | None:
        membership = (await self._groups(identity.user)).get(topic.owner)
        if membership is None:
            return _no("not_member", f"{identity.user} is not a member of group {topic.owner}")
        if membership.muted_until > self._now_ms():
            return _no("muted", f"{identity.user} is muted in group {topic.owner}")
        return None

    async def _is_own(self, identity: Identity, topic: Topic) -> Refusal | None:
        if topic.owner == identity.user:
            return None
        return _no("not_authorized", f"only {topic.owner} may publish to {topic.name}")

    async def _is_server(self, _identity: Identity, topic: Topic) -> Refusal | None:
        return _no("not_authorized", f"only the server publishes to {topic.name}")

    async def grant(self, identity: Identity, topic_filter: str) -> Grant | None:
        """See `broker.ports.TopicRules`."""
        is_open = any(overlaps(topic_filter, pattern) for pattern in self._open)
        if not identity.user:
            return Grant({}, open=True) if is_open else None
        topics = await self._readable(identity.user, topic_filter)
        if identity.role == "admin":
            return Grant(topics, open=True, everything=True)
        if topics or is_open or _may_match_later(topic_filter):
            return Grant(topics, open=is_open)
        return None

    async def _readable(self, user: str, topic_filter: str) -> dict[str, int]:
        """The topics a user may read that the filter matches -> where the right begins."""
        if not is_wild(topic_filter):
            topic = parse_topic(topic_filter)
            if topic.kind not in (Kind.GROUP, Kind.GROUP_TYPING):
                return {topic_filter: 0} if topic_filter in user_topics(user) else {}
            membership = (await self._groups(user)).get(topic.owner)
            return {} if membership is None else {topic_filter: membership.joined_seq}
        topics = {topic: 0 for topic in user_topics(user) if matches(topic_filter, topic)}
        if overlaps(topic_filter, "groups/#"):
            for group, membership in (await self._groups(user)).items():
                for name in group_topics(group):
                    if matches(topic_filter, name):
                        topics[name] = membership.joined_seq
        return topics

    # --- the directory, remembered ---------------------------------------------------

    async def _exists(self, user: str) -> bool:
        known = self._accounts.get(user)
        if known is None:
            changes = self._changes
            known = await self._directory.account(user) is not None
            if known and changes == self._changes:  # else the answer may be out of date already
                _remember(self._accounts, user, True)
        return known

    async def _groups(self, user: str) -> dict[str, Membership]:
        known = self._memberships.get(user)
        if known is None:
            changes = self._changes
            known = {m.group_id: m for m in await self._directory.memberships(user)}
            if changes == self._changes:
                _remember(self._memberships, user, known)
        return known

    def _changed(self, change: DirectoryChange) -> None:
        self._changes += 1
        if isinstance(change, AccountChanged):
            self._accounts.pop(change.user_id, None)
        self._memberships.pop(change.user_id, None)


def _may_match_later(topic_filter: str) -> bool:
    levels = topic_filter.split("/")
    names_an_id = len(levels) > 1 and levels[1] not in ("+", "#")
    return (
        not names_an_id and is_wild(topic_filter) and any(overlaps(topic_filter, p) for p in _PERHAPS_LATER)
    )


def _remember(cache: dict[str, V], key: str, value: V) -> None:
    if len(cache) >= _REMEMBERED:
        cache.clear()
    cache[key] = value
