"""Edit and recall as entries of the log; replies and mentions that must be there."""

from collections.abc import Callable

from tests.integration.im import Device, assert_same, devices, private
from tests.integration.node import Node


def history(device: Device, conversation: str) -> list[dict[str, object]]:
    return device.rpc("messages.history", conversation_id=conversation)["messages"]  # type: ignore[no-any-return]


def test_edit(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob) as (a1, a2, b1, b2):
        a1.say(bob, {"content": "helo", "client_msg_id": "c1"})
        target = b1.inbox[-1]
        entry = a2.rpc("messages.edit", id=target["id"], content="hello")["entry"]
        assert (entry["type"], entry["target_id"], entry["content"]) == ("edit", target["id"], "hello")
        for device in (a1, a2, b1, b2):
            assert device.inbox[-1]["target_id"] == target["id"]
        shown = history(b2, where)[0]
        assert (shown["content"], shown["seq"]) == ("hello", 1)
        assert shown["edited_at"] == entry["created_at"] or shown["edited_at"] > target["created_at"]
        a1.rpc("messages.edit", id=target["id"], content={"text": "hi"})
        assert history(b2, where)[0]["content"] == {"text": "hi"}
        assert b1.refused("messages.edit", id=target["id"], content="mine") == "not_authorized"
        # sent again, it is still the same message
        a1.say(bob, {"content": "helo", "client_msg_id": "c1"})
        assert len(history(b1, where)) == 3
        assert not a1.told("error")
        assert_same(a1, a2, b1, b2)


def test_recall(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob) as (a1, a2, b1, b2):
        a1.say(bob, "a secret")
        target = b1.inbox[-1]
        a1.rpc("messages.edit", id=target["id"], content="another secret")
        assert b1.refused("messages.recall", id=target["id"]) == "not_authorized"
        entry = a2.rpc("messages.recall", id=target["id"])["entry"]
        assert (entry["type"], entry["target_id"]) == ("recall", target["id"])
        shown = history(b2, where)[0]
        assert shown["content"] is None
        assert shown["recalled_at"]
        assert a1.refused("messages.recall", id=target["id"]) == "not_found"
        assert a1.refused("messages.edit", id=target["id"], content="back") == "not_found"
        assert "secret" not in str(b2.sync())
        assert "secret" not in str(history(b2, where))
        last = b2.conversation(where)["last_message"]
        assert (last["id"], last["content"]) == (target["id"], None)
        assert last["recalled_at"]
        assert_same(a1, a2, b1, b2)


def test_recall_in_a_group(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    group = node.group(alice, bob, carol)
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        b.post(group, "nonsense")
        target = a.group(group)[-1]
        assert c.refused("messages.recall", id=target["id"]) == "not_authorized"
        a.rpc("messages.recall", id=target["id"])
        assert c.group(group)[-1]["from_user_id"] == alice
        assert history(c, f"g:{group}")[1]["content"] is None
        assert_same(a, b, c)


def test_time_limits(make_node: Callable[..., Node]) -> None:
    node = make_node("messages.recall_seconds=0", "messages.edit_seconds=0").start()
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        b.say(alice, "private")
        b.post(group, "public")
        private_id, public_id = b.inbox[-1]["id"], b.group(group)[-1]["id"]
        a.until(lambda: a.rpc("conversations.list")["conversations"], "time to pass")
        assert b.refused("messages.recall", id=private_id) == "too_late"
        assert b.refused("messages.edit", id=public_id, content="x") == "too_late"
        assert b.refused("messages.recall", id=public_id) == "too_late"
        a.rpc("messages.recall", id=public_id)


def test_what_stays_as_it_is(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        a.say(bob, "one")
        made = history(a, f"g:{group}")[0]
        edit = a.rpc("messages.edit", id=b.inbox[0]["id"], content="two")["entry"]
        for entry in (made, edit):
            assert a.refused("messages.edit", id=entry["id"], content="x") == "not_authorized"
            assert a.refused("messages.recall", id=entry["id"]) == "not_authorized"
        for forged in ("edit", "recall", "system"):
            a.say(bob, {"content": "x", "type": forged})
            assert a.error()["code"] == "invalid_payload"


def test_references(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    group = node.group(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        a.say(bob, "question")
        question = b.inbox[-1]["id"]
        b.say(alice, {"content": "answer", "reply_to": question, "mentions": [alice]})
        assert (a.inbox[-1]["reply_to"], a.inbox[-1]["mentions"]) == (question, [alice])
        a.post(group, {"content": "all of you", "mentions": "all"})
        assert b.group(group)[-1]["mentions"] == "all"
        a.post(group, {"content": "you", "mentions": [bob]})
        for topic, refused in (
            (f"users/{bob}/inbox", {"reply_to": "1"}),
            (f"users/{bob}/inbox", {"reply_to": "9" * 30}),
            (f"users/{bob}/inbox", {"mentions": [carol]}),
            (f"users/{bob}/inbox", {"mentions": "all"}),
            (f"groups/{group}", {"reply_to": question}),
            (f"groups/{group}", {"mentions": [bob, carol]}),
        ):
            before = len(a.told("error"))
            a.publish(topic, {"content": "x", "client_msg_id": "ref"} | refused)
            assert len(a.told("error")) == before + 1
            assert a.error()["code"] == "not_found"
        assert len(b.inbox) == 2
        assert_same(a, b)


def test_restart(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with Device(node, alice) as a:
        for i in range(3):
            a.say(bob, f"m{i}")
        ids = [entry["id"] for entry in a.inbox]
        a.rpc("messages.recall", id=ids[0])
        a.rpc("messages.edit", id=ids[1], content="edited")
    node.kill()
    node.start()
    with Device(node, bob) as b:
        shown = history(b, where)
        assert [message["content"] for message in shown[:3]] == [None, "edited", "m2"]
        assert "m0" not in str(b.sync())


def test_recalled_with_all_its_edits(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with devices(node, alice, bob) as (a1, a2, b1, b2):
        a1.say(bob, "a secret")
        a1.post(group, "a secret")
        for target, where in ((b1.inbox[-1], private(alice, bob)), (b1.group(group)[-1], f"g:{group}")):
            for i in range(3):
                a1.rpc("messages.edit", id=target["id"], content=f"{i}. secret")
            a1.rpc("messages.recall", id=target["id"])
            edits = [entry for entry in history(b2, where) if entry["type"] == "edit"]
            assert [entry["content"] for entry in edits] == [None] * 3
            assert all(entry["recalled_at"] for entry in edits)
        assert "secret" not in str((b1.sync(), a2.sync()))
        assert_same(a1, a2, b1, b2)
