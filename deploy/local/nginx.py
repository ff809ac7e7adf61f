"""nginx's configuration."""

import os
import pwd
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from deploy.local.layout import HOST, Ports

_TEMPLATE = Path(__file__).with_name("nginx.conf.template")
_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def configuration(outside: Ports, gateways: Sequence[Ports], nodes: Sequence[Ports]) -> str:
    """nginx listens on the ports `outside`. MQTT goes to the `gateways`, HTTP and gRPC to all `nodes`."""
    listening = {
        "OUT_MQTT": outside.mqtt,
        "OUT_WEBSOCKET": outside.ws,
        "OUT_GRPC": outside.grpc,
        "OUT_HTTP": outside.http,
    }
    return Template(_TEMPLATE.read_text()).substitute(
        BEGINNING=beginning(),
        MQTT=_servers(ports.mqtt for ports in gateways),
        WEBSOCKET=_servers(ports.ws for ports in gateways),
        GRPC=_servers(ports.grpc for ports in nodes),
        HTTP=_servers(ports.http for ports in nodes),
        **{name: f"{HOST}:{port}" for name, port in listening.items()},
    )


def beginning() -> str:
    """What an nginx needs that somebody starts by hand."""
    # Debian has TCP as a module of its own; elsewhere it may be built in.
    module = [f"load_module {_MODULE};"] if _MODULE.exists() else []
    # Its folders belong to who starts it.
    user = [f"user {pwd.getpwuid(0).pw_name};"] if os.getuid() == 0 else []
    return "\n".join([*module, *user, "daemon off;", "pid nginx.pid;"])


def _servers(ports: Iterable[int]) -> str:
    return "\n".join(f"        server {HOST}:{port} max_fails=1 fail_timeout=2s;" for port in ports)


def write(folder: Path, text: str) -> Path:
    """Write the configuration into nginx's folder, which is made."""
    for name in ("body", "proxy"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    file = folder / "nginx.conf"
    file.write_text(text)
    return file
