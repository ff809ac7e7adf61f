"""Users with two devices each do anything, in any order: what all devices saw is what is in the logs.

The model says how each operation ends. What follows is compared between the parts of the node: what
came live with what a fresh device syncs, and both with what is listed and counted.
"""

import itertools
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.im import CallError, Device, private
from tests.integration.im_checks import (
    assert_counted,
    assert_gapless,
    assert_only_forward,
    assert_related,
    assert_saw_the_same,
)
from tests.integration.im_model import Message, Model
from tests.integration.im_model_group import Group
from tests.integration.node import Node

USERS = 4
GROUPS = 3
CHECKED_EVERY = 12
"""Operations."""
FOREVER = 2**52

_names = itertools.count(1)

some_user = st.integers(0, USERS - 1)
some_pair = st.tuples(some_user, some_user).filter(lambda pair: pair[0] != pair[1])
some_actor = st.integers(0, 2 * USERS - 1)
"""Whoever else may do least, so every other time it is the owner of the group."""
some_group = st.integers(0, GROUPS - 1)
some_place = st.integers(0, 30)
"""Of a message, counted back from the last one."""
changes = st.sampled_from(
    [
        *[("join", join) for join in ("open", "open", "approval", "closed")],
        *[("who_may_invite", who) for who in ("members", "admins")],
        *[("who_may_post", who) for who in ("members", "admins")],
        *[("history_visible", visible) for visible in (True, False)],
    ]
)
privacies = st.sampled_from(
    [
        *[{"who_may_message": who} for who in ("everyone", "contacts")],
        *[{"who_may_add_me": who} for who in ("everyone", "everyone", "contacts", "nobody")],
        *[{"who_sees_presence": who} for who in ("everyone", "contacts", "nobody")],
        *[{"read_receipts": given} for given in (True, False)],
    ]
)


def one_of(**weights: int) -> st.SearchStrategy[str]:
    """Names, each as often as its weight says."""
    return st.sampled_from([name for name, weight in weights.items() for _ in range(weight)])


class Phone(Device):
    """A device that may be away, and knows which events came since it is back."""

    online = False

    def credential(self) -> str:
        return self.node.token(self.user)

    def connect(self) -> Device:
        self.seen = len(self.events)
        super().connect()
        self.online = True
        return self

    def vanish(self) -> None:
        super().vanish()
        self.online = False


