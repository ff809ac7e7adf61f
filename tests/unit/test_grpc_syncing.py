"""`SyncMessages`: pages, later entries, and rights that change meanwhile."""

import asyncio
import json
import time
from typing import Any

import grpc
import grpc.aio
import pytest

from bridge.grpc_api import im_pb2 as pb
from tests.unit.grpc_kit import TinyNode, failure, tiny_node, until

INBOX = "users/alice/inbox"


async def read(stream: Any) -> tuple[str, int, str]:
    async with asyncio.timeout(10):
        entry = await stream.read()
    document = json.loads(entry.json)
    assert document["offset"] == entry.offset
    return entry.topic, entry.offset, document["content"]


async def read_all(stream: Any) -> list[tuple[str, int, str]]:
    entries = []
    while (entry := await stream.read()) is not grpc.aio.EOF:
        entries.append((entry.topic, entry.offset, json.loads(entry.json)["content"]))
    return entries


async def fails(stream: Any) -> tuple[grpc.StatusCode, str]:
    async with asyncio.timeout(10):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stream.read()
    status, code, _ = failure(raised.value)
    return status, code


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


async def test_all_there_is() -> None:
    async with tiny_node() as node:
        node.logs.join("team", "alice")
        node.logs.join("other", "bob")
        node.logs.say(INBOX, *numbers(1, 250))
        node.logs.say("groups/team", *numbers(1, 120))
        node.logs.say("groups/other", "not for alice")
        for request in (pb.SyncRequest(), pb.SyncRequest(cursors={INBOX: 0}, all_logs=True)):
            entries = await read_all(node.sync(request, "alice"))
            assert [text for topic, _, text in entries if topic == INBOX] == numbers(1, 250)
            assert [text for topic, _, text in entries if topic == "groups/team"] == numbers(1, 120)
            assert len(entries) == 370


async def test_from_cursors_on() -> None:
    async with tiny_node() as node:
        node.logs.join("team", "alice")
        node.logs.say(INBOX, *numbers(1, 150))
        node.logs.say("groups/team", "a", "b")
        entries = await read_all(node.sync(pb.SyncRequest(cursors={INBOX: 149}), "alice"))
        assert entries == [(INBOX, 150, "150")]
        # as another, whose inbox it is
        assert await read_all(node.sync(pb.SyncRequest(cursors={INBOX: 148}), "robot", "alice")) == [
            (INBOX, 149, "149"),
            (INBOX, 150, "150"),
        ]
        # the system reads any inbox
        assert len(await read_all(node.sync(pb.SyncRequest(cursors={INBOX: 0}), "robot"))) == 150
        stale = pb.SyncRequest(cursors={INBOX: 150, "groups/gone": 3}, all_logs=True)
        assert await read_all(node.sync(stale, "alice")) == [("groups/team", 1, "a"), ("groups/team", 2, "b")]


@pytest.mark.parametrize(
    ("cursors", "code"),
    [
        ({"groups/other": 0}, "not_member"),
        ({"users/bob/inbox": 0}, "not_authorized"),
        ({INBOX: -1}, "invalid_params"),
        ({f"groups/g{number}": 0 for number in range(1001)}, "invalid_params"),
    ],
)
async def test_cursors_that_are_refused(cursors: dict[str, int], code: str) -> None:
    async with tiny_node() as node:
        for follow in (False, True):
            assert (await fails(node.sync(pb.SyncRequest(cursors=cursors, follow=follow), "alice")))[
                1
            ] == code
        assert node.logs.tapped == []


async def test_follow_across_changes_of_membership() -> None:
    async with tiny_node() as node:
        node.logs.say(INBOX, "hello")
        stream = node.sync(pb.SyncRequest(follow=True), "alice")
        assert await read(stream) == (INBOX, 1, "hello")
        node.logs.say("groups/team", "before")
        node.logs.join("team", "alice")
        assert await read(stream) == ("groups/team", 1, "before")
        node.logs.say("groups/team", "now")
        assert await read(stream) == ("groups/team", 2, "now")
        node.logs.leave("team", "alice")
        node.logs.say("groups/team", "secret")
        node.logs.say(INBOX, "and here")
        assert await read(stream) == (INBOX, 2, "and here")
        await until(lambda: node.logs.tapped == [INBOX])
        stream.cancel()
        await until(lambda: node.logs.tapped == [])


async def test_a_topic_that_was_asked_for_ends_the_stream_when_it_is_lost() -> None:
    async with tiny_node() as node:
        node.logs.join("team", "alice")
        stream = node.sync(pb.SyncRequest(cursors={"groups/team": 0}, follow=True), "alice")
        node.logs.say("groups/team", "one")
        assert await read(stream) == ("groups/team", 1, "one")
        node.logs.join("other", "alice")  # not asked for
        node.logs.say("groups/other", "x")
        node.logs.leave("team", "alice")
        assert await fails(stream) == (grpc.StatusCode.PERMISSION_DENIED, "not_member")
        await until(lambda: node.logs.tapped == [])


