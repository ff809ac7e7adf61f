"""The edge to amqtt: its configuration, its plugins, its events. Nothing else in the broker
imports amqtt.

The plugins see what they would see in amqtt's own broker: a `BrokerContext`, `Session` objects,
packets and events. What they decide is asked through `Gate`, what they are told goes through
`PluginEvents`.
"""

import asyncio
import logging
from typing import Any

from amqtt.events import BrokerEvents

from broker.amqtt_edge.context import BrokerView, HostContext
from broker.amqtt_edge.events import AmqttEvents
from broker.amqtt_edge.gate import AmqttGate
from broker.amqtt_edge.listeners import broker_config
from broker.amqtt_edge.loading import load_plugins
from broker.config import Config
from broker.ports import PluginServices

logger = logging.getLogger(__name__)

_STOP_SECONDS = 2.0


class AmqttHost:
    """All plugins together: what they decide (`gate`), what they are told (`events`), their life.

    Raises:
        ConfigError: a plugin cannot be found, refuses its options, or fails to start.
    """

    def __init__(self, config: Config, view: BrokerView, services: PluginServices) -> None:
        self._manager = load_plugins(HostContext(broker_config(config), view, services), config.plugins)
        self.gate = AmqttGate(self._manager.plugins)
        self.events = AmqttEvents(self._manager)

    def plugin(self, kind: type[Any]) -> Any | None:
        """The loaded plugin of a class, if there is one."""
        return next((p for p in self._manager.plugins if isinstance(p, kind)), None)

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
