"""kill -9 under load, round after round, on the same data."""

import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import pytest

from tests.cli.imctl import run
from tests.integration.flood import Flood
from tests.integration.keeper import Keeper
from tests.integration.node import Node, wait_for

MakeNode = Callable[..., Node]


class Conversation:
    """What a conversation was seen to hold, and those who write into it."""

    def __init__(self, conversation_id: str, *floods: Flood) -> None:
        self.floods = floods
        self.stored: list[str] = []
        """The contents of its entries, in order."""
        self._id = conversation_id

    def check(self, node: Node) -> None:
        """Read what is new. The seqs have no gap, and each acknowledged message is there once."""
        self.stored += self._entries_after(len(self.stored), node)
        once = set(self.stored)
        assert len(once) == len(self.stored)
        for flood in self.floods:
            assert {flood.content(number) for number in flood.acknowledged} <= once

    def check_again(self, node: Node) -> None:
        """All that was seen is there as it was."""
        assert self._entries_after(0, node) == self.stored

    def _entries_after(self, seq: int, node: Node) -> list[str]:
        entries = node.history(self._id, after=seq)
        assert [entry["seq"] for entry in entries] == list(range(seq + 1, seq + len(entries) + 1))
        return [str(entry["content"]) for entry in entries]


def inbox_offsets(node: Node, user: str) -> list[int]:
    with closing(sqlite3.connect(node.data_dir / "parley.db")) as database:
        rows = database.execute(
            "SELECT key & 0xffffffff FROM entries JOIN names ON names.id = key >> 32 "
            "WHERE name = ? ORDER BY key",
            (f"users/{user}/inbox",),
        )
        return [offset for (offset,) in rows]


class Crashes:
    """Two users write to each other, and the first keeps the packet ids of what comes into the inbox. A third
    writes to a group and repeats nothing, so that only the node itself could store a message twice."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.users = alice, bob, carol = [node.user(name) for name in ("alice", "bob", "carol")]
        group = node.group(*self.users)
        to_bob = Flood(alice, f"users/{bob}/inbox", 2, repeats=True)
        to_alice = Flood(bob, f"users/{alice}/inbox", 2, repeats=True)
        to_group = Flood(carol, f"groups/{group}", 1, repeats=False)
        self.floods = [to_bob, to_alice, to_group]
        self.private = Conversation(":".join(["p", *sorted((alice, bob))]), to_bob, to_alice)
        self.conversations = [self.private, Conversation(f"g:{group}", to_group)]
        self.keeper = Keeper(node, alice)

    def crash(self, acknowledgements: int) -> None:
        """kill -9 when each flood has got so many acknowledgements, and start again."""
        before = [len(flood.acknowledged) for flood in self.floods]
        reader = threading.Thread(target=self.keeper.read_on)
        reader.start()
        for flood in self.floods:
            flood.start(self.node)
        wait_for(
            lambda: all(
                len(flood.acknowledged) >= count + acknowledgements
                for flood, count in zip(self.floods, before, strict=True)
            ),
            f"{acknowledgements} acknowledgements",
        )
        self.node.kill()
        for flood in self.floods:
            flood.join()
        reader.join(30)
        assert not reader.is_alive()
        self.keeper.abandoned = set(self.keeper.held)
        self.node.start()
        self.keeper.connect()

    def check(self) -> None:
        for conversation in self.conversations:
            conversation.check(self.node)
        count = len(self.private.stored)
        for user in self.users[:2]:
            assert inbox_offsets(self.node, user) == list(range(1, count + 1))
        self.keeper.read_until(partial(self.keeper.has, count), f"{count} messages")

    def acknowledged(self) -> int:
        return sum(len(flood.acknowledged) for flood in self.floods)


@pytest.fixture
def crashes(make_node: MakeNode) -> Iterator[Crashes]:
    made = Crashes(make_node().start())
    yield made
    made.keeper.close()


@pytest.mark.parametrize(
    "rounds", [3, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
def test_kills_under_load_lose_nothing_acknowledged(crashes: Crashes, rounds: int) -> None:
    moments = random.Random(1)
    for number in range(1, rounds + 1):
        crashes.crash(acknowledgements=moments.randrange(50, 500))
        crashes.check()
        print(f"round {number}: {crashes.acknowledged()} acknowledged, none lost, none twice", flush=True)
    for conversation in crashes.conversations:
        conversation.check_again(crashes.node)
    verdict = run("--data-dir", str(crashes.node.data_dir), "verify")
    assert verdict.returncode == 0, verdict.stdout
