"""The edge to amqtt: its configuration, its plugins, its events. Nothing else in the broker
imports amqtt.

The plugins see what they would see in amqtt's own broker: a `BrokerContext`, `Session` objects,
packets and events. What they decide is asked through `Gate`, what they are told goes through
`PluginEvents`.
"""

import asyncio
import logging
import types
import warnings
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from amqtt.adapters import BufferReader
from amqtt.broker import BrokerContext, RetainedApplicationMessage
from amqtt.contexts import Action, BrokerConfig, ListenerConfig
from amqtt.errors import AMQTTError, PluginError, PluginLoadError
from amqtt.events import BrokerEvents, Events, MQTTEvents
from amqtt.mqtt import packet_class
from amqtt.mqtt.packet import MQTTFixedHeader
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin
from amqtt.plugins.manager import PluginManager
from amqtt.session import IncomingApplicationMessage, Session
from amqtt.utils import import_string
from dacite import Config as DaciteConfig
from dacite import DaciteError, from_dict

from broker.config import Config, ConfigError
from broker.domain.errors import ReasonCode, Refusal, StoreError
from broker.domain.topics import Topic
from broker.net.listeners import Listener
from broker.ports import (
    IDENTITY_ATTRIBUTE,
    Credentials,
    Grant,
    Identity,
    PluginServices,
    Principal,
    Retained,
    TopicRules,
)
from broker.wire.packets import Publish

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PLUGIN_SECONDS = 8.0
"""A plugin that takes longer than this to decide has said no. Less than `connect_timeout`."""

_STOP_SECONDS = 2.0

_DEFAULT_PORTS = {"tcp": 1883, "ws": 8083}


# --- configuration -----------------------------------------------------------------------


def read_listeners(config: Config) -> list[Listener]:
    """The listeners of the configuration, as amqtt reads them.

    Raises:
        ConfigError: amqtt refuses the section, or a listener needs what is not there yet.
    """
    listeners = []
    for name, listener in _broker_config(config).listeners.items():
        kind = str(listener.type.value)
        if listener.ssl:
            raise ConfigError(f"listeners.{name}.ssl: TLS is not supported yet; put a TLS proxy in front")
        host, port = _address(name, listener, _DEFAULT_PORTS[kind])
        listeners.append(Listener(name, kind, host, port, max(0, listener.max_connections)))
    return listeners


def _broker_config(config: Config) -> BrokerConfig:
    known = set(ListenerConfig.__dataclass_fields__)
    for name, section in config.listeners.items():
        if not isinstance(section, dict):
            raise ConfigError(f"listeners.{name}: expected keys, found {section!r}")
        for key in section:
            if key.replace("-", "_") not in known:
                raise ConfigError(f"listeners.{name}.{key}: unknown key")
        kind = section.get("type", "tcp")
        if kind not in _DEFAULT_PORTS:
            raise ConfigError(f"listeners.{name}.type: expected tcp or ws, found {kind!r}")
    if "default" not in config.listeners:
        raise ConfigError("listeners.default: missing")
    values = {"listeners": config.listeners, "plugins": config.plugins}
    try:
        return BrokerConfig.from_dict(values)
    except (DaciteError, ValueError, FileNotFoundError) as error:
        raise ConfigError(f"listeners: {error}") from error


def _address(name: str, listener: ListenerConfig, default_port: int) -> tuple[str, int]:
    host, _, port = str(listener.bind or "").rpartition(":")
    if not host and not port.isdigit():
        return port.strip("[]"), default_port
    if not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"listeners.{name}.bind: expected host:port, found {listener.bind!r}")
    return host.strip("[]"), int(port)


# --- what plugins see --------------------------------------------------------------------


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


# --- the host ----------------------------------------------------------------------------


