"""Turns at the connections of a pool, and steps in the order of their places."""

import asyncio

import pytest

from broker.domain.acting import SERVER, acting_for
from plugins.persistence.sql_directory.turns import Order, Turns


class Jobs:
    """Jobs that hold a turn until they are let go, and the order in which they got it."""

    def __init__(self, count: int) -> None:
        self.turns = Turns(count)
        self.running: list[str] = []
        self._go: dict[str, asyncio.Event] = {}

    def start(self, name: str, user: str) -> "asyncio.Task[None]":
        async def run() -> None:
            acting_for(user)
            async with self.turns:
                self.running.append(name)
                await self._go[name].wait()

        self._go[name] = asyncio.Event()
        return asyncio.create_task(run())

    async def finish(self, name: str) -> None:
        self._go[name].set()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_users_have_turns_and_the_server_is_first() -> None:
    jobs = Jobs(2)
    waiting = [("a1", "ann"), ("a2", "ann"), ("a3", "ann"), ("a4", "ann"), ("b1", "ben"), ("s1", SERVER)]
    tasks = [jobs.start(name, user) for name, user in waiting]
    await settle()
    assert jobs.running == ["a1", "a2"]
    for number, next_ in enumerate(["s1", "a3", "b1", "a4"]):
        await jobs.finish(jobs.running[number])
        assert jobs.running[-1] == next_
    await jobs.finish("b1")
    await jobs.finish("a4")
    await asyncio.gather(*tasks)


async def test_who_gives_up_holds_up_nobody() -> None:
    jobs = Jobs(1)
    first, second, third = [jobs.start(name, name) for name in ("a", "b", "c")]
    await settle()
    second.cancel()
    await settle()
    await jobs.finish("a")
    assert jobs.running == ["a", "c"]
    await jobs.finish("c")
    await asyncio.gather(first, third)
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_who_is_cancelled_when_the_turn_comes_passes_it_on() -> None:
    jobs = Jobs(1)
    first, second, third = [jobs.start(name, name) for name in ("a", "b", "c")]
    await settle()
    first.cancel()  # its turn passes to b when it ends
    await asyncio.sleep(0)
    second.cancel()
    await settle()
    assert jobs.running == ["a", "c"]
    await jobs.finish("c")
    await third


@pytest.mark.parametrize("ready", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
async def test_steps_come_in_the_order_of_their_places(ready: list[int]) -> None:
    order = Order()
    places = [order.place() for _ in range(3)]
    taken: list[int] = []

    async def step(number: int) -> None:
        await places[number].come()
        taken.append(number)
        places[number].leave()

    tasks = []
    for number in ready:
        tasks.append(asyncio.create_task(step(number)))
        await settle()
    await asyncio.gather(*tasks)
    assert taken == [0, 1, 2]


async def test_a_place_that_is_given_up_lets_nobody_overtake() -> None:
    order = Order()
    first, second, third = [order.place() for _ in range(3)]
    second.leave()
    waiting = asyncio.create_task(third.come())
    await settle()
    assert not waiting.done()
    first.leave()
    await waiting
    third.leave()
