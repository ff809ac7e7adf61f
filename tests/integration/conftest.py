"""Nodes for tests. `node` is shared by all tests of a worker: each makes users of its own.

The scenarios of the services run twice: with broker and services in one process, and with bytes
between them, as if they were two.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.node import Node, RemoteNode

SCENARIOS = frozenset(
    f"test_{name}"
    for name in (
        *("administration", "contacts", "conversations", "edits", "groups", "groups_presence", "grpc"),
        *("im_machine", "methods", "presence", "receipts", "rpc", "typing", "data", "renewal"),
        *("consent", "side_doors", "grpc_tls"),
    )
)
assert all(Path(__file__).with_name(f"{name}.py").exists() for name in SCENARIOS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in SCENARIOS and "node_kind" in metafunc.fixturenames:
        metafunc.parametrize("node_kind", [Node, RemoteNode], ids=["", "by bytes"], scope="session")


@pytest.fixture(scope="session")
def node_kind() -> type[Node]:
    return Node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory, node_kind: type[Node]) -> Iterator[Node]:
    """A node with the open topics `open/#` and anonymous clients allowed."""
    settings = ['topics.open=["open/#"]', "plugins.plugins.auth.UserAuthPlugin.allow_anonymous=true"]
    shared = node_kind(tmp_path_factory.mktemp("node"), settings).start()
    yield shared
    shared.stop()


@pytest.fixture
def make_node(tmp_path: Path, node_kind: type[Node]) -> Iterator[Callable[..., Node]]:
    """Makes nodes of a test's own, not started yet: `make_node(*settings, config=FILE)`."""
    made: list[Node] = []

    def make(*settings: str, config: Path | None = None) -> Node:
        directory = tmp_path / f"node-{len(made)}"
        directory.mkdir()
        made.append(node_kind(directory, settings, config))
        return made[-1]

    yield make
    for each in made:
        each.stop()
