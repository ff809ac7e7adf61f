"""Where Redis is, and how it is used."""

import ssl
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import msgspec

_SCHEMES: Mapping[str, tuple[str, bool]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_PORT = 6379
_SENTINEL_PORT = 26379


class RedisOptions(msgspec.Struct, frozen=True):
    """How Redis is used."""

    url: str
    prefix: str = "im:"
    """Of all keys and channels, so that several deployments may share one Redis."""
    most_connections: int = 50
    timeout: float = 2.0
    """Seconds within which Redis must answer."""
    tls_ca: str | None = None
    """A file with the certificates that the server's must be signed by; None: those of the system."""
    sentinel_password: str = ""
    store: str = ""
    """Which store the nodes write. The heads of its logs say nothing of another's."""


class Address(msgspec.Struct, frozen=True):
    """What a URL says."""

    kind: str
    """`single`, `sentinel` or `cluster`."""
    hosts: list[tuple[str, int]]
    tls: bool = False
    user: str = ""
    password: str = ""
    database: int = 0
    service: str = ""
    """What the sentinels call the group of servers."""


def place(url: str) -> str:
    """A URL without its password, for people."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def parse_url(url: str) -> Address:
    """Read a URL. Raises `ValueError` with what is wrong, without the password."""
    # Not by `urlsplit`: what it takes for several hosts depends on the version of Python.
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES:
        raise ValueError(f"the scheme {scheme!r} is none of {', '.join(_SCHEMES)}")
    kind, tls = _SCHEMES[scheme]
    authority, _, path = rest.partition("/")
    login, _, places = authority.rpartition("@")
    user, _, password = login.partition(":")
    port = _SENTINEL_PORT if kind == "sentinel" else _PORT
    hosts = [_host(each, port) for each in places.split(",")]
    if kind == "single" and len(hosts) > 1:
        raise ValueError("several servers need redis+sentinel:// or redis+cluster://")
    service, database = _path(kind, path)
    return Address(kind, hosts, tls, unquote(user), unquote(password), database, service)


def _host(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        return parts.hostname or "127.0.0.1", parts.port or port
    except ValueError:
        raise ValueError(f"{text!r} is no host:port") from None


def _path(kind: str, text: str) -> tuple[str, int]:
    """The service of sentinels, and the number of the database."""
    path = [unquote(each) for each in text.split("/") if each]
    service = path.pop(0) if kind == "sentinel" and path else ""
    if kind == "sentinel" and not service:
        raise ValueError("the name of the service is missing: redis+sentinel://HOST:PORT,HOST:PORT/SERVICE")
    database = path.pop(0) if path else "0"
    if path or not database.isdecimal():
        raise ValueError(f"{text!r} names no database")
    if kind == "cluster" and database != "0":
        raise ValueError("a cluster has the database 0 only")
    return service, int(database)


def tls_context(address: Address, options: RedisOptions) -> ssl.SSLContext | None:
    """For connections to it; None without TLS. Raises `OSError` for a file that cannot be read."""
    return ssl.create_default_context(cafile=options.tls_ca) if address.tls else None