class ImMachine(RuleBasedStateMachine):
    def __init__(self, node: Node) -> None:
        super().__init__()
        self.node = node

    @initialize()
    def start(self) -> None:
        self.logged = self.node.log_file.stat().st_size
        self.model = Model()
        self.done = 0
        self.users = [f"{name}-m{next(_names)}" for name in ("alice", "bob", "carol", "dave")]
        self.devices: dict[str, list[Phone]] = {}
        for user in self.users:
            self.node.call("AddUser", pb.AddUserRequest(user_id=user))
            self.devices[user] = [Phone(self.node, user, f"d{i}") for i in range(2)]
        self.make(0, {0, 1, 2})
        self.relate("request", (0, 1), False)

    # --- how operations are done ---------------------------------------------------------

    def phone(self, user: str) -> Phone:
        """An online device of the user; if there is none, one connects first."""
        found = [device for device in self.devices[user] if device.online]
        # They take turns.
        device = found[self.done % len(found)] if found else self.devices[user][0]
        if not device.online:
            device.connect()
        return device

    def call(self, user: str, expected: str | None, method: str, **parameters: Any) -> Any:
        """Call a method that must end as expected."""
        result, code = None, None
        try:
            result = self.phone(user).rpc(method, **parameters)
        except CallError as error:
            code = error.code
        assert code == expected, f"{method} {parameters} by {user}: {code}, not {expected}"
        return result

    def send(self, user: str, expected: str | None, conversation: str, to: dict[str, str], raw: bool) -> None:
        """Send a message in one of the two ways."""
        content = f"message {self.done}"
        if raw:
            self.publish(user, expected, to, content)
        else:
            self.call(user, expected, "messages.send", content=content, **to)
        if expected is None:
            self.model.heads[conversation] += 1
            history = self.phone(user).rpc("messages.history", conversation_id=conversation, limit=1)
            (message,) = history["messages"]
            assert (message["seq"], message["content"]) == (self.model.heads[conversation], content)
            self.model.messages.append(Message(message["id"], conversation, message["seq"], user, content))

    def publish(self, user: str, expected: str | None, to: dict[str, str], content: str) -> None:
        phone = self.phone(user)
        before = len(phone.told("error"))
        if "user_id" in to:
            phone.say(to["user_id"], content)
        else:
            phone.post(to["group_id"], content)
        errors = phone.told("error")[before:]
        assert [error["code"] for error in errors] == ([expected] if expected else [])

    def group(self, number: int) -> Group:
        return self.model.groups[number % len(self.model.groups)]

    def actor(self, one: int, number: int) -> tuple[str, Group]:
        group = self.group(number)
        return self.users[one] if one < USERS else group.owner, group

    # --- messages ------------------------------------------------------------------------

    @rule(
        what=one_of(say=3, post=3, edit=2, recall=1, read=3),
        one=some_user,
        other=some_user,
        place=some_place,
        flag=st.booleans(),
    )
    def talk(self, what: str, one: int, other: int, place: int, flag: bool) -> None:
        user = self.users[one]
        if what == "say":
            self.say(user, self.users[other], flag)
        elif what == "post":
            self.post(user, self.group(place), flag)
        elif self.model.messages:
            message = self.model.messages[-1 - place % len(self.model.messages)]
            getattr(self, what)(message.sender if flag else user, message, other)

    def say(self, user: str, peer: str, raw: bool) -> None:
        self.send(user, self.model.say(user, peer), private(user, peer), {"user_id": peer}, raw)

    def post(self, user: str, group: Group, raw: bool) -> None:
        expected = group.post(user)
        self.send(user, expected, group.conversation, {"group_id": group.id}, raw)

    def edit(self, user: str, message: Message, _: int) -> None:
        content = f"edited {self.done}"
        expected = self.model.edit(user, message, content)
        self.call(user, expected, "messages.edit", id=message.id, content=content)

    def recall(self, user: str, message: Message, _: int) -> None:
        self.call(user, self.model.recall(user, message), "messages.recall", id=message.id)

    def read(self, user: str, message: Message, ahead: int) -> None:
        where, seq = message.conversation, max(1, message.seq + ahead - 1)
        expected = self.model.mark_read(user, where, seq)
        self.call(user, expected, "messages.read", conversation_id=where, seq=seq)

    # --- contacts ------------------------------------------------------------------------

    @rule(
        what=one_of(request=3, accept=3, reject=1, remove=1, block=1, unblock=2),
        pair=some_pair,
        is_due=st.booleans(),
    )
    def relate(self, what: str, pair: tuple[int, int], is_due: bool) -> None:
        """`is_due`: of those whom this is for, if there are any."""
        users = [(self.users[pair[0]], self.users[pair[1]])]
        if what in ("accept", "reject"):
            users += [each for each, state in self.model.contacts.items() if state == "received"] * is_due
        elif what == "unblock":
            users += sorted(self.model.blocks) * is_due
        user, peer = users[-1]
        self.call(user, getattr(self.model, what)(user, peer), f"contacts.{what}", user_id=peer)

    @rule(one=some_user, privacy=privacies)
    def privacy(self, one: int, privacy: dict[str, Any]) -> None:
        user = self.users[one]
        match privacy:
            case {"who_may_message": "contacts"}:
                self.model.choosy.add(user)
            case {"who_may_message": "everyone"}:
                self.model.choosy.discard(user)
            case {"who_may_add_me": who}:
                self.model.adders[user] = who
        self.call(user, None, "users.update", **privacy)

    # --- groups --------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.groups) < GROUPS)
    @rule(one=some_user, others=st.sets(some_user, max_size=3))
    def make(self, one: int, others: set[int]) -> None:
        user, members = self.users[one], [self.users[i] for i in sorted(others)]
        group = f"g-m{next(_names)}"
        asked = (self.model.consent(user, member) for member in members)
        expected = next((code for code in asked if code is not None), None)
        if expected is None:
            self.model.make(group, user, members)
        self.call(user, expected, "groups.create", group_id=group, members=members)

    @rule(
        what=one_of(add=4, remove=2, ban=1, unban=1, accept=2, reject=1, transfer=1),
        one=some_actor,
        number=some_group,
        other=some_user,
        is_due=st.booleans(),
    )
    def manage(self, what: str, one: int, number: int, other: int, is_due: bool) -> None:
        user, group = self.actor(one, number)
        due = {"accept": group.requests, "reject": group.requests, "unban": group.banned}.get(what)
        target = min(due) if due and is_due else self.users[other]
        whom = {"user_ids": [target]} if what in ("add", "remove") else {"user_id": target}
        more: list[Any] = []
        if what == "add":
            more = [self.model.consent(user, target)]
        elif what == "transfer":
            more = [self.model.is_blocked(user, target)]
        expected = getattr(group, what)(user, target, *more)
        self.call(user, expected, f"groups.{what}", group_id=group.id, **whom)

    @rule(what=one_of(join=3, leave=2), one=some_user, number=some_group)
    def join_or_leave(self, what: str, one: int, number: int) -> None:
        user, group = self.users[one], self.group(number)
        self.call(user, getattr(group, what)(user), f"groups.{what}", group_id=group.id)

    @rule(one=some_actor, number=some_group, other=some_user | st.none(), muted=st.booleans())
    def mute(self, one: int, number: int, other: int | None, muted: bool) -> None:
        user, group = self.actor(one, number)
        target = None if other is None else self.users[other]
        whom = {} if target is None else {"user_id": target}
        expected = group.mute(user, target, muted)
        self.call(user, expected, "groups.mute", group_id=group.id, until=FOREVER * muted, **whom)

    @rule(one=some_actor, number=some_group, other=some_user, role=st.sampled_from(["admin", "member"]))
    def set_role(self, one: int, number: int, other: int, role: str) -> None:
        user, group = self.actor(one, number)
        target = self.users[other]
        expected = group.set_role(user, target, role, self.model.is_blocked(user, target))
        self.call(user, expected, "groups.set_role", group_id=group.id, user_id=target, role=role)

    @rule(one=some_actor, number=some_group, change=changes)
    def update(self, one: int, number: int, change: tuple[str, object]) -> None:
        user, group = self.actor(one, number)
        expected = group.update(user, *change)
        self.call(user, expected, "groups.update", group_id=group.id, **dict([change]))

    @rule(one=some_actor, number=some_group, really=st.integers(0, 3))
    def dismiss(self, one: int, number: int, really: int) -> None:
        """Seldom: little happens afterwards."""
        user, group = self.actor(one, number)
        if really == 0 or user != group.owner:
            self.call(user, group.dismiss(user), "groups.dismiss", group_id=group.id)

    # --- devices -------------------------------------------------------------------------

    @rule(one=some_user, number=st.integers(0, 1))
    def come_or_go(self, one: int, number: int) -> None:
        device = self.devices[self.users[one]][number]
        if device.online:
            device.vanish()
        else:
            device.connect()

    # --- what must hold ------------------------------------------------------------------

    @invariant()
    def step(self) -> None:
        self.done += 1
        if self.done % CHECKED_EVERY == 0:
            self.check()

    def check(self) -> None:
        for user in self.users:
            online = [device for device in self.devices[user] if device.online]
            if not online:
                continue
            synced = online[0].sync()
            assert_gapless(self.model, user, synced)
            for device in online:
                assert_saw_the_same(self.model, device, synced)
                assert_only_forward(device, device.seen)
            assert_counted(self.model, list(online), synced)
            assert_related(self.model, online[0], self.users)
        with self.node.log_file.open("rb") as log:
            log.seek(self.logged)
            said = log.read().decode()
        assert "Traceback" not in said, said
        assert " ERROR " not in said, said

    def teardown(self) -> None:
        """All devices reconnect, and have missed nothing."""
        devices = [device for each in getattr(self, "devices", {}).values() for device in each]
        try:
            for device in devices:
                if not device.online:
                    device.connect()
            if devices:
                self.check()
        finally:
            for device in devices:
                device.client.socket.close()


@pytest.mark.timeout(600)  # time to find the smallest example
def test_im(node: Node) -> None:
    run_state_machine_as_test(
        partial(ImMachine, node),
        settings=settings(
            max_examples=20,
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
