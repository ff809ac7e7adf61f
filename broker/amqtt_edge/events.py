"""Tells the plugins what happens: amqtt's events, with amqtt's objects.

Nobody waits for a plugin here. An event is fired only if a loaded plugin has a method for it; for packets and
messages the caller asks `packets` and `messages` first, so as not to prepare what nobody wants.
"""

import logging
from collections.abc import Sequence
from typing import Any, cast

from amqtt.adapters import BufferReader
from amqtt.broker import BrokerContext, RetainedApplicationMessage
from amqtt.errors import AMQTTError
from amqtt.events import BrokerEvents, Events, MQTTEvents
from amqtt.mqtt import packet_class
from amqtt.mqtt.packet import MQTTFixedHeader
from amqtt.plugins.manager import PluginManager
from amqtt.session import IncomingApplicationMessage

from broker.amqtt_edge.context import PluginSession
from broker.domain.publication import Publication
from broker.domain.subscription import Subscription
from broker.ports import Principal, Retained
from broker.tasks import Tasks

logger = logging.getLogger(__name__)


class AmqttEvents:
    """See `ports.PluginEvents`. Each call starts a task for the event and returns at once."""

    def __init__(self, manager: PluginManager[BrokerContext]) -> None:
        self._manager = manager
        self._wanted = {
            event
            for event in (*BrokerEvents, *MQTTEvents)
            if any(hasattr(plugin, f"on_{event}") for plugin in manager.plugins)
        }
        self.packets = bool(self._wanted & set(MQTTEvents))
        self.messages = bool(self._wanted & {BrokerEvents.MESSAGE_RECEIVED, BrokerEvents.MESSAGE_BROADCAST})
        # The event loop keeps weak references only: a task that nobody holds may vanish before it is done.
        self._tasks = Tasks()

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
        """A message was retained. An empty payload: the retained message of the topic was deleted."""
        retained = RetainedApplicationMessage(None, message.topic, message.payload, message.qos)
        self._fire(BrokerEvents.RETAINED_MESSAGE, client_id=None, retained_message=retained)

    def packet_received(self, packet: bytes, principal: Principal | None) -> None:
        self._tasks.spawn(self._fire_packets(MQTTEvents.PACKET_RECEIVED, packet, principal))

    def packets_sent(self, packets: bytes, principal: Principal | None) -> None:
        self._tasks.spawn(self._fire_packets(MQTTEvents.PACKET_SENT, packets, principal))

    async def _fire_packets(self, event: MQTTEvents, data: bytes, principal: Principal | None) -> None:
        """Decode packets with amqtt's own decoder, so that plugins get the packet objects they know."""
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
            self._tasks.spawn(self._manager.fire_event(event, **values))
