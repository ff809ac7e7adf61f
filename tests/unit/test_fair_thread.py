"""A thread that serves those who wait in turns."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial

import pytest

from broker.domain.acting import SERVER, acting_for
from plugins.persistence.threads import FairThread


class Bench:
    """A thread that is busy at first, and the jobs that it has done."""

    def __init__(self) -> None:
        self.thread = FairThread("bench")
        self.done: list[str] = []
        self._open = threading.Event()
        self.thread.submit(self._open.wait)

    def submit(self, whose: str, name: str) -> "Future[None]":
        context = copy_context()
        context.run(acting_for, whose)
        return context.run(partial(self.thread.submit, self.done.append, name))

    def go_on(self) -> list[str]:
        """Let the thread work, and wait for its end. Returns the jobs in the order in which they ran."""
        self._open.set()
        self.thread.shutdown()
        return self.done


@contextmanager
def working() -> Iterator[Bench]:
    bench = Bench()
    try:
        yield bench
    finally:
        bench.go_on()


def test_users_have_their_turns_and_the_server_is_first() -> None:
    with working() as bench:
        for number in range(100):
            bench.submit("mallory", f"m{number}")
        bench.submit("bob", "b0")
        bench.submit("bob", "b1")
        bench.submit(SERVER, "s0")
        bench.thread.submit_last(bench.done.append, "last")
        done = bench.go_on()
    assert done[:6] == ["s0", "m0", "b0", "m1", "b1", "m2"]
    assert done[-2:] == ["m99", "last"]
    assert len(done) == 104


def test_a_cancelled_job_is_left_out() -> None:
    with working() as bench:
        assert bench.submit("bob", "b0").cancel()
        bench.submit("bob", "b1")
        assert bench.go_on() == ["b1"]


async def test_results_and_errors() -> None:
    with working() as bench:
        result = bench.thread.submit(divmod, 7, 2)
        error = bench.thread.submit(divmod, 7, 0)
        bench.go_on()
        assert await asyncio.wrap_future(result) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wrap_future(error)
        with pytest.raises(RuntimeError):
            bench.thread.submit(divmod, 7, 2)
