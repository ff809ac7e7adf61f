"""The node under attack, as shipped, and the accounts on it."""

import json
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc

from benchmarks.brokers import Parley, StartError
from bridge.grpc_api import im_admin_pb2 as pb
from bridge.grpc_api import im_admin_pb2_grpc as services
from bridge.grpc_api import im_pb2_grpc as services_of_users
from bridge.grpc_api.im_pb2 import SendBatchRequest, SendRequest

ATTACKER = "mallory"
ATTACKED_FROM = "127.0.0.2"
"""The attacker's address. The others have 127.0.0.1, so that they do not share the limits per address."""
WRITER, READER, CALLER = "alice", "bob", "carol"
OPEN = "bench/hostile"
"""Topics that anybody may use begin with this."""
INBOX_THOUSANDS = 5
"""Thousands of messages in the attacker's inbox."""
_AT_ONCE = 20
_SECONDS = 30.0


class ShippedParley(Parley):
    """A node with all limits as shipped. `bench/#` is open, so that there is something to retain."""

    name = "parley"

    def _raised(self) -> list[str]:
        return []


@dataclass(frozen=True, slots=True)
class Target:
    """What an attack must know. It is passed to its process as JSON."""

    host: str
    port: int
    grpc: str
    token: str
    """The attacker's."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Target":
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Town:
    """A running node. `tokens`: user -> MQTT password of the users that are measured. `newcomers`:
    (user, password) of accounts nobody has used yet."""

    target: Target
    pid: int
    tokens: dict[str, str]
    newcomers: Iterator[tuple[str, str]]


@contextmanager
def town(home: Path, newcomers: int) -> Iterator[Town]:
    """Start a node in `home` with its accounts. Raises `StartError` if it does not start."""
    parley = ShippedParley(home / "node")
    with parley.start() as node:
        where = _grpc_address(parley.data_dir / "node.json")
        token = (parley.data_dir / "admin.token").read_text().strip()
        with grpc.insecure_channel(where) as channel:
            stub = services.AdminServiceStub(channel)  # type: ignore[no-untyped-call]
            admin = _Admin(stub, token)
            tokens = {user: admin.user_with_token(user) for user in (ATTACKER, WRITER, READER, CALLER)}
            accounts = [(f"newcomer-{number}", secrets.token_hex(8)) for number in range(newcomers)]
            admin.add(accounts)
            _fill_inbox(channel, tokens[ATTACKER])
        target = Target(node.host, node.port, where, tokens[ATTACKER])
        yield Town(target, node.pid, tokens, iter(accounts))


def _grpc_address(file: Path) -> str:
    """Where the node serves gRPC. It says so when all its ports are open."""
    deadline = time.monotonic() + _SECONDS
    while not file.exists():
        if time.monotonic() > deadline:
            raise StartError(f"timeout: the node did not write {file.name}")
        time.sleep(0.02)
    return str(json.loads(file.read_text())["grpc"])


def _fill_inbox(channel: grpc.Channel, token: str) -> None:
    """Send the attacker messages, so that there is something to synchronize."""
    stub = services_of_users.MessageServiceStub(channel)  # type: ignore[no-untyped-call]
    batch = SendBatchRequest(messages=[SendRequest(user_id=ATTACKER, content=b'"good morning"')] * 1000)
    for _ in range(INBOX_THOUSANDS):
        stub.SendMessages(batch, metadata=(("authorization", f"Bearer {token}"),), timeout=_SECONDS)


class _Admin:
    def __init__(self, stub: Any, token: str) -> None:
        self._stub = stub
        self._options = {"metadata": (("authorization", f"Bearer {token}"),), "timeout": _SECONDS}

    def user_with_token(self, user: str) -> str:
        self._stub.AddUser(pb.AddUserRequest(user_id=user), **self._options)
        request = pb.IssueTokenRequest(user_id=user, ttl_seconds=3600)
        return str(self._stub.IssueToken(request, **self._options).token)

    def add(self, accounts: Iterable[tuple[str, str]]) -> None:
        """Add accounts with passwords, several at once: each password takes a while to hash."""
        requests = [pb.AddUserRequest(user_id=user, password=word) for user, word in accounts]
        for start in range(0, len(requests), _AT_ONCE):
            few = requests[start : start + _AT_ONCE]
            for call in [self._stub.AddUser.future(request, **self._options) for request in few]:
                call.result()
