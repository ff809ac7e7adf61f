"""Loads the plugins of the configuration, as amqtt does."""

import warnings
from collections.abc import Mapping
from typing import Any

from amqtt.broker import BrokerContext
from amqtt.errors import PluginError, PluginLoadError
from amqtt.plugins.base import BasePlugin
from amqtt.plugins.manager import PluginManager
from amqtt.utils import import_string
from dacite import Config as DaciteConfig
from dacite import DaciteError, from_dict

from broker.amqtt_edge.context import HostContext
from broker.config import ConfigError


def load_plugins(context: HostContext, plugins: Mapping[str, Any]) -> PluginManager[BrokerContext]:
    """Raises `ConfigError`: a plugin cannot be found, refuses its options, or fails to start."""
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
