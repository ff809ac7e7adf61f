"""A client that publishes as fast as it can, and knows what was acknowledged."""

import json
import threading

from broker.wire.encoder import pubrel
from tests.integration.node import Node, password
from tests.integration.raw import RawClient, publish

_WINDOW = 100
_MOST = 60_000
"""Messages of one connection, so that a flood ends by itself."""


class Flood:
    """Publishes numbered messages with a window, over the crashes of a node. PUBACK or PUBREC acknowledges
    one. With `repeats` they have a client_msg_id, and on the next connection those without an acknowledgement
    are published again first."""

    def __init__(self, user: str, topic: str, qos: int, *, repeats: bool) -> None:
        self.acknowledged: set[int] = set()
        self._user = user
        self._topic = topic
        self._qos = qos
        self._repeats = repeats
        self._sent = 0
        self._waiting: dict[int, int] = {}
        """The numbers of the messages without an acknowledgement, by packet id, in their order."""

    def content(self, number: int) -> str:
        return f"{self._user} {number}"

    def start(self, node: Node) -> None:
        self._client = RawClient(node.port)
        self._client.login(f"flood-{self._user}", self._user, password(self._user))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        """Wait until the node has closed the connection."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._client.socket.close()

    def _run(self) -> None:
        try:
            self._begin()
            last = self._sent + _MOST
            while self._sent < last:
                while len(self._waiting) < _WINDOW:
                    self._sent += 1
                    self._waiting[self._sent % 65_535 + 1] = self._sent
                    self._publish(self._sent)
                if not self._take():
                    return
        except ConnectionError:
            return

    def _take(self) -> bool:
        """Take the next answer; false if the connection was closed."""
        answer = self._client.receive()
        if answer is None:
            return False
        packet_id = int.from_bytes(answer.body, "big")
        if answer.type == 7:  # PUBCOMP
            return True
        assert answer.type == (4 if self._qos == 1 else 5)
        self.acknowledged.add(self._waiting.pop(packet_id))
        if self._qos == 2:
            self._client.send(pubrel(packet_id))
        return True

    def _begin(self) -> None:
        if not self._repeats:
            self._waiting.clear()
        for number in self._waiting.values():
            self._publish(number)

    def _publish(self, number: int) -> None:
        message = {"content": self.content(number)}
        if self._repeats:
            message["client_msg_id"] = str(number)
        packet_id = number % 65_535 + 1
        self._client.send(publish(self._topic, json.dumps(message).encode(), self._qos, packet_id))
