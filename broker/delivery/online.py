"""Who is connected: the table that delivery, publishing and the registry look into."""

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
    """Connections by session, and by user. Anonymous ones are no user's."""

    def __init__(self) -> None:
        self._clients: dict[SessionKey, C] = {}
        self._users: dict[str, dict[SessionKey, C]] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __contains__(self, key: SessionKey) -> bool:
        return key in self._clients

    def __iter__(self) -> Iterator[C]:
        """All, as they are now."""
        return iter(tuple(self._clients.values()))

    def items(self) -> list[tuple[SessionKey, C]]:
        """All with their keys, as they are now."""
        return list(self._clients.items())

    @property
    def users(self) -> int:
        """How many users have a device here."""
        return len(self._users)

    def get(self, key: SessionKey) -> C | None:
        """The connection of a session."""
        return self._clients.get(key)

    def of(self, user: str) -> Mapping[SessionKey, C]:
        """The devices of a user."""
        return self._users.get(user, {})

    def holder(self, session: Session) -> C | None:
        """The connection that serves just this session; an earlier one of its key may have gone."""
        client = self._clients.get(session.key)
        return client if client is not None and client.session is session else None

    def add(self, key: SessionKey, client: C) -> None:
        """A session is served by a connection from now on."""
        self._clients[key] = client

    def add_device(self, key: SessionKey, client: C) -> int:
        """It counts as a device of its user from now on; returns how many there are."""
        devices = self._users.setdefault(key.user, {})
        devices[key] = client
        return len(devices)

    def remove(self, key: SessionKey) -> int | None:
        """A session is not served any more. Returns how many devices its user has left, or None if
        it did not count as one."""
        del self._clients[key]
        devices = self._users.get(key.user)
        if devices is None or devices.pop(key, None) is None:
            return None
        if not devices:
            del self._users[key.user]
        return len(devices)
