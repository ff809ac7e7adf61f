"""Log lines that repeat are summed up."""

import logging

from grpc._cython.cygrpc import ExecuteBatchError

from server.logs import Repeats, start_logging


class Log:
    """A logger of its own behind a filter, and the lines that came through."""

    def __init__(self, most: int = 3) -> None:
        self.lines: list[str] = []
        self.left_out = 0
        self.repeats = Repeats(most, self.write, self.count)
        handler = logging.Handler()
        handler.emit = self.write  # type: ignore[method-assign]
        handler.addFilter(self.repeats)
        self.logger = logging.Logger("tests.log")
        self.logger.addHandler(handler)

    def write(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")

    def count(self, lines: int) -> None:
        self.left_out += lines

    def refuse(self, client: str, reason: str, what: object = "") -> None:
        self.logger.info("refused %s: %s", client, what, extra={"client": client, "reason": reason})


def test_the_first_lines_of_a_client_and_reason_pass_and_the_others_are_summed_up() -> None:
    log = Log()
    for number in range(1000):
        log.refuse("alice", "muted", number)
    assert log.lines == [f"INFO tests.log: refused alice: {number}" for number in range(3)]
    log.repeats.sum_up()
    assert log.lines[3:] == ["INFO tests.log: 997 more lines in the last minute, the first: refused alice: 3"]
    assert log.left_out == 997
    log.repeats.sum_up()
    log.refuse("alice", "muted", "again")
    assert log.lines[4:] == ["INFO tests.log: refused alice: again"]


def test_other_clients_and_reasons_are_counted_by_themselves() -> None:
    log = Log()
    for _ in range(10):
        log.refuse("alice", "muted")
    for client, reason in (("alice", "blocked"), ("bob", "muted")):
        log.refuse(client, reason, "seen")
    assert sum("seen" in line for line in log.lines) == 2


def test_lines_about_no_client_are_many_before_they_are_summed_up() -> None:
    log = Log()
    for number in range(150):
        log.logger.error("the store failed: %d", number)
    log.logger.error("the directory failed")
    assert len(log.lines) == 101
    assert log.lines[-1] == "ERROR tests.log: the directory failed"
    log.repeats.sum_up()
    assert log.lines[-1] == (
        "ERROR tests.log: 50 more lines in the last minute, the first: the store failed: 100"
    )


def test_memory_and_lines_are_bounded_however_many_clients_there_are() -> None:
    log = Log()
    for number in range(50_000):
        log.refuse(f"u{number}", "muted", "x" * 10_000)
    assert len(log.repeats._counted) <= 1001
    assert len(log.lines) == 1000 + 100
    log.repeats.sum_up()
    assert len(log.lines) == 1101
    assert len(log.lines[-1]) < 1200
    assert log.left_out == 50_000 - 1100


def test_a_line_that_cannot_be_put_together_does_not_fail_who_writes_it() -> None:
    log = Log()
    for _ in range(5):
        log.repeats.filter(logging.LogRecord("tests.log", logging.INFO, "", 0, "%d", ("x",), None))
    for _ in range(200):
        log.repeats.filter(logging.LogRecord("tests.log", logging.INFO, "", 0, "%d", ("x",), None))
    log.repeats.sum_up()
    assert log.lines == ["INFO tests.log: 105 more lines in the last minute, the first: %d"]


def test_a_client_that_goes_in_the_middle_of_a_stream_leaves_no_traceback() -> None:
    logger = logging.getLogger("grpc._cython.cygrpc")
    before = list(logger.filters)
    start_logging("info", 3, lambda _: None)
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        for error in (ExecuteBatchError("Failed"), ValueError("a fault of our own")):
            try:
                raise error
            except (ExecuteBatchError, ValueError):
                logger.exception("%s raised", type(error).__name__)
    finally:
        logger.removeHandler(handler)
        logger.filters = before
    assert lines == ["ValueError raised"]
