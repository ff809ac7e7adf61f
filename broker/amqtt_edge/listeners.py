"""Reads the `listeners` section of the configuration, with amqtt's own types and checks."""

from amqtt.contexts import BrokerConfig, ListenerConfig
from dacite import DaciteError

from broker.config import Config
from broker.config_sources import ConfigError
from broker.net.listeners import Listener

_DEFAULT_PORTS = {"tcp": 1883, "ws": 8083}


def read_listeners(config: Config) -> list[Listener]:
    """The listeners of the configuration.

    Raises:
        ConfigError: the section is not valid, or a listener asks for TLS, which is not supported yet.
    """
    listeners = []
    for name, listener in broker_config(config).listeners.items():
        kind = str(listener.type.value)
        if listener.ssl:
            raise ConfigError(f"listeners.{name}.ssl: TLS is not supported yet; put a TLS proxy in front")
        host, port = _address(name, listener, _DEFAULT_PORTS[kind])
        listeners.append(Listener(name, kind, host, port, max(0, listener.max_connections)))
    return listeners


def broker_config(config: Config) -> BrokerConfig:
    """The sections `listeners` and `plugins`, which have amqtt's format, checked.

    Raises:
        ConfigError: a section is not valid.
    """
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
