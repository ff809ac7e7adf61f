"""The committer over a log that another node writes, too."""

from collections.abc import Sequence

from broker.domain.message import Count
from broker.publish.sequencer import Sequencer
from tests.unit.committer_kit import NOW, Bench, group
from tests.unit.memory_log import MemoryLog


class SharedLog(MemoryLog):
    """The other node writes just when this one has asked its first question about the log."""

    def __init__(self) -> None:
        super().__init__()
        self._other = Sequencer(2)
        self._is_asked = False

    async def _write(self) -> None:
        if not self._is_asked:
            self._is_asked = True
            self._other.learn({"g:team": 0}, {"g:team": Count()})
            await self.append(self._other.stamp([group("of another node")], NOW, NOW))

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        found = await super().heads(logs)
        await self._write()
        return found

    async def counts(self, conversations: Sequence[str]) -> dict[str, Count]:
        found = await super().counts(conversations)
        await self._write()
        return found


async def test_a_message_has_the_count_of_its_seq() -> None:
    """Although another node writes between the questions where the conversation ends and what it counts."""
    bench = Bench(log=SharedLog())
    bench.submit("own", group())
    await bench.committer.drain()
    assert [(message.seq, message.count) for message in bench.published] == [(2, Count(2, 2))]
