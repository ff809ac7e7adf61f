"""What every `ConversationStore` does (broker.ports), with what the other stores tell it."""

from typing import TYPE_CHECKING

import msgspec
import pytest

from broker.domain.errors import DuplicateMessageError, StoreError
from broker.domain.message import Count
from broker.ports import ConversationState, DedupKey, Forgotten, Marked, Seen, Unseen, Watermark

if TYPE_CHECKING:
    from tests.ports.conftest import OpenedStores, Scribe


def state(conversation_id: str, head: int = 0, own: int = 0, **changes: object) -> ConversationState:
    """A state of which nothing else is known."""
    nothing = ConversationState(conversation_id, head, own, 0, 0, False, False, False, *[0] * 7)
    return msgspec.structs.replace(nothing, **changes)


async def one(stores: "OpenedStores", user: str, conversation_id: str) -> ConversationState:
    """A state without ids and counts."""
    (found,) = await stores.conversations.states(user, [conversation_id])
    return msgspec.structs.replace(found, head_id=0, last_id=0, last_seq=0, messages=0, seen=0)


async def counted(stores: "OpenedStores", user: str, where: str, floor: int = 0) -> tuple[int, int, int, int]:
    """Messages, those seen, and the seqs of the last one and of the user's own last one."""
    (found,) = await stores.conversations.states(user, [where], {where: floor})
    return found.messages, found.seen, found.last_seq, found.own_seq


async def test_a_state_can_be_written_as_json(stores: "OpenedStores") -> None:
    """Services answer with what it holds. A driver may have a type of its own for what needs 64 bits."""
    await stores.states.apply([Marked("alice", "g:a", 1_795_641_808_000, pinned=True)])
    (found,) = await stores.conversations.states("alice", ["g:a"])
    assert msgspec.json.decode(msgspec.json.encode(found), type=ConversationState) == found


# --- lists ----------------------------------------------------------------------------------


async def test_an_empty_store(stores: "OpenedStores") -> None:
    assert await stores.conversations.private_conversations("alice") == []
    assert await stores.conversations.states("alice", []) == []
    assert await stores.conversations.states("alice", ["g:a", "p:a:b"]) == [state("g:a"), state("p:a:b")]
    assert await stores.conversations.watermarks("g:a", 0, "", 10) == []
    assert await stores.conversations.watermarks_of({"p:a:b": "a"}) == {}
    assert await stores.conversations.mentions("alice", {"g:a": 0}) == {}
    assert await stores.conversations.arrivals("alice", 0, 10) == {}


