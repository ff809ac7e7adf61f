"""A committer over a log in memory, and messages for it."""

import asyncio
from collections import Counter
from collections.abc import Callable

import msgspec

from broker.domain.message import Content, Draft, Stamped, draft
from broker.domain.topics import parse_topic
from broker.outage import Outage
from broker.publish.committer import Duplicate, MessageCommitter, Outcome, Submission
from broker.publish.sequencer import Sequencer
from tests.unit.memory_log import MemoryLog

NOW = 1_764_000_000_000


class FixedClock:
    def now_ms(self) -> int:
        return NOW

    def growing_ms(self) -> int:
        return NOW


class Bench:
    """A committer, and the calls that followed each submission, as (call, name or seq)."""

    def __init__(self, max_batch: int = 1000, log: MemoryLog | None = None) -> None:
        self.log = log or MemoryLog()
        self.story: list[tuple[str, object]] = []
        self.outcomes: dict[str, Outcome] = {}
        self.published: list[Stamped] = []
        self.outage = Outage()
        self.limited: Counter[str] = Counter()
        self.committer = MessageCommitter(
            self.log, Sequencer(1), FixedClock(), self._publish, max_batch, self.outage, 10_000, self.limited
        )

    def _publish(self, message: Stamped) -> None:
        self.published.append(message)
        self.story.append(("push", message.seq))

    def submit(self, name: str, draft: Draft, *, patient: bool = True) -> None:
        def done(outcome: Outcome) -> None:
            assert name not in self.outcomes, "told twice"
            self.outcomes[name] = outcome
            self.story.append(("done", name))

        self.committer.submit(Submission(draft, done, patient))

    def seqs(self) -> list[int | None]:
        return [o.seq if isinstance(o, Stamped | Duplicate) else None for o in self.outcomes.values()]


def group(
    text: str = "hi", client_msg_id: str | None = None, sender: str = "alice", to: str = "team"
) -> Draft:
    return draft(sender, parse_topic(f"groups/{to}"), _content(text, client_msg_id))


def private(
    text: str = "hi", client_msg_id: str | None = None, sender: str = "alice", to: str = "bob"
) -> Draft:
    return draft(sender, parse_topic(f"users/{to}/inbox"), _content(text, client_msg_id))


def _content(text: str, client_msg_id: str | None) -> Content:
    return Content(msgspec.Raw(msgspec.json.encode(text)), client_msg_id=client_msg_id)


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until something holds; a test that never gets there is stopped."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")
