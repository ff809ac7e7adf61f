"""A client that publishes as fast as it can, and knows what was acknowledged."""

import json
import threading

from tests.integration.node import Node, password
from tests.integration.raw import RawClient, publish


class Flood:
    """Publishes QoS 1 messages with a window, and notes which were acknowledged."""

    def __init__(self, node: Node, user: str, topic: str, window: int = 100) -> None:
        self.acknowledged: list[int] = []
        self._client = RawClient(node.port)
        self._client.login(f"flood-{user}", user, password(user))
        self._user = user
        self._topic = topic
        self._window = window
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._client.socket.close()

    def _run(self) -> None:
        sent = 0
        try:
            while sent < 60_000:
                while sent - len(self.acknowledged) < self._window:
                    sent += 1
                    body = json.dumps({"content": f"m{sent}", "client_msg_id": f"{self._user}-{sent}"})
                    self._client.send(publish(self._topic, body.encode(), 1, sent))
                answer = self._client.receive()
                if answer is None:
                    return
                assert answer.type == 4
                self.acknowledged.append(int.from_bytes(answer.body, "big"))
        except OSError:
            return
