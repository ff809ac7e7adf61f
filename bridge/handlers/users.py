"""Profiles and privacy: `users.get` and `users.update`."""

from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from bridge.core.access import Access
from bridge.core.operations import Caller, Id, Name, Operations, Parameters, Url
from bridge.core.turns import Turns
from broker.domain.directory import Audience, Profile
from broker.ports import AccountDirectory, BrokerPort


class GetParameters(Parameters):
    """Whose profiles."""

    user_ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=1000)] | None = None
    """Without it, the caller's own."""


class Privacy(msgspec.Struct):
    """Who may message the user, who sees their presence, and whether others learn what they read."""

    who_may_message: str
    """`everyone` or `contacts`."""
    who_sees_presence: str
    """`everyone`, `contacts` or `nobody`."""
    read_receipts: bool


class ProfileView(msgspec.Struct, omit_defaults=True):
    """What a user says of themselves."""

    user_id: str
    name: str
    avatar: str
    """A URL."""
    privacy: Privacy | None = None
    """The caller's own only."""


class GetResult(msgspec.Struct):
    """The profiles of those users that exist."""

    users: list[ProfileView]


class UpdateParameters(Parameters):
    """What is not given stays."""

    name: Name | None = None
    avatar: Url | None = None
    who_may_message: Literal["everyone", "contacts"] | None = None
    who_sees_presence: Audience | None = None
    read_receipts: bool | None = None
    """Whether others are told what the caller has read."""


class Users:
    """The handlers."""

    def __init__(self, directory: AccountDirectory, access: Access, broker: BrokerPort) -> None:
        self._directory = directory
        self._access = access
        self._broker = broker
        self._turns: Turns[str] = Turns()

    def register(self, operations: Operations) -> None:
        """Offer the methods."""
        operations.add("users.get", self.get)
        operations.add("users.update", self.update)

    async def get(self, caller: Caller, parameters: GetParameters) -> GetResult:
        """What users say of themselves."""
        users = list(dict.fromkeys(parameters.user_ids or [caller.user]))
        profiles = await self._directory.profiles(users)
        return GetResult([_view(profiles[user], caller) for user in users if user in profiles])

    async def update(self, caller: Caller, parameters: UpdateParameters) -> ProfileView:
        """Change the caller's profile and privacy; their other devices are told."""
        async with self._turns.of(caller.user):
            profile = (await self._access.need_users([caller.user]))[caller.user]
            given = {
                name: value
                for name, value in msgspec.structs.asdict(parameters).items()
                if value is not None and value != getattr(profile, name)
            }
            if given:
                profile = replace(profile, **given)
                await self._directory.write_profile(profile)
                event = {"event": "profile", "user_id": caller.user, **given}
                await self._broker.emit([caller.user], event)
        return _view(profile, caller)


def _view(profile: Profile, caller: Caller) -> ProfileView:
    privacy = None
    if caller.is_system or caller.user == profile.user_id:
        privacy = Privacy(profile.who_may_message, profile.who_sees_presence, profile.read_receipts)
    return ProfileView(profile.user_id, profile.name, profile.avatar, privacy)
