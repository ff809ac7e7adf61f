"""The sockets of gRPC: those that clients reach, and a private one of gRPC's own server."""

import contextlib
import errno
import ipaddress
import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path

_BACKLOG = 1024
_FILE = "grpc"


def listen(bind: str) -> list[socket.socket]:
    """The listening sockets for `bind` ("host:port"), one for each address of the host; for port 0, all have
    the same free port. As gRPC itself has it, each of 0.0.0.0 and [::] means all addresses of both kinds.

    Raises:
        OSError: the address cannot be listened on; the text says why.
    """
    host, _, port = bind.rpartition(":")
    failed = f"grpc.bind: cannot listen on {bind}"
    if not host or not port.isdecimal() or int(port) > 65535:
        raise OSError(f"{failed}: not of the form host:port")
    host = host.strip("[]")
    try:
        if _is_any(host):
            return _on_all(int(port))
        return _on_each(host, int(port))
    except OSError as error:
        raise OSError(f"{failed}: {error.strerror or error}") from error


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:  # a name
        return False


def _on_all(port: int) -> list[socket.socket]:
    if socket.has_dualstack_ipv6():
        try:
            return [_listening(socket.AF_INET6, ("::", port))]
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
    return [_listening(socket.AF_INET, ("", port))]


def _on_each(host: str, port: int) -> list[socket.socket]:
    """Addresses that this machine does not have are left out, unless there is no other."""
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                place = (str(address[0]), port or (sockets[0].getsockname()[1] if sockets else 0))
                sockets.append(_listening(family, (*place, *address[2:])))
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                absent = error
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    if not sockets:
        raise absent or OSError("no such address")
    return sockets


def _listening(family: int, address: tuple[str | int, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address[0] == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


class PrivateSocket:
    """A Unix socket for gRPC's server that only this process reaches.

    It is made in a directory of its own. Once the server listens, `hide` removes both, so that nothing is
    left behind whenever the process ends. The open file still leads to the socket."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="parley-"))
        self._clean_up = contextlib.ExitStack()
        self._clean_up.callback(shutil.rmtree, self._directory, ignore_errors=True)
        try:
            self._folder = self._open(self._directory, os.O_PATH | os.O_DIRECTORY)
        except BaseException:
            self.close()
            raise
        self._file = -1

    def _open(self, path: Path, flags: int) -> int:
        file = os.open(path, flags)
        self._clean_up.callback(os.close, file)
        return file

    @property
    def address(self) -> str:
        """What gRPC's server listens on. A Unix address has a hundred characters, and the name of a directory
        may have more, so it is not part of it."""
        return f"unix:/proc/self/fd/{self._folder}/{_FILE}"

    def hide(self) -> None:
        """The server listens. Raises `OSError`."""
        self._file = self._open(self._directory / _FILE, os.O_PATH | os.O_NOFOLLOW)
        shutil.rmtree(self._directory)

    def connect(self, client: str) -> socket.socket:
        """A connection to the server. It learns `client` as the name of the other end (`guard.host_of`).

        Raises:
            BlockingIOError: too many connections wait for the server: try again.
            OSError: the server does not listen, or there are no more open files.
        """
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            # A name without a file. It cannot be guessed, so nobody else can have taken it.
            sock.bind(f"\0parley/{secrets.token_hex(8)}/{client}")
            sock.connect(f"/proc/self/fd/{self._file}")
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        """Nobody connects any more. It may be called more than once."""
        self._clean_up.close()
