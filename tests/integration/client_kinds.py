"""Stock MQTT clients behind one interface, `Client`."""

import asyncio
import base64
import json
import queue
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import aiomqtt
import paho.mqtt.client as paho
from amqtt.client import MQTTClient
from amqtt.errors import ConnectError

from tests.integration.node import HOST, Node

SECONDS = 20.0
SCRIPTS = Path(__file__).resolve().parents[1] / "js"
NOT_AUTHORIZED = 5
AS_CONNACK = {0: 0, 0x87: NOT_AUTHORIZED}
"""Return codes of a CONNACK by what paho, which speaks MQTT 5 to its users, makes of them."""


class Message(NamedTuple):
    """A message as a client received it."""

    topic: str
    payload: bytes
    qos: int


class Client(Protocol):
    """A stock client. `publish` returns when it is acknowledged."""

    def __init__(self, node: Node) -> None: ...

    async def connect(self, user: str, secret: str) -> int:
        """The CONNACK's return code."""
        ...

    async def subscribe(self, filters: list[str], qos: int) -> list[int]:
        """The SUBACK's return codes."""
        ...

    async def publish(self, topic: str, payload: bytes, qos: int) -> None: ...

    async def message(self) -> Message: ...

    async def close(self) -> None: ...


class Paho:
    """paho-mqtt, with its network loop in a thread."""

    def __init__(self, node: Node) -> None:
        self._port = node.port
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        self._connacks: queue.Queue[int] = queue.Queue()
        self._subacks: queue.Queue[list[int]] = queue.Queue()
        self._messages: queue.Queue[Message] = queue.Queue()
        self._client.on_connect = lambda *a: self._connacks.put(AS_CONNACK[a[3].value])
        self._client.on_subscribe = lambda *a: self._subacks.put([code.value for code in a[3]])
        self._client.on_message = lambda *a: self._messages.put(Message(a[2].topic, a[2].payload, a[2].qos))

    async def connect(self, user: str, secret: str) -> int:
        self._client.username_pw_set(user, secret)
        self._client.connect(HOST, self._port)
        self._client.loop_start()
        return await asyncio.to_thread(self._connacks.get, timeout=SECONDS)

    async def subscribe(self, filters: list[str], qos: int) -> list[int]:
        self._client.subscribe([(topic_filter, qos) for topic_filter in filters])
        return await asyncio.to_thread(self._subacks.get, timeout=SECONDS)

    async def publish(self, topic: str, payload: bytes, qos: int) -> None:
        published = self._client.publish(topic, payload, qos)
        await asyncio.to_thread(published.wait_for_publish, SECONDS)
        assert published.is_published()

    async def message(self) -> Message:
        return await asyncio.to_thread(self._messages.get, timeout=SECONDS)

    async def close(self) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)


class Aiomqtt:
    """aiomqtt."""

    def __init__(self, node: Node) -> None:
        self._port = node.port
        self._stack = AsyncExitStack()

    async def connect(self, user: str, secret: str) -> int:
        client = aiomqtt.Client(HOST, self._port, username=user, password=secret, timeout=SECONDS)
        try:
            self._client = await self._stack.enter_async_context(client)
        except aiomqtt.MqttCodeError as error:
            return AS_CONNACK[error.rc.value]
        return 0

    async def subscribe(self, filters: list[str], qos: int) -> list[int]:
        codes = await self._client.subscribe([(topic_filter, qos) for topic_filter in filters])
        return [getattr(code, "value", code) for code in codes]

    async def publish(self, topic: str, payload: bytes, qos: int) -> None:
        await self._client.publish(topic, payload, qos)

    async def message(self) -> Message:
        found = await anext(self._client.messages)
        return Message(found.topic.value, found.payload, found.qos)

    async def close(self) -> None:
        await self._stack.aclose()


