"""A node without a broker: services and stores are real, the broker (`broker.ports.BrokerPort`) is a fake."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from bridge.administration import administration
from bridge.core.access import MessageLimits
from bridge.core.accounts import NewAccounts
from bridge.core.operations import THE_SYSTEM, Caller
from bridge.core.posting import stored
from bridge.core.quotas import Quotas
from bridge.grpc_api.server import Offer, start
from bridge.services import Services
from broker.domain import message
from broker.domain.conversation import log_topic
from broker.domain.directory import SYSTEM
from broker.domain.errors import Refusal, StoreError
from broker.domain.message import Body, Content, Draft, Entry, Stamped
from broker.domain.topics import parse_topic
from broker.outage import Outage
from broker.ports import (
    Account,
    Device,
    Group,
    GroupWrite,
    Identity,
    Membership,
    Post,
    Posted,
    StateChange,
)
from broker.publish.committer import MessageCommitter, Outcome, Submission
from broker.publish.references import References
from broker.publish.sequencer import Sequencer
from plugins.auth.rules import ContractRules
from plugins.persistence import sqlite
from plugins.persistence.sql_directory import SqlDirectory, open_directory
from tests.ports.directories import hash_password
from tests.slots import Slots

TOKEN = "an-admin-token"
NOW = 1_764_000_000_000
MINUTE = 60_000


class Clock:
    """The node's clock, which a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def now_ms(self) -> int:
        return self.now

    def growing_ms(self) -> int:
        return self.now


class Log(sqlite.SqliteMessageLog):
    """If `fails` is set, `read_back` raises `StoreError`."""

    fails = False

    async def read_back(self, log: str, before: int, limit: int, max_bytes: int) -> list[Entry]:
        if self.fails:
            raise StoreError("disk full")
        return await super().read_back(log, before, limit, max_bytes)


