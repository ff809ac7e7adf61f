"""The rights of connected sessions to read, as decided by the gate for their clients."""

from typing import Any, Protocol

from broker.delivery.online import HasSession, Online
from broker.ports import Gate, Grant, Principal
from broker.session.session import Session


class HasPublisher(Protocol):
    """A publisher, as far as its principal."""

    @property
    def principal(self) -> Principal: ...


class Authenticated(HasSession, Protocol):
    """A connection whose client is authenticated."""

    @property
    def publisher(self) -> HasPublisher: ...


class Readers:
    """Asks the gate about sessions. A session whose connection has ended may read nothing."""

    def __init__(self, online: Online[Any], gate: Gate) -> None:
        self._online: Online[Authenticated] = online
        self._gate = gate

    async def grant(self, session: Session, topic_filter: str) -> Grant | None:
        """See `Gate.grant`."""
        client = self._online.holder(session)
        return None if client is None else await self._gate.grant(client.publisher.principal, topic_filter)

    async def may_receive(self, session: Session, topic: str) -> bool:
        """See `Gate.may_receive`."""
        client = self._online.holder(session)
        return client is not None and await self._gate.may_receive(client.publisher.principal, topic)