async def test_private_conversations_are_listed_for_both(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append([scribe.private("bob", "alice"), scribe.group("team")])
    await stores.log.append([scribe.private("alice", "bob"), scribe.private("alice", "zoe")])
    await stores.log.append([scribe.private("alice", "alice"), scribe.private("al-x", "alice")])
    await stores.states.apply([Seen("alice", "g:team", 1, read=1), Marked("bob", "g:a", 1, pinned=True)])
    wanted = {
        "alice": ["p:al-x:alice", "p:alice:alice", "p:alice:bob", "p:alice:zoe"],
        "bob": ["p:alice:bob"],
        "zoe": ["p:alice:zoe"],
        "al-x": ["p:al-x:alice"],
        "carol": [],
    }
    for _ in range(2):
        for user, conversations in wanted.items():
            assert await stores.conversations.private_conversations(user) == conversations
        await stores.reopen()


async def test_a_conversation_that_was_not_committed_is_not_listed(
    stores: "OpenedStores", scribe: "Scribe"
) -> None:
    await stores.log.append([scribe.group("team", "a", "c-1")])
    with pytest.raises(DuplicateMessageError):
        await stores.log.append([scribe.private("alice", "bob"), scribe.group("team", "b", "c-1")])
    assert await stores.conversations.private_conversations("alice") == []
    scribe.heads.clear()
    await stores.log.append([scribe.private("alice", "bob")])
    assert await stores.conversations.private_conversations("bob") == ["p:alice:bob"]


async def test_the_first_message_leaves_what_was_marked_before(
    stores: "OpenedStores", scribe: "Scribe"
) -> None:
    await stores.states.apply([Marked("alice", "p:alice:bob", 5, pinned=True)])
    await stores.log.append([scribe.private("bob", "alice")])
    assert await one(stores, "alice", "p:alice:bob") == state("p:alice:bob", 1, pinned=True, changed_at=5)
    assert await stores.conversations.private_conversations("alice") == ["p:alice:bob"]
    assert await stores.conversations.private_conversations("bob") == ["p:alice:bob"]


# --- states ---------------------------------------------------------------------------------


async def test_heads_own_messages_and_the_last_body(stores: "OpenedStores", scribe: "Scribe") -> None:
    batch = [
        scribe.private("alice", "bob", "1", "c-1"),
        scribe.private("alice", "bob", "2"),
        scribe.private("bob", "alice", "3", "c-1"),
        scribe.group("team", "1", "c-1"),
        scribe.group("team", "2", "a", sender="bob"),
        scribe.group("team", "3", "b"),
        scribe.group("team", "4", "c", sender="carol"),
    ]
    await stores.log.append(batch)
    asked = ["g:team", "g:none", "p:alice:bob", "users/bob/inbox", "g:team"]
    team, private = batch[6].id, batch[2].id
    for user, own in {"alice": (3, 2), "bob": (2, 3), "carol": (4, 0), "nobody": (0, 0)}.items():
        assert await stores.conversations.states(user, asked) == [
            state("g:team", 4, own[0], head_id=team, last_seq=4, last_id=team, messages=4, seen=own[0]),
            state("g:none"),
            state(
                "p:alice:bob",
                3,
                own[1],
                head_id=private,
                last_seq=3,
                last_id=private,
                messages=3,
                seen=own[1],
            ),
            state("users/bob/inbox"),
            state("g:team", 4, own[0], head_id=team, last_seq=4, last_id=team, messages=4, seen=own[0]),
        ]


async def test_the_last_own_message_whatever_has_a_key(stores: "OpenedStores", scribe: "Scribe") -> None:
    """In one batch and over several, with keys in any order."""
    for i, keys in enumerate([["z", None], [None, "a"], [None], ["b"], ["x", None, "c"]]):
        await stores.log.append([scribe.group("team", "x", key) for key in keys])
        head = scribe.heads["g:team"]
        assert await one(stores, "alice", "g:team") == state("g:team", head, head), i
    await stores.log.append([scribe.group("team", "x", "a", sender="bob")])
    assert await one(stores, "alice", "g:team") == state("g:team", 10, 9)


async def test_the_head_may_be_an_amendment(stores: "OpenedStores", scribe: "Scribe") -> None:
    target = scribe.private("alice", "bob")
    await stores.log.append([target])
    edit = scribe.edit(target, b'{"id":"1","content":"new"}')
    await stores.log.append([edit])
    (found,) = await stores.conversations.states("bob", ["p:alice:bob"])
    assert (found.head_seq, found.head_id) == (2, edit.id)
    assert (found.last_seq, found.last_id) == (1, 1), "the id of its body as it is now"


async def test_messages_are_counted_and_nothing_else(stores: "OpenedStores", scribe: "Scribe") -> None:
    made, one, two = scribe.system("team"), scribe.group("team"), scribe.group("team", sender="bob")
    await stores.log.append([made, one])
    await stores.log.append([two])
    edit = scribe.edit(one, b'{"id":"2","n":1}')
    await stores.log.append([edit, scribe.system("team", "carol"), scribe.edit(two, b'{"id":"3","n":2}')])
    for _ in range(2):
        assert await stores.log.counts(["g:team", "g:none"]) == {"g:team": Count(2, 3), "g:none": Count()}
        assert await counted(stores, "alice", "g:team") == (2, 1, 3, 2), "an edit does not mark as read"
        assert await counted(stores, "bob", "g:team") == (2, 2, 3, 3)
        assert await counted(stores, "carol", "g:team") == (2, 0, 3, 0), "nor does a system entry"
        for floor, seen in ((1, 0), (2, 1), (3, 2), (6, 2), (1 << 40, 2)):
            assert await counted(stores, "carol", "g:team", floor) == (2, seen, 3, 0)
        await stores.reopen()
    for read, seen in ((1, 0), (2, 1), (4, 2)):
        await stores.states.apply([Seen("carol", "g:team", read, read=read)])
        assert await counted(stores, "carol", "g:team") == (2, seen, 3, 0)
    assert await counted(stores, "carol", "g:team", 1) == (2, 2, 3, 0)


async def test_states_of_many_conversations(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append([scribe.private("alice", f"u{i}", f"{i}") for i in range(1000)])
    asked = [f"p:alice:u{i}" for i in range(2000)]
    found = await stores.conversations.states("alice", asked)
    assert [s.conversation_id for s in found] == asked
    assert [s.head_seq for s in found] == [1] * 1000 + [0] * 1000


# --- what users have seen -------------------------------------------------------------------


async def test_watermarks_move_forward_only(stores: "OpenedStores") -> None:
    steps = [
        (Seen("alice", "g:a", 10, delivered=5), (0, 5, 10)),
        (Seen("alice", "g:a", 20, read=3), (3, 5, 20)),
        (Seen("alice", "g:a", 30, read=3, delivered=5), (3, 5, 20)),
        (Seen("alice", "g:a", 30, read=2, delivered=1), (3, 5, 20)),
        (Seen("alice", "g:a", 30), (3, 5, 20)),
        (Seen("alice", "g:a", 40, read=2, delivered=9), (3, 9, 40)),
        (Seen("alice", "g:a", 50, read=10, delivered=-1), (10, 9, 50)),
    ]
    for change, (read, delivered, at) in steps:
        await stores.states.apply([change])
        wanted = state("g:a", read_seq=read, delivered_seq=delivered, changed_at=at)
        assert await one(stores, "alice", "g:a") == wanted
    await stores.reopen()
    assert await one(stores, "alice", "g:a") == wanted
    assert await one(stores, "bob", "g:a") == state("g:a")
    assert await one(stores, "alice", "g:b") == state("g:b")


@pytest.mark.parametrize("change", [Seen("alice", "p:alice:bob", 5), Seen("alice", "p:alice:bob", 5, -1, -1)])
async def test_seeing_nothing_is_no_change(stores: "OpenedStores", change: Seen) -> None:
    await stores.states.apply([change])
    assert await one(stores, "alice", "p:alice:bob") == state("p:alice:bob")
    assert await stores.conversations.private_conversations("alice") == []


async def test_marks_are_set_one_by_one(stores: "OpenedStores") -> None:
    wanted = state("g:a")
    for at, changes in enumerate(
        [
            {"pinned": True},
            {"muted": True, "unread": True},
            {"pinned": False, "hidden": 7},
            {},
            {"hidden": 3, "unread": False},
            {"muted": False, "hidden": 0},
        ],
        start=1,
    ):
        await stores.states.apply([Marked("alice", "g:a", at, **changes)])
        if "hidden" in changes:
            changes["hidden_seq"] = changes.pop("hidden")
        wanted = msgspec.structs.replace(wanted, changed_at=at, **changes)
        assert await one(stores, "alice", "g:a") == wanted
    assert await one(stores, "bob", "g:a") == state("g:a")


async def test_marks_and_watermarks_leave_each_other_alone(stores: "OpenedStores") -> None:
    await stores.states.apply(
        [
            Seen("alice", "g:a", 1, 4, 5),
            Marked("alice", "g:a", 2, True, True, False, 6),
            Seen("alice", "g:a", 3, 5),
        ]
    )
    assert await one(stores, "alice", "g:a") == state(
        "g:a", read_seq=5, delivered_seq=5, pinned=True, muted=True, hidden_seq=6, changed_at=3
    )


async def test_reading_takes_the_mark_of_being_unread_away(stores: "OpenedStores") -> None:
    await stores.states.apply([Seen("alice", "g:a", 1, read=4), Marked("alice", "g:a", 2, unread=True)])
    await stores.states.apply([Seen("alice", "g:a", 3, delivered=9)])
    assert (await one(stores, "alice", "g:a")).unread
    for at, read in ((4, 4), (6, 2), (8, 5)):  # also when the watermark stays where it is
        await stores.states.apply([Seen("alice", "g:a", at, read=read)])
        found = await one(stores, "alice", "g:a")
        assert (found.unread, found.changed_at) == (False, at)
        await stores.states.apply([Marked("alice", "g:a", at + 1, unread=True)])


async def test_forgetting_sessions_keeps_what_was_seen(stores: "OpenedStores") -> None:
    await stores.states.apply([Seen("alice", "g:a", 1, read=4), Forgotten("alice", None)])
    assert (await one(stores, "alice", "g:a")).read_seq == 4


async def test_changes_are_made_all_or_none(stores: "OpenedStores", scribe: "Scribe") -> None:
    with pytest.raises(StoreError):
        await stores.states.apply(
            [Seen("alice", "p:alice:bob", 1, read=4), Seen("eve", "g:a", 1, read=1 << 70)]
        )
    assert await one(stores, "alice", "p:alice:bob") == state("p:alice:bob")
    # Names that were new then are as good as new.
    await stores.log.append([scribe.group("x"), scribe.private("carol", "dave")])
    await stores.states.apply([Seen("alice", "p:alice:bob", 2, read=1)])
    assert await stores.conversations.watermarks("p:alice:bob", 1, "", 9) == [Watermark("alice", 1, 0)]
    assert await stores.conversations.watermarks("g:x", 0, "", 9) == []
    await stores.reopen()
    assert (await one(stores, "alice", "p:alice:bob")).read_seq == 1


# --- watermarks -----------------------------------------------------------------------------

USERS = ["Al", "al", "al-x", "al.x", "al_x", "al0", "ala", "b", "z"]


async def test_watermarks_by_user(stores: "OpenedStores") -> None:
    changes = [Seen(user, "g:a", 1, read=i, delivered=2 * i + 1) for i, user in enumerate(USERS)]
    await stores.states.apply(
        [*reversed(changes), Seen("c", "g:b", 1, read=9), Marked("d", "g:a", 1, muted=True)]
    )
    every = [Watermark(user, i, 2 * i + 1) for i, user in enumerate(USERS)]
    assert sorted(USERS) == [*USERS[:4], "al0", "al_x", *USERS[6:]]
    every.sort(key=lambda mark: mark.user)
    for least in (0, 1, 3, 8, 9):
        wanted = [mark for mark in every if mark.read >= least]
        assert await stores.conversations.watermarks("g:a", least, "", 100) == wanted
        for limit in (1, 2, 5):
            found: list[Watermark] = []
            while page := await stores.conversations.watermarks(
                "g:a", least, found[-1].user if found else "", limit
            ):
                assert len(page) <= limit
                found += page
            assert found == wanted
    assert await stores.conversations.watermarks("g:none", 0, "", 100) == []


async def test_watermarks_of_one_user_each(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append([scribe.private("alice", "bob"), scribe.private("alice", "carol")])
    await stores.states.apply(
        [
            Seen("bob", "p:alice:bob", 1, delivered=1),
            Seen("alice", "p:alice:bob", 1, read=1),
            Seen("carol", "g:a", 1, read=4, delivered=2),
            Marked("carol", "p:alice:carol", 1, pinned=True),
        ]
    )
    asked = {"p:alice:bob": "bob", "p:alice:carol": "carol", "g:a": "carol", "p:x:y": "x", "g:b": "bob"}
    wanted = {"p:alice:bob": Watermark("bob", 0, 1), "g:a": Watermark("carol", 4, 2)}
    assert await stores.conversations.watermarks_of(asked) == wanted
    assert await stores.conversations.watermarks_of({"p:alice:bob": "alice"}) == {
        "p:alice:bob": Watermark("alice", 1, 0)
    }
    assert await stores.conversations.watermarks_of({}) == {}
    await stores.states.apply([Unseen("bob")])
    assert await stores.conversations.watermarks_of({"p:alice:bob": "bob"}) == {}
    await stores.log.append([scribe.private("alice", "bob")])
    await stores.states.apply([Seen("bob", "p:alice:bob", 1, delivered=2)])
    assert await stores.conversations.watermarks_of({"p:alice:bob": "bob"}) == {
        "p:alice:bob": Watermark("bob", 0, 2)
    }


# --- mentions -------------------------------------------------------------------------------


async def test_mentions(stores: "OpenedStores", scribe: "Scribe") -> None:
    batch = [
        scribe.group("team", mentions=["bob", "carol", "bob"]),  # 1
        scribe.group("team"),
        scribe.group("team", mentions="all"),  # 3
        scribe.group("team", mentions=["bob"]),  # 4
        scribe.group("team", mentions=[]),
        scribe.group("other", mentions=["all"]),  # a user with this id
        scribe.private("alice", "bob", mentions=["bob"]),
    ]
    await stores.log.append(batch[:4])
    await stores.log.append(batch[4:])
    asked = {"g:team": 0, "g:other": 0, "p:alice:bob": 0, "g:none": 0}
    for _ in range(2):
        found = {user: await stores.conversations.mentions(user, asked) for user in ("bob", "carol", "dave")}
        assert found["bob"] == {"g:team": 4, "p:alice:bob": 1}
        assert found["carol"] == {"g:team": 3}
        assert found["dave"] == {"g:team": 3}, "who never got a message is one of all"
        assert await stores.conversations.mentions("all", asked) == {"g:team": 3, "g:other": 1}
        for after, wanted in ((2, {"g:team": 3}), (3, {}), (1 << 40, {})):
            assert await stores.conversations.mentions("carol", {"g:team": after}) == wanted
        assert await stores.conversations.mentions("bob", {"g:team": 3}) == {"g:team": 4}
        await stores.reopen()


async def test_a_recalled_message_mentions_nobody(stores: "OpenedStores", scribe: "Scribe") -> None:
    first, both, everybody = (
        scribe.group("team", mentions=["bob"]),
        scribe.group("team", mentions=["bob", "carol"]),
        scribe.group("team", mentions="all"),
    )
    await stores.log.append([first, both, everybody])
    await stores.log.append([scribe.edit(everybody, everybody.body)])
    assert await stores.conversations.mentions("bob", {"g:team": 0}) == {"g:team": 3}, (
        "an edit changes nothing"
    )
    await stores.log.append([scribe.edit(everybody, b'{"id":"3"}', kind="recall")])
    assert await stores.conversations.mentions("bob", {"g:team": 0}) == {"g:team": 2}
    await stores.log.append([scribe.edit(both, b'{"id":"2"}', kind="recall")])
    assert await stores.conversations.mentions("bob", {"g:team": 0}) == {"g:team": 1}
    assert await stores.conversations.mentions("carol", {"g:team": 0}) == {}


async def test_who_has_the_id_now_was_not_mentioned(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append([scribe.group("team", mentions=["bob", "carol"]), scribe.group("team")])
    await stores.states.apply([Unseen("bob")])
    assert await stores.conversations.mentions("bob", {"g:team": 0}) == {}
    assert await stores.conversations.mentions("carol", {"g:team": 0}) == {"g:team": 1}


async def test_a_message_that_is_not_stored_mentions_nobody(stores: "OpenedStores", scribe: "Scribe") -> None:
    message = scribe.group("team", "c", "c-1", mentions=["bob"])
    await stores.log.append([message])
    with pytest.raises(DuplicateMessageError):
        await stores.log.append([scribe.group("team", "d", "c-1", mentions=["carol"])])
    assert await stores.conversations.mentions("carol", {"g:team": 0}) == {}


# --- arrivals -------------------------------------------------------------------------------


async def test_arrivals(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append(
        [
            scribe.private("bob", "alice"),  # alice's inbox: 1
            scribe.private("alice", "bob"),  # 2
            scribe.private("carol", "alice"),  # 3
            scribe.private("bob", "carol"),
            scribe.private("alice", "alice"),  # 4
            scribe.private("bob", "alice"),  # 5
            scribe.private("alice", "carol"),  # 6
            scribe.group("team", sender="bob"),
        ]
    )
    for after, upto, wanted in [
        (0, 6, {"p:alice:bob": 3, "p:alice:carol": 1}),
        (0, 4, {"p:alice:bob": 1, "p:alice:carol": 1}),
        (1, 5, {"p:alice:bob": 3, "p:alice:carol": 1}),
        (1, 2, {}),
        (3, 4, {}),
        (4, 1 << 40, {"p:alice:bob": 3}),
        (5, 5, {}),
        (5, 1, {}),
        (-(1 << 60), 1, {"p:alice:bob": 1}),
        (1 << 40, 1 << 41, {}),
    ]:
        assert await stores.conversations.arrivals("alice", after, upto) == wanted, (after, upto)
    assert await stores.conversations.arrivals("bob", 0, 100) == {"p:alice:bob": 2}
    assert await stores.conversations.arrivals("carol", 0, 100) == {"p:alice:carol": 2, "p:bob:carol": 1}
    assert await stores.conversations.arrivals("dave", 0, 100) == {}


async def test_the_last_change(stores: "OpenedStores") -> None:
    assert await stores.conversations.last_change() == 0
    seen = [Seen("alice", "g:a", 7, read=4), Seen("bob", "g:a", 9, read=4), Seen("bob", "g:a", 11, read=1)]
    await stores.states.apply([*seen, Marked("carol", "g:b", 5, pinned=True)])
    await stores.reopen()
    assert await stores.conversations.last_change() == 9


# --- a store that fails ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        "private_conversations",
        "states",
        "floors",
        "watermarks",
        "watermarks_of",
        "mentions",
        "arrivals",
        "last_change",
    ],
)
async def test_a_store_that_is_closed_says_so(stores: "OpenedStores", call: str) -> None:
    await stores.close()
    arguments = {
        "private_conversations": ("alice",),
        "states": ("alice", ["g:a"]),
        "watermarks": ("g:a", 0, "", 1),
        "watermarks_of": ({"g:a": "alice"},),
        "mentions": ("alice", {"g:a": 0}),
        "arrivals": ("alice", 0, 1),
        "floors": ("alice",),
        "last_change": (),
    }
    try:
        with pytest.raises(StoreError):
            await getattr(stores.conversations, call)(*arguments[call])
    finally:
        await stores.open()


async def test_what_another_had_seen_is_dropped(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append([scribe.private("bob", "alice") for _ in range(3)])
    marks = [Marked("alice", where, 1, True, True, True, 2) for where in ("p:alice:bob", "g:a")]
    seen = [Seen(user, "g:a", 1, read=4) for user in ("alice", "bob")]
    await stores.states.apply([*marks, *seen, Unseen("alice"), Unseen("nobody")])
    found = await one(stores, "alice", "p:alice:bob")
    assert (found.read_seq, found.delivered_seq, found.pinned, found.hidden_seq) == (3, 3, False, 0)
    await stores.log.append([scribe.private("bob", "alice"), scribe.private("alice", "carol")])
    assert await stores.conversations.floors("alice") == {"p:alice:bob": 3}
    for user in ("bob", "carol", "nobody"):
        assert await stores.conversations.floors(user) == {}
    assert (await one(stores, "alice", "p:alice:bob")).head_seq == 4
    assert await stores.conversations.private_conversations("alice") == ["p:alice:bob", "p:alice:carol"]
    assert await one(stores, "alice", "g:a") == state("g:a")
    assert [mark.user for mark in await stores.conversations.watermarks("g:a", 1, "", 10)] == ["bob"]


async def test_what_another_has_sent_is_not_ones_own(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append(
        [
            scribe.group("team", client_msg_id="c-1"),
            bobs := scribe.group("team", client_msg_id="c-1", sender="bob"),
            scribe.private("alice", "bob", client_msg_id="c-1"),
        ]
    )
    for _ in range(2):  # a second time, because the first attempt to add the account failed
        await stores.states.apply([Marked("alice", "g:team", 1, pinned=True), Unseen("alice")])
    keys = [DedupKey(user, where, "c-1") for user, where in (("alice", "g:team"), ("alice", "p:alice:bob"))]
    key = DedupKey("bob", "g:team", "c-1")
    assert await stores.log.find([*keys, key]) == {key: bobs.body}
    found = await one(stores, "alice", "g:team")
    assert (found.own_seq, found.read_seq, found.floor_seq, found.pinned) == (0, 0, 2, False)
    assert (await one(stores, "alice", "p:alice:bob")).floor_seq == 1
    assert (await one(stores, "bob", "g:team")).floor_seq == 0
    assert await stores.conversations.watermarks("g:team", 0, "", 10) == []
    await stores.log.append([scribe.group("team", client_msg_id="c-1")])
    found = await one(stores, "alice", "g:team")
    assert (found.own_seq, found.floor_seq) == (3, 2)
    await stores.reopen()
    assert await one(stores, "alice", "g:team") == found
