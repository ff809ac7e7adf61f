"""Cursors and seqs beyond the end of a log, and those from before a restore: refused, over every way in."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from bridge.grpc_api import im_admin_pb2, im_pb2, im_pb2_grpc
from tests.integration.im import Device, private
from tests.integration.node import DEADLINE, Node, password
from tests.integration.raw import RawClient
from tests.integration.test_backup import back_up, generation, imctl, restore


class Chat:
    """Alice and Bob with three private messages and three group messages; Bob calls."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.alice, self.bob = node.user("alice"), node.user("bob")
        self.group = node.group(self.alice, self.bob)
        self.private = private(self.alice, self.bob)
        self.inbox, self.team = f"users/{self.bob}/inbox", f"groups/{self.group}"
        self.say(3)

    def say(self, count: int) -> None:
        with Device(self.node, self.alice, clean=True) as phone:
            for number in range(count):
                phone.say(self.bob, f"text {number}")
                phone.post(self.group, f"text {number}")

    def error(self, phone: Device, method: str, **parameters: Any) -> dict[str, Any]:
        """The error of a call that must be refused."""
        request = json.dumps(parameters).encode()
        reply = phone.raw(method, request)
        assert not reply["ok"], reply
        error: dict[str, Any] = reply["error"]
        assert error["code"] == "out_of_range"
        return error

    def refusal(self, method: str, request: Any, service: Any = None) -> dict[str, str]:
        """The metadata of the google.rpc.ErrorInfo of a gRPC call that must be refused."""
        assert self.node._channel is not None
        stub = (service or im_pb2_grpc.MessageServiceStub)(self.node._channel)
        metadata = (*self.node.metadata, *(() if service else (("im-on-behalf-of", self.bob),)))
        with pytest.raises(grpc.RpcError) as raised:
            list(getattr(stub, method)(request, metadata=metadata, timeout=DEADLINE))
        error: Any = raised.value
        assert error.code() is grpc.StatusCode.OUT_OF_RANGE
        trailer = dict(error.trailing_metadata())
        assert trailer["im-error-code"] == "out_of_range"
        status = im_pb2.Status.FromString(trailer["grpc-status-details-bin"])
        return dict(status.details[0].value.metadata)


@pytest.fixture
def chat(make_node: Callable[..., Node]) -> Chat:
    return Chat(make_node().start())


def test_beyond_the_end(chat: Chat) -> None:
    node = chat.node
    with Device(node, chat.bob, clean=True) as phone:
        heads = phone.rpc("messages.sync")["cursors"]
        head = heads[chat.team]
        now = phone.rpc("messages.sync")["generation"]
        assert now == generation(node) == phone.rpc("conversations.list")["generation"]
        assert phone.rpc("messages.sync", cursors=heads)["messages"] == []
        error = chat.error(phone, "messages.sync", cursors={chat.inbox: 3, chat.team: head + 1})
        assert (error["topic"], error["head"], error["generation"]) == (chat.team, head, now)
        assert error["heads"] == {chat.team: head}
        for method, parameters in (
            ("messages.history", {"after_seq": 4}),
            ("messages.read", {"seq": 4}),
            ("messages.delivered", {"seq": 4}),
        ):
            error = chat.error(phone, method, conversation_id=chat.private, **parameters)
            assert (error["head"], error["generation"]) == (3, now)
        assert phone.rpc("messages.history", conversation_id=chat.private, after_seq=3)["messages"] == []
    for follow in (False, True):
        for all_logs in (False, True):
            facts = chat.refusal(
                "SyncMessages",
                im_pb2.SyncRequest(cursors={chat.inbox: 9}, follow=follow, all_logs=all_logs),
            )
            assert facts == {"topic": chat.inbox, "head": "3", "generation": str(now)}
    request = im_pb2.GetMessagesRequest(conversation_id=chat.private, after_seq=9)
    assert chat.refusal("GetMessages", request) == {"head": "3", "generation": str(now)}
    assert chat.refusal("Tail", im_admin_pb2.TailRequest(topic=chat.inbox, after=4), _admin) == {"head": "3"}
    result = imctl(node, "tail", chat.inbox, "--after", "4")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"imctl: {chat.inbox} has no entry 4: the last is 3\n"
    assert json.loads(imctl(node, "tail", chat.inbox, "--after", "2", "-n", "1").stdout)["offset"] == 3


