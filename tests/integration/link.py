"""A network link that a test cuts: a TCP proxy in front of a node, which may come back on another port."""

import contextlib
import selectors
import socket
import threading
from types import TracebackType
from typing import Self

from tests.integration.node import HOST


class Link:
    """A port that leads to a port of a node, `target`. While it is `down`, it takes no connections; `cut`
    ends those there are. What was on its way is lost. The node sees `source` as the clients' address."""

    def __init__(self, target: int, source: str = HOST) -> None:
        self.target = target
        self._source = source
        self.down = False
        self._lock = threading.Lock()
        self._listening = socket.create_server((HOST, 0))
        self.port = int(self._listening.getsockname()[1])
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down = True
        self._listening.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def cut(self) -> None:
        """End all connections, in both directions."""
        with self._lock:
            for end in (end for pair in self._pairs for end in pair):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:  # it was shut down
                return
            server = None
            if not self.down:
                with contextlib.suppress(OSError):
                    server = socket.create_connection((HOST, self.target), source_address=(self._source, 0))
            if server is None:
                client.close()
                continue
            with self._lock:
                self._pairs.add((client, server))
            self._threads.append(threading.Thread(target=self._carry, args=(client, server)))
            self._threads[-1].start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, server)
            selector.register(server, selectors.EVENT_READ, client)
            with contextlib.suppress(OSError):
                while data := {key: key.fileobj.recv(65536) for key, _ in selector.select()}:  # type: ignore[union-attr]
                    if not all(data.values()):
                        break
                    for key, some in data.items():
                        key.data.sendall(some)
            with self._lock:
                self._pairs.discard((client, server))
