"""The topic rules of docs/topics.md: who may publish and subscribe where.

`broker.domain.permissions` holds the rules between users and in groups. This module looks up the facts
for them and resolves topic filters to topics. Answers of the directory are cached until the directory
reports a change.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from broker.domain import permissions
from broker.domain.directory import Group, Membership
from broker.domain.errors import ReasonCode, Refusal
from broker.domain.permissions import Facts, GroupOperation, Relation, UserOperation
from broker.domain.topics import (
    Kind,
    Topic,
    any_match,
    group_topics,
    inbox_topic,
    is_wild,
    matches,
    overlaps,
    parse_topic,
    presence_topic,
    user_topics,
)
from broker.ports import (
    AccountChanged,
    Directory,
    DirectoryChange,
    Grant,
    GroupChanged,
    Identity,
    MembershipChanged,
    all_contacts,
)

V = TypeVar("V")

_REMEMBERED = 20_000

# A wildcard in place of an id may match one of these later: after the user joins a group or gains a
# contact. Such a filter is accepted even if it matches nothing today.
_PERHAPS_LATER = ("groups/+", "groups/+/typing", "users/+/presence")


def _no(code: str, detail: str) -> Refusal:
    return Refusal(code, ReasonCode.NOT_AUTHORIZED, detail)


class ContractRules:
    """See `broker.ports.TopicRules`. `open_filters`: the filters of the open topics, which
    everybody may use (`topics.open`)."""

    def __init__(self, directory: Directory, open_filters: Sequence[str], now_ms: Callable[[], int]) -> None:
        self._directory = directory
        self._open = tuple(open_filters)
        self._now_ms = now_ms
        self._accounts: dict[str, bool] = {}
        self._sinces: dict[str, int] = {}
        self._memberships: dict[str, dict[str, Membership]] = {}
        self._groups: dict[str, Group] = {}
        self._changes = 0
        directory.on_change(self._changed)
        self._rules: dict[Kind, Callable[[Identity, Topic], Awaitable[Refusal | None]]] = {
            Kind.INBOX: self._may_message,
            Kind.TYPING: self._may_message,
            Kind.GROUP: self._may_post,
            Kind.GROUP_TYPING: self._may_post,
            Kind.PRESENCE: self._is_own,
            Kind.RPC: self._is_own,
            Kind.EVENTS: self._is_server,
            Kind.REPLIES: self._is_server,
            Kind.SYS: self._is_server,
        }

    def open_topics(self, open_filters: Sequence[str]) -> None:
        """Change the topics outside the contract's table that everybody may use."""
        self._open = tuple(open_filters)

    async def may_publish(self, identity: Identity, topic: Topic) -> Refusal | None:
        """See `broker.ports.TopicRules`."""
        if topic.kind is Kind.OTHER:
            if any_match(self._open, topic.name):
                return None
            return _no("unknown_topic", f"{topic.name} is not a topic of this platform")
        if not identity.user:
            return _no("anonymous", "anonymous clients may use open topics only")
        return await self._rules[topic.kind](identity, topic)

    async def _may_message(self, identity: Identity, topic: Topic) -> Refusal | None:
        user, peer = identity.user, topic.owner
        if not await self._exists(peer):
            return _no("not_found", f"there is no user {peer}")
        if user == peer:
            return None
        operation = UserOperation.MESSAGE if topic.kind is Kind.INBOX else UserOperation.TYPE
        relation, facts = (await self._standings(user, [peer]))[peer]
        code = permissions.between_users(operation, relation, facts)
        return None if code is None else _no(code, f"{topic.name}: {permissions.in_words(code)}")

    async def _may_post(self, identity: Identity, topic: Topic) -> Refusal | None:
        membership = (await self._memberships_of(identity.user)).get(topic.owner)
        if membership is None:
            return _no("not_member", f"{identity.user} is not a member of group {topic.owner}")
        facts = Facts(self._now_ms(), group=await self._group(topic.owner), membership=membership)
        code = permissions.in_group(GroupOperation.POST, permissions.rank(membership), facts)
        return None if code is None else _no(code, f"{topic.name}: {permissions.in_words(code)}")

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
        since = await self._since(identity.user) if inbox_topic(identity.user) in topics else 0
        if identity.role == "admin":
            return Grant(topics, open=True, everything=True, since=since)
        if topics or is_open or _may_match_later(topic_filter):
            return Grant(topics, open=is_open, since=since)
        return None

    async def _readable(self, user: str, topic_filter: str) -> dict[str, int]:
        """Matching topics the user may read -> the offset at which the right begins (see `Grant`)."""
        if not is_wild(topic_filter):
            return await self._readable_exactly(user, parse_topic(topic_filter))
        topics = {topic: 0 for topic in user_topics(user) if matches(topic_filter, topic)}
        if overlaps(topic_filter, "groups/#"):
            for group, membership in (await self._memberships_of(user)).items():
                for name in group_topics(group):
                    if matches(topic_filter, name):
                        topics[name] = membership.joined_seq
        if _reaches_presences(topic_filter):
            contacts = [
                contact.peer_id
                async for contact in all_contacts(self._directory, user)
                if contact.state == "contact"
            ]
            topics |= {
                presence_topic(peer): 0
                for peer, (relation, facts) in (await self._standings(user, contacts)).items()
                if permissions.between_users(UserOperation.SEE_PRESENCE, relation, facts) is None
            }
        return topics

    async def _readable_exactly(self, user: str, topic: Topic) -> dict[str, int]:
        if topic.kind in (Kind.GROUP, Kind.GROUP_TYPING):
            membership = (await self._memberships_of(user)).get(topic.owner)
            return {} if membership is None else {topic.name: membership.joined_seq}
        if topic.kind is Kind.PRESENCE and topic.owner != user:
            relation, facts = (await self._standings(user, [topic.owner]))[topic.owner]
            code = permissions.between_users(UserOperation.SEE_PRESENCE, relation, facts)
            return {topic.name: 0} if code is None else {}
        return {topic.name: 0} if topic.name in user_topics(user) else {}

    # --- the directory, cached -------------------------------------------------------
    #
    # A change may arrive while the directory is being asked. The answer may then be out of date: it is
    # used once, and not cached. `_changes` tells.

    async def _standings(self, user: str, peers: Sequence[str]) -> dict[str, tuple[Relation, Facts]]:
        """The user's relation to each peer, and the peer's privacy settings."""
        contacts = await self._directory.contacts_between(permissions.both_ways(user, peers))
        profiles = await self._directory.profiles(peers)
        return {
            peer: (permissions.relation(user, peer, contacts), Facts(profile=profiles.get(peer)))
            for peer in peers
        }

    async def _exists(self, user: str) -> bool:
        known = self._accounts.get(user)
        if known is None:
            changes = self._changes
            known = await self._directory.account(user) is not None
            # "No such user" is not cached: requests for made-up ids would push known users out.
            if known and changes == self._changes:
                _remember(self._accounts, user, True)
        return known

    async def _since(self, user: str) -> int:
        """See `Grant.since`: 0 if nothing was sent to an earlier account with this id."""
        known = self._sinces.get(user)
        if known is None:
            changes = self._changes
            account = await self._directory.account(user)
            known = account.created_at if account is not None and account.inbox_floor else 0
            if changes == self._changes:
                _remember(self._sinces, user, known)
        return known

    async def _memberships_of(self, user: str) -> dict[str, Membership]:
        known = self._memberships.get(user)
        if known is None:
            changes = self._changes
            known = {m.group_id: m for m in await self._directory.memberships(user)}
            if changes == self._changes:
                _remember(self._memberships, user, known)
        return known

    async def _group(self, group_id: str) -> Group | None:
        known = self._groups.get(group_id)
        if known is None:
            changes = self._changes
            known = await self._directory.group(group_id)
            if known is not None and changes == self._changes:
                _remember(self._groups, group_id, known)
        return known

    def _changed(self, change: DirectoryChange) -> None:
        self._changes += 1
        match change:
            case AccountChanged(user_id, _):
                self._accounts.pop(user_id, None)
                self._sinces.pop(user_id, None)
                self._memberships.pop(user_id, None)
            case MembershipChanged(_, user_id, _):
                self._memberships.pop(user_id, None)
            case GroupChanged(group):
                self._groups.pop(group.group_id, None)


def _reaches_presences(topic_filter: str) -> bool:
    """Whether a wildcard matches other users' presence topics: `users/+/presence`, `users/#`, `#`."""
    # The space makes sure that no user has this id.
    return matches(topic_filter, "users/someone else/presence")


def _may_match_later(topic_filter: str) -> bool:
    """Whether the filter could match a permitted topic after a change of memberships or contacts."""
    levels = topic_filter.split("/")
    names_an_id = len(levels) > 1 and levels[1] not in ("+", "#")
    return (
        not names_an_id and is_wild(topic_filter) and any(overlaps(topic_filter, p) for p in _PERHAPS_LATER)
    )


def _remember(cache: dict[str, V], key: str, value: V) -> None:
    if len(cache) >= _REMEMBERED:
        cache.clear()
    cache[key] = value
