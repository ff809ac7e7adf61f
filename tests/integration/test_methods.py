"""What each method refuses, by which code; and that a refusal is all that comes of it.

What can be told from a method's types (what is missing, unknown, of the wrong type or beyond its
bounds) is worked out in `tests/integration/faults.py`; the rest is in `tests/integration/method_rows.py`.
"""

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

from bridge.services import offered_operations
from tests.integration.faults import faults
from tests.integration.im import CallError, Device, devices, private
from tests.integration.method_rows import MOST_MEMBERS, SENDING, TABLE
from tests.integration.node import Node, password
from tests.integration.raw import RawClient, publish
from tests.integration.test_contacts import befriend
from tests.integration.test_refusals import Bystander

UNKNOWN = ("x", "messages", "messages.", "messages.nothing", "MESSAGES.SYNC", "__init__", "messages.sync.x")
UNKNOWN += ("a" * 10_000, "{}", "%s", "\u202e")

NO_REQUESTS = (
    *(b"nonsense", b"[]", b'[{"limit": 1}]', b'"x"', b"5", b"null", b"true", b'{"a":', b"{} {}", b"\xff\xfe"),
    *(b"{'limit': 1}", b'{"limit": NaN}', b'{"limit": 1e999}', b'{"limit": ' + b"9" * 10_000 + b"}"),
    *(b'{"x": "\\ud800"}', b'{"x": "\xed\xa0\x80"}', b"\0", b" "),
    *(b"[" * 100_000, b'{"a":' * 40_000, b"[" * 100_000 + b"]" * 100_000, b"x" * 250_000),
    *(b'{"request_id": 7}', b'{"request_id": ""}', b'{"request_id": "' + b"r" * 129 + b'"}'),
    *(b'{"request_id": null, "colour": 1}', b'{"colour": "' + b"x" * 250_000 + b'"}'),
    *(b'{"' + b"x" * 250_000 + b'": 1}', b'{"": 1}', b'{"__class__": "x"}', b'{"self": 1, "caller": "x"}'),
)


class World:
    """Users with a device each, and their relations."""

    def __init__(self, node: Node, callers: dict[str, Device]) -> None:
        self.node = node
        self.callers = callers
        for device in callers.values():  # else each call waits for the node's delayed ACK of a PUBACK
            device.client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.names = {name: device.user for name, device in callers.items()}
        me, peer, other, third = (callers[name] for name in ("me", "peer", "other", "third"))
        befriend(me, peer)
        me.rpc("messages.send", user_id=peer.user, content="x", client_msg_id="c-1")
        from_peer = peer.rpc("messages.send", user_id=me.user, content="x")["id"]
        between = other.rpc("messages.send", user_id=third.user, content="x")["id"]
        recalled = me.rpc("messages.send", user_id=peer.user, content="x")["id"]
        me.rpc("messages.recall", id=recalled)
        me.rpc("groups.create", group_id=f"shared-{me.user}", members=[self.names["blocker"]])
        to_blocker = me.rpc("messages.send", user_id=self.names["blocker"], content="x")["id"]
        callers["blocker"].rpc("contacts.block", user_id=me.user)
        callers["shy"].rpc("users.update", who_may_message="contacts")
        self.names |= {
            "from_peer": from_peer,
            "between_others": between,
            "recalled": recalled,
            "shared": f"shared-{me.user}",
            "to_blocker": to_blocker,
            "with_peer": private(me.user, peer.user),
            "with_other": private(me.user, other.user),
            "of_others": private(other.user, third.user),
        }
        self._make_groups()

    def _make_groups(self) -> None:
        me, peer, other, third = (self.callers[name] for name in ("me", "peer", "other", "third"))
        users = [me.user, peer.user, third.user]

        def make(owner: Device, name: str, *members: str, **settings: Any) -> str:
            view = owner.rpc("groups.create", name=name, members=list(members), **settings)
            self.names[name] = view["group_id"]
            return str(view["group_id"])

        own = make(me, "own", peer.user)
        me.rpc("groups.ban", group_id=own, user_id=third.user)
        self.names["in_own"] = me.rpc("messages.send", group_id=own, content="x")["id"]
        gone = self.node.user("gone")
        self.names["gone"] = gone
        me.rpc("groups.add", group_id=own, user_ids=[gone])
        with Device(self.node, gone) as device:
            device.rpc("groups.leave", group_id=own)
        joined = make(other, "joined", *users, who_may_invite="admins")
        other.rpc("groups.set_role", group_id=joined, user_id=peer.user, role="admin")
        self.names["in_joined"] = third.rpc("messages.send", group_id=joined, content="x")["id"]
        (entry, *_) = me.rpc("messages.history", conversation_id=f"g:{joined}", limit=100)["messages"]
        assert entry["type"] == "system"
        self.names["system_entry"] = entry["id"]
        closed = make(other, "closed", third.user, join="closed")
        self.names["in_closed"] = other.rpc("messages.send", group_id=closed, content="x")["id"]
        other.rpc("groups.ban", group_id=make(other, "banned", join="open"), user_id=me.user)
        other.rpc("groups.mute", group_id=make(other, "quiet", *users), user_id=me.user, until=2**50)
        ended = make(other, "ended", *users)
        self.names["in_ended"] = me.rpc("messages.send", group_id=ended, content="x")["id"]
        other.rpc("groups.dismiss", group_id=ended)
        extras = [self.node.user("extra") for _ in range(MOST_MEMBERS - 1)]
        make(me, "full", *extras, join="open")

    def fill(self, value: Any) -> Any:
        """Put names in the place of `{…}`."""
        if isinstance(value, str):
            for name, meant in self.names.items():
                value = value.replace("{" + name + "}", meant)
            return value
        if isinstance(value, dict):
            return {self.fill(key): self.fill(each) for key, each in value.items()}
        return [self.fill(each) for each in value] if isinstance(value, list) else value

    def stored(self) -> dict[str, Any]:
        """All stored data that the users can see."""
        return {name: dict(_seen(device)) for name, device in self.callers.items()}


