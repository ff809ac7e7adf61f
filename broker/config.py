"""The configuration: config/broker.yaml, environment variables and --set, checked as a whole.

`listeners` and `plugins` are sections of amqtt's configuration, and amqtt checks them. The other sections
are the platform's. Unknown keys and values of a wrong type are refused with the path of the key, and with
the source of the value (`broker.config_sources`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from broker.config_sources import ConfigError, Gathered, Sources
from broker.domain.topics import Kind, is_valid_filter, parse_topic


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def take(self, other: Self) -> None:
        """Become equal to another section. The parts of a node share one section, so all of them see it."""
        self.__setstate__(other.__getstate__())


Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Lifetime = Annotated[int, Field(ge=1, le=366 * 86400)]
"""The lifetime of a token in seconds."""

EMBEDDED_STORE = "plugins.persistence.sqlite.SqlitePersistencePlugin"
"""The persistence plugin that error messages recommend. The configuration decides which one is used."""

_GONE = {
    "storage.backend": "this key is gone, because the store is a plugin now: "
    f"remove it and add to `plugins`: {EMBEDDED_STORE}: {{}}",
}
"""Key of an earlier version -> the advice for it."""

RELOADED = frozenset(
    (
        "limits.max_packet_bytes_before_connect",
        "limits.max_inflight",
        "limits.max_queued",
        "limits.max_queued_bytes",
        "limits.events_kept",
        "limits.max_subscriptions",
        "limits.outbox_bytes",
        "limits.uncommitted_bytes",
        "limits.session_expiry",
        "limits.sessions_per_user",
        "limits.connections_per_user",
        "limits.connections_per_address",
        "limits.connects_per_second",
        "limits.publishes_per_second",
        "limits.packets_per_turn",
        "limits.calls_per_user",
        "limits.groups_per_hour",
        "limits.contact_requests_per_hour",
        "limits.joins_per_hour",
        "limits.repeats_per_hour",
        "limits.retained_messages",
        "limits.retained_bytes",
        "limits.retained_messages_per_user",
        "limits.retained_bytes_per_user",
        "limits.group_members",
        "limits.presence_grace",
        "messages.recall_seconds",
        "messages.edit_seconds",
        "messages.group_receipts",
        "topics.open",
        "http.registration",
        "http.token_ttl",
        "http.refresh_ttl",
        "log.level",
    )
)
"""The keys that `Config.reload` changes. A key belongs here if every part that uses its value reads it from
the section each time, or is told by `server.reloading`."""

_NODE_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}")
_ORIGIN = re.compile(r"https?://[^/?#\s]+")


def _checked_networks(networks: list[str]) -> list[str]:
    for network in networks:
        ip_network(network)  # raises ValueError with the reason
    return networks


class Node(_Section):
    """`node`."""

    id: Annotated[int, Field(ge=0, le=1023)] = 0
    trusted_proxies: list[str] = []

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, proxies: list[str]) -> list[str]:
        return _checked_networks(proxies)


class DirectoryPool(_Section):
    """`storage.directory_pool`."""

    kept: Annotated[int, Field(ge=0, le=10_000)] = 10
    most: Annotated[int, Field(ge=4, le=10_000)] = 100
    idle_seconds: Seconds = 60.0
    connect_timeout: Seconds = 5.0
    timeout: Annotated[float, Field(ge=1.0, le=3600.0)] = 10.0


class Cluster(_Section):
    """`cluster`."""

    url: str | None = None
    name: str | None = None
    prefix: str = "im:"
    tls_ca: str | None = None
    sentinel_password: str = ""
    most_connections: Annotated[int, Field(ge=5, le=1000)] = 50
    timeout: Seconds = 2.0

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str | None) -> str | None:
        if name is not None and not _NODE_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a node: letters, digits and . _ - only, at most 253")
        return name


class Storage(_Section):
    """`storage`."""

    data_dir: str = "data"
    directory_url: str | None = None
    directory_pool: DirectoryPool = Field(default_factory=DirectoryPool)
    max_batch: Annotated[int, Field(ge=1, le=10_000)] = 1000
    max_batch_bytes: Annotated[int, Field(ge=1024)] = 512 * 1024


class Topics(_Section):
    """`topics`."""

    open: list[str] = []

    @field_validator("open")
    @classmethod
    def _valid(cls, filters: list[str]) -> list[str]:
        for topic_filter in filters:
            root = topic_filter.split("/")[0]
            if not is_valid_filter(topic_filter) or topic_filter.startswith("$"):
                raise ValueError(f"{topic_filter!r} is not a valid topic filter, or begins with $")
            if root in ("users", "groups", "#", "+") or parse_topic(topic_filter).kind is not Kind.OTHER:
                raise ValueError(f"{topic_filter!r} covers the platform's own topics")
        return filters


class Limits(_Section):
    """`limits`."""

    max_packet_bytes: Annotated[int, Field(ge=1024, le=268_435_455)] = 256 * 1024
    max_packet_bytes_before_connect: Annotated[int, Field(ge=256)] = 16 * 1024
    connect_timeout: Seconds = 10.0
    max_inflight: Annotated[int, Field(ge=1, le=65_000)] = 100
    max_queued: Count = 1000
    max_queued_bytes: Count = 16 * 1024 * 1024
    events_kept: Count = 1000
    max_subscriptions: Count = 1000
    outbox_bytes: Annotated[int, Field(ge=4096)] = 1024 * 1024
    outboxes_bytes: Annotated[int, Field(ge=65_536)] = 256 * 1024 * 1024
    uncommitted_bytes: Annotated[int, Field(ge=4096)] = 256 * 1024
    held_bytes: Annotated[int, Field(ge=65_536)] = 64 * 1024 * 1024
    session_expiry: Seconds = 30 * 86400.0
    sessions_per_user: Count = 200
    connections_per_user: Count = 200
    connections_per_address: Count = 10_000
    connects_per_second: Count = 200
    publishes_per_second: Count = 2000
    packets_per_turn: Count = 256
    rpc_concurrency: Count = 64
    calls_per_user: Count = 256
    groups_per_hour: Count = 200
    contact_requests_per_hour: Count = 500
    joins_per_hour: Count = 500
    repeats_per_hour: Count = 20
    retained_messages: Count = 100_000
    retained_bytes: Count = 256 * 1024 * 1024
    retained_messages_per_user: Count = 25_000
    retained_bytes_per_user: Count = 64 * 1024 * 1024
    group_members: Annotated[int, Field(ge=2, le=100_000)] = 10_000
    reserved_files: Count = 64
    unreachable_after: Annotated[float, Field(ge=3, le=3600)] = 40.0
    presence_grace: Annotated[float, Field(ge=0, le=60)] = 3.0


class Messages(_Section):
    """`messages`."""

    recall_seconds: Annotated[float, Field(ge=0)] = 120.0
    edit_seconds: Annotated[float, Field(ge=0)] = 86400.0
    group_receipts: Annotated[int, Field(ge=0, le=1000)] = 100


class Sys(_Section):
    """`sys`."""

    interval: Annotated[float, Field(ge=0)] = 10.0


class Grpc(_Section):
    """`grpc`."""

    bind: str = "127.0.0.1:50051"
    tls_cert: str | None = None
    tls_key: str | None = None
    idle_seconds: Annotated[float, Field(ge=1)] = 60.0
    proxy_protocol: bool = False


class Http(_Section):
    """`http`."""

    bind: str = "127.0.0.1:8080"
    registration: bool = False
    token_ttl: Lifetime = 86400
    refresh_ttl: Lifetime = 30 * 86400
    failures_per_user: Count = 10
    failures_per_address: Count = 60
    trusted_proxies: list[str] = []
    proxy_protocol: bool = False
    cors_origins: list[str] = []

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, proxies: list[str]) -> list[str]:
        return _checked_networks(proxies)

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is neither an origin like https://chat.example.org nor *")
        return origins


class Log(_Section):
    """`log`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    repeats: Count = 10


