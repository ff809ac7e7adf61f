"""A backplane in memory: what several nodes of one process would tell each other."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from broker.domain.topics import matches
from broker.ports import Head, Hint, Member, Placed, Taken, Whereabouts


class Bus:
    """What the nodes share."""

    def __init__(self, *, is_slow: bool = False) -> None:
        """`is_slow`: hints take a turn of the event loop."""
        self.is_slow = is_slow
        self.holders: dict[str, str] = {}
        """Log -> the node whose turn it is."""
        self.heads: dict[str, Head] = {}
        self.freed = asyncio.Event()
        self.nodes: list[BusHints] = []
        self.mail: dict[str, BusMail] = {}
        """By node. One that is not here is dead."""
        self.devices: dict[str, dict[str, Whereabouts]] = {}
        """User -> client id -> where it is connected."""
        self.trips = 0
        """Round trips for devices."""


class BusTurns:
    """See `broker.ports.Turns`. `story`: the groups of logs that were asked for, in their order."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self._name = name
        self.story: list[list[Sequence[str]]] = []

    async def take(self, groups: Sequence[Sequence[str]]) -> Taken:
        await asyncio.sleep(0)
        bus, denied, granted = self._bus, set[str](), []
        self.story.append(list(groups))
        for logs in groups:
            mine = not denied.intersection(logs) and all(
                bus.holders.get(log, self._name) == self._name for log in logs
            )
            granted.append(mine)
            if mine:
                bus.holders.update(dict.fromkeys(logs, self._name))
            else:
                denied.update(logs)
        held = [log for logs, mine in zip(groups, granted, strict=True) if mine for log in logs]
        return Taken(granted, {log: bus.heads[log] for log in held if log in bus.heads})

    async def freed(self) -> None:
        self._bus.freed.clear()
        await self._bus.freed.wait()

    def give_back(self, heads: Mapping[str, Head | None]) -> None:
        for log, head in heads.items():
            assert self._bus.holders.pop(log) == self._name
            if head is None:
                self._bus.heads.pop(log, None)
            else:
                self._bus.heads[log] = head
        self._bus.freed.set()


class BusHints:
    """See `broker.ports.Hints`. While `is_cut`, hints to this node are lost."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.following: dict[str, int] = defaultdict(int)
        self.received: Callable[[Hint], None] = lambda _hint: None
        self.is_cut = False
        bus.nodes.append(self)

    def publish(self, hints: Sequence[Hint]) -> None:
        for node in self._bus.nodes:
            if node is not self and not node.is_cut:
                for hint in hints:
                    if any(matches(each, hint.topic) for each in node.following):
                        if self._bus.is_slow:
                            asyncio.get_running_loop().call_soon(node.received, hint)
                        else:
                            node.received(hint)

    def follow(self, topic_filter: str) -> None:
        assert topic_filter not in self.following
        self.following[topic_filter] = 1

    def unfollow(self, topic_filter: str) -> None:
        del self.following[topic_filter]

    async def followed(self) -> None:
        await asyncio.sleep(0)


class BusMail:
    """See `broker.ports.Mail`. What is sent arrives in the next turn of the event loop."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self._name = name
        self.received: dict[str, Callable[[str, bytes], None]] = {}
        self.answers: dict[str, Callable[[str, bytes], Awaitable[bytes]]] = {}
        bus.mail[name] = self

    def send(self, node: str | None, kind: str, body: bytes) -> None:
        for name, mail in self._bus.mail.items():
            if name != self._name and node in (None, name) and kind in mail.received:
                asyncio.get_running_loop().call_soon(mail.received[kind], self._name, body)

    async def ask(self, node: str, kind: str, body: bytes, seconds: float) -> bytes | None:
        await asyncio.sleep(0)
        mail = self._bus.mail.get(node)
        if mail is None or kind not in mail.answers:
            return None
        try:
            return await asyncio.wait_for(mail.answers[kind](self._name, body), seconds)
        except TimeoutError:
            return None

    def on(self, kind: str, received: Callable[[str, bytes], None]) -> None:
        self.received[kind] = received

    def on_question(self, kind: str, answer: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        self.answers[kind] = answer


class BusDevices:
    """See `broker.ports.Devices`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def connected(self, user: str, device: Whereabouts) -> Placed | None:
        self._bus.trips += 1
        devices = self._bus.devices.setdefault(user, {})
        earlier, devices[device.client_id] = devices.get(device.client_id), device
        placed = Placed(len(devices), earlier)
        await asyncio.sleep(0)
        return placed

    async def disconnected(self, user: str, client_id: str, connection_id: str) -> int | None:
        devices = self._bus.devices.get(user, {})
        if client_id in devices and devices[client_id].connection_id == connection_id:
            del devices[client_id]
        await asyncio.sleep(0)
        return len(devices)

    async def of(self, users: Sequence[str]) -> dict[str, list[Whereabouts]] | None:
        self._bus.trips += 1
        await asyncio.sleep(0)
        devices = self._bus.devices
        return {user: list(devices[user].values()) for user in users if devices.get(user)}

    async def forget(self, gateway: str) -> dict[str, int] | None:
        remaining = {}
        for user, devices in self._bus.devices.items():
            gone = [client_id for client_id, device in devices.items() if device.gateway == gateway]
            for client_id in gone:
                del devices[client_id]
            if gone:
                remaining[user] = len(devices)
        return remaining


class BusMembers:
    """See `broker.ports.Members`."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.gone: Callable[[str], Awaitable[None]]

    async def announce(self, member: Member) -> None:
        pass

    async def all(self) -> list[Member] | None:
        return [Member(name, 0, "all", 0, "", "", {}, 0) for name in sorted(self._bus.mail)]

    def on_gone(self, gone: Callable[[str], Awaitable[None]]) -> None:
        self.gone = gone


class BusBackplane:
    """See `broker.ports.Backplane`."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.name = name
        self.turns = BusTurns(bus, name)
        self.hints = BusHints(bus)
        self.mail = BusMail(bus, name)
        self.members = BusMembers(bus)
        self.devices = BusDevices(bus)

    def on_hint(self, received: Callable[[Hint], None]) -> None:
        self.hints.received = received

    def on_break(self, broken: Callable[[], None]) -> None:
        pass

    def on_return(self, returned: Callable[[], None]) -> None:
        pass

    async def close(self) -> None:
        pass
