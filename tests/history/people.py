"""What the clients of a run do: read, publish, call. Each goes from node to node, and records what it sees.

All are bounded by `Moment`: until `end` they begin new things, and then finish what they have begun.
"""

import asyncio
import itertools
import json
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from broker.wire.encoder import puback, pubcomp, pubrec
from tests.history.client import (
    LOST,
    PUBACK,
    PUBLISH,
    PUBREL,
    Address,
    CallError,
    Calls,
    Connection,
    Message,
    Person,
    calling,
    connected,
    message_of,
)
from tests.history.records import Answer, Delivery, Edit, Read, Reader, Run, Sent
from tests.integration.raw import RawPacket, publish

_AGAIN_SECONDS = 0.2
_WINDOW = 8
_PATIENCE = 5.0
"""Seconds that a publisher waits for an acknowledgement until it goes to another node."""
_AFTER_REFUSAL = 1.5
"""Seconds: more than ten errors in one are summed up, and then it is not known what was refused."""
_HOP_SECONDS = (1.0, 6.0)
_AGAIN = 0.1
"""Of the messages that were acknowledged, how many are sent again nevertheless."""


class Target:
    """A topic to write to, and its conversation."""

    def __init__(self, topic: str, conversation_id: str) -> None:
        self.topic = topic
        self.conversation_id = conversation_id
        self.numbers = itertools.count(1)


def to_user(sender: str, other: str) -> Target:
    return Target(f"users/{other}/inbox", "p:" + ":".join(sorted((sender, other))))


def to_group(group: str) -> Target:
    return Target(f"groups/{group}", f"g:{group}")


class Moment:
    """When a run ends."""

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._end = loop.time() + seconds

    @property
    def has_come(self) -> bool:
        return asyncio.get_running_loop().time() >= self._end


class Reading:
    """A persistent session. It stays for some seconds on each node."""

    def __init__(
        self, record: Reader, person: Person, nodes: Sequence[Address], chance: random.Random
    ) -> None:
        self.record = record
        self.reached: dict[str, int] = {}
        self.ready = asyncio.Event()
        self.may_hop = True
        self._person = person
        self._nodes = nodes
        self._chance = chance
        self._released: set[int] = set()
        """Packet ids of QoS 2 messages that were received, and not released yet."""

    async def run(self) -> None:
        while True:
            try:
                async with connected(
                    self._chance.choice(self._nodes), self.record.client_id, self._person, clean=False
                ) as connection:
                    await self._read(connection)
            except LOST:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _read(self, connection: Connection) -> None:
        self.record.connections += 1
        if not connection.present:
            self._released.clear()
            if self.ready.is_set():
                self.record.lost += 1
        if not connection.present or not self.ready.is_set():
            filters = [(topic, self.record.qos) for topic in self.record.topics]
            for received in await connection.subscribe(*filters):
                self._take(connection, received)
        self.ready.set()
        loop = asyncio.get_running_loop()
        leaves = loop.time() + self._chance.uniform(*_HOP_SECONDS)
        async for received in connection.packets():
            self._take(connection, received)
            if self.may_hop and loop.time() > leaves:
                return

    def _take(self, connection: Connection, received: RawPacket) -> None:
        if received.type == PUBREL:
            packet_id = int.from_bytes(received.body, "big")
            self._released.discard(packet_id)
            connection.send(pubcomp(packet_id))
        elif received.type == PUBLISH:
            message = message_of(received)
            if message.qos == 1:
                self._record(message)
                connection.send(puback(message.packet_id))
            elif message.packet_id not in self._released:
                self._record(message)
                self._released.add(message.packet_id)
                connection.send(pubrec(message.packet_id))
            else:
                connection.send(pubrec(message.packet_id))

    def _record(self, message: Message) -> None:
        entry = json.loads(message.payload)
        offset, topic = int(entry["offset"]), message.topic
        self.record.deliveries.append(
            Delivery(
                self.record.connections,
                topic,
                offset,
                int(entry["seq"]),
                str(entry["id"]),
                entry.get("client_msg_id"),
                message.again,
            )
        )
        self.reached[topic] = max(offset, self.reached.get(topic, 0))