class AmqttHost:
    """All plugins together: `ports.Gate` and `ports.PluginEvents`.

    Raises:
        ConfigError: a plugin cannot be found, refuses its options, or fails to start.
    """

    def __init__(self, config: Config, view: BrokerView, services: PluginServices) -> None:
        self._manager = _load(HostContext(_broker_config(config), view, services), config.plugins)
        plugins = self._manager.plugins
        self._authenticators = [p for p in plugins if isinstance(p, BaseAuthPlugin)]
        topic_plugins = [p for p in plugins if isinstance(p, BaseTopicPlugin)]
        self._rules = [cast("TopicRules", p.rules) for p in topic_plugins if hasattr(p, "rules")]
        self._filters = [p for p in topic_plugins if not hasattr(p, "rules")]
        self._wanted = {
            event
            for event in (*BrokerEvents, *MQTTEvents)
            if any(hasattr(plugin, f"on_{event}") for plugin in plugins)
        }
        self.packets = bool(self._wanted & set(MQTTEvents))
        self.messages = bool(self._wanted & {BrokerEvents.MESSAGE_RECEIVED, BrokerEvents.MESSAGE_BROADCAST})
        self._tasks: set[asyncio.Future[None]] = set()

    def plugin(self, kind: type[Any]) -> Any | None:
        """The loaded plugin of a class, if there is one."""
        return next((p for p in self._manager.plugins if isinstance(p, kind)), None)

    @property
    def screens(self) -> bool:
        """Whether plugins other than the platform's decide about topics."""
        return bool(self._filters)

    # --- Gate ------------------------------------------------------------------------

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        """See `ports.Gate`. As in amqtt: nobody may say no, and somebody must say yes."""
        session = PluginSession(credentials)
        answers = [
            await self._decide(plugin, plugin.authenticate(session=session), unavailable=StoreError)
            for plugin in self._authenticators
        ]
        said = [answer for answer in answers if answer is not None]
        if not said or not all(said):
            return None
        identity = session.attributes.get(IDENTITY_ATTRIBUTE) or Identity(session.username or "")
        return Principal(identity, session)

    async def may_publish(self, principal: Principal, topic: Topic) -> Refusal | None:
        """See `ports.Gate`."""
        refusal = await self.rules_refuse(principal.identity, topic)
        if refusal is not None:
            return refusal
        if await self._allowed(principal, topic.name, Action.PUBLISH):
            return None
        return Refusal("not_authorized", ReasonCode.NOT_AUTHORIZED, f"not allowed to publish to {topic.name}")

    async def rules_refuse(self, identity: Identity, topic: Topic) -> Refusal | None:
        """What the platform's own rules have against a user publishing to a topic."""
        try:
            for rules in self._rules:
                refusal = await _in_time(rules.may_publish(identity, topic))
                if refusal is not None:
                    return refusal
        except Exception as error:
            logger.error("topic rules failed, refusing: %r", error)
            return Refusal("unavailable", ReasonCode.NOT_AUTHORIZED, "the directory does not answer")
        return None

    async def grant(self, principal: Principal, topic_filter: str) -> Grant | None:
        """See `ports.Gate`."""
        grant: Grant | None = Grant({}, open=True, everything=True)
        try:
            for rules in self._rules:
                grant = await _in_time(rules.grant(principal.identity, topic_filter))
                if grant is None:
                    return None
        except Exception as error:
            raise StoreError(f"topic rules failed: {error!r}") from error
        if grant is None or not await self._allowed(principal, topic_filter, Action.SUBSCRIBE):
            return None
        if self._filters:
            topics = {t: n for t, n in grant.topics.items() if await self.may_receive(principal, t)}
            grant = Grant(topics, grant.open, grant.everything)
        return grant

    async def may_receive(self, principal: Principal, topic: str) -> bool:
        """Whether plugins other than the platform's let a client have messages of a topic."""
        return await self._allowed(principal, topic, Action.RECEIVE)

    async def _allowed(self, principal: Principal, topic: str, action: Action) -> bool:
        session = cast("Session", principal.plugin_session)
        for plugin in self._filters:
            asked = plugin.topic_filtering(session=session, topic=topic, action=action)
            if not await self._decide(plugin, asked):
                return False
        return True

    async def _decide(
        self,
        plugin: BasePlugin[Any],
        asked: Coroutine[Any, Any, bool | None],
        unavailable: type[StoreError] | tuple[()] = (),
    ) -> bool | None:
        try:
            return await _in_time(asked)
        except unavailable:
            raise  # not a "no" for good: the client is told to come back
        except Exception as error:
            logger.error("plugin %s failed, refusing: %r", type(plugin).__name__, error)
            return False

    # --- PluginEvents ----------------------------------------------------------------

    def connected(self, principal: Principal) -> None:
        session = cast("PluginSession", principal.plugin_session)
        self._fire(BrokerEvents.CLIENT_CONNECTED, client_id=session.client_id, client_session=session)

    def disconnected(self, principal: Principal) -> None:
        session = cast("PluginSession", principal.plugin_session)
        self._fire(BrokerEvents.CLIENT_DISCONNECTED, client_id=session.client_id, client_session=session)

    def subscribed(self, filters: Sequence[tuple[str, int]], principal: Principal) -> None:
        session = cast("PluginSession", principal.plugin_session)
        for topic, qos in filters:
            self._fire(BrokerEvents.CLIENT_SUBSCRIBED, client_id=session.client_id, topic=topic, qos=qos)

    def unsubscribed(self, filters: Sequence[str], principal: Principal) -> None:
        session = cast("PluginSession", principal.plugin_session)
        for topic in filters:
            self._fire(BrokerEvents.CLIENT_UNSUBSCRIBED, client_id=session.client_id, topic=topic)

    def message_received(self, publish: Publish, principal: Principal) -> None:
        self._fire_message(BrokerEvents.MESSAGE_RECEIVED, publish, principal)

    def message_accepted(self, publish: Publish, principal: Principal) -> None:
        self._fire_message(BrokerEvents.MESSAGE_BROADCAST, publish, principal)

    def _fire_message(self, event: BrokerEvents, publish: Publish, principal: Principal) -> None:
        session = cast("PluginSession", principal.plugin_session)
        message = IncomingApplicationMessage(
            publish.packet_id or None, publish.topic, publish.qos, publish.payload, publish.retain
        )
        self._fire(event, client_id=session.client_id, message=message)

    def retained(self, message: Retained) -> None:
        """A message was retained, or an empty one took it away."""
        retained = RetainedApplicationMessage(None, message.topic, message.payload, message.qos)
        self._fire(BrokerEvents.RETAINED_MESSAGE, client_id=None, retained_message=retained)

    def packet_received(self, packet: bytes, principal: Principal | None) -> None:
        self._spawn(self._fire_packets(MQTTEvents.PACKET_RECEIVED, packet, principal))

    def packets_sent(self, packets: bytes, principal: Principal | None) -> None:
        self._spawn(self._fire_packets(MQTTEvents.PACKET_SENT, packets, principal))

    async def _fire_packets(self, event: MQTTEvents, data: bytes, principal: Principal | None) -> None:
        """Have amqtt decode the packets, so that plugins see the objects they know."""
        session = None if principal is None else principal.plugin_session
        reader = BufferReader(data)
        try:
            while (header := await MQTTFixedHeader.from_stream(reader)) is not None:
                packet = await packet_class(header).from_stream(reader, fixed_header=header)
                await self._manager.fire_event(event, packet=packet, session=session)
        except AMQTTError as error:
            logger.debug("amqtt cannot read a packet for its plugins: %s", error)

    def _fire(self, event: Events, **values: Any) -> None:
        if event in self._wanted:
            self._spawn(self._manager.fire_event(event, **values))

    def _spawn(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- life ------------------------------------------------------------------------

    async def starting(self) -> None:
        """Before the ports are opened."""
        await self._manager.fire_event(BrokerEvents.PRE_START, wait=True)

    async def started(self) -> None:
        """After the ports are open."""
        await self._manager.fire_event(BrokerEvents.POST_START, wait=True)

    async def stop(self) -> None:
        """The node goes down; plugins that do not let it are left behind."""
        for step in (
            self._manager.fire_event(BrokerEvents.PRE_SHUTDOWN, wait=True),
            self._manager.fire_event(BrokerEvents.POST_SHUTDOWN, wait=True),
            self._manager.close(),
        ):
            try:
                await asyncio.wait_for(step, _STOP_SECONDS)
            except Exception as error:
                logger.error("a plugin failed at shutdown: %r", error)


async def _in_time(asked: Coroutine[Any, Any, T]) -> T:
    """The answer, or TimeoutError. Most answers are known at once: a timer is made for the rest."""
    try:
        waiting = asked.send(None)
    except StopIteration as answer:
        return cast("T", answer.value)
    async with asyncio.timeout(_PLUGIN_SECONDS):
        return await _rest(asked, waiting)


@types.coroutine
def _rest(started: Coroutine[Any, Any, T], waiting: object) -> Generator[object, Any, T]:
    """Go on with a coroutine that has been started and waits for `waiting` (PEP 342)."""
    while True:
        try:
            sent = yield waiting
        except BaseException as error:
            step = partial(started.throw, error)
        else:
            step = partial(started.send, sent)
        try:
            waiting = step()
        except StopIteration as answer:
            return cast("T", answer.value)


def _load(context: HostContext, plugins: Mapping[str, Any]) -> PluginManager[BrokerContext]:
    for name, options in plugins.items():
        _check_options(name, options)
    try:
        with warnings.catch_warnings():
            # Deprecations of amqtt's own are not the operator's to mend.
            warnings.simplefilter("ignore", DeprecationWarning)
            return PluginManager("amqtt.broker.plugins", context)
    except (PluginError, PluginLoadError) as error:
        cause = error.__cause__
        raise ConfigError(f"plugins: {error}{f': {cause}' if cause is not None else ''}") from error


def _check_options(name: str, options: object) -> None:
    """Find what amqtt would refuse, and say where it stands."""
    try:
        plugin = import_string(name)
    except ImportError as error:
        raise ConfigError(f"plugins.{name}: {error}") from error
    if not (isinstance(plugin, type) and issubclass(plugin, BasePlugin)):
        raise ConfigError(f"plugins.{name}: not an amqtt plugin")
    declared: Any = plugin.Config  # type: ignore[attr-defined]  # of BasePlugin, which is Any to mypy
    if not isinstance(options, dict):
        raise ConfigError(f"plugins.{name}: expected options, found {options!r}")
    for key in options:
        if key not in declared.__dataclass_fields__:
            raise ConfigError(f"plugins.{name}.{key}: unknown key")
    try:
        from_dict(declared, options, DaciteConfig(strict=True))
    except DaciteError as error:
        raise ConfigError(f"plugins.{name}: {error}") from error
