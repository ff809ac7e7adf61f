"""Nodes for the tests of imctl."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.fakes import FakeNode, running_node


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeNode]:
    """A node for tests that only read."""
    with running_node(tmp_path_factory.mktemp("node") / "data") as node:
        custom = '{"content":\n{"k": [1]}, "type":"custom"}'
        node.say("alice", "users/bob/inbox", "hi bob", "\x1b[2Jbold\nmove", custom)
        node.say("bob", "users/alice/inbox", "你好 alice")
        node.say("alice", "groups/team", *(f"line {number}" for number in range(1, 251)))
        yield node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    """A node for tests that write."""
    with running_node(tmp_path / "data") as node:
        yield node
