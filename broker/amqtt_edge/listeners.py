"""Reads the `listeners` section of the configuration, with amqtt's own types and checks."""

from amqtt.contexts import BrokerConfig, ListenerConfig
from dacite import DaciteError

from broker.config import Config
from broker.config_sources import ConfigError
from broker.net.listeners import Listener

_DEFAULT_PORTS = {"tcp": 1883, "ws": 8083}
_OWN = "proxy_protocol"
"""The key of a listener that amqtt does not have."""


def read_listeners(config: Config) -> list[Listener]:
    """The listeners of the configuration.

    Raises:
        ConfigError: the section is not valid, a listener asks for TLS, which is not supported yet, or a port
            expects a proxy, and none is trusted.
    """
    listeners = []
    for name, listener in broker_config(config).listeners.items():
        kind = str(listener.type.value)
        if listener.ssl:
            raise ConfigError(f"listeners.{name}.ssl: TLS is not supported yet; put a TLS proxy in front")
        host, port = _address(name, listener, _DEFAULT_PORTS[kind])
        most, proxied = max(0, listener.max_connections), _is_proxied(config, name)
        listeners.append(Listener(name, kind, host, port, most, proxied))
    behind_proxies = _behind_proxies(config)
    if behind_proxies and not config.trusted_proxies:
        raise ConfigError(f"{behind_proxies[0]}.{_OWN}: list the proxy in node.trusted_proxies, too")
    return listeners


def _behind_proxies(config: Config) -> list[str]:
    """The sections whose ports expect a PROXY header."""
    apis = {"grpc": config.grpc.proxy_protocol, "http": config.http.proxy_protocol}
    listeners = {f"listeners.{name}": _is_proxied(config, name) for name in config.listeners}
    return [where for where, proxied in (listeners | apis).items() if proxied]


def _is_proxied(config: Config, name: str) -> bool:
    """The section `default` is inherited, as amqtt has it."""
    merged = config.listeners["default"] | config.listeners[name]
    return bool(merged.get(_OWN, False))


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
            if key != _OWN and key.replace("-", "_") not in known:
                raise ConfigError(f"listeners.{name}.{key}: unknown key")
        kind = section.get("type", "tcp")
        if kind not in _DEFAULT_PORTS:
            raise ConfigError(f"listeners.{name}.type: expected tcp or ws, found {kind!r}")
        if not isinstance(section.get(_OWN, False), bool):
            raise ConfigError(f"listeners.{name}.{_OWN}: expected true or false, found {section[_OWN]!r}")
    if "default" not in config.listeners:
        raise ConfigError("listeners.default: missing")
    listeners = {
        name: {key: value for key, value in section.items() if key != _OWN}
        for name, section in config.listeners.items()
    }
    values = {"listeners": listeners, "plugins": config.plugins}
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
