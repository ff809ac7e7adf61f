"""What every `ConversationStore` keeps of users: what they have seen, marks, mentions and arrivals."""

from typing import TYPE_CHECKING

import msgspec
import pytest

from broker.domain.errors import DuplicateMessageError, StoreError
from broker.ports import Forgotten, Marked, Seen, Unseen, Watermark

if TYPE_CHECKING:
    from tests.ports.conftest import OpenedStores, Scribe
from tests.ports.conversation_kit import (
    one,
    state,
)

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