class Changes(NamedTuple):
    """The result of a reload."""

    done: list[str]
    """What has changed: `key: old value -> new value`."""
    need_restart: list[str]
    """The keys that differ, but take effect only after a restart. Without values: some hold secrets."""


class Config(_Section):
    """The whole configuration. `listeners` and `plugins` have amqtt's form."""

    listeners: dict[str, Any]
    plugins: dict[str, Any]
    node: Node = Node()
    cluster: Cluster = Cluster()
    storage: Storage = Storage()
    topics: Topics = Topics()
    limits: Limits = Limits()
    messages: Messages = Messages()
    sys: Sys = Sys()
    grpc: Grpc = Grpc()
    http: Http = Http()
    log: Log = Log()
    _sources: Sources = PrivateAttr(default_factory=Sources)

    @field_validator("plugins", mode="before")
    @classmethod
    def _plugins(cls, value: object) -> object:
        # amqtt also accepts a list of plugins, and a plugin's name without options.
        if isinstance(value, list):
            value = {
                k: v for item in value for k, v in (item.items() if isinstance(item, dict) else [(item, {})])
            }
        if isinstance(value, dict):
            return {name: {} if options is None else options for name, options in value.items()}
        return value

    @property
    def trusted_proxies(self) -> list[str]:
        """Addresses and networks of the proxies in front of the node."""
        return [*self.node.trusted_proxies, *self.http.trusted_proxies]

    @property
    def data_dir(self) -> Path:
        """The directory of the node's files."""
        return Path(self.storage.data_dir)

    def came_from(self, sources: Sources) -> Self:
        """Remember where the values came from, for `fault`."""
        self._sources = sources
        return self

    def fault(self, error: Exception) -> str:
        """The text of an error. If it begins with the path of a key, the file and line, the variable or the
        option that the key's value came from are put in front."""
        text = str(error)
        section = re.split(r"[.:, ]", text, maxsplit=1)[0]
        return self._sources.named(text) if section in type(self).model_fields else text

    @contextmanager
    def naming_sources(self) -> Iterator[None]:
        """A `ConfigError` from within says where the value came from, see `fault`."""
        try:
            yield
        except ConfigError as error:
            raise ConfigError(self.fault(error)) from None

    def reload(self, new: "Config") -> Changes:
        """Take over the values of the keys in `RELOADED`. All other keys keep their values."""
        changes = Changes([], [])
        for name in type(self).model_fields:
            ours, theirs = getattr(self, name), getattr(new, name)
            if isinstance(ours, _Section):
                ours.take(_merged(name, ours, theirs, changes))
            else:
                keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
                changes.need_restart.extend(f"{name}.{key}" for key in keys)
        return changes