class FakeBroker:
    """A `broker.ports.BrokerPort` with the real rules and the real committer. Only the users in `online`
    are connected."""

    def __init__(self, clock: Clock, log: Log, rules: ContractRules, references: References) -> None:
        self._log = log
        self._rules = rules
        self._references = references
        self._watches: dict[str, set[Callable[[], None]]] = {}
        self._submit = MessageCommitter(
            log, Sequencer(0), clock, self._stored, 1000, Outage(), 10_000, Counter()
        ).submit
        self.online: list[Device] = []
        self.sent = 0

    @property
    def watches(self) -> int:
        return sum(map(len, self._watches.values()))

    def _stored(self, stamped: Stamped) -> None:
        self.sent += 1
        logs = (log_topic(stamped.draft.conversation_id), *stamped.draft.logs)
        for grown in [grown for log in logs for grown in self._watches.get(log, ())]:
            grown()

    async def publish(self, sender: str, posts: Sequence[Post]) -> list[Posted]:
        posted: list[Posted] = []
        for post in posts:
            draft = await self._prepare(sender, post)
            posted += [draft] if isinstance(draft, Refusal) else await self.append([draft])
        return posted

    async def _prepare(self, sender: str, post: Post) -> Draft | Refusal:
        topic = parse_topic(post.topic)
        refusal = None if sender == SYSTEM else await self._rules.may_publish(Identity(sender), topic)
        content = message.parse_payload(post.payload)
        assert isinstance(content, Content)
        refusal = refusal or await self._references.check(sender, topic, content)
        return refusal or message.draft(sender, topic, content)

    async def append(self, drafts: Sequence[Draft]) -> list[Posted]:
        return list(await asyncio.gather(*map(self._append, drafts)))

    async def _append(self, draft: Draft) -> Posted:
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._submit(Submission(draft, answered.set_result))
        outcome = await answered
        if isinstance(outcome, Stamped):
            return message.read_body(outcome.body)
        if isinstance(outcome, Refusal):
            return outcome
        if isinstance(outcome, StoreError):
            raise outcome
        (entry,) = await self._log.read(draft.conversation_id, outcome.seq - 1, 1, 1 << 20)
        return message.read_body(entry.body)

    async def emit(self, users: Sequence[str], event: Mapping[str, Any], *, keep: bool = True) -> None:
        """No client listens here."""

    async def watch(self, topic: str, grown: Callable[[], None]) -> Callable[[], None]:
        watches = self._watches.setdefault(topic, set())
        watches.add(grown)
        return lambda: watches.discard(grown)

    async def pace(self, user: str, publishes: int, *, wait: bool) -> None:
        """Nobody is too fast."""

    async def devices(self, users: Sequence[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for device in self.online:
            if device.user in users:
                found.setdefault(device.user, []).append(device.client_id)
        return found

    async def connections(self, user: str, after: str, limit: int) -> list[Device]:
        found = [each for each in self.online if user in ("", each.user) and each.sort_key > after]
        return sorted(found, key=lambda device: device.sort_key)[:limit]

    async def kick(self, user: str) -> int:
        kept = [device for device in self.online if device.user != user]
        ended = len(self.online) - len(kept)
        self.online = kept
        return ended

    async def stats(self) -> dict[str, int]:
        return {"messages_stored": self.sent, "connections": 3}


class FakeNode:
    """A real gRPC server in a thread, with a data directory like that of a running node."""

    def __init__(self, data_dir: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.data_dir = data_dir
        self.clock = Clock()
        self.address = ""
        self._loop = loop
        self.directory: SqlDirectory
        self.log: Log
        self.states: sqlite.SqliteStateStore
        self.broker: FakeBroker
        self.services: Services

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
        self.directory = directory = await open_directory(url, hash_password, self.clock.now_ms)
        stack.push_async_callback(directory.close)
        directory.account = _breaking(directory.account)  # type: ignore[method-assign]
        self.log = log = Log(database)
        self.states = states = sqlite.SqliteStateStore(database)

        async def save(changes: Sequence[StateChange]) -> None:
            await states.apply(changes)

        rules = ContractRules(directory, (), self.clock.now_ms)
        conversations = sqlite.SqliteConversationStore(database)
        self.broker = broker = FakeBroker(self.clock, log, rules, References(log, conversations, directory))
        limits = MessageLimits(recall_ms=2 * MINUTE, edit_ms=60 * MINUTE, group_receipts=100)
        quotas = Quotas(1000, 1000, 1000, 1000, lambda: self.clock.now_ms() / 1000, Counter())
        self.services = services = Services(
            log, states, save, conversations, directory, broker, self.clock, limits, 10_000, quotas, int, 1
        )
        stack.push_async_callback(services.close)
        accounts = NewAccounts(directory, log, save)
        operations = administration(
            directory,
            log,
            states,
            broker,
            accounts,
            services.groups,
            services.members,
            self.clock.now_ms,
            _token,
        )
        for user in ("alice", "bob", "carol"):
            await accounts.add(user, "secret")
        team = Group("team", "The team", "alice", NOW, 0)
        members = [Membership("team", "alice", "owner", 0), Membership("team", "bob", "member", 0)]
        await directory.write_group(GroupWrite(team, put=members), [])  # without a word in its log
        offer = Offer(services.operations, broker, directory, None)
        server = await start(operations, "127.0.0.1:0", TOKEN, Slots(), offer)
        stack.push_async_callback(server.stop, 0)
        self.address = server.address
        self.write_files()

    def ask(self, job: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the node's event loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(10)

    def call(self, user: str, method: str, **parameters: Any) -> Any:
        """Call an operation of docs/api.md as a user, or as the system."""
        caller = THE_SYSTEM if user == SYSTEM else Caller(user)
        return self.ask(self.services.operations.call(caller, method, parameters))

    def say(self, sender: str, to: str, *texts: str) -> list[Body]:
        """Store messages without checking rights."""

        async def store() -> list[Body]:
            drafts = []
            for text in texts:
                content: Any = message.parse_payload(text.encode())
                drafts.append(message.draft(sender, parse_topic(to), content))
            return [stored(posted) for posted in await self.broker.append(drafts)]

        said: list[Body] = self.ask(store())
        return said


def _token(account: Account, ttl: float) -> str:
    return f"token-of-{account.user_id}-for-{ttl:g}"


def _breaking(account: Callable[[str], Any]) -> Callable[[str], Any]:
    """For the user `broken` it raises an unexpected exception."""

    async def ask(user_id: str) -> Account | None:
        if user_id == "broken":
            raise ZeroDivisionError("a secret of the node")
        found: Account | None = await account(user_id)
        return found

    return ask


@contextmanager
def running_node(data_dir: Path) -> Iterator[FakeNode]:
    """A node on a free port, in a thread, with the users alice, bob and carol and the group team of alice
    and bob."""
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
