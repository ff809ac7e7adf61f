"""Presence: `presence.get`, and the events that tell contacts of changes."""

import logging
from collections.abc import Sequence
from typing import Annotated

import msgspec

from bridge.core.operations import Caller, Id, Operations, Parameters
from broker.domain import permissions
from broker.domain.errors import RefusedError, StoreError
from broker.domain.permissions import UserOperation
from broker.domain.presence import PresenceDocument
from broker.domain.topics import presence_topic
from broker.ports import BrokerPort, Directory, PresenceChange, SaveChanges, StateStore, all_contacts

logger = logging.getLogger(__name__)

_SEE = UserOperation.SEE_PRESENCE


class GetParameters(Parameters):
    """The users whose presence is wanted."""

    user_ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=1000)]


class GetResult(msgspec.Struct):
    """The presences."""

    presences: list[PresenceDocument]
    """Without users who do not exist or do not let the caller see their presence."""


class Presences:
    """The handler, and the events for contacts."""

    def __init__(
        self, directory: Directory, states: StateStore, save: SaveChanges, broker: BrokerPort
    ) -> None:
        self._directory = directory
        self._states = states
        self._save = save
        self._broker = broker

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("presence.get", self.get)

    async def get(self, caller: Caller, parameters: GetParameters) -> GetResult:
        """Get the presence of users: their status, when they were last seen, and how many devices are
        connected."""
        users = list(dict.fromkeys(parameters.user_ids))
        profiles = await self._directory.profiles(users)
        users = [user for user in users if user in profiles]
        if not caller.is_system:
            contacts = await self._directory.contacts_between(permissions.both_ways(caller.user, users))
            users = [user for user in users if permissions.lets(profiles[user], caller.user, _SEE, contacts)]
        await self._save(())  # a presence is pushed before it is stored; who has seen it may ask for it
        retained = await self._states.retained_on([presence_topic(user) for user in users])
        presences = []
        for user in users:
            kept = retained.get(presence_topic(user))
            known = None if kept is None else msgspec.json.decode(kept.payload, type=PresenceDocument)
            presences.append(known or PresenceDocument(user, "offline", 0, 0))
        return GetResult(presences)

    async def changed(self, batch: Sequence[PresenceChange]) -> None:
        """Presences of users changed: send an event to those of their contacts that are online."""
        try:
            for user, document in {each.user: each.document for each in batch}.items():
                await self._tell(user, document)
        except (StoreError, RefusedError) as error:
            logger.error("%d presence changes were not sent to contacts: %s", len(batch), error)

    async def _tell(self, user: str, document: bytes) -> None:
        event = {"event": "presence"} | msgspec.json.decode(document)
        contacts = [
            contact.peer_id
            async for contact in all_contacts(self._directory, user)
            if contact.state == "contact"
        ]
        peers = list(await self._broker.devices(contacts)) if contacts else []
        if seeing := await self._seeing(user, peers):
            await self._broker.emit(seeing, event, keep=False)

    async def _seeing(self, user: str, peers: Sequence[str]) -> list[str]:
        if not peers:
            return []
        profile = (await self._directory.profiles([user])).get(user)
        if profile is None:
            return []
        contacts = await self._directory.contacts_between(permissions.both_ways(user, peers))
        return [peer for peer in peers if permissions.lets(profile, peer, _SEE, contacts)]
