"""What every `ConversationStore` does (broker.ports), with what the other stores tell it."""

from typing import TYPE_CHECKING

import msgspec
import pytest

from broker.domain.errors import DuplicateMessageError, StoreError
from broker.domain.message import Count
from broker.ports import ConversationState, DedupKey, Marked, Seen, Unseen

if TYPE_CHECKING:
    from tests.ports.conftest import OpenedStores, Scribe
from tests.ports.conversation_kit import (
    counted,
    one,
    state,
)


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


async def test_large_numbers_can_be_written_into_replies(stores: "OpenedStores", scribe: "Scribe") -> None:
    """Times and ids have more than 32 bits. What a driver has of its own for them, no reply takes."""
    await stores.log.append([scribe.group("team")])
    await stores.states.apply([Marked("alice", "g:team", 2**41, pinned=True)])
    (found,) = await stores.conversations.states("alice", ["g:team"])
    assert found.changed_at == 2**41
    assert msgspec.json.decode(msgspec.json.encode(found), type=ConversationState) == found


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
