"""Profiles and privacy settings: `users.get` and `users.update`."""

from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from bridge.core.access import Access
from bridge.core.operations import Caller, Id, Name, Operations, Parameters, Url
from bridge.core.turns import Turns
from broker.domain.directory import Audience, Profile
from broker.ports import AccountDirectory, BrokerPort


class GetParameters(Parameters):
    """The users whose profiles are wanted."""

    user_ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=1000)] | None = None
    """Without it, the caller."""


class Privacy(msgspec.Struct):
    """The privacy settings of a user."""

    who_may_message: str
    """Who may send the user private messages: `everyone` or `contacts`."""
    who_may_add_me: str
    """Who may add the user to groups: `everyone`, `contacts` or `nobody`."""
    who_sees_presence: str
    """`everyone`, `contacts` or `nobody`."""
    read_receipts: bool
    """Whether others learn what the user has read."""


class ProfileView(msgspec.Struct, omit_defaults=True):
    """A user's profile."""

    user_id: str
    name: str
    """The name to show."""
    avatar: str
    """A URL."""
    privacy: Privacy | None = None
    """Only in the caller's own profile."""


class GetResult(msgspec.Struct):
    """The profiles."""

    users: list[ProfileView]
    """Without users who do not exist."""


class UpdateParameters(Parameters):
    """The fields to change. A field that is not given stays as it is."""

    name: Name | None = None
    """The name to show."""
    avatar: Url | None = None
    who_may_message: Literal["everyone", "contacts"] | None = None
    """Who may send the caller private messages, and texts with contact and join requests. Others cannot add
    the caller to groups either."""
    who_may_add_me: Audience | None = None
    """Who may add the caller to groups. Whoever asks to join is not affected."""
    who_sees_presence: Audience | None = None
    """Who may see the caller's presence. Others get no `delivered` receipts either, as these
    tell when a device is online."""
    read_receipts: bool | None = None
    """Whether others learn what the caller has read."""


class Users:
    """The handlers."""

    def __init__(self, directory: AccountDirectory, access: Access, broker: BrokerPort) -> None:
        self._directory = directory
        self._access = access
        self._broker = broker
        self._turns: Turns[str] = Turns()

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("users.get", self.get)
        operations.add("users.update", self.update)

    async def get(self, caller: Caller, parameters: GetParameters) -> GetResult:
        """Get the profiles of users."""
        users = list(dict.fromkeys(parameters.user_ids or [caller.user]))
        profiles = await self._directory.profiles(users)
        return GetResult([_view(profiles[user], caller) for user in users if user in profiles])

    async def update(self, caller: Caller, parameters: UpdateParameters) -> ProfileView:
        """Change the caller's profile and privacy settings. All devices of the caller get a `profile`
        event."""
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
        privacy = Privacy(
            who_may_message=profile.who_may_message,
            who_may_add_me=profile.who_may_add_me,
            who_sees_presence=profile.who_sees_presence,
            read_receipts=profile.read_receipts,
        )
    return ProfileView(profile.user_id, profile.name, profile.avatar, privacy)
