"""SIGHUP: reads the configuration and the token keys again, while the node runs and keeps its connections.

read     all of it is read and checked; whatever is wrong is reported, and nothing changes
change   `Config.reload` changes the sections that all parts share
tell     parts that hold a value of their own are told
report   what has changed, and which keys take effect only after a restart
"""

import logging
from collections.abc import Callable

from bridge.grpc_api.server import Server
from bridge.grpc_api.tls import CertificateError, read_tls
from broker.amqtt_edge.listeners import read_listeners
from broker.amqtt_edge.loading import find_persistence
from broker.config import Changes, Config
from broker.config_sources import ConfigError
from broker.domain.errors import StoreError
from plugins.auth import TopicRulesPlugin
from server.assembly import Joined, message_limits
from server.logs import set_level

logger = logging.getLogger("parley")

Reader = Callable[[], Config]
"""Reads the configuration from its file, the environment and the command line. Raises `ConfigError`."""


def check(config: Config) -> None:
    """Check the sections that `broker.config` leaves to others.

    Raises:
        ConfigError: a section is not valid.
    """
    try:
        read_listeners(config)
        find_persistence(config.plugins)
        read_tls(config.grpc.tls_cert, config.grpc.tls_key)
    except (ConfigError, CertificateError) as error:
        raise ConfigError(config.fault(error)) from None


class Reloading:
    """Reloads a running node. `config` is the configuration that its parts share."""

    def __init__(self, config: Config, read: Reader, joined: Joined, grpc: Server) -> None:
        self._config = config
        self._read = read
        self._joined = joined
        self._grpc = grpc

    def reload(self) -> None:
        """Reload and report. Never raises."""
        authenticator = self._joined.authenticator
        try:
            new = self._read()
            check(new)
            keys = [] if authenticator is None else authenticator.reload_keys()
        except (ConfigError, StoreError, OSError) as error:
            logger.error("reload: nothing is changed: %s", "; ".join(str(error).splitlines()))
            return
        opened = self._config.topics.open
        changes = self._config.reload(new)
        self._tell(topics_changed=self._config.topics.open != opened)
        _report(changes, keys)

    def _tell(self, *, topics_changed: bool) -> None:
        config, node = self._config, self._joined.node
        set_level(config.log.level)
        if topics_changed and (plugin := node.host.plugin(TopicRulesPlugin)) is not None:
            plugin.rules.open_topics(config.topics.open)
        node.reload(topics_changed=topics_changed)
        limits = config.limits
        self._joined.services.reload(
            message_limits(config),
            limits.group_members,
            limits.groups_per_hour,
            limits.contact_requests_per_hour,
            limits.joins_per_hour,
            limits.repeats_per_hour,
        )
        self._grpc.reload(limits.calls_per_user)


def _report(changes: Changes, keys: list[str]) -> None:
    for change in changes.done:
        logger.warning("reload: %s", change)
    for change in keys:
        logger.warning("reload: token keys: %s", change)
    for key in changes.need_restart:
        logger.warning("reload: %s differs, and takes effect only after a restart", key)
    if not (changes.done or keys or changes.need_restart):
        logger.warning("reload: nothing has changed")
