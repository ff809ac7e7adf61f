"""A subscriber with QoS 2 that keeps packet ids it has received (MQTT 3.1.1, figure 4.3, second method)."""

import contextlib
import json
from collections.abc import Callable

from broker.wire.encoder import pubcomp, pubrec
from tests.integration.node import Node, password
from tests.integration.raw import RawClient, subscribe


class Keeper:
    """A persistent session. It hands a message on when its PUBLISH comes, and takes one with a packet id that
    it holds for a repetition. `releases`: whether it reads PUBREL."""

    def __init__(self, node: Node, user: str) -> None:
        self.had: set[int] = set()
        self.held: set[int] = set()
        self.abandoned: set[int] = set()
        """Those of `held` that the node has died with."""
        self.used: set[int] = set()
        self.releases = True
        self._complete = 0
        self._node = node
        self._user = user
        self.connect()
        self._client.send(subscribe(1, (f"users/{user}/inbox", 2)))
        self._client.expect(9)

    def close(self) -> None:
        self._client.socket.close()

    def connect(self) -> None:
        if hasattr(self, "_client"):
            self.close()
        self._client = RawClient(self._node.port)
        self._client.socket.settimeout(8)
        self._client.login("keeper", self._user, password(self._user), clean=False)

    def has(self, count: int, *, all_released: bool = False) -> bool:
        """Whether the first messages have come."""
        while self._complete + 1 in self.had:
            self._complete += 1
        return self._complete >= count and not (all_released and self.held - self.abandoned)

    def read_on(self) -> None:
        """Read until the node has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while self._read():
                pass

    def read_until(self, condition: Callable[[], bool], what: str) -> None:
        while not condition():
            try:
                assert self._read(), "connection closed"
            except TimeoutError:
                raise AssertionError(f"waited in vain for {what}; {len(self.had)} messages came") from None

    def _read(self) -> bool:
        """Whether there was a packet, and not the end of the connection."""
        received = self._client.receive()
        if received is None:
            return False
        if received.type == 6:
            if self.releases:
                self.held.discard(int.from_bytes(received.body[:2], "big"))
                self._client.send(pubcomp(int.from_bytes(received.body[:2], "big")))
            return True
        assert (received.type, received.first >> 1 & 3) == (3, 2)
        size = int.from_bytes(received.body[:2], "big")
        packet_id = int.from_bytes(received.body[2 + size : 4 + size], "big")
        self.used.add(packet_id)
        if packet_id not in self.held:
            self.held.add(packet_id)
            self.had.add(json.loads(received.body[4 + size :])["offset"])
        self._client.send(pubrec(packet_id))
        return True
