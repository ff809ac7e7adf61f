"""Loads the plugins of the configuration, as amqtt does, and finds the persistence plugin among them."""

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, cast

from amqtt.broker import BrokerContext
from amqtt.errors import PluginError, PluginLoadError
from amqtt.plugins.base import BasePlugin
from amqtt.plugins.manager import PluginManager
from amqtt.utils import import_string
from dacite import Config as DaciteConfig
from dacite import DaciteError, from_dict
from msgspec import Struct

from broker.amqtt_edge.context import HostContext
from broker.config import EMBEDDED_STORE
from broker.config_sources import ConfigError
from broker.ports import PersistencePlugin, StoreContext, Stores


class Persistence(Struct, frozen=True):
    """The persistence plugin of a configuration. `options` is an instance of the class's own `Config`."""

    plugin: type[PersistencePlugin]
    options: object

    async def open(self, context: StoreContext) -> Stores:
        """Open the stores. Raises `StoreError`, see `ports.PersistencePlugin`."""
        return await self.plugin.open_stores(self.options, context)


def find_persistence(plugins: Mapping[str, Any]) -> Persistence:
    """The one plugin whose class has `open_stores`.

    Raises:
        ConfigError: there is none or more than one, or a plugin cannot be found or refuses its options.
    """
    found = {}
    for name, options in plugins.items():
        plugin, checked = _check_options(name, options)
        if hasattr(plugin, "open_stores"):
            found[name] = Persistence(cast("type[PersistencePlugin]", plugin), checked)
    if not found:
        raise ConfigError(f"plugins: none of them stores messages, add one: {EMBEDDED_STORE}: {{}}")
    if len(found) > 1:
        raise ConfigError(
            f"plugins: only one of them can store messages, remove all but one of {', '.join(found)}"
        )
    ((name, persistence),) = found.items()
    if not _is_async_classmethod(persistence.plugin.open_stores):
        raise ConfigError(f"plugins.{name}: open_stores is not an async class method")
    return persistence


def _is_async_classmethod(method: object) -> bool:
    return inspect.ismethod(method) and inspect.iscoroutinefunction(method)


def load_plugins(context: HostContext, plugins: Mapping[str, Any]) -> PluginManager[BrokerContext]:
    """Load all plugins into amqtt's plugin manager.

    Raises:
        ConfigError: a plugin cannot be found, refuses its options, or fails to start.
    """
    for name, options in plugins.items():
        _check_options(name, options)
    try:
        with warnings.catch_warnings():
            # amqtt warns of deprecations in its own code. An operator can do nothing about them.
            warnings.simplefilter("ignore", DeprecationWarning)
            return PluginManager("amqtt.broker.plugins", context)
    except (PluginError, PluginLoadError) as error:
        cause = error.__cause__
        raise ConfigError(f"plugins: {error}{f': {cause}' if cause is not None else ''}") from error


def _check_options(name: str, options: object) -> tuple[type[object], object]:
    """Check a plugin and its options before amqtt does, because these errors name the key that is wrong.

    Returns the class and an instance of its `Config`. Raises `ConfigError`.
    """
    try:
        plugin = import_string(name)
    except ImportError as error:
        raise ConfigError(f"plugins.{name}: {error}") from error
    if not (isinstance(plugin, type) and issubclass(plugin, BasePlugin)):
        raise ConfigError(f"plugins.{name}: not an amqtt plugin")
    declared: Any = plugin.Config  # type: ignore[attr-defined]  # of BasePlugin, which is Any to mypy
    if not (isinstance(declared, type) and is_dataclass(declared)):
        raise ConfigError(f"plugins.{name}: its Config is not a dataclass")
    if not isinstance(options, dict):
        raise ConfigError(f"plugins.{name}: expected options, found {options!r}")
    for key in options:
        if key not in declared.__dataclass_fields__:
            raise ConfigError(f"plugins.{name}.{key}: unknown key")
    try:
        return plugin, from_dict(declared, options, DaciteConfig(strict=True))
    except DaciteError as error:
        option = getattr(error, "field_path", None)  # of most of its errors
        key = f"plugins.{name}.{option}" if option else f"plugins.{name}"
        raise ConfigError(f"{key}: {error}") from error
