"""The edge to amqtt: its configuration, its plugins, its events. Nothing else in the broker
imports amqtt.

The plugins see what they would see in amqtt's own broker: a `BrokerContext`, `Session` objects,
packets and events. What they decide is asked through `Gate`, what they are told goes through
`PluginEvents`.
"""

import asyncio
import logging
import types
from collections.abc import Coroutine, Generator, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from amqtt.adapters import BufferReader
from amqtt.broker import RetainedApplicationMessage
from amqtt.contexts import Action
from amqtt.errors import AMQTTError
from amqtt.events import BrokerEvents, Events, MQTTEvents
from amqtt.mqtt import packet_class
from amqtt.mqtt.packet import MQTTFixedHeader
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin
from amqtt.session import IncomingApplicationMessage, Session

from broker.amqtt_edge.context import BrokerView, HostContext, PluginSession
from broker.amqtt_edge.listeners import broker_config
from broker.amqtt_edge.loading import load_plugins
from broker.config import Config
from broker.domain.errors import ReasonCode, Refusal, StoreError
from broker.domain.publication import Publication
from broker.domain.subscription import Subscription
from broker.domain.topics import Topic
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

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PLUGIN_SECONDS = 8.0
"""A plugin that takes longer than this to decide has said no. Less than `connect_timeout`."""

_STOP_SECONDS = 2.0


class AmqttHost:
    """All plugins together: `ports.Gate` and `ports.PluginEvents`.

    Raises:
        ConfigError: a plugin cannot be found, refuses its options, or fails to start.
    """

    def __init__(self, config: Config, view: BrokerView, services: PluginServices) -> None:
        self._manager = load_plugins(HostContext(broker_config(config), view, services), config.plugins)
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
        refusal = await self.user_may_publish(principal.identity, topic)
        if refusal is not None:
            return refusal
        if await self._allowed(principal, topic.name, Action.PUBLISH):
            return None
        return Refusal("not_authorized", ReasonCode.NOT_AUTHORIZED, f"not allowed to publish to {topic.name}")

    async def user_may_publish(self, identity: Identity, topic: Topic) -> Refusal | None:
        """See `ports.Gate`."""
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
        """See `ports.Gate`."""
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

    def subscribed(self, subscriptions: Sequence[Subscription], principal: Principal) -> None:
        client_id = cast("PluginSession", principal.plugin_session).client_id
        for each in subscriptions:
            topic, qos = each.topic_filter, each.qos
            self._fire(BrokerEvents.CLIENT_SUBSCRIBED, client_id=client_id, topic=topic, qos=qos)

    def unsubscribed(self, filters: Sequence[str], principal: Principal) -> None:
        session = cast("PluginSession", principal.plugin_session)
        for topic in filters:
            self._fire(BrokerEvents.CLIENT_UNSUBSCRIBED, client_id=session.client_id, topic=topic)

    def message_received(self, publication: Publication, packet_id: int, principal: Principal) -> None:
        self._fire_message(BrokerEvents.MESSAGE_RECEIVED, publication, packet_id, principal)

    def message_accepted(self, publication: Publication, packet_id: int, principal: Principal) -> None:
        self._fire_message(BrokerEvents.MESSAGE_BROADCAST, publication, packet_id, principal)

    def _fire_message(
        self, event: BrokerEvents, publication: Publication, packet_id: int, principal: Principal
    ) -> None:
        session = cast("PluginSession", principal.plugin_session)
        message = IncomingApplicationMessage(
            packet_id or None, publication.topic, publication.qos, publication.payload, publication.retain
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
