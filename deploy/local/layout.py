"""The names, ports and folders of the cluster's processes."""

import socket
from pathlib import Path
from typing import NamedTuple

HOST = "127.0.0.1"
_INSIDE = 18_100
"""The first port of the processes behind nginx."""
_PER_NODE = 10
_MOST_PORT = 65_535


class Ports(NamedTuple):
    """The ports of a node, or of nginx in front of the nodes."""

    mqtt: int
    ws: int
    grpc: int
    http: int


README_PORTS = Ports(1883, 8083, 50_051, 8080)
"""Those of a single node."""


class Member(NamedTuple):
    """A node. Clients of MQTT reach the gateways only."""

    name: str
    number: int
    ports: Ports
    is_gateway: bool


class Layout(NamedTuple):
    """Where everything is. `folder` has the data of all processes."""

    folder: Path
    outside: Ports
    redis: int
    mariadb: int
    mongodb: int
    members: tuple[Member, ...]

    @property
    def all_ports(self) -> dict[int, str]:
        """Port -> who listens there."""
        named = {self.redis: "redis", self.mariadb: "mariadb", self.mongodb: "mongodb"}
        inside = {port: member.name for member in self.members for port in member.ports}
        return dict.fromkeys(self.outside, "nginx") | named | inside


def lay_out(folder: Path, base_port: int | None) -> Layout:
    """The cluster in `folder`. Without `base_port` it has the ports that the README names; with it, its ports
    are that one and the next hundred.

    Raises:
        ValueError: there are not enough ports after `base_port`.
    """
    if base_port is None:
        outside, inside = README_PORTS, _INSIDE
    else:
        outside, inside = Ports(*range(base_port, base_port + 4)), base_port + 10
    if inside + 100 > _MOST_PORT or (base_port is not None and base_port < 1):
        raise ValueError(f"--base-port {base_port}: expected 1 to {_MOST_PORT - 110}")
    names = (("gateway-1", True), ("gateway-2", True), ("service-1", False))
    members = tuple(
        Member(name, number, Ports(*range(first, first + 4)), is_gateway)
        for number, (name, is_gateway) in enumerate(names, 1)
        for first in (inside + _PER_NODE * number,)
    )
    return Layout(folder, outside, inside, inside + 1, inside + 2, members)


def taken(layout: Layout) -> tuple[int, str] | None:
    """A port that is in use, and who needs it; None if all are free."""
    for port, who in layout.all_ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                return port, who
    return None
