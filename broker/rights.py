"""Follows the directory: connections, permits, routes and tails are as rights are now."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from broker.domain.directory import Account, Contact, Profile
from broker.domain.topics import group_topics, presence_topic, user_topics
from broker.ports import (
    AccountChanged,
    ContactChanged,
    Directory,
    DirectoryChange,
    GroupChanged,
    MembershipChanged,
    ProfileChanged,
    TokenRevoked,
    all_contacts,
)
from broker.registry import Registry


class Rights:
    """`changed` is told of every change of the directory; `spawn` runs what takes longer."""

    def __init__(
        self,
        registry: Registry,
        directory: Directory,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._registry = registry
        self._directory = directory
        self._spawn = spawn

    def changed(self, change: DirectoryChange) -> None:
        """What is lost is lost at once, before whoever made the change hears that it is done."""
        registry = self._registry
        match change:
            case MembershipChanged(group_id, user_id, member):
                registry.forget_permits(user_id)
                if not member:
                    registry.revoke(user_id, group_topics(group_id))
                self._follow(user_id)
            case GroupChanged(group):
                registry.forget_permits(topics=group_topics(group.group_id))
            case ContactChanged(contact):
                self._contact_changed(contact)
            case ProfileChanged(profile):
                registry.forget_permits(topics=user_topics(profile.user_id))
                self._spawn(self._profile_changed(profile))
            case AccountChanged(user_id, account):
                registry.epoch += 1
                registry.forget_permits()
                self._account_changed(user_id, account)
            case TokenRevoked(user_id, token_id):
                registry.epoch += 1
                registry.kick(user_id, "token revoked", lambda who: who.token_id == token_id)

    def _follow(self, user: str) -> None:
        if user in self._registry.users:  # a change may concern ten thousand, few of them here
            self._spawn(self._registry.follow(user))

    def _contact_changed(self, contact: Contact) -> None:
        user, peer = contact.user_id, contact.peer_id
        for one, other in ((user, peer), (peer, user)):
            self._registry.forget_permits(one)
            if contact.blocked or contact.state != "contact":
                self._registry.revoke(one, [presence_topic(other)])
            self._follow(one)

    async def _profile_changed(self, profile: Profile) -> None:
        await self._registry.follow_topic(presence_topic(profile.user_id))
        # those who may see the presence now, and could not before
        async for contact in all_contacts(self._directory, profile.user_id):
            await self._registry.follow(contact.peer_id)

    def _account_changed(self, user: str, account: Account | None) -> None:
        if account is None:
            self._registry.remove(user)
        elif account.disabled:
            self._registry.kick(user, "user disabled")
        else:
            for client in list(self._registry.users.get(user, {}).values()):
                if client.publisher.principal.identity.role != account.role:
                    client.close("role changed")
            after = account.tokens_after
            self._registry.kick(user, "token revoked", lambda who: 0 < who.token_issued_at < after)
