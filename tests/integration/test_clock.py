"""The wall clock of a node is set back and forward under it, which loses, hides, shows and refuses nothing.

The node runs with libfaketime (Debian package `faketime`), which reads the offset of the wall clock from a
file. The monotonic clock is the real one.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.clock import Clock
from tests.integration.im import Device
from tests.integration.node import ROOT, Node, password, wait_for
from tests.integration.raw import RawClient, connect

MakeNode = Callable[..., Node]
HOUR = 3600


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def node(make_node: MakeNode, clock: Clock) -> Node:
    made = make_node()
    made.environment = clock.environment
    return made.start()


@contextmanager
def device(node: Node, user: str) -> Iterator[Device]:
    with Device(node, user) as opened:
        yield opened


def where(one: str, other: str) -> str:
    return "p:" + ":".join(sorted((one, other)))


def contents(device: Device, conversation: str) -> list[str]:
    return [
        entry["content"] for entry in device.rpc("messages.history", conversation_id=conversation)["messages"]
    ]


def listed(device: Device, **parameters: object) -> list[str]:
    views = device.rpc("conversations.list", **parameters)["conversations"]
    return [view["conversation_id"] for view in views]


def logs_in(node: Node, user: str, secret: str) -> bool:
    with RawClient(node.port) as client:
        client.send(connect("probe", user, secret))
        return client.expect(2).body[1] == 0


# --- what is seen ----------------------------------------------------------------------------


def test_a_message_to_a_new_account_is_seen_after_the_clock_was_set_back(node: Node, clock: Clock) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    clock.set(-5)
    with device(node, alice) as a, device(node, bob) as b:
        a.say(bob, "hello")
        for each in (a, b):
            assert contents(each, where(alice, bob)) == ["hello"]
            assert listed(each) == [where(alice, bob)]
        entry = a.rpc("messages.history", conversation_id=where(alice, bob))["messages"][0]
        b.rpc("messages.read", conversation_id=where(alice, bob), seq=1)
        assert [reader["user_id"] for reader in a.rpc("messages.readers", id=entry["id"])["readers"]] == [bob]
        a.rpc("messages.edit", id=entry["id"], content="hello!")


@pytest.mark.parametrize("step", [-HOUR, 0, HOUR])
def test_a_new_account_does_not_see_what_was_said_to_an_earlier_one(
    node: Node, clock: Clock, step: int
) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with device(node, alice) as a:
        a.say(bob, "secret")
    node.call("RemoveUser", pb.RemoveUserRequest(user_id=bob))
    clock.set(step)
    node.call("AddUser", pb.AddUserRequest(user_id=bob, password=password(bob), reuse_id=True))
    clock.set(0)
    with device(node, alice) as a, device(node, bob) as b:
        assert contents(b, where(alice, bob)) == []
        assert listed(b) == []
        a.say(bob, "hello")
        assert contents(b, where(alice, bob)) == ["hello"]
        assert listed(b) == [where(alice, bob)]
        assert contents(a, where(alice, bob)) == ["secret", "hello"]


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_an_edit_does_not_tell_a_new_account_what_was_said_to_an_earlier_one(
    node: Node, clock: Clock, step: int
) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with device(node, alice) as a:
        for text in ("secret", "other"):
            a.say(bob, text)
        before, other = a.rpc("messages.history", conversation_id=where(alice, bob))["messages"]
        node.call("RemoveUser", pb.RemoveUserRequest(user_id=bob))
        clock.set(step)
        node.call("AddUser", pb.AddUserRequest(user_id=bob, password=password(bob), reuse_id=True))
        clock.set(0)
        with device(node, bob) as b:
            a.rpc("messages.edit", id=before["id"], content="secret 2")
            a.rpc("messages.recall", id=other["id"])
            a.say(bob, "hello")
            b.until(lambda: len(b.inbox) == 3, "both entries and the message")
            seen = [
                b.inbox,
                b.sync()[f"users/{bob}/inbox"],
                b.rpc("messages.history", conversation_id=where(alice, bob))["messages"],
            ]
            for entries in seen:
                kinds = [(each["type"], each.get("withheld")) for each in entries]
                assert kinds == [("edit", "not_visible"), ("recall", "not_visible"), ("text", None)]
                assert "secret" not in str(entries)
            b.publish(f"users/{alice}/inbox", {"content": "what?", "reply_to": before["id"]})
            assert b.error()["code"] == "not_found"
            b.publish(f"users/{alice}/inbox", {"content": "hi", "reply_to": entries[-1]["id"]})
            assert a.until(lambda: a.inbox[-1]["content"] == "hi", "the answer")


@pytest.mark.parametrize("restarts", [False, True])
def test_message_ids_grow(node: Node, clock: Clock, restarts: bool) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with device(node, alice) as a:
        a.say(bob, "one")
        a.say(carol, "two")
    if restarts:
        node.kill()
    clock.set(-HOUR)
    if restarts:
        node.start()
    with device(node, alice) as a:
        a.say(bob, "three")
        assert listed(a) == [where(alice, bob), where(alice, carol)], "the last one comes first"
        messages = a.rpc("messages.sync")["messages"]
        assert [message["content"] for message in messages if message["type"] == "text"] == [
            "one",
            "two",
            "three",
        ]
        ids = [int(message["id"]) for message in messages]
        assert ids == sorted(set(ids))


@pytest.mark.parametrize("restarts", [False, True])
def test_a_list_of_changes_misses_none(node: Node, clock: Clock, restarts: bool) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with device(node, alice) as a, device(node, bob) as b:
        a.say(bob, "one")
        a.say(carol, "two")
        b.rpc("messages.read", conversation_id=where(alice, bob), seq=1)
        a.rpc("conversations.set", conversation_id=where(alice, carol), pinned=True)
        since = a.rpc("conversations.list")["since"]
    if restarts:
        node.kill()
    clock.set(-HOUR)
    if restarts:
        node.start()
    with device(node, alice) as a, device(node, bob) as b:
        b.say(alice, "three")
        assert where(alice, bob) in listed(a, since=since)
        since = a.rpc("conversations.list")["since"]
        a.rpc("conversations.set", conversation_id=where(alice, carol), pinned=False)
        assert where(alice, carol) in listed(a, since=since)


# --- tokens ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-HOUR, -5, 5])
def test_a_token_just_issued_is_valid(node: Node, clock: Clock, step: int) -> None:
    alice = node.user("alice")
    before = node.token(alice)
    clock.set(step)
    for token in (before, node.token(alice)):
        assert logs_in(node, alice, token)
    credentials = {"user_id": alice, "password": password(alice)}
    pair = httpx.post(f"{node.http}/api/login", json=credentials).json()
    assert logs_in(node, alice, pair["access_token"])
    new = node.user("new")
    assert logs_in(node, new, node.token(new))


@pytest.mark.parametrize("step", [-HOUR, -5])
def test_a_revoked_token_stays_revoked(node: Node, clock: Clock, step: int) -> None:
    alice = node.user("alice")
    before = node.token(alice)
    clock.set(step)
    for _ in range(2):
        node.call("RevokeTokens", pb.RevokeTokensRequest(user_id=alice))
        assert not logs_in(node, alice, before)
        before = node.token(alice)
        assert logs_in(node, alice, before)
    node.call("SetPassword", pb.SetPasswordRequest(user_id=alice, password=password(alice)))
    assert not logs_in(node, alice, before)
    assert logs_in(node, alice, node.token(alice))


def test_a_token_of_an_earlier_account_is_refused(node: Node, clock: Clock) -> None:
    alice = node.user("alice")
    before = node.token(alice)
    node.call("RemoveUser", pb.RemoveUserRequest(user_id=alice))
    clock.set(-5)
    node.call("AddUser", pb.AddUserRequest(user_id=alice, password=password(alice), reuse_id=True))
    assert not logs_in(node, alice, before)
    assert logs_in(node, alice, node.token(alice))


# --- rates, and how long something lasts -----------------------------------------------------


def test_rates_go_on(node: Node, clock: Clock) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with device(node, alice) as a, device(node, bob) as b:

        def types() -> int:
            a.publish(f"users/{bob}/typing", {"typing": True})
            return len(b.settle().typing)

        assert [types() for _ in range(5)][-1] == 3
        clock.set(-HOUR)
        time.sleep(1.2)
        assert types() == 4


def test_logins_are_not_locked_out_for_longer(node: Node, clock: Clock) -> None:
    alice = node.user("alice")

    def login(secret: str) -> int:
        body = {"user_id": alice, "password": secret}
        return httpx.post(f"{node.http}/api/login", json=body).status_code

    statuses = [login("wrong") for _ in range(40)]
    assert statuses[-1] == 429
    clock.set(-HOUR)
    wait_for(lambda: login(password(alice)) == 200, "the next attempt to be let in", 20)


_STEADY = """
import sys
from broker.clock import SystemClock
clock = SystemClock()
print(clock.now_ms(), clock.growing_ms(), clock.steady_ms(), flush=True)
sys.stdin.readline()
print(clock.now_ms(), clock.growing_ms(), clock.steady_ms(), flush=True)
"""


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_time_that_passes_is_no_matter_of_the_wall_clock(clock: Clock, step: int) -> None:
    """By it sessions that are away expire."""
    program = subprocess.Popen(
        [sys.executable, "-c", _STEADY],
        cwd=ROOT,
        env=os.environ | clock.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    before = [int(each) for each in program.stdout.readline().split()]
    clock.set(step)
    after = [int(each) for each in program.communicate("go on\n", timeout=20)[0].split()]
    now, growing, steady = (later - earlier for earlier, later in zip(before, after, strict=True))
    assert abs(now - 1000 * step) < 20_000
    assert abs(growing - max(0, now)) < 1000
    assert 0 <= steady < 20_000
