"""The node's log on standard error. Lines that repeat are summed up, so that no client can flood it."""

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable

import msgspec

SUM_UP_SECONDS = 60.0

_LINES_OF_A_PLACE = 100
_MOST_KEYS = 1000
_MOST_TEXT = 1000
"""Characters of a line that a summary repeats."""

_Key = tuple[str, str]
_OTHERS: _Key = ("", "")


class _Counted(msgspec.Struct):
    """The lines of one key since the last summary. `like`: the first one that was left out."""

    lines: int = 0
    left_out: int = 0
    like: str = ""
    level: int = logging.INFO
    name: str = ""

    def lets_through(self, record: logging.LogRecord, most: int) -> bool:
        """Count a line. Returns whether it is one of the first `most`."""
        self.lines += 1
        if self.lines <= most:
            return True
        self.left_out += 1
        if self.left_out == 1:
            self.like = _text(record)
            self.level, self.name = record.levelno, record.name
        return False


class Repeats(logging.Filter):
    """Lets through the first lines of each kind in a minute and counts the others.

    Lines are of one kind if they are about the same client and the same reason. A line says so by
    `extra={"client": ..., "reason": ...}`; of these, `most` pass. All other lines are of the kind of the
    place in the program that writes them; of these, 100 pass, as they may be about different things.
    At most 1,000 kinds are told apart in a minute; all further ones together count as one.

    `write` gets the summaries. `left_out(count)` is told how many lines they stand for.
    """

    def __init__(
        self, most: int, write: Callable[[logging.LogRecord], object], left_out: Callable[[int], object]
    ) -> None:
        super().__init__()
        self._most = most
        self._write = write
        self._left_out = left_out
        self._counted: dict[_Key, _Counted] = {}
        self._lock = threading.Lock()  # threads of the stores write lines, too

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written."""
        client, reason = getattr(record, "client", None), getattr(record, "reason", None)
        most = self._most
        if client is None:
            client, reason, most = record.name, record.msg, max(most, _LINES_OF_A_PLACE)
        with self._lock:
            counted, most = self._of((str(client), str(reason)), most)
            return counted.lets_through(record, most)

    def _of(self, key: _Key, most: int) -> tuple[_Counted, int]:
        if key not in self._counted and len(self._counted) >= _MOST_KEYS:
            key, most = _OTHERS, _LINES_OF_A_PLACE
        return self._counted.setdefault(key, _Counted()), most

    def sum_up(self) -> None:
        """Write one line for each kind of which lines were left out, and begin to count anew."""
        with self._lock:
            counted, self._counted = self._counted, {}
        for each in counted.values():
            if each.left_out:
                text = f"{each.left_out} more lines in the last minute, the first: {each.like}"
                self._write(logging.LogRecord(each.name, each.level, "", 0, "%s", (text,), None))
                self._left_out(each.left_out)


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()[:_MOST_TEXT]
    except (TypeError, ValueError):  # the arguments do not fit the text: no reason to fail the caller
        return str(record.msg)[:_MOST_TEXT]


def start_logging(level: str, most: int, left_out: Callable[[int], object]) -> Repeats:
    """Write the log to standard error from now on. `most`: see `Repeats`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))

    def write(record: logging.LogRecord) -> None:
        handler.acquire()
        try:
            handler.emit(record)
        finally:
            handler.release()

    repeats = Repeats(most, write, left_out)
    handler.addFilter(repeats)
    logging.basicConfig(handlers=[handler])
    logging.captureWarnings(True)
    set_level(level)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_client_that_has_gone)
    # The WebSocket listener logs one line for each offence; picows would log another.
    logging.getLogger("picows").setLevel(logging.CRITICAL)
    return repeats


def _is_no_client_that_has_gone(record: logging.LogRecord) -> bool:
    """False for the traceback that gRPC logs when a client goes while a part of a stream is on its way to
    it."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "ExecuteBatchError"


def set_level(level: str) -> None:
    """Log what this level lets through."""
    logging.getLogger().setLevel(level.upper())
    for noisy in ("amqtt", "transitions"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))


@contextlib.asynccontextmanager
async def summing_up(repeats: Repeats) -> AsyncIterator[None]:
    """Sum up each minute while the context lasts, and at its end."""

    async def each_minute() -> None:
        while True:
            await asyncio.sleep(SUM_UP_SECONDS)
            repeats.sum_up()

    running = asyncio.create_task(each_minute())
    try:
        yield
    finally:
        running.cancel()
        repeats.sum_up()
