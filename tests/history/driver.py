"""Lets the clients of a run go, waits until all have got everything, and reads what the nodes say."""

import asyncio
import random
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

import msgspec

from tests.history.client import LOST, Address, CallError, Calls, Person, calling
from tests.history.people import Calling, Moment, Reading, Target, Writing, to_group, to_user
from tests.history.records import Entry, Reader, Run, Start, View

_AGAIN_SECONDS = 0.2
_PAGE = 100


class Traffic(NamedTuple):
    """How much the clients do."""

    seconds: float
    """How long they begin new things."""
    settle: float = 90.0
    """The most seconds after that, until all is acknowledged and read."""
    pause: float = 0.1
    """Seconds between two messages of a client, on average."""
    groups: int = 2


async def drive(
    nodes: Sequence[Address],
    people: Sequence[Person],
    traffic: Traffic,
    seed: int,
    meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> Run:
    """A whole run: neighbours among the users write to each other, and all to the groups. `meanwhile` is what
    happens to the nodes in that time; the run goes on until it has returned, too."""
    chance = random.Random(seed)
    party = Party(nodes, people, chance)
    await party.meet(traffic.groups)
    readers = [asyncio.create_task(reading.run()) for reading in party.readings]
    try:
        await asyncio.gather(*(reading.ready.wait() for reading in party.readings))
        await party.note_start()
        moment = Moment(traffic.seconds)
        async with asyncio.timeout(traffic.seconds + traffic.settle), asyncio.TaskGroup() as group:
            if meanwhile is not None:
                group.create_task(meanwhile())
            for worker in party.workers(traffic.pause):
                group.create_task(worker.run(moment))
        await party.settle(traffic.settle)
        for each in readers:
            if each.done():
                each.result()
    finally:
        for each in readers:
            each.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    return party.run


class Party:
    """The clients of a run."""

    def __init__(self, nodes: Sequence[Address], people: Sequence[Person], chance: random.Random) -> None:
        self.run = Run({}, {})
        self.readings: list[Reading] = []
        self._nodes = nodes
        self._people = people
        self._chance = chance
        self._groups: list[str] = []

    async def meet(self, groups: int) -> None:
        """Create the groups, and the readers of all topics."""
        names = [person.name for person in self._people]
        for _ in range(groups):
            group = f"h-{secrets.token_hex(6)}"
            await self._ask(
                self._people[0],
                lambda calls, g=group: calls.call("groups.create", group_id=g, members=names[1:]),
            )
            self._groups.append(group)
        for number, person in enumerate(self._people):
            for qos in (1, 2):
                topics = self._topics(person)
                client_id = f"{person.name}-reader-{qos}-{secrets.token_hex(4)}"
                record = Reader(person.name, client_id, qos, topics)
                self.run.readers.append(record)
                chance = random.Random(self._chance.random())
                self.readings.append(Reading(record, person, self._nodes, chance))
                if number % 2:
                    break  # every other user has one device

    def _topics(self, person: Person) -> list[str]:
        return [f"users/{person.name}/inbox", *(f"groups/{group}" for group in self._groups)]

    def _targets(self, number: int) -> list[Target]:
        own, peer = self._people[number].name, self._people[(number ^ 1) % len(self._people)].name
        private = [to_user(own, peer)] if peer != own else []
        return private + [to_group(group) for group in self._groups]

    def workers(self, pause: float) -> list[Writing | Calling]:
        made: list[Writing | Calling] = []
        for number, person in enumerate(self._people):
            chances = [random.Random(self._chance.random()) for _ in range(2)]
            common = self.run, person, self._targets(number), self._nodes
            made.append(Writing(*common, chances[0], pause, names=number % 3 != 2))
            if number % 2 == 0:
                made.append(Calling(self.run, person, self._targets(number), self._nodes, chances[1], pause))
        return made

    # --- what the nodes say --------------------------------------------------------------

    async def _ask(self, person: Person, question, node: int | None = None) -> Any:  # type: ignore[no-untyped-def]
        """Ask any node, or this one first; the next one if it does not answer."""
        index = self._chance.randrange(len(self._nodes)) if node is None else node
        while True:
            try:
                async with calling(self._nodes[index % len(self._nodes)], person, "asks") as calls:
                    return await question(calls)
            except LOST:
                pass
            except CallError as error:
                if error.code not in ("unavailable", "internal"):
                    raise
            index += 1
            await asyncio.sleep(_AGAIN_SECONDS)

    async def note_start(self) -> None:
        """Where all logs and conversations stand. What was there before is marked as read."""

        async def look(calls: Calls) -> None:
            page = await calls.call("conversations.list", limit=500, include_hidden=True)
            self.run.offsets |= page["cursors"]
            for listed in page["conversations"]:
                where = listed["conversation_id"]
                if listed["head_seq"]:
                    await calls.call("messages.read", conversation_id=where, seq=listed["head_seq"])
                    (last,) = (await calls.call("messages.history", conversation_id=where, limit=1))[
                        "messages"
                    ]
                    self.run.starts[where] = Start(last["seq"], last["n"])

        for person in self._people:
            await self._ask(person, look)

    async def settle(self, seconds: float) -> None:
        """Wait until nothing is stored any more and readers have got it all; at most so long."""
        ends = Moment(seconds)
        views = await self._views()
        while not ends.has_come:
            await asyncio.sleep(5 * _AGAIN_SECONDS)
            before, views = views, await self._views()
            if views == before and self._have_all(views):
                break
        self.run.views = views

    def _have_all(self, views: Sequence[View]) -> bool:
        logs = {view.user: view.logs for view in views}
        return all(
            not log or reading.reached.get(topic, 0) >= log[-1]["offset"]
            for reading in self.readings
            for topic in reading.record.topics
            if (log := logs[reading.record.user].get(topic)) is not None
        )

    async def _views(self) -> list[View]:
        return [await self._view(number, person) for number, person in enumerate(self._people)]

    async def _view(self, number: int, person: Person) -> View:
        """Each part is asked of another node."""
        conversations = {target.conversation_id for target in self._targets(number)}
        logs = await self._ask(person, lambda calls: self._logs(calls, person), number)
        histories = {
            where: await self._ask(person, lambda calls, w=where: self._history(calls, w), number + 1)
            for where in sorted(conversations)
        }
        page = await self._ask(
            person, lambda calls: calls.call("conversations.list", limit=500, include_hidden=True), number + 2
        )
        listed = {each["conversation_id"]: each for each in page["conversations"]}
        return View(
            person.name, logs, histories, {where: listed[where] for where in conversations & listed.keys()}
        )

    async def _logs(self, calls: Calls, person: Person) -> dict[str, list[Entry]]:
        cursors = {topic: self.run.offsets.get(topic, 0) for topic in self._topics(person)}
        logs: dict[str, list[Entry]] = {topic: [] for topic in cursors}
        while True:
            page = await calls.call("messages.sync", cursors=cursors, limit=1000)
            for entry in page["messages"]:
                group = entry.get("group_id")
                logs[f"groups/{group}" if group else f"users/{person.name}/inbox"].append(entry)
            if not page["more"]:
                return logs
            cursors = page["cursors"]

    async def _history(self, calls: Calls, conversation: str) -> list[Entry]:
        entries: list[Entry] = []
        seq = self.run.starts.get(conversation, Start(0, 0)).seq
        while True:
            try:
                page = await calls.call(
                    "messages.history", conversation_id=conversation, after_seq=seq, limit=_PAGE
                )
            except CallError as error:
                if error.code == "not_found":  # nobody has written yet
                    return entries
                raise
            if not page["messages"]:
                return entries
            entries += page["messages"]
            seq = entries[-1]["seq"]


def save(run: Run, file: str) -> None:
    """Write a run, to check it again."""
    with open(file, "wb") as output:
        output.write(msgspec.json.encode(run))
