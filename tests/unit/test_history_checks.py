"""The checker of histories finds what must never happen. Each rule is broken by histories made by hand."""

import copy
from collections.abc import Callable

import msgspec
import pytest

from tests.history.checks import RULES, violations
from tests.history.records import Answer, Delivery, Edit, Entry, Read, Reader, Run, Sent, Start, View

ALICE, BOB = "users/alice/inbox", "users/bob/inbox"
PRIVATE, GROUP = "p:alice:bob", "g:team"
TEAM = "groups/team"


def entry(number: int, seq: int, n: int, sender: str, content: str, **more: object) -> Entry:
    return {
        "id": str(number),
        "seq": seq,
        "n": n,
        "from_user_id": sender,
        "type": "text",
        "content": content,
        **more,
    }


def private_entries() -> list[Entry]:
    """Three messages and an edit of the second."""
    where = {"conversation_id": PRIVATE}
    return [
        entry(11, 1, 1, "alice", "a1 hello", client_msg_id="c1", **where),
        entry(12, 2, 2, "alice", "a2 changed", client_msg_id="c2", **where),
        entry(13, 3, 2, "alice", "a2 changed", type="edit", target_id="12", **where),
        entry(14, 4, 3, "bob", "b1 hi", **where),
    ]


def group_entries() -> list[Entry]:
    """Two messages, after one that was there before."""
    where = {"conversation_id": GROUP}
    return [entry(21, 2, 2, "bob", "b2 all", **where), entry(22, 3, 3, "alice", "a3 all", **where)]


def placed(entries: list[Entry], offset: int = 1) -> list[Entry]:
    return [each | {"offset": number} for number, each in enumerate(entries, offset)]


def view(user: str, unread: dict[str, int], read: dict[str, int]) -> View:
    histories = {PRIVATE: private_entries(), GROUP: group_entries()}
    listed: dict[str, Entry] = {
        where: {
            "head_seq": entries[-1]["seq"],
            "read_seq": read[where],
            "unread": unread[where],
            "last_message": entries[-1],
        }
        for where, entries in histories.items()
    }
    logs = {f"users/{user}/inbox": placed(private_entries()), TEAM: placed(group_entries(), 2)}
    return View(user, logs, histories, listed)


def delivered(topic: str, log: list[Entry], connection: int = 1) -> list[Delivery]:
    return [
        Delivery(
            connection, topic, each["offset"], each["seq"], each["id"], each.get("client_msg_id"), again=False
        )
        for each in log
    ]


def reader(user: str, qos: int, topic: str) -> Reader:
    log = placed(group_entries(), 2) if topic == TEAM else placed(private_entries())
    return Reader(user, f"{user}-reader", qos, [topic], delivered(topic, log), connections=1)


@pytest.fixture
def run() -> Run:
    """A history in which everything is right. Alice's second message was answered twice."""
    return Run(
        offsets={TEAM: 1},
        starts={GROUP: Start(1, 1)},
        sent=[
            Sent("a1", "alice", PRIVATE, 1, "c1", tries=2, acknowledged=True),
            Sent("a2", "alice", PRIVATE, 2, "c2", 2, True, [Answer("12", 2), Answer("12", 2)]),
            Sent("b1", "bob", PRIVATE, 1, tries=1, acknowledged=True),
            Sent("b2", "bob", GROUP, 1, tries=1),
            Sent("a3", "alice", GROUP, 1, tries=1, acknowledged=True),
        ],
        edits=[Edit("12", PRIVATE, "a2 changed", tries=2, acknowledged=True)],
        reads=[Read("bob", PRIVATE, 1), Read("alice", PRIVATE, 4)],
        readers=[reader("alice", 1, ALICE), reader("bob", 2, BOB), reader("bob", 1, TEAM)],
        views=[
            view("alice", {PRIVATE: 0, GROUP: 0}, {PRIVATE: 4, GROUP: 0}),
            view("bob", {PRIVATE: 0, GROUP: 1}, {PRIVATE: 1, GROUP: 0}),
        ],
    )


def test_a_history_in_which_everything_is_right(run: Run) -> None:
    assert violations(run) == []