def _admin(channel: grpc.Channel) -> Any:
    from bridge.grpc_api import im_admin_pb2_grpc

    return im_admin_pb2_grpc.AdminServiceStub(channel)


def test_another_generation(chat: Chat, tmp_path: Path) -> None:
    """The logs have grown past the old cursors."""
    node = chat.node
    with Device(node, chat.bob, clean=True) as phone:
        listed = phone.rpc("conversations.list")
        synced = phone.rpc("messages.sync", generation=listed["generation"])
        cursors, old = synced["cursors"], synced["generation"]
    backup = back_up(node, tmp_path / "backup")
    node.stop()
    restore(node, backup)
    node.start()
    chat.say(9)
    with Device(node, chat.bob, clean=True) as phone:
        now = generation(node)
        assert now > old
        error = chat.error(phone, "messages.sync", cursors=cursors, generation=old)
        assert (error["generation"], error["heads"].keys()) == (now, cursors.keys())
        assert error["heads"][chat.inbox] == 12
        since = listed["since"]
        assert chat.error(phone, "conversations.list", since=since, generation=old)["generation"] == now
        for method, parameters in (
            ("messages.history", {"after_seq": 1}),
            ("messages.history", {"before_seq": 3}),
            ("messages.read", {"seq": 3}),
            ("messages.delivered", {"seq": 3}),
        ):
            error = chat.error(phone, method, conversation_id=chat.private, generation=old, **parameters)
            assert (error["head"], error["generation"]) == (12, now)
        # Nothing that refers to no entry is out of range, and what is of this generation is not.
        assert phone.rpc("messages.sync", cursors={chat.inbox: 0}, generation=old)["generation"] == now
        assert phone.rpc("conversations.list", generation=old)["generation"] == now
        assert len(phone.rpc("messages.sync", cursors=cursors, generation=now)["messages"]) == 18
        phone.rpc("messages.read", conversation_id=chat.private, seq=12, generation=now)
    for all_logs in (False, True):
        request = im_pb2.SyncRequest(cursors=cursors, generation=old, all_logs=all_logs)
        assert chat.refusal("SyncMessages", request)["generation"] == str(now)
    assert node._channel is not None
    stub = im_pb2_grpc.MessageServiceStub(node._channel)
    metadata = (*node.metadata, ("im-on-behalf-of", chat.bob))
    request = im_pb2.SyncRequest(cursors=cursors, generation=now)
    entries = list(stub.SyncMessages(request, metadata=metadata, timeout=DEADLINE))
    assert (len(entries), {entry.generation for entry in entries}) == (18, {now})


def test_a_session_whose_cursor_is_beyond_the_end(chat: Chat) -> None:
    """As from a store of sessions that is newer than that of messages."""
    node = chat.node
    events = f"users/{chat.bob}/events"
    phone = Device(node, chat.bob)
    assert len(phone.inbox) == 0
    chat.say(1)
    phone.until(lambda: phone.log(chat.team), "the entries")
    head = max(phone.entries[chat.team])
    phone.close()
    node.stop()
    with closing(sqlite3.connect(node.data_dir / "parley.db")) as connection:
        connection.execute("UPDATE cursors SET offset = 70 WHERE log != ?", (events,))
        connection.commit()
    node.start()
    phone.client = RawClient(node.port)
    assert phone.client.login(f"{chat.bob}-phone", chat.bob, password(chat.bob), clean=False) is True
    phone.until(lambda: len(phone.told("gap")) == 2, "the gaps")
    gaps = {event["topic"]: (event["from"], event["to"]) for event in phone.told("gap")}
    assert gaps == {chat.inbox: (5, 70), chat.team: (head + 1, 70)}
    phone.entries.clear()
    chat.say(1)
    phone.until(lambda: phone.log(chat.inbox) and phone.log(chat.team), "the new entries")
    assert list(phone.entries[chat.inbox]) == [5]
    assert list(phone.entries[chat.team]) == [head + 1]
    phone.close()
