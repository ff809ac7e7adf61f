"""Several nodes that write the same logs, each when it is its turn."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import pytest

from broker.domain.errors import DuplicateMessageError, StoreUnavailableError
from broker.domain.message import Content, Draft, Stamped, draft, read_body
from broker.domain.topics import parse_topic
from broker.outage import Outage
from broker.ports import Head
from broker.publish.committer import Duplicate, MessageCommitter, Outcome, Submission
from broker.publish.sequencer import Sequencer
from tests.outside.memory_store import Contents, MemoryMessageLog, Opened
from tests.unit.backplane_kit import Bus, BusTurns

NOW = 1_764_000_000_000


class FixedClock:
    def now_ms(self) -> int:
        return NOW

    def growing_ms(self) -> int:
        return NOW


class SlowLog(MemoryMessageLog):
    """Commits take some turns of the event loop. `failures` are raised by the next ones."""

    def __init__(self, contents: Contents) -> None:
        super().__init__(Opened(contents))
        self.failures: list[Exception | None] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def append(self, batch: Sequence[Stamped]) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        await self.gate.wait()
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        await super().append(batch)


class Writer:
    """A node that commits."""

    def __init__(self, number: int, bus: Bus, contents: Contents) -> None:
        self.turns = BusTurns(bus, f"node-{number}")
        self.log = SlowLog(contents)
        self.outcomes: dict[str, Outcome] = {}
        self.committer = MessageCommitter(
            self.log,
            Sequencer(number),
            FixedClock(),
            lambda _message: None,
            100,
            Outage(),
            1 << 20,
            Counter(),
            turns=self.turns,
        )

    def send(self, text: str, to: str, sender: str = "alice", client_msg_id: str | None = None) -> None:
        self.committer.submit(
            Submission(message(text, to, sender, client_msg_id), lambda out: self._done(text, out))
        )

    def _done(self, text: str, outcome: Outcome) -> None:
        assert text not in self.outcomes, "told twice"
        self.outcomes[text] = outcome


def message(text: str, to: str, sender: str, client_msg_id: str | None = None) -> Draft:
    content = Content(msgspec.Raw(msgspec.json.encode(text)), client_msg_id=client_msg_id)
    return draft(sender, parse_topic(to), content)


def texts(contents: Contents, log: str) -> list[str]:
    return [msgspec.json.decode(read_body(each.body).content) for each in contents.log(log)]


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until something holds."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to that")


async def until_all_are_answered(*writers: Writer) -> None:
    async with asyncio.timeout(10):
        for writer in writers:
            await writer.committer.drain()


@pytest.mark.parametrize("seed", range(5))
async def test_all_that_three_nodes_write_is_there_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    bus, contents = Bus(), Contents()
    writers = [Writer(number, bus, contents) for number in range(3)]
    users = ["alice", "bob", "carol"]
    sent: dict[tuple[str, str], list[str]] = {}
    for number in range(300):
        writer, sender = chance.choice(list(enumerate(writers))), chance.choice(users)
        to = chance.choice(["groups/team", "groups/other", *(f"users/{user}/inbox" for user in users)])
        text = f"{writer[0]}-{number}"
        writer[1].send(text, to, sender)
        log = message(text, to, sender).conversation_id
        sent.setdefault((log, text.partition("-")[0]), []).append(text)
        if chance.random() < 0.3:
            await asyncio.sleep(0)
    await until_all_are_answered(*writers)
    for writer in writers:
        assert all(isinstance(outcome, Stamped) for outcome in writer.outcomes.values())
    for (log, node), ours in sent.items():
        assert [text for text in texts(contents, log) if text.startswith(f"{node}-")] == ours
    assert sum(len(texts(contents, log)) for log in {log for log, _ in sent}) == 300
    assert bus.holders == {}


async def test_a_log_that_another_node_writes_holds_up_no_other_log() -> None:
    bus, contents = Bus(), Contents()
    slow, quick = Writer(1, bus, contents), Writer(2, bus, contents)
    slow.log.gate.clear()
    slow.send("slow", "groups/team")
    await asyncio.sleep(0.01)
    quick.send("waits", "groups/team")
    quick.send("at once", "groups/other")
    await asyncio.sleep(0.05)
    quick.send("later", "groups/third")
    await until(lambda: "later" in quick.outcomes)
    assert sorted(quick.outcomes) == ["at once", "later"]
    slow.log.gate.set()
    await until_all_are_answered(slow, quick)
    assert texts(contents, "g:team") == ["slow", "waits"]


async def test_messages_of_a_conversation_keep_their_order_while_they_wait() -> None:
    """An inbox that is held makes a private message wait, and so the later ones to the same user, whoever
    sends them, but only after it."""
    bus, contents = Bus(), Contents()
    writer = Writer(1, bus, contents)
    bus.holders["users/bob/inbox"] = "another"
    writer.send("1", "users/bob/inbox", "alice")
    writer.send("2", "users/carol/inbox", "alice")  # alice's inbox is one of the logs of the first
    writer.send("3", "users/carol/inbox", "dave")  # and carol's one of those of the second
    writer.send("free", "groups/team", "dave")
    await until(lambda: "free" in writer.outcomes)
    assert list(writer.outcomes) == ["free"]
    del bus.holders["users/bob/inbox"]
    bus.freed.set()
    await until_all_are_answered(writer)
    assert texts(contents, "users/carol/inbox") == ["2", "3"]
    assert texts(contents, "users/alice/inbox") == ["1", "2"]


async def test_a_store_that_cannot_commit_gets_each_message_once_it_can() -> None:
    bus, contents = Bus(), Contents()
    writer, other = Writer(1, bus, contents), Writer(2, bus, contents)
    bus.holders["g:held"] = "another"
    writer.send("stored", "groups/team")
    writer.send("waits", "groups/held")
    await until(lambda: "stored" in writer.outcomes)
    writer.log.failures = [StoreUnavailableError("no primary")]
    del bus.holders["g:held"]
    bus.freed.set()
    await until(lambda: not writer.log.failures)
    other.send("others go on", "groups/held")  # nobody keeps a turn while they wait for the store
    await other.committer.drain()
    await until(lambda: "waits" in writer.outcomes)
    assert texts(contents, "g:team") == ["stored"]
    assert texts(contents, "g:held") == ["others go on", "waits"]


@pytest.mark.parametrize("times", [4, 30])
async def test_messages_keep_their_order_although_other_nodes_are_faster(times: int) -> None:
    """Without turns, the places of a batch may be taken again and again. What comes meanwhile waits."""
    bus, contents = Bus(), Contents()
    writer = Writer(1, bus, contents)
    writer.log.failures = [DuplicateMessageError("taken") for _ in range(times)]
    writer.send("1", "groups/team")
    await until(lambda: len(writer.log.failures) < times)
    writer.send("2", "groups/team")
    await until(lambda: len(writer.outcomes) == 2)
    assert texts(contents, "g:team") == ["1", "2"]


async def test_a_head_that_is_too_low_or_unknown_leaves_no_gap() -> None:
    bus, contents = Bus(), Contents()
    writer = Writer(1, bus, contents)
    for text in ("1", "2"):
        writer.send(text, "groups/team")
    await until_all_are_answered(writer)
    assert bus.heads["g:team"] == Head(2, 2, 2)
    bus.heads["g:team"] = Head(1, 1, 1)
    writer = Writer(2, bus, contents)
    writer.send("3", "groups/team")
    await until_all_are_answered(writer)
    bus.heads.clear()
    writer = Writer(3, bus, contents)
    writer.send("4", "groups/team", client_msg_id="c")
    writer.send("4 again", "groups/other")
    await until_all_are_answered(writer)
    assert texts(contents, "g:team") == ["1", "2", "3", "4"]
    assert bus.heads["g:team"] == Head(4, 4, 4)


async def test_a_message_that_two_nodes_get_is_stored_once() -> None:
    bus, contents = Bus(), Contents()
    writers = [Writer(number, bus, contents) for number in range(2)]
    for writer in writers:
        writer.send("hello", "groups/team", client_msg_id="c-1")
    await until_all_are_answered(*writers)
    outcomes = [writer.outcomes["hello"] for writer in writers]
    assert texts(contents, "g:team") == ["hello"]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Duplicate", "Stamped"]
    assert all(outcome.seq == 1 for outcome in outcomes if isinstance(outcome, Duplicate | Stamped))