async def test_a_slow_reader_holds_up_its_own_stream_only() -> None:
    async with tiny_node() as node:
        node.logs.join("team", "alice")
        node.logs.say("groups/team", *(["x" * 1000] * 20_000))
        stream = node.sync(pb.SyncRequest(cursors={"groups/team": 0}), "alice")
        await read(stream)
        asked = -1
        while asked != node.logs.pages:  # until the windows are full
            asked = node.logs.pages
            for _ in range(20):
                await node.call("UserService/GetUsers", pb.GetUsersRequest())
        assert asked < 150, "of 200 pages"
        # What is on its way cannot be taken back; nothing is added to it.
        node.logs.leave("team", "alice")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await read_all(stream)
        assert failure(raised.value)[1] == "not_member"
        assert node.logs.pages <= asked + 1


def lose_role(node: TinyNode) -> None:
    node.directory.change("robot", role="user")


@pytest.mark.parametrize(
    ("user", "behalf", "lose", "code"),
    [
        ("alice", None, lambda node: node.directory.revoke("alice"), "unauthenticated"),
        ("alice", None, lambda node: node.directory.change("alice", disabled=True), "unauthenticated"),
        ("robot", None, lose_role, "unauthenticated"),
        ("robot", "alice", lose_role, "not_authorized"),
        ("robot", "alice", lambda node: node.directory.change("alice", disabled=True), "disabled"),
    ],
)
async def test_a_credential_that_is_lost_ends_the_stream(
    user: str, behalf: str | None, lose: Any, code: str
) -> None:
    async with tiny_node() as node:
        node.logs.say(INBOX, "one")
        stream = node.sync(pb.SyncRequest(cursors={INBOX: 0}, follow=True), user, behalf)
        assert await read(stream) == (INBOX, 1, "one")
        lose(node)
        node.logs.say(INBOX, "two")
        assert (await fails(stream))[1] == code
        await until(lambda: node.logs.tapped == [])


async def test_a_token_that_ends_ends_the_stream() -> None:
    async with tiny_node() as node:
        node.directory.expires_at = time.time() + 0.5
        stream = node.sync(pb.SyncRequest(follow=True), "alice")
        assert await fails(stream) == (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")


async def test_a_deadline_ends_the_stream() -> None:
    async with tiny_node() as node:
        call = node.channel.unary_stream("/im.MessageService/SyncMessages")
        metadata = (("authorization", "Bearer token-of-alice"),)
        stream = call(pb.SyncRequest(follow=True).SerializeToString(), metadata=metadata, timeout=0.3)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stream.read()
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: node.logs.tapped == [])


async def test_a_stop_ends_the_stream() -> None:
    async with tiny_node() as node:
        stream = node.sync(pb.SyncRequest(follow=True), "alice")
        await stream.initial_metadata()
        async with asyncio.timeout(5):
            await node.server.stop(0.1)
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()
        await until(lambda: node.logs.tapped == [])


async def test_a_user_has_so_many_streams_open() -> None:
    async with tiny_node(calls_per_user=2) as node:
        node.logs.say(INBOX, "hello")
        request = pb.SyncRequest(cursors={INBOX: 0}, follow=True)
        streams = [node.sync(request, "alice") for _ in range(2)]
        for stream in streams:
            assert await read(stream) == (INBOX, 1, "hello")
        for _ in range(2):
            assert await fails(node.sync(request, "alice")) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "overloaded",
            )
        assert node.limited == {"calls_per_user": 2}
        of_system = [node.sync(request, "root") for _ in range(4)]
        for stream in of_system:
            assert await read(stream) == (INBOX, 1, "hello")
        streams[0].cancel()
        await until(lambda: len(node.logs.tapped) and sum(map(len, node.logs.taps.values())) == 5)
        assert await read(node.sync(request, "alice")) == (INBOX, 1, "hello")


async def test_the_streams_of_a_user_read_one_at_a_time() -> None:
    """All at once, 240 streams of one user over 1,000 logs each kept others waiting for 300 ms."""
    async with tiny_node() as node:
        logs = node.logs
        logs.say(INBOX, "hello")
        logs.read_open.clear()
        request = pb.SyncRequest(cursors={INBOX: 0})
        streams = [node.sync(request, user) for user in ("alice", "alice", "alice", "root", "root")]
        other = node.sync(pb.SyncRequest(), "bob")
        await until(lambda: logs.reading["system"] == 2 and logs.reading["bob"] and logs.reading["alice"])
        await asyncio.sleep(0.1)
        assert logs.reading["alice"] == 1
        logs.read_open.set()
        for stream in streams:
            assert await read(stream) == (INBOX, 1, "hello")
        assert await read_all(other) == []
