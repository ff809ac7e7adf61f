"""What a store may offer to operators while it is open: checks and copies. It is optional: operations that
need it are refused where a store does not offer it."""

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

FindingKind = Literal["gap", "duplicate", "dangling", "cursor", "checksum", "damaged"]


class Finding(msgspec.Struct, frozen=True):
    """Something in a store that cannot be right."""

    kind: FindingKind
    """`gap`: entries are missing. `duplicate`: something is there twice. `dangling`: it refers to what is not
    there. `cursor`: a cursor, watermark or floor is beyond the end of its log. `checksum`: a body is not the
    one that was stored. `damaged`: it cannot be read, or contradicts itself."""
    where: str
    """The log, session or table, with the place in it."""
    detail: str
    """What is wrong, for people."""


class Verified(msgspec.Struct, frozen=True):
    """How far a check has got, and what it has found since the last report."""

    part: str
    """What is being checked, for people: "logs", "sessions"."""
    done: int
    total: int
    """`done` of `total` in this part, in units of its own."""
    checked: int
    """Rows checked since the last report."""
    findings: Sequence[Finding] = ()


class Upkeep(Protocol):
    """Checks and copies of an open store. Neither blocks the event loop, nor calls that write."""

    def verify(self) -> AsyncGenerator[Verified, None]:
        """Check everything that is stored, part by part, in bounded memory. What is written meanwhile is no
        finding. Raises `StoreError` if the check itself is not possible."""
        ...

    async def copy(self, folder: Path) -> None:
        """Write a copy of the store as of one moment into a folder: the files that the store would need in
        a data directory. On return they are on disk. Raises `StoreError`."""
        ...


class DirectoryUpkeep(Protocol):
    """The same for the directory."""

    async def check(self) -> list[str]:
        """What is wrong with the file that the directory is, a line for each; nothing for a directory on a
        database server."""
        ...

    async def copy(self, folder: Path) -> bool:
        """As `Upkeep.copy`. Returns False, and writes nothing, for a directory on a database server."""
        ...
