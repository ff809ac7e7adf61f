"""Checks of the stores: `admin.verify`."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from bridge.core.operations import Caller, Operations, Parameters
from bridge.core.verification import Verification
from broker.domain.errors import RefusedError
from broker.ports import Finding, Verified

_LONGEST_REST = 1.0


class VerifyParameters(Parameters):
    """There are none."""


class FindingView(msgspec.Struct):
    """Something that cannot be right."""

    kind: str
    """`gap`, `duplicate`, `dangling`, `cursor`, `checksum` or `damaged`."""
    where: str
    """The log, session or table, with the place in it."""
    detail: str


class VerifyReport(msgspec.Struct):
    """How far the check has got, and what it has found since the last report."""

    part: str
    done: int
    total: int
    """`done` of `total` in this part."""
    checked: int
    """Rows checked since the last report."""
    findings: list[FindingView]


class StoreChecks:
    """The handler. `verification` is None if the node's store offers no checks."""

    def __init__(self, verification: Verification | None) -> None:
        self._verification = verification
        self._running = False

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("admin.verify", self.verify)

    async def verify(self, caller: Caller, parameters: VerifyParameters) -> AsyncIterator[VerifyReport]:
        """Check everything that is stored: gaps, duplicates, references to what is not there, cursors beyond
        the end of a log, bodies. Streams reports until all is checked. The node serves meanwhile: the check
        takes at most half of one processor."""
        if self._verification is None:
            raise RefusedError("not_supported", "the store of this node offers no checks")
        return self._reports(self._verification)

    async def _reports(self, verification: Verification) -> AsyncIterator[VerifyReport]:
        if self._running:
            raise RefusedError("conflict", "another check is running")
        self._running = True
        reports = verification.run()
        try:
            clock = asyncio.get_running_loop().time
            began = clock()
            async for report in reports:
                yield _view(report)
                await asyncio.sleep(min(clock() - began, _LONGEST_REST))
                began = clock()
        finally:
            self._running = False
            await reports.aclose()


def _view(report: Verified) -> VerifyReport:
    findings = [_finding(finding) for finding in report.findings]
    return VerifyReport(report.part, report.done, report.total, report.checked, findings)


def _finding(finding: Finding) -> FindingView:
    return FindingView(finding.kind, finding.where, finding.detail)
