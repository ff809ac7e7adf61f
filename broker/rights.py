"""Keeps connections, permits, subscriptions and routes in step with the rights in the directory."""

from collections.abc import Collection, Iterable

from broker.delivery.away import AwaySessions
from broker.delivery.online import Online
from broker.delivery.router import Router
from broker.delivery.screened import Screened
from broker.delivery.subscriber import Subscriber
from broker.delivery.subscriptions import Subscriptions
from broker.domain.directory import Account, Contact, Profile
from broker.domain.errors import StoreError
from broker.domain.topics import group_topics, parse_topic, presence_topic, user_topics
from broker.ports import (
    AccountChanged,
    ContactChanged,
    Directory,
    DirectoryChange,
    Forgotten,
    GroupChanged,
    MembershipChanged,
    ProfileChanged,
    TokenRevoked,
    all_contacts,
)
from broker.registry import Client, Registry
from broker.states import States
from broker.tasks import Tasks


class Rights:
    """Applies every change of the directory to the connected clients.

    A right that may be lost is taken at once. Finding out who still has it asks the directory, so it is
    given back by a task."""

    def __init__(
        self,
        registry: Registry,
        online: Online[Client],
        away: AwaySessions,
        subscriptions: Subscriptions,
        router: Router[Subscriber],
        states: States,
        directory: Directory,
        tasks: Tasks,
    ) -> None:
        self._registry = registry
        self._online = online
        self._away = away
        self._subscriptions = subscriptions
        self._router = router
        self._states = states
        self._directory = directory
        self._tasks = tasks

    def changed(self, change: DirectoryChange) -> None:
        """Apply a change. Lost rights are gone when this returns, which is before the change is
        acknowledged to its author."""
        match change:
            case MembershipChanged(group_id, user_id, member):
                self.forget_permits(user_id)
                if not member:
                    self.revoke(user_id, group_topics(group_id))
                self._follow_user(user_id)
            case GroupChanged(group):
                self.forget_permits(topics=group_topics(group.group_id))
            case ContactChanged(contact):
                self._contact_changed(contact)
            case ProfileChanged(profile):
                self.forget_permits(topics=user_topics(profile.user_id))
                self._tasks.spawn(self._profile_changed(profile))
            case AccountChanged(user_id, account):
                self._registry.accounts_changed()
                self.forget_permits()
                self._account_changed(user_id, account)
            case TokenRevoked(user_id, token_id):
                self._registry.accounts_changed()
                self._registry.kick(user_id, "token revoked", lambda who: who.token_id == token_id)

    def _follow_user(self, user: str) -> None:
        if self._online.of(user):  # a change may concern ten thousand users, few of them connected here
            self._tasks.spawn(self.follow(user))

    def _contact_changed(self, contact: Contact) -> None:
        user, peer = contact.user_id, contact.peer_id
        for one, other in ((user, peer), (peer, user)):
            self.forget_permits(one)
            if contact.blocked or contact.state != "contact":
                self.revoke(one, [presence_topic(other)])
            self._follow_user(one)

    async def _profile_changed(self, profile: Profile) -> None:
        await self._follow_topic(presence_topic(profile.user_id))
        # Contacts who may see the presence now, and might not before.
        async for contact in all_contacts(self._directory, profile.user_id):
            await self.follow(contact.peer_id)

    def _account_changed(self, user: str, account: Account | None) -> None:
        if account is None:
            self._registry.kick(user, "user removed")
            self._away.wake_all(user)
            self._states.submit([Forgotten(user, None)], patient=True)
        elif account.disabled:
            self._registry.kick(user, "user disabled")
        else:
            after = account.tokens_after
            for client in list(self._online.of(user).values()):
                if client.publisher.principal.identity.role != account.role:
                    client.close("role changed")
            self._registry.kick(user, "token revoked", lambda who: 0 < who.token_issued_at < after)

    # --- grants and permits ----------------------------------------------------------

    async def follow(self, user: str) -> None:
        """Determine the grants of a user's sessions again."""
        await self._follow(list(self._online.of(user).values()))

    async def follow_all(self) -> None:
        """Determine the grants of all connected sessions again."""
        await self._follow(list(self._online))

    async def _follow(self, clients: list[Client]) -> None:
        for client in clients:
            if client.session is not None:
                try:
                    await self._subscriptions.follow(client.session)
                except StoreError as error:
                    # Its grants are unknown. They are determined when it connects again.
                    client.close(f"store failed: {error}")

    def revoke(self, user: str, topics: Iterable[str]) -> None:
        """Take the right to read these topics from a user's connected sessions."""
        for client in self._online.of(user).values():
            if client.session is not None:
                self._subscriptions.revoke(client.session, topics)

    async def _follow_topic(self, topic: str) -> None:
        """The readers of a table topic changed. All of them but the owner lose it at once; those who still
        have the right get it back."""
        self._subscriptions.rights_changed()
        owner = parse_topic(topic).owner
        sessions = [
            subscriber.session if isinstance(subscriber, Screened) else subscriber
            for subscriber in self._router.exact(topic)
        ]
        readers = [
            client
            for session in sessions
            if session.key.user != owner and (client := self._online.get(session.key)) is not None
        ]
        for client in readers:
            if client.session is not None:
                self._subscriptions.revoke(client.session, [topic])
        await self._follow(readers)

    def forget_permits(self, user: str | None = None, topics: Collection[str] | None = None) -> None:
        """Drop permits: of one user or of all, for some topics or for all. The gate is asked again at the
        next publish."""
        clients = self._online if user is None else self._online.of(user).values()
        for client in clients:
            client.publisher.forget_permits(topics)