def test_a_run_can_be_written_and_read(run: Run) -> None:
    assert msgspec.json.decode(msgspec.json.encode(run), type=Run) == run


# --- what breaks a rule -------------------------------------------------------------------

BREAKS: dict[str, list[Callable[[Run], None]]] = {rule: [] for rule in RULES}


def breaks(rule: str) -> Callable[[Callable[[Run], None]], None]:
    return BREAKS[rule].append


def everywhere(run: Run, change: Callable[[list[Entry]], object], conversation: str = PRIVATE) -> None:
    """Change what is stored, so that all see it."""
    for each in run.views:
        change(each.histories[conversation])
        for log in each.logs.values():
            if log[0]["conversation_id"] == conversation:
                change(log)


@breaks("acknowledged is stored")
def lost(run: Run) -> None:
    everywhere(run, list.pop)


@breaks("acknowledged is stored")
def without_its_key(run: Run) -> None:
    everywhere(run, lambda log: log[0].pop("client_msg_id"))


@breaks("acknowledged is stored")
def of_another_sender(run: Run) -> None:
    everywhere(run, lambda log: log[3].update(from_user_id="alice"))


@breaks("stored once")
def twice_with_a_key(run: Run) -> None:
    everywhere(run, lambda log: log.append(log[0] | {"id": "15", "seq": 5, "n": 4}))


@breaks("stored once")
def more_often_than_sent(run: Run) -> None:
    everywhere(run, lambda log: log.append(log[3] | {"id": "15", "seq": 5, "n": 4}))


@breaks("stored once")
def of_nobody(run: Run) -> None:
    everywhere(run, lambda log: log[0].update(content="x hello"))


@breaks("stored once")
def one_id_for_two(run: Run) -> None:
    everywhere(run, lambda log: log[1].update(id="11"))


@breaks("a retry returns the first id")
def another_id(run: Run) -> None:
    run.sent[1].answers.append(Answer("99", 2))


@breaks("a retry returns the first id")
def another_place(run: Run) -> None:
    run.sent[1].answers[1] = Answer("12", 3)


@breaks("a retry returns the first id")
def of_two_that_are_stored(run: Run) -> None:
    everywhere(run, lambda log: log.append(log[1] | {"id": "15", "seq": 5, "n": 4}))
    run.sent[1].answers[1] = Answer("15", 5)


@breaks("the order of a sender")
def overtaken(run: Run) -> None:
    run.sent[0].number, run.sent[1].number = 2, 1


@breaks("edits")
def a_lost_edit(run: Run) -> None:
    run.edits[0].content = "a2 changed again"


@breaks("edits")
def more_edits_than_tries(run: Run) -> None:
    everywhere(run, lambda log: log.append(log[2] | {"id": "15", "seq": 5}))
    run.edits[0].tries = 1


@breaks("edits")
def an_edit_without_effect(run: Run) -> None:
    everywhere(run, lambda log: log[1].update(content="a2 as before"))


@breaks("gapless")
def a_gap_of_offsets(run: Run) -> None:
    run.views[0].logs[ALICE][3]["offset"] = 5


@breaks("gapless")
def a_gap_of_seqs(run: Run) -> None:
    everywhere(run, lambda log: log[3].update(seq=5))


@breaks("gapless")
def a_log_that_does_not_begin(run: Run) -> None:
    everywhere(run, lambda log: log.pop(0), GROUP)


@breaks("all see the same")
def one_inbox_without_its_entry(run: Run) -> None:
    del run.views[1].logs[BOB][3]


@breaks("all see the same")
def inboxes_that_disagree(run: Run) -> None:
    run.views[1].logs[BOB][3]["content"] = "b1 ho"


@breaks("all see the same")
def histories_that_disagree(run: Run) -> None:
    run.views[1].histories[GROUP].reverse()


@breaks("readers follow the log")
def a_skip(run: Run) -> None:
    del run.readers[0].deliveries[1]


@breaks("readers follow the log")
def left_behind(run: Run) -> None:
    del run.readers[2].deliveries[1]


