"""The configuration: config/broker.yaml, environment variables and --set, checked as a whole.

`listeners` and `plugins` are sections of amqtt's configuration, and amqtt checks them. The other sections
are the platform's. Later sources win: defaults, the file, `IM_KEY__PATH` variables, `--set key.path=value`.
Unknown keys and values of a wrong type are refused with the path of the key.
"""

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from broker.domain.topics import Kind, is_valid_filter, parse_topic

ENV_PREFIX = "IM_"


class ConfigError(Exception):
    """The configuration is wrong. The text names the path of the key."""


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
        "limits.events_kept",
        "limits.max_subscriptions",
        "limits.outbox_bytes",
        "limits.uncommitted_bytes",
        "limits.session_expiry",
        "limits.group_members",
        "limits.presence_grace",
        "messages.recall_seconds",
        "messages.edit_seconds",
        "topics.open",
        "http.registration",
        "http.token_ttl",
        "http.refresh_ttl",
        "log.level",
    )
)
"""The keys that `Config.reload` changes. A key belongs here if every part that uses its value reads it from
the section each time, or is told by `server.reloading`."""

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


class Storage(_Section):
    """`storage`."""

    data_dir: str = "data"
    directory_url: str | None = None
    max_batch: Annotated[int, Field(ge=1, le=10_000)] = 1000


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
    events_kept: Count = 1000
    max_subscriptions: Count = 1000
    outbox_bytes: Annotated[int, Field(ge=4096)] = 1024 * 1024
    outboxes_bytes: Annotated[int, Field(ge=65_536)] = 256 * 1024 * 1024
    uncommitted_bytes: Annotated[int, Field(ge=4096)] = 256 * 1024
    session_expiry: Seconds = 30 * 86400.0
    sessions_per_user: Count = 200
    connections_per_user: Count = 200
    connections_per_address: Count = 10_000
    connects_per_second: Count = 200
    publishes_per_second: Count = 2000
    rpc_concurrency: Count = 64
    calls_per_user: Count = 256
    groups_per_hour: Count = 200
    joins_per_hour: Count = 500
    contact_requests_per_hour: Count = 500
    retained_messages: Count = 100_000
    retained_bytes: Count = 256 * 1024 * 1024
    group_members: Annotated[int, Field(ge=2, le=100_000)] = 10_000
    reserved_files: Count = 64
    unreachable_after: Annotated[float, Field(ge=3, le=3600)] = 40.0
    presence_grace: Annotated[float, Field(ge=0, le=60)] = 3.0


class Messages(_Section):
    """`messages`."""

    recall_seconds: Annotated[float, Field(ge=0)] = 120.0
    edit_seconds: Annotated[float, Field(ge=0)] = 86400.0


class Sys(_Section):
    """`sys`."""

    interval: Annotated[float, Field(ge=0)] = 10.0


class Grpc(_Section):
    """`grpc`."""

    bind: str = "127.0.0.1:50051"
    tls_cert: str | None = None
    tls_key: str | None = None
    idle_seconds: Annotated[float, Field(ge=1)] = 60.0


class Http(_Section):
    """`http`."""

    bind: str = "127.0.0.1:8080"
    registration: bool = False
    token_ttl: Lifetime = 86400
    refresh_ttl: Lifetime = 30 * 86400
    failures_per_user: Count = 10
    failures_per_address: Count = 60
    trusted_proxies: list[str] = []
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
    storage: Storage = Storage()
    topics: Topics = Topics()
    limits: Limits = Limits()
    messages: Messages = Messages()
    sys: Sys = Sys()
    grpc: Grpc = Grpc()
    http: Http = Http()
    log: Log = Log()

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
    values = _read(file)
    for name, text in sorted(environment.items()):
        if name.startswith(ENV_PREFIX):
            path = name.removeprefix(ENV_PREFIX).lower().split("__")
            if path[0] in Config.model_fields:  # other programs use the prefix, too
                _put(values, path, _value(name, text))
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set {setting}: expected key.path=value")
        _put(values, _split(values, key), _value(f"--set {key}", text))
    if data_dir is not None:
        _put(values, ["storage", "data_dir"], str(data_dir))
    try:
        # A copy, because a section that is not given is the default object itself, and `reload` changes it.
        return Config.model_validate(values).model_copy(deep=True)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{file}: {_explain(each)}" for each in error.errors())) from None


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


def _read(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: expected sections, found {type(values).__name__}")
    return values


def _value(name: str, text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: {text!r} is not valid YAML") from error


def _split(values: dict[str, Any], key: str) -> list[str]:
    """Split a dotted path. A key may itself hold dots, as a plugin's name: the longest key that exists in
    `values` is taken."""
    parts = key.split(".")
    path: list[str] = []
    here: object = values
    while parts:
        known = here if isinstance(here, dict) else {}
        count = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in known), 1)
        path.append(".".join(parts[:count]))
        here = known.get(path[-1])
        parts = parts[count:]
    return path


def _put(values: dict[str, Any], path: list[str], value: object) -> None:
    here = values
    for level in path[:-1]:
        inner = here.get(level)
        if not isinstance(inner, dict):
            inner = here[level] = {}
        here = inner
    here[path[-1]] = value


def _explain(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{path}: {_GONE.get(path, 'unknown key')}"
    if error["type"] == "missing":
        return f"{path}: missing"
    return f"{path}: {error['msg']} (found {error['input']!r})"