class Amqtt:
    """amqtt's MQTTClient."""

    def __init__(self, node: Node) -> None:
        self._port = node.port
        self._client = MQTTClient(config={"auto_reconnect": False})

    async def connect(self, user: str, secret: str) -> int:
        try:
            return await self._client.connect(f"mqtt://{user}:{secret}@{HOST}:{self._port}/")
        except ConnectError as error:
            # What is refused is not connected for amqtt: its disconnect() leaves the socket open.
            await self._client._handler.stop()
            return error.return_code

    async def subscribe(self, filters: list[str], qos: int) -> list[int]:
        return await self._client.subscribe([(topic_filter, qos) for topic_filter in filters])

    async def publish(self, topic: str, payload: bytes, qos: int) -> None:
        await self._client.publish(topic, payload, qos, ack_timeout=int(SECONDS))

    async def message(self) -> Message:
        found = await self._client.deliver_message(timeout_duration=SECONDS)
        return Message(found.topic, bytes(found.data), found.qos)

    async def close(self) -> None:
        await self._client.disconnect()


class Program:
    """A client in a process of its own that prints a line for each event."""

    process: asyncio.subprocess.Process | None = None

    async def start(self, *command: str) -> None:
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)

    async def line(self) -> str:
        line = await self.process.stdout.readline()
        assert line, "the program ended"
        return line.decode().rstrip("\n")

    async def close(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            if self.process.returncode is None:
                self.process.terminate()
            await self.process.communicate()  # its end, and that of its pipes


class Mosquitto(Program):
    """mosquitto_sub, and a mosquitto_pub for each message."""

    def __init__(self, node: Node) -> None:
        self._options = ["-h", HOST, "-p", str(node.port)]

    async def _run(self, program: str, *options: str, payload: bytes = b"") -> int:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            program, *self._options, *options, stdin=pipe, stdout=pipe, stderr=pipe
        )
        await process.communicate(payload)
        return process.returncode

    async def connect(self, user: str, secret: str) -> int:
        self._options += ["-u", user, "-P", secret]
        return await self._run("mosquitto_sub", "-t", f"users/{user}/inbox", "-E")

    async def subscribe(self, filters: list[str], qos: int) -> list[int]:
        topics = [part for topic_filter in filters for part in ("-t", topic_filter)]
        options = [*self._options, *topics, "-q", str(qos), "-d", "-F", "message %q %t %p"]
        await self.start("stdbuf", "-oL", "mosquitto_sub", *options)
        while not (line := await self.line()).startswith("Subscribed "):
            pass
        return [int(code) for code in line.rpartition(": ")[2].split(", ")]

    async def publish(self, topic: str, payload: bytes, qos: int) -> None:
        assert await self._run("mosquitto_pub", "-t", topic, "-q", str(qos), "-s", payload=payload) == 0

    async def message(self) -> Message:
        while not (line := await self.line()).startswith("message "):
            pass
        _, qos, topic, payload = line.split(" ", 3)
        return Message(topic, payload.encode(), int(qos))


class MqttJs(Program):
    """mqtt.js over WebSocket, see chat.mjs."""

    def __init__(self, node: Node) -> None:
        self._url = f"ws://{HOST}:{node.ws_port}/mqtt"
        self._messages: list[dict[str, Any]] = []

    async def _event(self, kind: str) -> dict[str, Any]:
        while (event := json.loads(await self.line()))["event"] != kind:
            assert event["event"] == "message", event
            self._messages.append(event)
        return event

    async def _do(self, kind: str, **command: object) -> dict[str, Any]:
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        return await self._event(kind)

    async def connect(self, user: str, secret: str) -> int:
        await self.start("node", str(SCRIPTS / "chat.mjs"), self._url, user, secret)
        return (await self._event("connack"))["code"]

    async def subscribe(self, filters: list[str], qos: int) -> list[int]:
        return (await self._do("suback", do="subscribe", filters=filters, qos=qos))["granted"]

    async def publish(self, topic: str, payload: bytes, qos: int) -> None:
        encoded = base64.b64encode(payload).decode()
        await self._do("puback", do="publish", topic=topic, payload=encoded, qos=qos)

    async def message(self) -> Message:
        event = self._messages.pop(0) if self._messages else await self._event("message")
        return Message(event["topic"], base64.b64decode(event["payload"]), event["qos"])


class Kinds:
    """The clients by name."""

    all: ClassVar[dict[str, type[Client]]] = {
        "paho": Paho,
        "aiomqtt": Aiomqtt,
        "amqtt": Amqtt,
        "mosquitto": Mosquitto,
        "mqtt.js": MqttJs,
    }
    pairs: ClassVar[list[tuple[str, str]]] = sorted(
        {pair for kind in all for pair in ((kind, kind), (kind, "paho"), ("paho", kind))}
    )
