"""`admin.verify`: one check at a time, which ends with its caller and leaves time to others."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from bridge.core.operations import THE_SYSTEM
from bridge.handlers.admin.verification import StoreChecks, VerifyParameters
from broker.domain.errors import RefusedError
from broker.ports import Finding, Verified


class Checks:
    """A check of 100 reports."""

    def __init__(self) -> None:
        self.running = 0

    async def run(self) -> AsyncGenerator[Verified, None]:
        self.running += 1
        try:
            for number in range(100):
                yield Verified("logs", number, 100, 5, [Finding("gap", f"g:{number}", "1 missing")])
        finally:
            self.running -= 1


async def start(handler: StoreChecks) -> Any:
    return await handler.verify(THE_SYSTEM, VerifyParameters())


async def test_reports() -> None:
    checks: Any = Checks()
    reports = [report async for report in await start(StoreChecks(checks))]
    assert [report.findings[0].where for report in reports] == [f"g:{number}" for number in range(100)]
    assert checks.running == 0


async def test_one_at_a_time_and_one_that_is_left() -> None:
    checks: Any = Checks()
    handler = StoreChecks(checks)
    first = await start(handler)
    await anext(first)
    with pytest.raises(RefusedError) as refused:
        await anext(await start(handler))
    assert refused.value.code == "conflict"
    await anext(first)
    await first.aclose()
    assert checks.running == 0
    assert len([report async for report in await start(handler)]) == 100


async def test_others_run_meanwhile() -> None:
    checks: Any = Checks()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(others())
    async for _ in await start(StoreChecks(checks)):
        pass
    other.cancel()
    assert turns >= 100


async def test_a_store_without_checks() -> None:
    with pytest.raises(RefusedError) as refused:
        await start(StoreChecks(None))
    assert refused.value.code == "not_supported"
