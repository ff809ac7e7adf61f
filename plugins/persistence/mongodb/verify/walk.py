"""What the parts of a check share: documents some at a time, and the report."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from broker.ports import Finding, FindingKind, Verified
from plugins.persistence.mongodb.client import Database
from plugins.persistence.mongodb.operations import Document
from plugins.persistence.mongodb.places import CHUNK


class Walk:
    """One part of a check: what it has found since its last report."""

    def __init__(self, database: Database, part: str) -> None:
        self.database = database
        self._part = part
        self._findings: list[Finding] = []
        self._checked = 0

    async def pages(
        self, collection: str, fields: Sequence[str] | None = None
    ) -> AsyncGenerator[list[Document]]:
        """All documents of a collection, some at a time. They count as checked."""
        page: list[Document] = []
        async with aclosing(self.database.each(collection, {}, fields)) as found:
            async for document in found:
                page.append(document)
                if len(page) == CHUNK:
                    self.count(len(page))
                    yield page
                    page = []
        if page:
            self.count(len(page))
            yield page

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        """Log -> its last offset now; 0 for one that is unknown."""
        found = await self.database.by_ids("heads", list(dict.fromkeys(logs)), ["head"])
        return {log: found[log]["head"] if log in found else 0 for log in logs}

    def count(self, documents: int) -> None:
        """So many documents were checked."""
        self._checked += documents

    def found(self, kind: FindingKind, where: str, detail: str) -> None:
        """Add a finding."""
        self._findings.append(Finding(kind, where, detail))

    def report(self, done: int = 0, total: int = 1) -> Verified:
        """What was checked and found since the last report."""
        verified = Verified(self._part, done, total, self._checked, self._findings)
        self._findings, self._checked = [], 0
        return verified
