"""A node without a broker: the services and their stores are real, what they ask of the broker
(`bridge.control.NodeControl`) is not."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from bridge.administration import administration
from bridge.control import Device
from bridge.core.access import Limits
from bridge.core.accounts import NewAccounts
from bridge.core.operations import THE_SYSTEM, Caller
from bridge.grpc_api.server import Offer, start
from bridge.services import Services
from broker.domain import message
from broker.domain.conversation import log_name, log_topic
from broker.domain.directory import SYSTEM
from broker.domain.errors import Refusal, RefusedError, StoreError
from broker.domain.message import Body, Content, Draft, Entry, Stamped
from broker.domain.topics import parse_topic
from broker.ports import Account, Group, GroupWrite, Identity, Membership, StateChange
from broker.publish.committer import MessageCommitter, Outcome, Submission
from broker.publish.sequencer import Sequencer
from plugins.auth.rules import ContractRules
from plugins.persistence import sqlite
from plugins.persistence.sql_directory import SqlDirectory, open_directory
from tests.ports.directories import hash_password

TOKEN = "an-admin-token"
NOW = 1_764_000_000_000
MINUTE = 60_000


class Clock:
    """The node's clock, which a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def now_ms(self) -> int:
        return self.now


class Log(sqlite.SqliteMessageLog):
    """`fails` makes it fail."""

    fails = False

    async def read_back(self, log: str, before: int, limit: int, max_bytes: int) -> list[Entry]:
        if self.fails:
            raise StoreError("disk full")
        return await super().read_back(log, before, limit, max_bytes)


class FakeControl:
    """`bridge.control.NodeControl`: the real rules and the real committer, nobody connected but those a
    test puts into `online`."""

    def __init__(self, clock: Clock, log: Log, states: sqlite.SqliteStateStore, rules: ContractRules) -> None:
        self.now_ms = clock.now_ms
        self._log = log
        self._states = states
        self._rules = rules
        self._taps: dict[str, set[Callable[[], None]]] = {}
        self._submit = MessageCommitter(log, Sequencer(0), clock, self._stored, 1000).submit
        self.services: Services
        self.online: list[Device] = []
        self.sent = 0

    @property
    def tails(self) -> int:
        return sum(map(len, self._taps.values()))

    def _stored(self, stamped: Stamped) -> None:
        self.sent += 1
        logs = (log_topic(stamped.draft.conversation_id), *stamped.draft.logs)
        for grown in [grown for log in logs for grown in self._taps.get(log, ())]:
            grown()

    async def send(self, sender: str, to: str, payload: bytes) -> Body:
        return await self.append(await self.prepare(sender, to, payload))

    async def prepare(self, sender: str, to: str, payload: bytes) -> Draft:
        topic = parse_topic(to)
        if sender != SYSTEM:
            _raise(await self._rules.may_publish(Identity(sender), topic))
        content = message.parse_payload(payload)
        assert isinstance(content, Content)
        _raise(await self.services.check(sender, topic, content))
        return message.draft(sender, topic, content)

    async def append(self, draft: Draft) -> Body:
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._submit(Submission(draft, answered.set_result))
        outcome = await answered
        if isinstance(outcome, Stamped):
            return message.read_body(outcome.body)
        if isinstance(outcome, Refusal):
            _raise(outcome)
        if isinstance(outcome, StoreError):
            raise outcome
        (entry,) = await self._log.read(draft.conversation_id, outcome.seq - 1, 1, 1 << 20)
        return message.read_body(entry.body)

    async def save(self, changes: Sequence[StateChange]) -> None:
        await self._states.apply(changes)

    def emit(self, user: str, event: dict[str, Any], *, keep: bool = True) -> None:
        """Nobody listens here."""

    def tap(self, topic: str, grown: Callable[[], None]) -> Callable[[], None]:
        taps = self._taps.setdefault(topic, set())
        taps.add(grown)
        return lambda: taps.discard(grown)

    async def tail(self, topic: str, after: int | None) -> AsyncIterator[bytes]:
        log = log_name(parse_topic(topic))
        grown = asyncio.Event()
        stop = self.tap(topic, grown.set)
        try:
            at = await self.head(topic) if after is None else after
            while True:
                grown.clear()
                for entry in await self._log.read(log, at, 1000, 1 << 20):
                    yield entry.payload
                    at = entry.offset
                await grown.wait()
        finally:
            stop()

    async def head(self, topic: str) -> int:
        log = log_name(parse_topic(topic))
        return (await self._log.heads([log]))[log]

    def devices(self, user: str) -> list[str]:
        return [device.client_id for device in self.online if device.user == user]

    def connected(self) -> list[Device]:
        return self.online

    def kick(self, user: str) -> int:
        kept = [device for device in self.online if device.user != user]
        ended = len(self.online) - len(kept)
        self.online = kept
        return ended

    def issue_token(self, user: str, ttl: float) -> str:
        return f"token-of-{user}-for-{ttl:g}"

    def stats(self) -> dict[str, int]:
        return {"messages_stored": self.sent, "connections": 3}