def load(
    file: Path, environment: Mapping[str, str], settings: Iterable[str], data_dir: Path | None = None
) -> Config:
    """Read and check the configuration.

    `settings` are `key.path=value` with the value in YAML. `data_dir` overrides `storage.data_dir`.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, or a value has a wrong type.
    """
    gathered = Gathered(file)
    gathered.take_environment(environment, Config.model_fields)
    gathered.take_settings(settings)
    if data_dir is not None:
        gathered.put(["storage", "data_dir"], str(data_dir), "--data-dir")
    try:
        config = Config.model_validate(gathered.values)
    except ValidationError as error:
        faults = "\n".join(map(_explain, error.errors()))
        raise ConfigError(gathered.sources.named(faults)) from None
    # A copy, because a section that is not given is the default object itself, and `reload` changes it.
    return config.model_copy(deep=True).came_from(gathered.sources)


def _merged(name: str, ours: _Section, theirs: _Section, changes: Changes) -> _Section:
    """`theirs`, but with the values of `ours` for keys that need a restart. Adds to `changes`."""
    kept = {}
    for key in type(ours).model_fields:
        old, new = getattr(ours, key), getattr(theirs, key)
        if old == new:
            continue
        path = f"{name}.{key}"
        if path in RELOADED:
            changes.done.append(f"{path}: {old!r} -> {new!r}")
        else:
            changes.need_restart.append(path)
            kept[key] = old
    return theirs.model_copy(update=kept)


def _explain(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{path}: {_GONE.get(path, 'unknown key')}"
    if error["type"] == "missing":
        return f"{path}: missing"
    return f"{path}: {error['msg']} (found {error['input']!r})"
