"""Calls of clients to the services: in turns over users."""

import asyncio
from typing import Any

from broker.domain.acting import whose
from broker.metrics import Metrics
from broker.publish.for_services import ForServices


class SlowServices:
    """Answers a call when it is told to."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.on_behalf: list[str] = []
        self.answers: list[asyncio.Future[bytes]] = []

    async def call(self, user: str, _method: str, _payload: bytes, _client_id: str = "") -> bytes:
        self.called.append(user)
        self.on_behalf.append(whose())
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_calls_of_users_are_interleaved() -> None:
    services: Any = SlowServices()
    waiting = ForServices(64, 256, Metrics())
    waiting.serve(services)
    for user in ["mallory"] * 250 + ["bob"] * 2:
        assert waiting.call(user, "messages.sync", b"{}", lambda _: None) is None
    await settled()
    # An eighth of the calls at a time are one user's.
    assert services.called == ["mallory"] * 8 + ["bob"] * 2
    assert services.on_behalf == services.called
    for user in ("bob", "carol"):
        waiting.call(user, "users.get", b"{}", lambda _: None)
    services.answers[0].set_result(b"")
    await settled()
    assert services.called[10:] == ["bob", "carol", "mallory"]
    while any(not answer.done() for answer in services.answers):
        for answer in services.answers:
            if not answer.done():
                answer.set_result(b"")
        await settled()
    assert services.called.count("mallory") == 250
    await waiting.close()


async def test_one_user_cannot_take_all_places() -> None:
    services: Any = SlowServices()
    metrics = Metrics()
    waiting = ForServices(4, 10, metrics)
    waiting.serve(services)
    answers = [waiting.call("mallory", "messages.sync", b"{}", lambda _: None) for _ in range(30)]
    assert [answer is None for answer in answers] == [True] * 10 + [False] * 20
    assert waiting.call("bob", "users.get", b"{}", lambda _: None) is None
    await settled()
    assert services.called == ["mallory", "bob"]
    assert metrics.limited == {"calls_per_user": 20}
    for answer in services.answers:
        answer.cancel()
    await waiting.close()
