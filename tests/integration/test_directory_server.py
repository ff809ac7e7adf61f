"""A node whose directory is on a server: what it says when the server fails, and that it recovers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from tests.integration.node import ROOT, Node, wait_for
from tests.integration.test_full_disk import ready
from tests.integration.test_serve import serve
from tests.servers import mariadb, postgres
from tests.servers.processes import Process, free_port, own_folder

CONFIG = ROOT / "config" / "broker.yaml"
KINDS = {"mariadb": mariadb, "postgres": postgres}


@pytest.fixture(params=list(KINDS))
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Process, str]]:
    with own_folder() as folder:
        process, url = KINDS[request.param].own(folder)
        process.start()
        yield process, url
        process.kill()


async def test_a_server_that_is_away_for_a_while(
    server: tuple[Process, str], make_node: Callable[..., Node]
) -> None:
    process, url = server
    kind = mariadb if url.startswith("mysql") else postgres
    database = await kind.create(url)
    node = make_node(f"storage.directory_url={database}", "storage.directory_pool.timeout=2").start()
    node.user("ann")
    assert ready(node) == ""
    process.kill()
    said = wait_for(lambda: ready(node), "the node to say that it is not ready")
    assert said.startswith("503")
    assert "directory" in said
    assert "127.0.0.1" not in said
    with pytest.raises(grpc.RpcError) as refused:
        node.user("ben")
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    process.start()
    wait_for(lambda: ready(node) == "", "the node to be ready again")
    node.user("ben")
    node.stop()
    node.start()
    node.user("eve")


@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_a_server_that_is_not_there(kind: str, tmp_path: Path) -> None:
    url = f"{kind}://parley:secret@127.0.0.1:{free_port()}/parley"
    status, said = serve(CONFIG, "--data-dir", str(tmp_path), "--set", f"storage.directory_url={url}")
    assert status == 1
    (line,) = said.strip().splitlines()
    assert "directory" in line
    assert "onnect" in line
    assert "secret" not in line
