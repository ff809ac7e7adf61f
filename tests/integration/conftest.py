"""Nodes for tests. `node` is shared by all tests of a worker: each makes users of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.node import Node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with the open topics `open/#` and anonymous clients allowed."""
    settings = ['topics.open=["open/#"]', "plugins.plugins.auth.UserAuthPlugin.allow_anonymous=true"]
    shared = Node(tmp_path_factory.mktemp("node"), settings).start()
    yield shared
    shared.stop()


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Makes nodes of a test's own, not started yet: `make_node(*settings, config=FILE)`."""
    made: list[Node] = []

    def make(*settings: str, config: Path | None = None) -> Node:
        directory = tmp_path / f"node-{len(made)}"
        directory.mkdir()
        made.append(Node(directory, settings, config))
        return made[-1]

    yield make
    for each in made:
        each.stop()
