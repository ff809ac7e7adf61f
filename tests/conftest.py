"""What holds for all tests."""

import signal

import pytest
from hypothesis import settings

from tests.servers.processes import begin_run, end_run

# An example that a busy machine runs slowly is no failure.
settings.register_profile("parley", deadline=None)
settings.load_profile("parley")

# A shell's background job ignores Ctrl-C, and so would the programs that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_FAILED = pytest.StashKey[bool]()


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    if not _is_worker(config):
        begin_run()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_FAILED] = exitstatus == pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _is_worker(config):
        kept = end_run(keep_logs=config.stash.get(_FAILED, True))
        if kept is not None:
            print(f"the logs of the servers that the tests have used: {kept}")
