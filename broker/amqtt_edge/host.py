"""Hosts amqtt's plugins: loads them, starts and stops them with the node.

Plugins see what they would see in amqtt's own broker: a `BrokerContext`, `Session` objects, packets and
events. The broker asks them through `AmqttGate` and tells them through `AmqttEvents`.
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
"""The longest that one step of the shutdown waits for the plugins."""


class AmqttHost:
    """All loaded plugins. `gate` asks for their decisions, `events` tells them what happens.

    Raises:
        ConfigError: a plugin cannot be found, refuses its options, or fails to start.
    """

    def __init__(self, config: Config, view: BrokerView, services: PluginServices) -> None:
        self._manager = load_plugins(HostContext(broker_config(config), view, services), config.plugins)
        self.gate = AmqttGate(self._manager.plugins)
        self.events = AmqttEvents(self._manager)

    def plugin(self, kind: type[Any]) -> Any | None:
        """The loaded plugin of a class, or None."""
        return next((p for p in self._manager.plugins if isinstance(p, kind)), None)

    async def starting(self) -> None:
        """Tell the plugins that the node starts. Call it before the ports are opened."""
        await self._manager.fire_event(BrokerEvents.PRE_START, wait=True)

    async def started(self) -> None:
        """Tell the plugins that the node has started. Call it when the ports are open."""
        await self._manager.fire_event(BrokerEvents.POST_START, wait=True)

    async def stop(self) -> None:
        """Tell the plugins that the node stops, and close them. A plugin that fails or takes too long is
        logged and does not hold up the node."""
        for step in (
            self._manager.fire_event(BrokerEvents.PRE_SHUTDOWN, wait=True),
            self._manager.fire_event(BrokerEvents.POST_SHUTDOWN, wait=True),
            self._manager.close(),
        ):
            try:
                await asyncio.wait_for(step, _STOP_SECONDS)
            except Exception as error:
                logger.error("a plugin failed at shutdown: %r", error)
