"""What plugins see of the broker: amqtt's context and its sessions."""

from collections import defaultdict
from collections.abc import Generator, Mapping
from typing import Any, cast

from amqtt.broker import BrokerContext, RetainedApplicationMessage
from amqtt.contexts import BrokerConfig
from amqtt.session import Session

from broker.delivery.fanout import Fanout
from broker.delivery.online import Online
from broker.domain.publication import Publication
from broker.ports import Credentials, PluginServices
from broker.registry import Client
from broker.status.sys import SysTopics


class PluginSession(Session):
    """amqtt's session as plugins see it. It has no state machine and no queues, because the broker's own
    session has them. So it costs little, and plugins see the queues as empty."""

    def __init__(self, credentials: Credentials) -> None:
        self.client_id = credentials.client_id
        self.username = credentials.username
        password = credentials.password
        self.password = None if password is None else password.decode(errors="surrogateescape")
        self.remote_address = credentials.remote_address
        self.remote_port = credentials.remote_port
        self.is_anonymous = False
        self.attributes: dict[str, Any] = {}

    @property
    def inflight_in_count(self) -> int:
        return 0

    @property
    def inflight_out_count(self) -> int:
        return 0

    @property
    def retained_messages_count(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"Session(clientId={self.client_id})"

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


class BrokerView:
    """What plugins may read of the broker, and what they may publish."""

    def __init__(self, fanout: Fanout, sys: SysTopics, online: Online[Client]) -> None:
        self.broadcast = fanout.broadcast
        self._fanout = fanout
        self._sys = sys
        self._online = online

    def retain(self, topic: str, payload: bytes) -> None:
        """Publish and retain a message. Topics that begin with `$` are kept in memory only."""
        if topic.startswith("$"):
            self._sys.retain(topic, payload)
        else:
            self._fanout.retain(Publication(topic, payload))

    def retained(self) -> Mapping[str, bytes]:
        """The retained `$SYS` topics and their payloads."""
        return self._sys.values

    def sessions(self) -> list[PluginSession]:
        """The sessions of the clients that are connected."""
        return [plugin_session(client) for client in self._online]

    def subscriptions(self) -> dict[str, list[tuple[PluginSession, int]]]:
        """For each topic filter the connected sessions that subscribe to it, with their QoS."""
        found: dict[str, list[tuple[PluginSession, int]]] = defaultdict(list)
        for client in self._online:
            if client.session is not None:
                for each in client.session.filters.values():
                    found[each.topic_filter].append((plugin_session(client), each.qos))
        return dict(found)


def plugin_session(client: Client) -> PluginSession:
    """The session that plugins see for a client."""
    return cast("PluginSession", client.publisher.principal.plugin_session)


class HostContext(BrokerContext):
    """amqtt's `BrokerContext` for this broker. The platform's own plugins also find `services` here."""

    def __init__(self, config: BrokerConfig, view: BrokerView, services: PluginServices) -> None:
        super().__init__(cast("Any", None))
        self.config = config
        self.services = services
        self._view = view

    async def broadcast_message(self, topic: str, data: bytes, qos: int | None = None) -> None:
        """Publish a message as the server."""
        self._view.broadcast(topic, bytes(data), qos or 0)

    async def retain_message(self, topic_name: str, data: bytes | bytearray, qos: int | None = None) -> None:
        """Publish and retain a message as the server."""
        self._view.retain(topic_name, bytes(data))

    @property
    def sessions(self) -> Generator[Session]:
        """The sessions that are connected."""
        yield from self._view.sessions()

    def get_session(self, client_id: str) -> Session | None:
        """The first connected session with a client id, or None. Users may use the same client ids."""
        return next((s for s in self._view.sessions() if s.client_id == client_id), None)

    @property
    def retained_messages(self) -> dict[str, RetainedApplicationMessage]:
        """The retained messages of `$SYS` topics. All others are in the store, which is read by awaiting."""
        return {
            topic: RetainedApplicationMessage(None, topic, data, 0)
            for topic, data in self._view.retained().items()
        }

    @property
    def subscriptions(self) -> dict[str, list[tuple[Session, int]]]:
        """For each topic filter the connected sessions that subscribe to it, with their QoS."""
        return self._view.subscriptions()

    async def add_subscription(self, client_id: str, topic: str | None, qos: int | None) -> None:
        """Not supported: every subscription here belongs to a client, whose rights are checked."""
        raise NotImplementedError("subscriptions are made by clients only on this broker")
