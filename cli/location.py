"""Finds the node to call and its admin token.

A running node writes its address to `<data-dir>/node.json` and its admin token to
`<data-dir>/admin.token`. Everybody who can read the token file can administer the node.
"""

import json
import os
import shlex
from pathlib import Path
from typing import NamedTuple

from cli.errors import CommandError

DEFAULT_DATA_DIR = "data"
CLUSTER_DIR = "cluster-data"
"""Where `make cluster` says how to reach its nodes, while it runs."""
_DATA_DIR_VARIABLES = ("IM_DATA_DIR", "IM_STORAGE__DATA_DIR")


class Options(NamedTuple):
    """The options before the command."""

    data_dir: Path | None
    server: str | None
    token_file: Path | None
    timeout: float

    @property
    def where(self) -> Path:
        """The data directory: from the option, else from the environment, else the default. If no node runs
        there, a cluster that does."""
        names = (os.environ.get(name) for name in _DATA_DIR_VARIABLES)
        named = self.data_dir or next(filter(None, names), None)
        if named is None and not _runs(DEFAULT_DATA_DIR) and _runs(CLUSTER_DIR):
            return Path(CLUSTER_DIR)
        return Path(named or DEFAULT_DATA_DIR)


def _runs(folder: str) -> bool:
    return (Path(folder) / "node.json").exists()


class Certificate(NamedTuple):
    """The certificate of a node (PEM), and a host name it was issued for ("" if unknown)."""

    pem: bytes
    name: str


class Location(NamedTuple):
    """A node to connect to. `absent` is the error message for when nobody answers there. Without a
    `certificate`, the connection has no TLS."""

    address: str
    token: str
    token_file: Path
    absent: str
    certificate: Certificate | None = None


def locate(options: Options) -> Location:
    """Find the node.

    Raises:
        CommandError: no node is running on the data directory, or its files cannot be read.
    """
    folder = options.where
    token_file = options.token_file or folder / "admin.token"
    certificate = None
    if options.server is not None:
        address, absent = options.server, f"no node answers at {options.server}"
        missing = f"cannot read {token_file}: no such file (give a copy of the node's with --token-file)"
    else:
        shown = shlex.quote(str(folder))
        absent = (
            f"no node is running on data directory {folder} (start one with: imctl serve --data-dir {shown})"
        )
        missing = f"cannot read {token_file}: no such file" if options.token_file else absent
        address, certificate = _node(folder / "node.json", absent)
    return Location(address, _token(token_file, missing), token_file, absent, certificate)


def _node(file: Path, absent: str) -> tuple[str, Certificate | None]:
    """The address of a node's gRPC API, and its certificate if it uses TLS."""
    try:
        node = json.loads(_read(file, absent))
        address, tls = node["grpc"], node.get("grpc_tls")
        shown = None if tls is None else (Path(tls["certificate"]), str(tls["name"]))
    except (ValueError, KeyError, TypeError):
        raise CommandError(f"{file} does not say where the node's gRPC API is") from None
    if not isinstance(address, str):
        raise CommandError(f"{file} does not say where the node's gRPC API is")
    if shown is None:
        return address, None
    pem = _read(shown[0], f"cannot read the node's certificate {shown[0]}: no such file")
    return address, Certificate(pem, shown[1])


def _token(file: Path, missing: str) -> str:
    token = _read(file, missing).strip()
    # The token is sent in a header: it must be printable ASCII.
    if not token or not all(0x21 <= byte <= 0x7E for byte in token):
        raise CommandError(f"{file} does not hold a token")
    return token.decode()


def _read(file: Path, missing: str) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(65536)
    except (FileNotFoundError, NotADirectoryError):
        raise CommandError(missing) from None
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:  # a NUL in the name
        raise CommandError(f"cannot read {file}: {error}") from None
