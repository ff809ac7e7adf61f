"""Networks that die without a word: no packet says that the connection has ended."""

import ctypes
import selectors
import socket
import struct
import threading
from typing import cast

from tests.integration.node import HOST

_SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>
_DROP_ALL = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0


def cut(client: socket.socket) -> None:
    """From now on, the packets of the other side are lost: the system drops them before its TCP sees them, so
    that it acknowledges nothing and answers no probe. For the other side the network is dead. What the
    client sends still goes through, so it must not send."""
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(_DROP_ALL))
    client.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


class Proxy:
    """A TCP proxy on `port` in front of a port of the node. Once it is `silent`, it hands nothing on, and
    keeps all connections open: what a proxy does whose clients have lost their network."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server((HOST, 0))
        self.port = int(self._listening.getsockname()[1])
        self.silent = threading.Event()
        self._ended = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._sockets = [self._listening]
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._selector.close()
        for each in self._sockets:
            each.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(0.02):
                source = cast("socket.socket", key.fileobj)
                if source is self._listening:
                    self._accept()
                elif data := source.recv(65536):
                    if not self.silent.is_set():
                        key.data.sendall(data)
                else:
                    self._selector.unregister(source)

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        server = socket.create_connection((HOST, self._target))
        self._sockets += [client, server]
        self._selector.register(client, selectors.EVENT_READ, server)
        self._selector.register(server, selectors.EVENT_READ, client)