def _seen(device: Device) -> Iterator[tuple[str, Any]]:
    listed = device.rpc("conversations.list", include_hidden=True)["conversations"]
    for view in listed:
        del view["peer_delivered_seq"]  # it follows the PUBACKs of devices, half a second later
    yield "conversations", listed
    yield "contacts", device.rpc("contacts.list", state="all")
    yield "profile", device.rpc("users.get")
    yield "logs", device.sync()
    groups = device.rpc("groups.list")
    yield "groups", groups
    for group in groups["groups"]:
        where = group["group_id"]
        yield f"members of {where}", device.rpc("groups.members", group_id=where)
        if group["role"] != "member":
            yield f"bans of {where}", device.rpc("groups.bans", group_id=where)
            yield f"requests of {where}", device.rpc("groups.requests", group_id=where)


def check(device: Device, method: str, parameters: Any, code: str, named: str = "") -> str | None:
    """What is wrong with the answer to a call, or None."""
    shown = f"{device.user}: {method} {json.dumps(parameters)[:200]}"
    try:
        result = device.call(method, parameters)
    except CallError as refusal:
        if refusal.code != code:
            return f"{shown}: {refusal}, not {code}"
        is_clear = named in refusal.detail and len(refusal.detail) < 600
        return None if is_clear else f"{shown}: {refusal.detail[:600]}"
    return f"{shown}: not refused: {str(result)[:200]}"


def wrongs(world: World, method: str, parameters: type[Any]) -> Iterator[str | None]:
    """What is wrong with the answers of one method."""
    me = world.callers["me"]
    for fault in faults(parameters):
        yield check(me, method, fault.request, "invalid_params", fault.named)
    for who, request, code in TABLE[method]:
        yield check(world.callers[who], method, world.fill(request), code)
    for payload in NO_REQUESTS:
        reply = me.raw(method, payload)
        if reply["ok"] or reply["error"]["code"] != "invalid_params" or len(str(reply)) > 1000:
            yield f"{method} {payload[:80]!r}: {str(reply)[:1000]}"


def depths(world: World) -> Iterator[str | None]:
    """JSON nested almost too deep to be read: a node that reads it must be able to write it, or refuse it."""
    me = world.callers["me"]
    for depth in (100, *range(900, 1010)):
        content = b"[" * depth + b"]" * depth
        request = b'{"id": "0", "content": ' + content + b"}"
        message = world.fill('{"group_id": "{closed}", "content": ').encode() + content + b"}"
        batch = b'{"messages": [' + message + b"]}"
        for method, payload in (("edit", request), ("send", message), ("send_batch", batch)):
            reply = me.raw(f"messages.{method}", payload)
            error = reply["error"] if not reply["ok"] else reply["result"]["results"][0]["error"]
            if error["code"] not in ("not_found", "not_member", "invalid_params"):
                yield f"{method} {depth} deep: {error}"


def leaks(world: World) -> Iterator[str | None]:
    """Message ids can be guessed. Guessing must not tell who writes to whom."""
    me = world.callers["me"]
    secrets = [world.names[name] for name in ("between_others", "in_closed")]
    asked = me.rpc("messages.get", ids=[*secrets, "1"])
    if asked != {"messages": [], "missing": [*secrets, "1"], "rest": []}:
        yield f"messages.get: {asked}"
    for method in ("messages.readers", "messages.edit", "messages.recall"):
        content = {"content": "x"} if method == "messages.edit" else {}
        for caller, name in (("me", "between_others"), ("me", "in_closed"), ("other", "in_own")):
            message = world.names[name]
            try:
                world.callers[caller].call(method, {"id": message} | content)
                yield f"{method} {name}: done"
            except CallError as refusal:
                if (refusal.code, refusal.detail) != ("not_found", f"no message {message}"):
                    yield f"{method} {name}: {refusal}"


def test_every_method_has_rows() -> None:
    assert set(TABLE) == {operation.name for operation in offered_operations()}
    assert all(TABLE.values())


def test_what_methods_refuse(make_node: Callable[..., Node]) -> None:
    node = make_node(f"limits.group_members={MOST_MEMBERS}").start()
    watching = Bystander(node)
    watching.check()
    people = ("me", "peer", "other", "third", "blocker", "shy")
    with devices(node, *(node.user(name) for name in people), each=1) as made:
        world = World(node, dict(zip(people, made, strict=True)))
        before = world.stored()
        found: list[str | None] = []
        for operation in offered_operations():
            found += wrongs(world, operation.name, operation.parameters)
            watching.check()
        me = world.callers["me"]
        found += [check(me, method, {}, "unknown_method") for method in UNKNOWN]
        found += depths(world)
        found += leaks(world)
        batch = [world.fill(request) for _, request, _ in SENDING]
        results = me.rpc("messages.send_batch", messages=batch)["results"]
        assert [result["error"]["code"] for result in results] == [code for *_, code in SENDING]
        with RawClient(node.port) as huge:
            huge.login("huge", me.user, password(me.user))
            huge.send(publish(f"users/{me.user}/rpc/groups.create", b'{"name": "' + b"x" * 300_000 + b'"}'))
            assert huge.is_closed()
        watching.check()
        wrong = [each for each in found if each is not None]
        assert not wrong, "\n".join(each[:400] for each in wrong)
        assert world.stored() == before
    assert "Traceback" not in node.log()
    assert " ERROR " not in node.log()
    watching.client.socket.close()
