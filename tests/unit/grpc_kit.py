"""A real gRPC server over a few operations written by hand, and clients of it."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import msgspec

from bridge.core.operations import Caller, Operations
from bridge.grpc_api import im_pb2 as pb
from bridge.grpc_api.server import Offer, Server, start
from bridge.handlers.admin.counters import StatsParameters, StatsResult
from bridge.handlers.messages import SyncParameters, SyncResult
from bridge.handlers.sending import BatchParameters, BatchResult, SendParameters, SentResult
from bridge.handlers.users import GetParameters, GetResult, ProfileView
from broker.domain.errors import RefusedError, StoreError
from broker.ports import Account, AccountChanged, DirectoryChange, MembershipChanged, TokenRevoked
from tests.slots import Slots

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
ADMIN = "the-admin-token"


class Token(msgspec.Struct):
    expires_at: float


class Bearer(msgspec.Struct):
    token: Token
    account: Account
    revoked: bool = False


class TinyDirectory:
    """Accounts, and tokens of the form `token-of-<user>`."""

    def __init__(self) -> None:
        roles = {"alice": "user", "bob": "user", "carol": "user", "root": "admin", "robot": "service"}
        self.accounts = {user: Account(user, role) for user, role in roles.items()}
        self.accounts["carol"] = Account("carol", disabled=True)
        self.expires_at = time.time() + 3600
        self.revoked: set[str] = set()
        self.fails = False
        self.tell: Callable[[DirectoryChange], None] = lambda _: None

    def on_change(self, callback: Callable[[DirectoryChange], None]) -> None:
        self.tell = callback

    async def account(self, user_id: str) -> Account | None:
        return self.accounts.get(user_id)

    async def by_token(self, text: str) -> Bearer | None:
        if self.fails:
            raise StoreError("a secret of the node")
        account = self.accounts.get(text.removeprefix("token-of-"))
        if account is None or account.disabled or not text.startswith("token-of-"):
            return None
        return Bearer(Token(self.expires_at), account, account.user_id in self.revoked)

    def change(self, user: str, **values: Any) -> None:
        self.accounts[user] = msgspec.structs.replace(self.accounts[user], **values)
        self.tell(AccountChanged(user, self.accounts[user]))

    def revoke(self, user: str) -> None:
        self.revoked.add(user)
        self.tell(TokenRevoked(user, "id"))


class TinyLogs:
    """Logs that are read page by page, and the rights to read groups."""

    def __init__(self, directory: TinyDirectory) -> None:
        self._directory = directory
        self.logs: dict[str, list[str]] = {}
        self.members: dict[str, set[str]] = {}
        self.taps: dict[str, set[Callable[[], None]]] = {}
        self.paced: list[str] = []
        self.pace_open = asyncio.Event()
        self.pace_open.set()
        self.pages = 0
        self.reading: Counter[str] = Counter()
        self.read_open = asyncio.Event()
        self.read_open.set()

    def say(self, topic: str, *texts: str) -> None:
        self.logs.setdefault(topic, []).extend(texts)
        for grown in self.taps.get(topic, ()):
            grown()

    def join(self, group: str, user: str) -> None:
        self.members.setdefault(group, set()).add(user)
        self._directory.tell(MembershipChanged(group, user, True))

    def leave(self, group: str, user: str) -> None:
        self.members[group].remove(user)
        self._directory.tell(MembershipChanged(group, user, False))

    async def pace(self, user: str, publishes: int, *, wait: bool) -> None:
        """Nobody is too fast while `pace_open` is set."""
        self.paced.append(user)
        await self.pace_open.wait()

    async def watch(self, topic: str, grown: Callable[[], None]) -> Callable[[], None]:
        self.taps.setdefault(topic, set()).add(grown)
        return lambda: self.taps[topic].discard(grown)

    @property
    def tapped(self) -> list[str]:
        return [topic for topic, taps in self.taps.items() if taps]

    async def sync(self, caller: Caller, parameters: SyncParameters) -> SyncResult:
        """Entries after cursors. Whose reads are under way is counted in `reading`."""
        self.pages += 1
        self.reading[caller.user] += 1
        await self.read_open.wait()
        self.reading[caller.user] -= 1
        wanted = parameters.cursors
        if wanted is None:
            groups = [group for group, users in self.members.items() if caller.user in users]
            wanted = {f"users/{caller.user}/inbox": 0} | {f"groups/{group}": 0 for group in groups}
        result = SyncResult([], dict(wanted), more=False, generation=1)
        for topic, after in wanted.items():
            kind, owner, *_ = topic.split("/")
            if kind == "groups" and caller.user not in self.members.get(owner, ()):
                raise RefusedError("not_member", f"not a member of {owner}")
            if kind == "users" and owner != caller.user and not caller.is_system:
                raise RefusedError("not_authorized", f"{topic} is not your inbox")
            log = self.logs.get(topic, [])
            room = parameters.limit - len(result.messages)
            for offset, text in list(enumerate(log, 1))[after : after + room]:
                result.messages.append(msgspec.Raw(msgspec.json.encode({"offset": offset, "content": text})))
                result.cursors[topic] = offset
            result.more = result.more or result.cursors[topic] < len(log)
        return result


class TinyNode:
    """What the server stands on. `gate` holds up `messages.send`."""

    def __init__(self) -> None:
        self.directory = TinyDirectory()
        self.logs = TinyLogs(self.directory)
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self.limited: Counter[str] = Counter()
        self.slots = Slots()
        self.operations = Operations()
        self.operations.add("messages.send", self.send)
        self.operations.add("messages.send_batch", self.send_batch)
        self.operations.add("messages.sync", self.logs.sync)
        self.operations.add("users.get", self.get)
        self.server: Server
        self.channel: grpc.aio.Channel

    @property
    def waiting(self) -> int:
        """Slots that calls wait for."""
        return self.server._guard._admission.waiting

    async def send(self, caller: Caller, parameters: SendParameters) -> SentResult:
        """Send."""
        self.begun.append(parameters.content)
        await self.gate.wait()
        self.ended.append(parameters.content)
        if parameters.user_id == "nobody":
            raise RefusedError("not_found", "no user nobody")
        if parameters.user_id == "broken":
            raise ZeroDivisionError("a secret of the node")
        if parameters.user_id == "disk":
            raise StoreError("a secret of the node")
        said = msgspec.json.encode(msgspec.structs.asdict(parameters)).decode()
        return SentResult(said, f"{caller.user} {caller.is_system}", 7, 2**53)

    async def send_batch(self, caller: Caller, parameters: BatchParameters) -> BatchResult:
        """Send many."""
        return BatchResult([])

    async def get(self, caller: Caller, parameters: GetParameters) -> GetResult:
        """Who calls."""
        return GetResult([ProfileView(caller.user, "system" if caller.is_system else "user", "")])

    async def call(
        self, method: str, request: Any, token: str = ADMIN, behalf: str | None = None, **options: Any
    ) -> Any:
        metadata = [("authorization", f"Bearer {token}")]
        metadata += [("im-on-behalf-of", behalf)] if behalf is not None else []
        return await self.raw(method, request.SerializeToString(), metadata, **options)

    async def raw(self, method: str, data: bytes, metadata: Any = None, **options: Any) -> Any:
        service, name = method.split("/")
        descriptor = pb.DESCRIPTOR.services_by_name[service].methods_by_name[name]
        kind = getattr(pb, descriptor.output_type.name)
        call = self.channel.unary_unary(f"/im.{method}", response_deserializer=kind.FromString)
        return await call(data, metadata=metadata, timeout=options.pop("timeout", 10), **options)

    def sync(self, request: pb.SyncRequest, user: str, behalf: str | None = None) -> Any:
        """A `SyncMessages` stream, with `read()`."""
        call = self.channel.unary_stream(
            "/im.MessageService/SyncMessages",
            request_serializer=pb.SyncRequest.SerializeToString,
            response_deserializer=pb.SyncedEntry.FromString,
        )
        metadata = [("authorization", f"Bearer token-of-{user}")]
        metadata += [("im-on-behalf-of", behalf)] if behalf is not None else []
        return call(request, metadata=metadata, timeout=30)


@asynccontextmanager
async def tiny_node(concurrency: int = 64, calls_per_user: int = 256) -> AsyncIterator[TinyNode]:
    node = TinyNode()
    directory: Any = node.directory
    broker: Any = node.logs
    offer = Offer(node.operations, broker, directory, directory, concurrency, calls_per_user, node.limited)
    administration = Operations()
    administration.add("admin.stats", _stats)
    node.server = await start(administration, "127.0.0.1:0", ADMIN, node.slots, offer)
    try:
        async with grpc.aio.insecure_channel(node.server.address) as channel:
            node.channel = channel
            yield node
    finally:
        await node.server.stop(0)


async def _stats(caller: Caller, parameters: StatsParameters) -> StatsResult:
    return StatsResult({"calls": 1})


def failure(error: Any) -> tuple[grpc.StatusCode, str, str]:
    """Status, code and details of a call that failed."""
    code = dict(error.trailing_metadata() or ()).get("im-error-code", "")
    return error.code(), str(code), error.details()


async def until(condition: Callable[[], Any]) -> None:
    """Let the loop turn until it holds, 10 s at most."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of many things, that say nothing when they change
            await asyncio.sleep(0.001)
