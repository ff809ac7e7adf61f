"""The wall clock of a process, set by libfaketime (Debian package `faketime`)."""

from pathlib import Path


class Clock:
    """The wall clock of a node."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.set(0)
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """Let it go ahead of the real one by this much from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}s\n")
        new.replace(self._file)
