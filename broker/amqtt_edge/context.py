"""What plugins see of the broker: amqtt's session and context."""

from collections.abc import Callable, Generator, Mapping
from typing import Any, cast

from amqtt.broker import BrokerContext, RetainedApplicationMessage
from amqtt.contexts import BrokerConfig
from amqtt.session import Session

from broker.ports import Credentials, PluginServices


class PluginSession(Session):
    """amqtt's session as plugins see it, without the state machine and the queues that amqtt
    gives each: the broker's own session has those."""

    counts: Callable[[], tuple[int, int, int]] | None = None
    """(QoS 2 in, window out, queued) of the broker's session."""

    def __init__(self, credentials: Credentials) -> None:
        self.client_id = credentials.client_id
        self.username = credentials.username
        password = credentials.password
        self.password = None if password is None else password.decode(errors="surrogateescape")
        self.remote_address = credentials.remote_address
        self.remote_port = credentials.remote_port
        self.is_anonymous = False
        self.attributes: dict[str, Any] = {}

    def _counts(self) -> tuple[int, int, int]:
        return self.counts() if self.counts is not None else (0, 0, 0)

    @property
    def inflight_in_count(self) -> int:
        return self._counts()[0]

    @property
    def inflight_out_count(self) -> int:
        return self._counts()[1]

    @property
    def retained_messages_count(self) -> int:
        return self._counts()[2]

    def __repr__(self) -> str:
        return f"Session(clientId={self.client_id})"

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class BrokerView:
    """What the context lets plugins do and look at. The composition root fills it in."""

    broadcast: Callable[[str, bytes, int], None]
    retain: Callable[[str, bytes], None]
    sessions: Callable[[], list[Session]]
    retained: Callable[[], Mapping[str, bytes]]
    subscriptions: Callable[[], dict[str, list[tuple[Session, int]]]]


class HostContext(BrokerContext):
    """amqtt's `BrokerContext` over this broker, with `services` for the platform's own plugins."""

    def __init__(self, config: BrokerConfig, view: BrokerView, services: PluginServices) -> None:
        super().__init__(cast("Any", None))
        self.config = config
        self.services = services
        self._view = view

    async def broadcast_message(self, topic: str, data: bytes, qos: int | None = None) -> None:
        """Publish as the server."""
        self._view.broadcast(topic, bytes(data), qos or 0)

    async def retain_message(self, topic_name: str, data: bytes | bytearray, qos: int | None = None) -> None:
        """Publish and retain as the server."""
        self._view.retain(topic_name, bytes(data))

    @property
    def sessions(self) -> Generator[Session]:
        """Sessions that are connected."""
        yield from self._view.sessions()

    def get_session(self, client_id: str) -> Session | None:
        """A connected session by its client id."""
        return next((s for s in self._view.sessions() if s.client_id == client_id), None)

    @property
    def retained_messages(self) -> dict[str, RetainedApplicationMessage]:
        """What plugins retained."""
        return {
            topic: RetainedApplicationMessage(None, topic, data, 0)
            for topic, data in self._view.retained().items()
        }

    @property
    def subscriptions(self) -> dict[str, list[tuple[Session, int]]]:
        """Filter -> subscribed sessions and QoS."""
        return self._view.subscriptions()

    async def add_subscription(self, client_id: str, topic: str | None, qos: int | None) -> None:
        """Not offered: a subscription has an owner with rights here."""
        raise NotImplementedError("subscriptions are made by clients only on this broker")
