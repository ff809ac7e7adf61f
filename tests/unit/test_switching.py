"""Python's switch interval, while one or several parts are busy."""

import sys
from collections.abc import Iterator

import pytest

from broker.switching import Switching


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    seconds = sys.getswitchinterval()
    yield
    sys.setswitchinterval(seconds)


def test_it_is_lowered_while_anything_is_busy() -> None:
    switching = Switching()
    usual = sys.getswitchinterval()
    switching.busy(True)
    lowered = sys.getswitchinterval()
    assert lowered < usual / 10
    switching.busy(True)
    switching.busy(False)
    assert sys.getswitchinterval() == lowered
    switching.busy(False)
    assert sys.getswitchinterval() == usual
