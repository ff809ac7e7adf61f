"""Sessions of devices, connected or away: `admin.sessions.list` and `admin.sessions.kick`."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from bridge.core.operations import Caller, Operations, Parameters
from bridge.core.paging import page_of
from bridge.handlers.admin.accounts import UserParameters
from bridge.handlers.admin.away import AwaySessions
from bridge.handlers.admin.existing import PAGE, PageLimit, need_account
from broker.ports import AccountDirectory, BrokerPort, Device, StoredSession


class ListParameters(Parameters):
    """Which sessions, and which page."""

    user_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{0,64}\Z")] = ""
    """Only sessions of this user; empty means all users."""
    state: Literal["", "online", "away"] = ""
    """Only those that are connected, or only those that are away; empty means both."""
    after: str = ""
    """The `next` of the previous page; empty for the first. It holds a client id, so it may be long."""
    limit: PageLimit = 0


class SessionView(msgspec.Struct):
    """A session: of a connected device, or of one that is away and may come back to it."""

    user_id: str
    """Empty for an anonymous client."""
    client_id: str
    address: str
    """The client's `host:port`; empty if it is away."""
    state: str
    """`online` or `away`."""
    since: int
    """Since when it is connected, or away. Unix ms."""
    persistent: bool
    """Whether the session lasts when the connection ends."""
    subscriptions: int
    """How many filters it has subscribed to."""
    qos: int | None
    """The highest QoS of its subscriptions; null without any."""
    backlog: int
    """How many messages wait for it: entries of its logs that it has not got, messages of other topics that
    are queued, and those that were sent and are not acknowledged."""
    node: str = ""
    """The name of the node that it is connected to; empty if it is away, or if there is one node only."""


class ListResult(msgspec.Struct):
    """One page, ordered by user id and client id. It may have fewer than `limit` sessions: only an empty
    `next` says that it is the last."""

    sessions: list[SessionView]
    next: str


class KickResult(msgspec.Struct):
    """How many connections were ended."""

    connections: int


class Connections:
    """The handlers."""

    def __init__(self, directory: AccountDirectory, broker: BrokerPort, away: AwaySessions) -> None:
        self._directory = directory
        self._broker = broker
        self._away = away

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("admin.sessions.list", self.list_sessions)
        operations.add("admin.sessions.kick", self.kick)

    async def list_sessions(self, caller: Caller, parameters: ListParameters) -> ListResult:
        """List the sessions of one user or of all: of devices that are connected, and of those that are
        away."""
        user, after, limit = parameters.user_id, parameters.after, parameters.limit or PAGE
        if user:
            await need_account(self._directory, user)
        found: list[Device | StoredSession] = []
        if parameters.state != "away":
            found += await self._broker.connections(user, after, limit + 1)
        if parameters.state != "online":
            found += await self._away.page(user, after, limit + 1)
        found.sort(key=_sort_key)
        page, following = page_of(found, limit, _sort_key)
        return ListResult(await self._views(page), following)

    async def _views(self, page: Sequence[Device | StoredSession]) -> list[SessionView]:
        """The sessions of a page, each once: one that is connected may be stored, too."""
        stored = [each for each in page if isinstance(each, StoredSession)]
        connected = await self._broker.devices(list({each.key.user for each in stored}))
        away = [each for each in stored if each.key.client_id not in connected.get(each.key.user, ())]
        views = [_online(each) for each in page if isinstance(each, Device)]
        backlogs = await self._away.backlogs(away)
        views += [_away(each, backlog) for each, backlog in zip(away, backlogs, strict=True)]
        return sorted(views, key=lambda view: f"{view.user_id} {view.client_id}")

    async def kick(self, caller: Caller, parameters: UserParameters) -> KickResult:
        """End all connections of a user. They may connect again; to prevent that, disable the user."""
        await need_account(self._directory, parameters.user_id)
        return KickResult(await self._broker.kick(parameters.user_id))


def _sort_key(session: Device | StoredSession) -> str:
    """See `Device.sort_key`."""
    if isinstance(session, Device):
        return session.sort_key
    return f"{session.key.user} {session.key.client_id}"


def _online(device: Device) -> SessionView:
    return SessionView(
        device.user,
        device.client_id,
        device.address,
        "online",
        device.since,
        device.persistent,
        device.subscriptions,
        device.qos,
        device.backlog,
        device.node,
    )


def _away(session: StoredSession, backlog: int) -> SessionView:
    filters = session.filters.values()
    return SessionView(
        session.key.user,
        session.key.client_id,
        "",
        "away",
        session.saved_at,
        True,
        len(filters),
        max((subscription.qos for subscription in filters), default=None),
        backlog,
    )
