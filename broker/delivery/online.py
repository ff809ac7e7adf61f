"""The table of connected clients, shared by delivery, publishing and the registry."""

from collections.abc import Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from broker.ports import SessionKey
from broker.session.session import Session


class HasSession(Protocol):
    """A connection; `session` is None before CONNECT and after the end."""

    @property
    def session(self) -> Session | None: ...


C = TypeVar("C", bound=HasSession)


class Online(Generic[C]):
    """Connections by session and by user. Anonymous connections belong to no user."""

    def __init__(self) -> None:
        self._clients: dict[SessionKey, C] = {}
        self._users: dict[str, dict[SessionKey, C]] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __contains__(self, key: SessionKey) -> bool:
        return key in self._clients

    def __iter__(self) -> Iterator[C]:
        """A copy of all connections, so that they may end while a caller goes through them."""
        return iter(tuple(self._clients.values()))

    def items(self) -> list[tuple[SessionKey, C]]:
        """A copy of all connections with their keys."""
        return list(self._clients.items())

    @property
    def users(self) -> int:
        """The number of users with a device on this node."""
        return len(self._users)

    def get(self, key: SessionKey) -> C | None:
        """The connection of a session."""
        return self._clients.get(key)

    def of(self, user: str) -> Mapping[SessionKey, C]:
        """The devices of a user."""
        return self._users.get(user, {})

    def holder(self, session: Session) -> C | None:
        """The connection that serves this very session, and not a later session of the same key."""
        client = self._clients.get(session.key)
        return client if client is not None and client.session is session else None

    def add(self, key: SessionKey, client: C) -> None:
        """Record that a connection serves a session."""
        self._clients[key] = client

    def add_device(self, key: SessionKey, client: C) -> int:
        """Count a connection as a device of its user. Returns the user's number of devices."""
        devices = self._users.setdefault(key.user, {})
        devices[key] = client
        return len(devices)

    def remove(self, key: SessionKey) -> int | None:
        """Remove a session's connection. Returns the user's remaining number of devices, or None if the
        connection did not count as one."""
        del self._clients[key]
        devices = self._users.get(key.user)
        if devices is None or devices.pop(key, None) is None:
            return None
        if not devices:
            del self._users[key.user]
        return len(devices)
