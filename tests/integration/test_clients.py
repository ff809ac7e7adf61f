"""The main job with stock MQTT clients: two users and a group of three chat over real sockets."""

import asyncio
import base64
import json
import queue
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import aiomqtt
import paho.mqtt.client as paho
import pytest
from amqtt.client import MQTTClient
from amqtt.errors import ConnectError

from broker.domain.ids import Snowflakes
from tests.integration.node import HOST, Node, password

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


Connect = Callable[..., Awaitable[Client]]


@pytest.fixture
async def connect(node: Node) -> AsyncIterator[Connect]:
    """`connect(kind, user, *filters)`: a client that is logged in and subscribed with QoS 1."""
    made: list[Client] = []

    async def connect(kind: str, user: str, *filters: str) -> Client:
        client = Kinds.all[kind](node)
        made.append(client)
        async with asyncio.timeout(SECONDS):
            assert await client.connect(user, password(user)) == 0
            if filters:
                assert await client.subscribe(list(filters), 1) == [1] * len(filters)
        return client

    yield connect
    for client in made:
        await client.close()


async def received(client: Client, count: int) -> list[dict[str, Any]]:
    """The next messages, all of QoS 1, as JSON with the topic they came by as `topic`."""
    async with asyncio.timeout(SECONDS):
        messages = [await client.message() for _ in range(count)]
    assert [message.qos for message in messages] == [1] * count
    return [{"topic": message.topic} | json.loads(message.payload) for message in messages]


def conversation(one: str, other: str) -> str:
    return "p:" + ":".join(sorted((one, other)))


def check_stamps(message: dict[str, Any], began_ms: int) -> dict[str, Any]:
    """What is left of a message without its id and time, which must be plausible."""
    message = dict(message)
    message_id, created_at = message.pop("id"), message.pop("created_at")
    assert isinstance(message_id, str)
    assert began_ms <= created_at <= time.time() * 1000
    assert abs(Snowflakes.created_ms(int(message_id)) - created_at) <= 1000
    return message


@pytest.mark.parametrize(("sending", "receiving"), Kinds.pairs)
async def test_a_private_chat_and_a_group(node: Node, connect: Connect, sending: str, receiving: str) -> None:
    alice, bob, carol = (node.user(name) for name in ("alice", "bob", "carol"))
    team = node.group(alice, bob, carol)
    began = int(time.time() * 1000)
    phone = await connect(sending, alice, f"users/{alice}/inbox", "groups/+")
    others = [
        await connect(receiving, bob, f"users/{bob}/inbox", "groups/+"),
        await connect(receiving, carol, f"users/{carol}/inbox", "groups/+"),
    ]
    rich = {"content": {"lat": 1.5, "name": "Café ☕"}, "type": "location", "client_msg_id": "c-1"}

    async with asyncio.timeout(SECONDS):
        await phone.publish(f"users/{bob}/inbox", b"hi", 1)
        await phone.publish(f"users/{bob}/inbox", json.dumps(rich).encode(), 1)
        await phone.publish(f"groups/{team}", b"hello, all of you", 1)
        await others[0].publish(f"users/{alice}/inbox", b"hi yourself", 1)

    private = {"conversation_id": conversation(alice, bob), "conversation_type": "private"}
    to_bob = private | {"from_user_id": alice, "to_user_id": bob}
    chat = [
        to_bob | {"seq": 1, "offset": 1, "n": 1, "type": "text", "content": "hi"},
        to_bob
        | {"seq": 2, "offset": 2, "n": 2, "client_msg_id": "c-1"}
        | {"type": "location", "content": rich["content"]},
        private
        | {"seq": 3, "offset": 3, "n": 3, "from_user_id": bob, "to_user_id": alice}
        | {"type": "text", "content": "hi yourself"},
    ]
    group = {
        "topic": f"groups/{team}",
        "conversation_id": f"g:{team}",
        "conversation_type": "group",
        "group_id": team,
        "from_user_id": alice,
        "seq": 2,  # the first entry says that the group was made
        "offset": 2,
        "n": 1,  # which is no message
        "type": "text",
        "content": "hello, all of you",
    }
    of_alice, of_bob = await received(phone, 4), await received(others[0], 4)
    (of_carol,) = await received(others[1], 1)
    for user, got in ((alice, of_alice), (bob, of_bob)):
        inbox = f"users/{user}/inbox"
        stamped = [check_stamps(message, began) for message in got]
        assert [message for message in stamped if message["topic"] == inbox] == [
            message | {"topic": inbox} for message in chat
        ]
        assert [message for message in stamped if message["topic"] != inbox] == [group]
    assert check_stamps(of_carol, began) == group
    ids = [{m["content"] if m["type"] == "text" else "": m["id"] for m in got} for got in (of_alice, of_bob)]
    assert ids[0] == ids[1]
    assert len(set(ids[0].values())) == 4
    assert of_carol["id"] == ids[0][group["content"]]


@pytest.mark.parametrize("kind", Kinds.all)
async def test_a_message_sent_again_is_one_message(node: Node, connect: Connect, kind: str) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    sender = await connect(kind, alice)
    reader = await connect("paho", bob, f"users/{bob}/inbox")
    payload = json.dumps({"content": "once", "client_msg_id": "try-7", "mentions": [bob]}).encode()
    async with asyncio.timeout(SECONDS):
        for each in (payload, payload, b"last"):
            await sender.publish(f"users/{bob}/inbox", each, 1)
    once, last = await received(reader, 2)
    assert (once["content"], once["client_msg_id"], once["mentions"], once["seq"]) == (
        "once",
        "try-7",
        [bob],
        1,
    )
    assert (last["content"], last["seq"], last["offset"]) == ("last", 2, 2)
    assert [message["id"] for message in node.history(conversation(alice, bob))] == [once["id"], last["id"]]


@pytest.mark.parametrize("kind", Kinds.all)
@pytest.mark.parametrize("qos", [0, 2])
async def test_other_qualities_of_service(node: Node, connect: Connect, kind: str, qos: int) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    sender = await connect(kind, alice)
    reader = await connect(kind, bob)
    async with asyncio.timeout(SECONDS):
        assert await reader.subscribe([f"users/{bob}/inbox"], qos) == [qos]
        await sender.publish(f"users/{bob}/inbox", b"hi", qos)
        message = await reader.message()
    assert (json.loads(message.payload)["content"], message.qos) == ("hi", qos)


@pytest.mark.parametrize("kind", Kinds.all)
async def test_a_wrong_password_is_refused(node: Node, kind: str) -> None:
    alice = node.user("alice")
    for user, secret in ((alice, "wrong"), ("nobody", password(alice))):
        client = Kinds.all[kind](node)
        try:
            async with asyncio.timeout(SECONDS):
                assert await client.connect(user, secret) == NOT_AUTHORIZED
        finally:
            await client.close()