def _raise(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise RefusedError(refusal.code, refusal.detail)


class NoBridge:
    """Nobody calls by MQTT."""

    def subscribe(self, topic_filter: str, callback: Any) -> None: ...

    async def close(self) -> None: ...


class FakeNode:
    """A real gRPC server in a thread of its own, with a data directory as a running node keeps it."""

    def __init__(self, data_dir: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.data_dir = data_dir
        self.clock = Clock()
        self.address = ""
        self._loop = loop
        self.directory: SqlDirectory
        self.log: Log
        self.control: FakeControl

    @property
    def token_file(self) -> Path:
        return self.data_dir / "admin.token"

    @property
    def directory_file(self) -> Path:
        return self.data_dir / "directory.db"

    @property
    def node_file(self) -> Path:
        return self.data_dir / "node.json"

    def write_files(self) -> None:
        self.node_file.write_text(json.dumps({"grpc": self.address, "pid": 1}))
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(TOKEN + "\n")

    async def serve(self, stack: AsyncExitStack) -> None:
        """Open the stores and the server; `stack` closes them."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        database = sqlite.open_database(self.data_dir / "parley.db")
        stack.push_async_callback(database.close)
        url = f"sqlite:///{self.directory_file}"
        self.directory = directory = open_directory(url, hash_password, self.clock.now_ms)
        stack.push_async_callback(directory.close)
        directory.account = _breaking(directory.account)  # type: ignore[method-assign]
        self.log = log = Log(database)
        states = sqlite.SqliteStateStore(database)
        rules = ContractRules(directory, (), self.clock.now_ms)
        self.control = control = FakeControl(self.clock, log, states, rules)
        conversations = sqlite.SqliteConversationStore(database)
        bridge: Any = NoBridge()
        limits = Limits(recall_ms=2 * MINUTE, edit_ms=60 * MINUTE)
        services = Services(log, states, conversations, directory, control, bridge, limits, 10_000)
        stack.push_async_callback(services.close)
        control.services = services
        accounts = NewAccounts(directory, log, states.apply)
        operations = administration(
            directory,
            log,
            control,
            accounts,
            services.groups,
            services.members,
            self.clock.now_ms,
            control.issue_token,
        )
        for user in ("alice", "bob", "carol"):
            await accounts.add(user, "secret")
        team = Group("team", "The team", "alice", NOW, 0)
        members = [Membership("team", "alice", "owner", 0), Membership("team", "bob", "member", 0)]
        await directory.write_group(GroupWrite(team, put=members), [])  # without a word in its log
        offer = Offer(services.operations, control, directory, None)
        server = await start(operations, "127.0.0.1:0", TOKEN, offer)
        stack.push_async_callback(server.stop, 0)
        self.address = server.address
        self.write_files()

    def ask(self, job: Coroutine[Any, Any, Any]) -> Any:
        """Have the node do something, and wait for it."""
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(10)

    def call(self, user: str, method: str, **parameters: Any) -> Any:
        """Have a user, or the system, do something by a method of docs/rpc.md."""
        caller = THE_SYSTEM if user == SYSTEM else Caller(user)
        return self.ask(self.control.services.operations.call(caller, method, parameters))

    def say(self, sender: str, to: str, *texts: str) -> list[Body]:
        """Store messages, nobody asked."""

        async def store() -> list[Body]:
            drafts = []
            for text in texts:
                content: Any = message.parse_payload(text.encode())
                drafts.append(message.draft(sender, parse_topic(to), content))
            return list(await asyncio.gather(*map(self.control.append, drafts)))

        stored: list[Body] = self.ask(store())
        return stored


def _breaking(account: Callable[[str], Any]) -> Callable[[str], Any]:
    """The user `broken` makes it raise what nobody foresaw."""

    async def ask(user_id: str) -> Account | None:
        if user_id == "broken":
            raise ZeroDivisionError("a secret of the node")
        found: Account | None = await account(user_id)
        return found

    return ask


@contextmanager
def running_node(data_dir: Path) -> Iterator[FakeNode]:
    """A node on a free port, in a thread of its own, with the users alice, bob and carol and the
    group team of the first two."""
    loop = asyncio.new_event_loop()
    node = FakeNode(data_dir, loop)
    ready = threading.Event()
    stop = asyncio.Event()

    async def run() -> None:
        async with AsyncExitStack() as stack:
            await node.serve(stack)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield node
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
