"""Connected devices: `admin.sessions.list` and `admin.sessions.kick`."""

from typing import Annotated

import msgspec

from bridge.core.operations import Caller, Operations, Parameters
from bridge.core.paging import page_of
from bridge.handlers.admin.accounts import UserParameters
from bridge.handlers.admin.existing import PAGE, PageLimit, need_account
from broker.ports import AccountDirectory, BrokerPort


class ListParameters(Parameters):
    """Which devices, and which page."""

    user_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{0,64}\Z")] = ""
    """Only devices of this user; empty means all users."""
    after: str = ""
    """The `next` of the previous page; empty for the first. It holds a client id, so it may be long."""
    limit: PageLimit = 0


class SessionView(msgspec.Struct):
    """A connected device."""

    user_id: str
    """Empty for an anonymous client."""
    client_id: str
    address: str
    """The client's `host:port`."""


class ListResult(msgspec.Struct):
    """One page, ordered by user id and client id. `next` is empty on the last page."""

    sessions: list[SessionView]
    next: str


class KickResult(msgspec.Struct):
    """How many connections were ended."""

    connections: int


class Connections:
    """The handlers."""

    def __init__(self, directory: AccountDirectory, broker: BrokerPort) -> None:
        self._directory = directory
        self._broker = broker

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("admin.sessions.list", self.list_sessions)
        operations.add("admin.sessions.kick", self.kick)

    async def list_sessions(self, caller: Caller, parameters: ListParameters) -> ListResult:
        """List the connected devices of one user or of all."""
        user, after, limit = parameters.user_id, parameters.after, parameters.limit or PAGE
        if user:
            await need_account(self._directory, user)
        found = await self._broker.connections(user, after, limit + 1)
        page, following = page_of(found, limit, lambda device: device.sort_key)
        views = [SessionView(device.user, device.client_id, device.address) for device in page]
        return ListResult(views, following)

    async def kick(self, caller: Caller, parameters: UserParameters) -> KickResult:
        """End all connections of a user. They may connect again; to prevent that, disable the user."""
        await need_account(self._directory, parameters.user_id)
        return KickResult(await self._broker.kick(parameters.user_id))