class Writing:
    """A publisher with a window of unacknowledged messages. What is not acknowledged is sent again, in its
    order, on the next connection: with its client_msg_id, if it `names` its messages."""

    def __init__(
        self,
        run: Run,
        person: Person,
        targets: Sequence[Target],
        nodes: Sequence[Address],
        chance: random.Random,
        pause: float,
        *,
        names: bool,
    ) -> None:
        self._run = run
        self._person = person
        self._targets = targets
        self._nodes = nodes
        self._chance = chance
        self._pause = pause
        self._names = names
        self._open: deque[tuple[Sent, Target]] = deque()
        """Not acknowledged yet, in their order."""
        self._flying: dict[int, tuple[Sent, Target, float]] = {}
        self._refused = False

    async def run(self, moment: Moment) -> None:
        while self._open or not moment.has_come:
            try:
                address = self._chance.choice(self._nodes)
                async with connected(
                    address, f"{self._person.name}-writer", self._person, clean=True
                ) as link:
                    await link.subscribe((f"users/{self._person.name}/events", 0))
                    await self._write(link, moment)
            except LOST:
                await asyncio.sleep(_AFTER_REFUSAL if self._refused else _AGAIN_SECONDS)
                self._refused = False

    async def _write(self, link: Connection, moment: Moment) -> None:
        self._flying.clear()
        for sent, target in self._open:
            self._send(link, sent, target)
        listening = asyncio.create_task(self._listen(link))
        loop = asyncio.get_running_loop()
        try:
            while self._open or not moment.has_come:
                await asyncio.wait([listening], timeout=self._chance.uniform(0.5, 1.5) * self._pause)
                if listening.done():
                    listening.result()
                if self._flying and loop.time() - next(iter(self._flying.values()))[2] > _PATIENCE:
                    raise TimeoutError("no acknowledgement")
                if len(self._open) < _WINDOW and not moment.has_come:
                    self._begin(link)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    def _begin(self, link: Connection) -> None:
        target = self._chance.choice(self._targets)
        number = next(target.numbers)
        mark = f"{self._person.name}/{target.conversation_id}/{number}"
        name = f"w-{target.conversation_id[:2]}{number}" if self._names else None
        sent = Sent(mark, self._person.name, target.conversation_id, number, name)
        self._run.sent.append(sent)
        self._open.append((sent, target))
        self._send(link, sent, target)

    def _send(self, link: Connection, sent: Sent, target: Target) -> None:
        packet_id = link.next_id()
        self._flying[packet_id] = (sent, target, asyncio.get_running_loop().time())
        sent.tries += 1
        link.send(publish(target.topic, _payload(sent), 1, packet_id))

    async def _listen(self, link: Connection) -> None:
        async for received in link.packets():
            if received.type == PUBACK:
                sent, target, _ = self._flying.pop(int.from_bytes(received.body, "big"))
                if not sent.acknowledged:
                    sent.acknowledged = True
                    self._open.remove((sent, target))
                    if sent.client_msg_id and self._chance.random() < _AGAIN:
                        self._send(link, sent, target)
            elif received.type == PUBLISH and json.loads(message_of(received).payload)["event"] == "error":
                # In 3.1.1 what is refused gets a PUBACK, too, after this event.
                self._refused = True
                raise ConnectionError("refused")


def _payload(sent: Sent) -> bytes:
    named = {} if sent.client_msg_id is None else {"client_msg_id": sent.client_msg_id}
    return json.dumps({"content": f"{sent.mark} said"} | named).encode()


class Calling:
    """Sends by calls, which return ids, and repeats them on other nodes; edits, and marks as read."""

    def __init__(
        self,
        run: Run,
        person: Person,
        targets: Sequence[Target],
        nodes: Sequence[Address],
        chance: random.Random,
        pause: float,
    ) -> None:
        self._run = run
        self._person = person
        self._targets = targets
        self._nodes = nodes
        self._chance = chance
        self._pause = pause
        self._answered: list[Sent] = []

    async def run(self, moment: Moment) -> None:
        for number in itertools.count(1):
            if moment.has_come:
                return
            target = self._chance.choice(self._targets)
            mark = f"{self._person.name}/call/{number}"
            sent = Sent(mark, self._person.name, target.conversation_id, 0, f"c-{number}")
            self._run.sent.append(sent)
            await self._until_done(lambda calls, sent=sent, target=target: self._send(calls, sent, target))
            match self._chance.randrange(6):
                case 0:
                    await self._until_done(lambda calls, s=sent, t=target: self._send(calls, s, t))
                case 1:
                    await self._edit(self._chance.choice(self._answered), number)
                case 2:
                    await self._read(self._chance.choice(self._answered))
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * self._pause)

    async def _until_done(self, call) -> None:  # type: ignore[no-untyped-def]
        while True:
            try:
                async with self._calls() as calls:
                    await call(calls)
                    return
            except LOST:
                await asyncio.sleep(_AGAIN_SECONDS)
            except CallError as error:
                if error.code not in ("unavailable", "internal"):
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)

    @asynccontextmanager
    async def _calls(self) -> AsyncIterator[Calls]:
        async with calling(self._chance.choice(self._nodes), self._person, "caller") as calls:
            yield calls

    async def _send(self, calls: Calls, sent: Sent, target: Target) -> None:
        kind, name = target.topic.split("/")[:2]
        to = {"user_id" if kind == "users" else "group_id": name}
        sent.tries += 1
        answer = await calls.call(
            "messages.send", content=f"{sent.mark} said", client_msg_id=sent.client_msg_id, **to
        )
        sent.answers.append(Answer(answer["id"], answer["seq"]))
        sent.acknowledged = True
        self._answered.append(sent)

    async def _edit(self, sent: Sent, number: int) -> None:
        edit = Edit(sent.answers[0].id, sent.conversation_id, f"{sent.mark} changed {number}")
        self._run.edits.append(edit)

        async def change(calls: Calls) -> None:
            edit.tries += 1
            await calls.call("messages.edit", id=edit.target_id, content=edit.content)
            edit.acknowledged = True

        await self._until_done(change)

    async def _read(self, sent: Sent) -> None:
        seq, where = sent.answers[0].seq, sent.conversation_id

        async def mark(calls: Calls) -> None:
            await calls.call("messages.read", conversation_id=where, seq=seq)
            self._run.reads.append(Read(self._person.name, where, seq))

        await self._until_done(mark)