@breaks("readers follow the log")
def never_stored(run: Run) -> None:
    last = run.readers[0].deliveries[-1]
    run.readers[0].deliveries.append(last._replace(offset=5, seq=5, id="15"))


@breaks("readers follow the log")
def another_message(run: Run) -> None:
    run.readers[0].deliveries[1] = run.readers[0].deliveries[1]._replace(id="99")


@breaks("readers follow the log")
def another_key(run: Run) -> None:
    run.readers[0].deliveries[1] = run.readers[0].deliveries[1]._replace(client_msg_id=None)


@breaks("readers follow the log")
def a_session_that_was_lost(run: Run) -> None:
    run.readers[0].lost = 1


@breaks("readers follow the log")
def twice_on_one_connection(run: Run) -> None:
    run.readers[0].deliveries.append(run.readers[0].deliveries[-1])


@breaks("readers follow the log")
def backwards_on_one_connection(run: Run) -> None:
    run.readers[0].deliveries.append(run.readers[0].deliveries[0])


@breaks("readers follow the log")
def exactly_once_twice(run: Run) -> None:
    run.readers[1].deliveries += delivered(BOB, placed(private_entries())[-1:], connection=2)


@breaks("n counts messages")
def a_wrong_count(run: Run) -> None:
    everywhere(run, lambda log: log[2].update(n=3))


@breaks("n counts messages")
def no_count(run: Run) -> None:
    everywhere(run, lambda log: log[2].pop("n"))


@breaks("unread counts")
def unread(run: Run) -> None:
    run.views[1].listed[GROUP]["unread"] = 2


@breaks("unread counts")
def a_read_mark_that_is_lost(run: Run) -> None:
    run.views[0].listed[PRIVATE]["read_seq"] = 3


@breaks("unread counts")
def an_older_head(run: Run) -> None:
    run.views[0].listed[PRIVATE]["head_seq"] = 3


@breaks("unread counts")
def an_older_last_message(run: Run) -> None:
    run.views[0].listed[GROUP]["last_message"] = group_entries()[0]


@breaks("unread counts")
def a_conversation_that_is_not_listed(run: Run) -> None:
    del run.views[0].listed[GROUP]


@pytest.mark.parametrize(
    ("rule", "change"),
    [pytest.param(rule, each, id=each.__name__) for rule, all_of in BREAKS.items() for each in all_of],
)
def test_what_breaks_a_rule_is_found(run: Run, rule: str, change: Callable[[Run], None]) -> None:
    change(run)
    assert rule in {violation.rule for violation in violations(run)}


def test_each_rule_has_a_history_that_breaks_it() -> None:
    assert all(BREAKS.values())


# --- what is allowed ----------------------------------------------------------------------


def test_without_a_key_a_message_may_be_stored_as_often_as_it_was_sent(run: Run) -> None:
    everywhere(run, lambda log: log.append(log[3] | {"id": "15", "seq": 5, "n": 4, "offset": 5}))
    run.sent[2].tries = 2
    for each in run.views:
        last = each.histories[PRIVATE][-1]
        del last["offset"]
        each.listed[PRIVATE] |= {"head_seq": 5, "last_message": last}
    run.views[0].listed[PRIVATE] |= {"unread": 1}
    for one in run.readers[:2]:
        one.deliveries.append(one.deliveries[-1]._replace(offset=5, seq=5, id="15"))
    assert violations(run) == []


def test_what_was_not_acknowledged_may_be_missing(run: Run) -> None:
    run.sent.append(Sent("b3", "bob", PRIVATE, 2, tries=3))
    assert violations(run) == []


def test_a_repeat_on_a_later_connection(run: Run) -> None:
    """It goes back and comes forward again. With QoS 2 that is for runs in which nodes failed."""
    again = delivered(ALICE, placed(private_entries())[2:], connection=2)
    run.readers[0].deliveries += again
    assert violations(run) == []
    run.readers[1].deliveries += [each._replace(topic=BOB) for each in again]
    allowed = copy.deepcopy(run)
    allowed.may_repeat = True
    assert violations(allowed) == []
    assert violations(run) != []
