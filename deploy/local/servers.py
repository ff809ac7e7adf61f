"""How each process of the cluster is started, and when it is ready."""

import json
import os
import secrets
import shutil
import socket
import sys
from pathlib import Path

from deploy.local import nginx
from deploy.local.layout import HOST, Layout, Member
from deploy.local.mariadb import DATABASE, mariadb
from deploy.local.running import ClusterError, Program, find

_ROOT = Path(__file__).resolve().parents[2]
CONFIG = _ROOT / "config" / "cluster.yaml"
_MONGO = "plugins.plugins.persistence.mongodb.MongoPersistencePlugin"


def programs(layout: Layout) -> list[Program]:
    """All processes, in the order in which they start."""
    nodes = [node(layout, member) for member in layout.members]
    return [redis(layout), mariadb(layout), mongodb(layout), *nodes, front(layout)]


def answers(port: int) -> bool:
    """Whether something listens."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def redis(layout: Layout) -> Program:
    """Redis keeps nothing over a restart: nothing is lost with it."""
    data = _made(layout.folder / "redis")
    command = (
        *(find("redis-server", "redis-server"), "--bind", HOST, "--port", str(layout.redis)),
        *("--dir", str(data), "--save", "", "--appendonly", "no"),
    )
    return Program("redis", command, layout.folder / "redis.log", lambda: answers(layout.redis))


def mongodb(layout: Layout) -> Program:
    """A server on MongoDB's protocol, for trying and tests: one, without a replica set."""
    data = _made(layout.folder / "mongodb")
    program = shutil.which("secantusd-py", path=str(Path(sys.executable).parent)) or shutil.which(
        "secantusd-py"
    )
    if program is None:
        raise ClusterError("secantusd-py is missing; install it:  pip install secantusdb")
    command = (
        *(program, "--port", str(layout.mongodb), "--storage-path", str(data)),
        *("--sync-on-commit", "--log-level", "ERROR"),
    )
    return Program("mongodb", command, layout.folder / "mongodb.log", lambda: answers(layout.mongodb))


def node(layout: Layout, member: Member) -> Program:
    """One node of config/cluster.yaml."""
    place = layout.folder / member.name
    settings = {
        "node.id": member.number,
        "node.trusted_proxies": f"[{HOST}]",
        "cluster.name": member.name,
        "cluster.url": f"redis://{HOST}:{layout.redis}",
        f"{_MONGO}.uri": f"mongodb://{HOST}:{layout.mongodb}",
        "storage.directory_url": f"mysql://{DATABASE}:{DATABASE}@{HOST}:{layout.mariadb}/{DATABASE}",
        "plugins.plugins.auth.UserAuthPlugin.token_keys": layout.folder / "token_keys.json",
        "listeners.default.bind": f"{HOST}:{member.ports.mqtt}",
        "listeners.default.proxy_protocol": "true",
        "listeners.ws.bind": f"{HOST}:{member.ports.ws}",
        "grpc.bind": f"{HOST}:{member.ports.grpc}",
        "http.bind": f"{HOST}:{member.ports.http}",
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = (
        *(sys.executable, "-m", "cli", "serve", "--config", str(CONFIG), "--data-dir", str(place)),
        *options,
    )
    is_up = place / "node.json"
    return Program(member.name, command, layout.folder / f"{member.name}.log", is_up.exists)


def prepare_nodes(layout: Layout) -> None:
    """One credential of imctl for all nodes, and where imctl finds them: in `layout.folder`."""
    token = _private(layout.folder / "admin.token", f"{secrets.token_urlsafe(32)}\n")
    for member in layout.members:
        place = _made(layout.folder / member.name)
        (place / "node.json").unlink(missing_ok=True)
        _private(place / "admin.token", token)


def announce(layout: Layout) -> None:
    """imctl finds the cluster from now on, as it finds a node."""
    place = {"grpc": f"{HOST}:{layout.outside.grpc}", "http": f"{HOST}:{layout.outside.http}"}
    (layout.folder / "node.json").write_text(json.dumps(place))


def _private(file: Path, text: str) -> str:
    """The text of a file that its owner alone may read. It is written unless the file exists."""
    if not file.exists():
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
    return file.read_text()


def front(layout: Layout) -> Program:
    """nginx in front of all."""
    gateways = [member.ports for member in layout.members if member.is_gateway]
    text = nginx.configuration(layout.outside, gateways, [member.ports for member in layout.members])
    folder = layout.folder / "nginx"
    file = nginx.write(folder, text)
    command = (find("nginx", "nginx libnginx-mod-stream"), "-p", str(folder), "-c", str(file), "-e", "stderr")
    return Program("nginx", command, layout.folder / "nginx.log", lambda: answers(layout.outside.mqtt))


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
