"""The layout of `make cluster`, and nginx's configuration."""

import re
import socket
from pathlib import Path

import pytest

from cli import location
from deploy.local import nginx
from deploy.local.layout import README_PORTS, lay_out, taken

ROOT = Path(__file__).resolve().parents[2]


def test_clients_find_a_cluster_on_the_ports_of_a_node(tmp_path: Path) -> None:
    layout = lay_out(tmp_path, None)
    assert layout.outside == README_PORTS
    readme = (ROOT / "README.md").read_text()
    for port in README_PORTS:
        assert str(port) in readme
    assert len({*layout.outside, layout.redis, layout.mariadb, layout.mongodb}) == 7


@pytest.mark.parametrize("base", [None, 21_000])
def test_no_port_is_used_twice(tmp_path: Path, base: int | None) -> None:
    layout = lay_out(tmp_path, base)
    count = 4 + 3 + 4 * len(layout.members)
    assert len(layout.all_ports) == count
    if base is not None:
        assert all(base <= port < base + 110 for port in layout.all_ports)
        others = lay_out(tmp_path, base + 110)
        assert not set(others.all_ports) & set(layout.all_ports)


@pytest.mark.parametrize("base", [0, -1, 65_500, 70_000])
def test_there_must_be_ports_after_the_first(tmp_path: Path, base: int) -> None:
    with pytest.raises(ValueError, match="--base-port"):
        lay_out(tmp_path, base)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        layout = lay_out(tmp_path, 21_000)._replace(redis=port)
        found = taken(layout)
        assert found is not None
        assert found in ((port, "redis"), found), "or one that somebody else uses here"


def test_mqtt_goes_to_the_gateways_with_the_clients_address(tmp_path: Path) -> None:
    layout = lay_out(tmp_path, 21_000)
    gateways = [member.ports for member in layout.members if member.is_gateway]
    text = nginx.configuration(layout.outside, gateways, [member.ports for member in layout.members])
    assert "$" not in text.replace("$http_host", "").replace("$remote_addr", "").replace("$scheme", "")
    upstreams = dict(re.findall(r"upstream (\w+) \{(.*?)\n    \}", text, re.DOTALL))
    ports = {
        name: [int(port) for port in re.findall(r"server 127.0.0.1:(\d+)", upstreams[name])]
        for name in upstreams
    }
    assert ports["mqtt"] == [each.mqtt for each in gateways]
    assert ports["websocket"] == [each.ws for each in gateways]
    assert ports["grpc"] == [member.ports.grpc for member in layout.members]
    assert ports["http"] == [member.ports.http for member in layout.members]
    servers = re.findall(r"server \{(.*?)\n    \}", text, re.DOTALL)
    proxied = [server for server in servers if "proxy_protocol on" in server]
    assert len(servers) == 4
    assert [f":{layout.outside.mqtt} " in each or f":{layout.outside.ws} " in each for each in proxied] == [
        True
    ] * 2


def test_imctl_finds_a_cluster_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("IM_DATA_DIR", "IM_STORAGE__DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    options = location.Options(None, None, None, 1.0)
    assert options.where == Path("data")
    for name in ("cluster-data", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "node.json").write_text('{"grpc": "127.0.0.1:1"}')
        assert options.where == Path(name), "a node comes first"
    (tmp_path / "data" / "node.json").unlink()
    assert options.where == Path("cluster-data")
    assert options._replace(data_dir=Path("data")).where == Path("data")
    monkeypatch.setenv("IM_DATA_DIR", "other")
    assert options.where == Path("other")
