"""The main job with stock MQTT clients: two users and a group of three chat over real sockets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from broker.domain.ids import Snowflakes
from tests.integration.client_kinds import (
    NOT_AUTHORIZED,
    SECONDS,
    Client,
    Kinds,
)
from tests.integration.node import Node, password

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
