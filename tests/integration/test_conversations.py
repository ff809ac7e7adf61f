"""Conversations as a user sees them: on all devices, and in a sync from zero."""

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.im import Device, assert_same, devices, private
from tests.integration.node import Node, password


def test_list(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    group = node.group(alice, bob)
    with devices(node, alice, bob) as (a1, a2, b1, b2), Device(node, carol) as c:
        a1.say(bob, "one")
        a1.say(bob, "two")
        c.say(bob, "from carol")
        a2.post(group, "to all")
        listed = b1.rpc("conversations.list")
        views = {view["conversation_id"]: view for view in listed["conversations"]}
        assert [view["conversation_id"] for view in listed["conversations"]] == [
            f"g:{group}",
            private(bob, carol),
            private(alice, bob),
        ]
        with_alice = views[private(alice, bob)]
        assert with_alice["last_message"]["content"] == "two"
        assert (with_alice["head_seq"], with_alice["read_seq"], with_alice["unread"]) == (2, 0, 2)
        assert with_alice["active_at"] == with_alice["last_message"]["created_at"]
        # the group: the entry of its making, which does not count, and a message
        assert (views[f"g:{group}"]["head_seq"], views[f"g:{group}"]["unread"]) == (2, 1)
        assert listed["unread_total"] == 2 + 1 + 1
        assert b2.rpc("conversations.list")["conversations"] == listed["conversations"]
        # what one says oneself one has read
        assert a2.conversation(private(alice, bob))["unread"] == 0
        assert a2.conversation(f"g:{group}")["unread"] == 0
        assert_same(a1, a2, b1, b2, c)


def test_reading_and_answering(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob) as (a1, a2, b1, b2):
        for i in range(5):
            a1.say(bob, f"m{i}")
        b1.rpc("messages.read", conversation_id=where, seq=3)
        view = b2.conversation(where)
        assert (view["read_seq"], view["unread"]) == (3, 2)
        b2.say(alice, "answer")
        assert b1.conversation(where)["unread"] == 0
        assert a2.conversation(where)["unread"] == 1
        assert a2.rpc("conversations.list")["unread_total"] == 1
        assert_same(a1, a2, b1, b2)


def test_marks(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob) as (a1, _, b1, b2):
        a1.say(bob, "hello")
        b1.rpc("conversations.set", conversation_id=where, pinned=True, muted=True)
        view = b2.conversation(where)
        assert (view["pinned"], view["muted"], view["unread"]) == (True, True, 1)
        assert b2.told("conversation", conversation_id=where, pinned=True, muted=True)
        assert b2.rpc("conversations.list")["unread_total"] == 0, "muted ones don't count"
        assert not a1.conversation(where)["pinned"], "a mark is one user's own"
        b1.rpc("conversations.set", conversation_id=where, muted=False)
        assert b2.conversation(where)["pinned"], "what is not given stays"
        b1.rpc("messages.read", conversation_id=where, seq=1)
        b1.rpc("conversations.set", conversation_id=where, marked_unread=True)
        view = b2.conversation(where)
        assert (view["marked_unread"], view["unread"]) == (True, 0)
        b2.rpc("messages.read", conversation_id=where, seq=1)
        assert not b1.conversation(where)["marked_unread"]


def test_hidden_till_the_next_message(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob) as (a1, _, b1, b2):
        a1.say(bob, "hello")
        since = b2.rpc("conversations.list")["since"]
        b1.rpc("conversations.set", conversation_id=where, hidden=True)
        assert b2.rpc("conversations.list")["conversations"] == []
        changed = b2.rpc("conversations.list", since=since)["conversations"]
        assert [(view["conversation_id"], view["hidden"]) for view in changed] == [(where, True)]
        a1.say(bob, "again")
        (view,) = b2.rpc("conversations.list")["conversations"]
        assert (view["hidden"], view["unread"]) == (False, 2)


def test_pages_and_increments(node: Node) -> None:
    bob = node.user("bob")
    peers = [node.user("peer") for _ in range(7)]
    with Device(node, bob) as b:
        for peer in peers:
            b.say(peer, f"to {peer}")
        seen: list[str] = []
        cursor = ""
        while True:
            page = b.rpc("conversations.list", limit=3, cursor=cursor)
            assert len(page["conversations"]) <= 3
            seen += [view["conversation_id"] for view in page["conversations"]]
            cursor = page["next"]
            if not cursor:
                break
        assert seen == [private(bob, peer) for peer in reversed(peers)]
        assert b.rpc("conversations.list", since=2**52)["conversations"] == []


def test_who_has_the_id_now_sees_nothing_of_who_had_it_before(node: Node) -> None:
    from bridge.grpc_api import im_admin_pb2 as pb
    from tests.integration.node import password

    alice, bob = node.user("alice"), node.user("bob")
    with Device(node, alice) as a:
        a.say(bob, "for the first bob")
        node.call("RemoveUser", pb.RemoveUserRequest(user_id=bob))
        node.call("AddUser", pb.AddUserRequest(user_id=bob, password=password(bob), reuse_id=True))
        with Device(node, bob, "new") as b:
            assert b.rpc("conversations.list")["conversations"] == []
            a.say(bob, "for the second")
            (view,) = b.rpc("conversations.list")["conversations"]
            assert view["last_message"]["content"] == "for the second"


def test_restart(make_node) -> None:  # type: ignore[no-untyped-def]
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        for i in range(3):
            a.say(bob, f"m{i}")
        b.rpc("messages.read", conversation_id=where, seq=2)
        b.rpc("conversations.set", conversation_id=where, pinned=True)
        before = b.conversation(where)
    node.kill()
    node.start()
    with Device(node, bob, "d0") as b:
        assert b.conversation(where) == before


def test_somebody_new_with_an_old_id(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group, where = node.group(alice, bob), private(alice, bob)
    with Device(node, alice) as a:
        for i in range(3):
            a.say(bob, f"to the old one {i}")
        a.post(group, "to all")
        with Device(node, bob) as b:
            b.rpc("messages.read", conversation_id=f"g:{group}", seq=2)
            for each in (where, f"g:{group}"):
                b.rpc("conversations.set", conversation_id=each, pinned=True, muted=True, marked_unread=True)
        node.call("RemoveUser", pb.RemoveUserRequest(user_id=bob))
        node.call("AddUser", pb.AddUserRequest(user_id=bob, password=password(bob), reuse_id=True))
        a.rpc("groups.add", group_id=group, user_ids=[bob])
        a.say(bob, "to the new one")
        with Device(node, bob) as b:
            views = b.rpc("conversations.list")["conversations"]
            # The entry of the group that says that he was added does not count.
            assert {view["conversation_id"]: view["unread"] for view in views} == {where: 1, f"g:{group}": 0}
            assert not any(view["pinned"] or view["muted"] or view["marked_unread"] for view in views)
            assert b.conversation(f"g:{group}")["read_seq"] == 0
        for entry in (a.inbox[0], a.group(group)[0]):
            assert a.rpc("messages.readers", id=entry["id"])["readers"] == []
